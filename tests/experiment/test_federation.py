"""Spaces of federations: what can be written, what is filled in, and what is refused."""
# ruff: noqa: E501 - one mistake and its message per line

from typing import Any

import pytest

from lmc_tune.experiment import Federated, FederationSpec, GroupSpec
from lmc_tune.experiment.reading import SpaceError, parse_space
from lmc_tune.experiment.space import SearchSpace
from lmc_tune.experiment.yaml_lines import dump

GOOD = """\
name: clients
model: {hidden: [8]}
train: {batch_size: 10}
federated: {clients: 5, local_epochs: 2}
axes:
  federated.split: [iid, {dirichlet: 0.1}, {classes: 2}]
  federated.average: [all, [linear1, 'h*'], none]
  federated.rounds: [2, 3]
  lr: [0.1, 0.3]
"""


def first(text: str = GOOD, *sets: str) -> GroupSpec:
    return parse_space(text, sets=sets).cells()[0].first


def refused(*changes: tuple[str, str], sets: tuple[str, ...] = ()) -> list[str]:
    text = GOOD
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    with pytest.raises(SpaceError) as raised:
        parse_space(text, "s.yaml", sets)
    return raised.value.problems


def test_a_federation_says_for_how_long_its_clients_train():
    for cell in parse_space(GOOD).cells():
        assert cell.first.train.epochs == 2 * cell.coordinates["federated.rounds"]
        assert cell.first.shift.kind == "none"
        assert list(cell.first.members) == [f"client {n}" for n in range(1, 6)]


def test_what_a_run_folder_keeps_of_a_space_is_the_same_space():
    space = parse_space(GOOD)
    again = parse_space(dump(space.plain()))
    assert again == space
    assert [cell.key for cell in again.cells()] == [cell.key for cell in space.cells()]
    assert len({cell.key for cell in space.cells()}) == 36


def test_a_whole_federation_can_be_an_axis():
    text = GOOD.replace("federated: {clients: 5, local_epochs: 2}\n", "")
    text = (
        text[: text.index("  federated.split")]
        + "  lr: [0.1]\n  federated: [{clients: 2, rounds: 1}, {clients: 3, rounds: 4}]\n"
    )
    cells = parse_space(text).cells()
    assert [(cell.first.train.epochs, len(cell.first.members)) for cell in cells] == [(1, 2), (4, 3)]


def test_every_field_of_a_federation_decides_its_clients():
    plain: dict[str, Any] = {"clients": 5, "rounds": 2}
    others = [
        {"clients": 4},
        {"rounds": 1, "local_epochs": 2},
        {"split": {"dirichlet": 0.1}},
        {"average": "none"},
        {"moments": "kept"},
    ]
    specs = [first().model_copy(update={"recipe": Federated(**plain | other)}) for other in [{}, *others]]
    assert len({spec.key for spec in specs}) == len(specs)
    assert len({member.key for spec in specs for member in spec.members.values()}) == sum(len(s.members) for s in specs)


def test_keys_of_federations_are_pinned():
    """If this fails, finished federations on users' disks are no longer found."""
    assert first().key == "8c649d0d693fd3a7bb9a6ae8"
    assert first().members["client 2"].key == "1595c78df7c30844adef7add"


