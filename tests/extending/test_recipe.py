"""A recipe is data that names its members: any number of them are trained and looked at by the same code."""

from typing import Literal

from lmc_tune.experiment import GroupSpec, MemberSpec, Spec
from lmc_tune.measurement.ends import Ends
from lmc_tune.measurement.members import Members
from lmc_tune.measurement.network import Network
from lmc_tune.training.engines import Engines
from lmc_tune.work.members import MemberShelf
from lmc_tune.work.prepare import prepare
from tests.cases import MEASURE, pair_spec


class Branches(Spec):
    """Members that leave one run at the given epochs, as anybody may add a recipe."""

    recipe: Literal["branches"] = "branches"
    epochs: tuple[int, ...] = (1, 2, 3)

    def check(self, group: GroupSpec) -> None:
        assert max(self.epochs) < (group.train.epochs or 0)

    def members(self, group: GroupSpec) -> dict[str, MemberSpec]:
        trained = {
            f"after {epoch}": group.train.model_copy(update={"spawn_epoch": epoch, "noise": "varied"})
            for epoch in self.epochs
        }
        pairs = {name: pair_spec().model_copy(update={"train": train}) for name, train in trained.items()}
        return {name: pair.members["b"] for name, pair in pairs.items()}


class BranchGroup(GroupSpec):
    recipe: Branches = Branches()  # type: ignore[assignment]


def test_a_recipe_of_three_members_needs_the_public_names_alone(bench):
    plain = pair_spec(train={"epochs": 5})
    group = BranchGroup(**{name: getattr(plain, name) for name in ("dataset", "model", "train", "shift", "replicate")})
    assert len({member.key for member in group.members.values()}) == 3
    assert group.key != plain.key
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
