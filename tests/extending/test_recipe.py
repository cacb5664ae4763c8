"""A recipe is data that names its members: any number of them are trained and looked at by the same code."""

from typing import Any, Literal

import pytest
from pydantic import ValidationError, create_model

from lmc_tune.experiment import Branch, GroupSpec, MemberSpec, Spec, part_of
from lmc_tune.experiment.spec import Count
from lmc_tune.measurement.ends import Ends
from lmc_tune.measurement.members import Members
from lmc_tune.measurement.network import Network
from lmc_tune.training.engines import Engines
from lmc_tune.work.members import MemberShelf
from lmc_tune.work.prepare import prepare
from tests.cases import MEASURE, pair_spec


class Branches(Spec):
    """Members that leave one run on both parts of the data at the given epochs, and go on with B's part."""

    recipe: Literal["branches"] = "branches"
    epochs: tuple[Count, ...] = (1, 2, 3)

    def check(self, group: GroupSpec) -> None:
        """Raise ValueError if the recipe does not fit the group's setting."""
        if group.train.spawn_epoch:
            raise ValueError("branches say at which epochs members separate; leave spawn_epoch out")
        if max(self.epochs) >= (group.train.epochs or 0):
            raise ValueError(f"after epoch {max(self.epochs)} nothing is left to train apart; raise train.epochs")

    def members_of(self, group: GroupSpec) -> dict[str, MemberSpec]:
        """The members by name."""
        trunk = MemberSpec(
            dataset=group.dataset,
            model=group.model,
            train=group.train.model_copy(update={"noise": "fixed"}),  # a member's noise is a field of its own
            part=part_of(group.shift, "both"),
            noise="joint",
            replicate=group.replicate,
            seed=group.seed,
        )
        apart = trunk.model_copy(update={"part": part_of(group.shift, "b"), "noise": "b"})
        return {
            f"after {epoch}": apart.model_copy(update={"branch": Branch(trunk=trunk, epoch=epoch)})
            for epoch in self.epochs
        }


# A recipe of lmc-tune's own joins the type of the field instead: `recipe: Pair | Branches`.
BranchGroup = create_model("BranchGroup", __base__=GroupSpec, recipe=(Branches, Branches()))


def branch_group(**sections: Any) -> GroupSpec:
    plain = pair_spec(**{"train": {"epochs": 5}, **sections})
    names = ("dataset", "model", "train", "shift", "replicate", "seed")
    return BranchGroup(**{name: getattr(plain, name) for name in names})


def test_its_members_are_made_from_the_groups_own_setting():
    group = branch_group(
        dataset={"train": 300}, model={"hidden": (4,)}, train={"epochs": 6, "lr": 0.2, "noise": "varied"}, seed=7
    )
    for epoch, member in zip((1, 2, 3), group.members.values(), strict=True):
        pair = pair_spec(
            dataset={"train": 300},
            model={"hidden": (4,)},
            train={"epochs": 6, "lr": 0.2, "noise": "varied", "spawn_epoch": epoch},
            seed=7,
        )
        assert member.key == pair.members["b"].key


@pytest.mark.parametrize(
    ("train", "said"), [({"epochs": 3}, "raise train.epochs"), ({"spawn_epoch": 1}, "spawn_epoch")]
)
def test_a_setting_that_does_not_fit_is_rejected(train, said):
    with pytest.raises(ValidationError, match=said):
        branch_group(train={"epochs": 5, **train})


def test_a_recipe_of_three_members_needs_the_public_names_alone(bench):
    group = branch_group()
    assert len({member.key for member in group.members.values()}) == 3
    assert group.key != pair_spec(train={"epochs": 5}).key
    setup = prepare(group, bench())
    (trained,) = MemberShelf(bench(), [group], Engines()).train([setup])
    members = Members(
        network=Network(setup.model),
        states={name: progress.state for name, progress in trained.members.items()},
        data={"test": setup.data.test},
        own=dict.fromkeys(trained.members, setup.data.b),
        start=setup.start,
    )
    columns = Ends().measure(members, MEASURE).columns
    assert {f"test_accuracy_{name}" for name in group.members} <= set(columns)
    assert len({columns[f"distance_{name}"] for name in group.members}) == 3