def test_a_group_that_is_read_back_is_the_same():
    spec = first()
    again = GroupSpec.model_validate_json(spec.text)
    assert isinstance(again.recipe, Federated)
    assert (again, again.key) == (spec, spec.key)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("train: {", "train: {epochs: 3, ", "s.yaml:3: train.epochs: cannot be set where there is federated: clients train for rounds x local_epochs; leave it out"),
        ("train: {", "train: {steps: 3, ", "s.yaml:3: train.steps: cannot be set where there is federated: clients train for rounds x local_epochs; leave it out"),
        ("train: {", "train: {target_loss: 0.1, ", "s.yaml:3: train.target_loss: cannot be set where there is federated: clients train for rounds x local_epochs; leave it out"),
        ("train: {", "train: {spawn_epoch: 1, ", "s.yaml:3: train.spawn_epoch: cannot be set where there is federated: clients train for rounds x local_epochs; leave it out"),
        ("train: {", "shift: label\ntrain: {", "s.yaml:3: shift.kind: cannot be set where there is federated: federated.split gives every client its own data; leave it out"),
        ("train: {", "b: {lr: 0.3}\ntrain: {", "s.yaml:3: b.lr: cannot be set where there is federated: all clients are trained alike; leave it out"),
        ("train: {", "perturb: {step: 1, scale: 0.1}\ntrain: {", "s.yaml:3: perturb.step: cannot be set where there is federated: no client is perturbed; leave it out"),
        ("  lr: [", "  epochs: [1, 2]\n  lr: [", "s.yaml:9: axes.epochs: cannot be set where there is federated: clients train for rounds x local_epochs; leave it out"),
        ("  lr: [", "  shift: [covariate]\n  lr: [", "s.yaml:9: axes.shift: cannot be set where there is federated: federated.split gives every client its own data; leave it out"),
        ("clients: 5", "clients: 1", "s.yaml:4: federated.clients: one client has nobody to be averaged with; use at least 2"),
        ("clients: 5", "clients: 4", "s.yaml:6: axes.federated.split[2]: 4 clients with 2 classes each leave 2 of the 10 classes of digits to nobody; raise clients or classes"),
        ("{classes: 2}", "{classes: 11}", "s.yaml:6: axes.federated.split[2]: digits has 10 classes; give a client no more"),
        ("{dirichlet: 0.1}", "{dirichlet: 0}", "s.yaml:6: axes.federated.split[1]: should be greater than 0, got 0"),
        ("{dirichlet: 0.1}", "{alpha: 0.1}", "s.yaml:6: axes.federated.split[1]: write iid, {dirichlet: 0.1} or {classes: 2}; got {'alpha': 0.1}"),
        ("[all, [linear1, 'h*'], none]", "[all, some]", "s.yaml:7: axes.federated.average[1]: write all, none, or a list of layers such as [stem, 'stage1.*']; got 'some'"),
        ("batch_size: 10", "batch_size: 300", "s.yaml:3: train.batch_size: 300 is above the 287 examples that a client sees (its part of the training set); lower it or raise dataset.train"),
        ("clients: 5", "clients: 5, norm: local", "s.yaml:5: axes: a combination of values is impossible: federated.norm is for BatchNorm, and mlp 8 has none; leave it out"),
        ("clients: 5", "clients: 5, spilt: iid", "s.yaml:4: federated.spilt: unknown key 'spilt'; did you mean split?"),
        ("train: {", "measure: {lambdas: 5}\ntrain: {", "s.yaml:3: measure.lambdas: is for pairs; of a federation, every round is measured: leave it out"),
        ("train: {", "measure: {alignment: {by: weights}}\ntrain: {", "s.yaml:3: measure.alignment: is for pairs; of a federation, every round is measured: leave it out"),
        ("train: {", "measure: {conditions: [naive, repaired]}\ntrain: {", "s.yaml:3: measure.conditions: repaired is for pairs; of a federation, ask naive or recalibrated"),
        ("train: {", "verdict: {barrier: local_minima}\ntrain: {", "s.yaml:3: verdict.barrier: local_minima is of a path; of a federation, judge chord or midpoint"),
        ("train: {", "members: keep\ntrain: {", "s.yaml:3: members: the weights of clients are not kept; leave it out"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_once_with_what_to_do(old, new, said):
    found = refused((old, new))
    assert found[0] == said
    assert len({message.partition(": ")[2] for message in found}) == len(found) <= 2


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["measure.conditions=[naive, repaired]"], "measure.conditions: repaired is for pairs; of a federation, ask naive or recalibrated"),
        (["measure.conditions=[naive, endpoint]"], "measure.conditions: endpoint is for pairs; of a federation, ask naive or recalibrated"),
        (["verdict.condition=repaired"], "verdict.condition: repaired is for pairs; judge naive or recalibrated"),
        (["verdict.condition=aligned"], "verdict.condition: aligned is for pairs; judge naive or recalibrated"),
        (["federated.local_epochs=0"], "federated.local_epochs: should be greater than or equal to 1, got 0"),
        (["axes.federated.rounds=[2, 0]"], "axes.federated.rounds[1]: should be greater than or equal to 1, got 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_not_advised_and_blames_nothing_else(sets, said):
    assert refused(("hidden: [8]", "hidden: [8], norm: batch"), sets=tuple(sets)) == [f"command line: {said}"]


def test_an_empty_federation_is_no_pair():
    text = GOOD[: GOOD.index("federated:")] + "axes:\n  lr: [0.1]\n  federated: [{}, {clients: 2, rounds: 1}]\n"
    with pytest.raises(SpaceError, match=r"axes.federated\[0\]: is empty; say at least clients and rounds"):
        parse_space(text)


def test_examples_of_several_labels_are_split_at_random_only():
    text = "name: s\ndataset: {name: bigearthnet, train: 400}\nmodel: {name: vgg}\ntrain: {lr: 0.1}\nverdict: {min_train_accuracy: 0.9}\n"
    text += "federated: {clients: 2, rounds: 1, split: {dirichlet: 1.0}}\naxes: {batch_size: [10]}\n"
    with pytest.raises(
        SpaceError,
        match=r"federated\.split: dirichlet 1 splits bigearthnet by class, and an example may have several; say iid",
    ):
        parse_space(text)
    assert isinstance(parse_space(text.replace("{dirichlet: 1.0}", "iid")), SearchSpace)


def test_a_federation_is_named_in_a_few_words():
    spec = FederationSpec.model_validate(
        {"clients": 20, "rounds": 3, "split": {"dirichlet": 0.01}, "average": ["a", "b.*"]}
    )
    assert (spec.label, spec.averaged_layers, spec.epochs) == ("20 clients dirichlet 0.01", "a, b.*", 3)
    assert spec.sizes(50) == [3] * 10 + [2] * 10


def test_a_layer_that_is_named_twice_is_refused():
    assert "names a layer twice" in refused(("[all, [linear1, 'h*'], none]", "[[a, a]]"))[0]
