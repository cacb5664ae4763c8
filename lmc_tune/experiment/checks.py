"""Checks of spaces whose values are valid one by one: whether every cell can be trained and measured as it says."""

from collections.abc import Iterator, Sequence
from math import ceil

from pydantic import ValidationError

from lmc_tune.experiment.data import (
    CORRUPTIONS,
    Bands,
    Corruption,
    DatasetSpec,
    DataSpec,
    Domain,
    OtherDataset,
    SecondText,
)
from lmc_tune.experiment.datasets import DATASETS, client_size, facts_of
from lmc_tune.experiment.federation import FederationSpec, Pathological
from lmc_tune.experiment.group import GroupSpec
from lmc_tune.experiment.landscape import START
from lmc_tune.experiment.measuring import ALIGNED, CONDITIONS, SAME_WITHOUT_BATCH_NORM, Condition, MeasureSpec
from lmc_tune.experiment.networks import inputs_in_words
from lmc_tune.experiment.recipes import Federated, Pair
from lmc_tune.experiment.space import AXES, Cell, SearchSpace
from lmc_tune.experiment.text import TextSpec
from lmc_tune.experiment.training import TrainSpec
from lmc_tune.experiment.wording import nearest, problems_of
from lmc_tune.experiment.yaml_lines import Location

# Where it was written, and what is wrong.
Problem = tuple[Location, str]

_A = {"federation": "a federation", "ensemble": "an ensemble"}

# About the accuracy of a network that says no to every label: BigEarthNet has 2 to 3 of its 19 labels per patch.
_ALWAYS_NO = 0.87

# How averages of more than two networks may be prepared.
AVERAGED_CONDITIONS: tuple[Condition, ...] = ("naive", "recalibrated")


def problems(space: SearchSpace) -> Iterator[Problem]:
    """Why the cells of a space whose values are valid cannot be run."""
    try:
        cells = space.cells()
    except ValidationError as error:
        for _, wrong in problems_of(error, GroupSpec):
            yield ("axes",), f"a combination of values is impossible: {wrong}"
        return
    groups = [cell.first for cell in cells]
    if space.group == "federation":
        yield from _asked_of_federations(space)
    elif space.group == "ensemble":
        yield from _asked_of_ensembles(space)
    else:
        if space.measure.ensemble is not None:
            yield ("measure", "ensemble"), "is for ensembles, e.g. recipe: {family: deep}; leave it out"
        yield from _planes(space, groups[0])
        yield from _conditions_of_layers(space, groups)
    yield from _conditions(space, groups)
    yield from (beyond := list(_snapshots(space, groups)))
    seen: dict[str, Cell] = {}
    for cell in cells:
        indices = {axis: space.axes[axis].index(value) for axis, value in cell.coordinates.items()}
        yield from _sizes(cell.first, indices)
        yield from _splits(space, cell.first)
        yield from _trajectory(space, cell.first) if not beyond else ()
        yield from _gate(space, cell.first)
        if (other := seen.setdefault(cell.key, cell)) is not cell:
            yield (("axes",), f"two cells are the same experiment: {other} and {cell}")
            return


def too_few_examples(space: SearchSpace) -> str:
    """That one test example is no less than the threshold, and what to do; empty where some cell can be connected."""
    verdict = space.verdict
    datasets = [(cell.first.dataset, facts_of(cell.first.dataset)) for cell in space.cells()]
    sizes = [(dataset.test or facts.n_test) * facts.tokens for dataset, facts in datasets]
    if verdict.of != "test_error" or 1 / max(sizes) < verdict.threshold:
        return ""
    return (
        f"no cell can be connected: one test {'token' if datasets[0][1].is_text else 'example'} is "
        f"{100 / max(sizes):.2g}% of the error, and the threshold is {100 * verdict.threshold:.2g}%; "
        f"raise dataset.test or verdict.threshold"
    )


def _conditions(space: SearchSpace, groups: Sequence[GroupSpec]) -> Iterator[Problem]:
    """Conditions that are asked for, and are measured of no network."""
    known = tuple(CONDITIONS) if space.group == "pair" else AVERAGED_CONDITIONS
    if wrong := [one for one in space.measure.conditions or () if one not in known]:
        yield ("measure", "conditions"), f"{wrong[0]} is for pairs; of {_A[space.group]}, ask {' or '.join(known)}"
        return
    asked = _measured(space, groups)
    measured = {condition for conditions in asked.values() for condition in conditions}
    useless = [condition for condition in space.measure.conditions or () if condition not in measured]
    if useless:
        yield (
            ("measure", "conditions"),
            (
                f"{' and '.join(useless)} would change nothing: no network of the space has BatchNorm; say norm: "
                f"batch, or leave {'them' if len(useless) > 1 else 'it'} out"
            ),
        )
    if space.measure.alignment and not any(group.model.may_be_aligned for group in groups):
        yield (
            ("measure", "alignment"),
            "would change nothing: no unit can be permuted between the groups of norm: group; leave it out",
        )
    judged = space.verdict.condition
    for group in groups:
        conditions = asked[group.model.text]
        read = judged if group.model.may_have_batch_norm else SAME_WITHOUT_BATCH_NORM.get(judged, judged)
        if read not in conditions:
            why = f"{_unmeasured(read, groups)}, or" if judged in known else "is for pairs;"
            yield ("verdict", "condition"), f"{judged} {why} judge {' or '.join(conditions)}"
            return


def _conditions_of_layers(space: SearchSpace, pairs: Sequence[GroupSpec]) -> Iterator[Problem]:
    """Reject those under which no network is measured; where only some are, layers of the others are left out."""
    if space.measure.layers is None:
        return
    measured = {condition: None for conditions in _measured(space, pairs).values() for condition in conditions}
    for condition in space.measure.layers.conditions or ():
        if condition not in measured:
            why = f"{_unmeasured(condition, pairs)}, or ask {' or '.join(measured)}"
            yield ("measure", "layers", "conditions"), f"{condition} {why}"


def _measured(space: SearchSpace, groups: Sequence[GroupSpec]) -> dict[str, tuple[Condition, ...]]:
    """The conditions under which every network is measured."""
    networks = {group.model.text: group.model for group in groups}
    return {text: space.measure.of(network).conditions or () for text, network in networks.items()}


def _unmeasured(condition: Condition, groups: Sequence[GroupSpec]) -> str:
    """Why a condition is not measured, and how it would be."""
    if condition in SAME_WITHOUT_BATCH_NORM and not any(group.model.may_have_batch_norm for group in groups):
        return "is not measured: no network of the space has BatchNorm; say norm: batch"
    if condition not in ALIGNED:
        return "is not measured; add it to measure.conditions"
    if not any(group.model.may_be_aligned for group in groups):
        return "is not measured: no network of the space has units that can be permuted; say another norm"
    return "is not measured; say measure.alignment: {by: weights}"


def _snapshots(space: SearchSpace, pairs: Sequence[GroupSpec]) -> Iterator[Problem]:
    """Reject epochs that no training of the space comes to: of layers, that of both members of a pair."""
    measure = space.measure
    if not measure.snapshots or space.group != "pair":
        return
    of_both = measure.layers is not None and not (measure.directions and measure.directions.noise)
    last = max((min if of_both else max)(_epochs(pair)) for pair in pairs)
    if beyond := [epoch for epoch in measure.snapshots if epoch > last]:
        whose = "a member of every pair" if of_both else "every training"
        yield (
            ("measure", "snapshots"),
            f"epoch {beyond[0]} comes after the end of {whose}; name {last} at most, or train for longer",
        )


def _planes(space: SearchSpace, pair: GroupSpec) -> Iterator[Problem]:
    if space.measure.planes is None:
        return
    known = [*pair.members, START]
    for name in space.measure.planes.through:
        if name not in known:
            yield (
                ("measure", "planes", "through"),
                f"there is no {name!r}{nearest(name, known)}; the points are {', '.join(known)}",
            )


def _asked_of_federations(space: SearchSpace) -> Iterator[Problem]:
    """What is asked of pairs, and cannot be of federations."""
    asked, plain = space.measure, MeasureSpec()
    for name in MeasureSpec.model_fields:
        if name != "conditions" and getattr(asked, name) != getattr(plain, name):
            yield ("measure", name), "is for pairs; of a federation, every round is measured: leave it out"
    if space.verdict.barrier == "local_minima":
        yield ("verdict", "barrier"), "local_minima is of a path; of a federation, judge chord or midpoint"
    if space.members == "keep":
        yield ("members",), "the weights of clients are not kept; leave it out"


def _asked_of_ensembles(space: SearchSpace) -> Iterator[Problem]:
    """What is asked of pairs, and cannot be of ensembles."""
    asked, plain = space.measure, MeasureSpec()
    instead = {"alignment": "recipe: permuted and recipe: multi_pcd align members"}
    for name in ("snapshots", "layers", "alignment", "directions", "planes"):
        if getattr(asked, name) != getattr(plain, name):
            yield ("measure", name), f"is for pairs; {instead.get(name, 'leave it out')}"


def _splits(space: SearchSpace, pair: GroupSpec) -> Iterator[Problem]:
    if "validation" in space.measure.splits and pair.dataset.validation == 0:
        yield (("measure", "splits"), "validation is named, but dataset.validation holds no example out")


def _trajectory(space: SearchSpace, pair: GroupSpec) -> Iterator[Problem]:
    """Reject noise in the span of a training that ends before its first snapshot."""
    noise = space.measure.directions and space.measure.directions.noise
    if not noise or not noise.needs_snapshots:
        return
    first, epochs = space.measure.snapshots[0], min(_epochs(pair))
    if epochs < first:
        yield (
            ("measure", "snapshots"),
            f"training of {epochs} epochs ends before the first, {first}, so its span is not known; add 0",
        )


def _epochs(pair: GroupSpec) -> list[int]:
    """Epochs of each member's training, the last of which may be cut short."""
    part = pair.part_size
    trains = [member.train for member in pair.members.values()]
    return [train.epochs or ceil((train.steps or 0) / max(1, part // train.batch_size)) for train in trains]


def _gate(space: SearchSpace, pair: GroupSpec) -> Iterator[Problem]:
    """Reject a gate that a network passes by saying no to every label."""
    name, least = pair.dataset.name, space.verdict.min_train_accuracy
    if facts_of(pair.dataset).multi_label and least <= _ALWAYS_NO:
        yield (
            ("verdict", "min_train_accuracy"),
            f"{least:g} is reached on {name} by a network that says no to every label; set it above {_ALWAYS_NO:g}",
        )


def _sizes(pair: GroupSpec, indices: dict[str, int]) -> Iterator[Problem]:
    dataset = pair.dataset
    facts = facts_of(dataset)
    available = facts.n_train - dataset.validation
    if (dataset.train or 0) > available or available < 1:
        held_out = f", of which {dataset.validation} are held out for validation" if dataset.validation else ""
        yield (
            origin("dataset", ("train",), indices),
            f"{dataset.name} has {facts.n_train} training examples{held_out}; ask for {max(available, 0)} at most",
        )
        return
    if (dataset.test or 0) > facts.n_test:
        yield (
            origin("dataset", ("test",), indices),
            f"{dataset.name} has {facts.n_test} test examples; ask for no more",
        )
    if pair.shift.kind == "label" and (wrong := _not_by_class(dataset)):
        yield origin("shift", ("kind",), indices), f"label skews classes, and {wrong}; say covariate or domain"
    if wrong := _domain_problem(dataset, pair.shift.domain):
        yield (origin("shift", ("domain",), indices), wrong)
        return
    if needs := pair.model.needs(facts.shape):
        yield (
            origin("model", (), indices),
            f"{pair.model.name} {needs}; {dataset.name} has {inputs_in_words(facts.shape)}",
        )
    yield from _training("train", pair.train, set(TrainSpec.model_fields), pair, indices)
    yield from _recipe(pair, indices)


def _recipe(pair: GroupSpec, indices: dict[str, int]) -> Iterator[Problem]:
    """Check what a recipe adds to the training that all members share."""
    if isinstance(pair.recipe, Federated):
        for field, wrong in _federation_problems(pair.dataset, pair.recipe):
            yield origin("federated", (field,), indices), wrong
    if not isinstance(pair.recipe, Pair):
        return
    if said := set(pair.recipe.b.given()):
        yield from _training("b", pair.recipe.b.applied_to(pair.train), said, pair, indices)
    disturbed, steps = pair.recipe.perturb, pair.train.steps_for(pair.part_size)
    if disturbed and disturbed.step >= steps:
        yield (
            origin("perturb", ("step",), indices),
            f"{disturbed.step} is never reached in training of {steps} steps; use {steps - 1} at most",
        )


def _training(
    section: str, train: TrainSpec, said: set[str], pair: GroupSpec, indices: dict[str, int]
) -> Iterator[Problem]:
    """Check one member's training against what the member sees; a section sets its fields ``said``."""
    facts, name = facts_of(pair.dataset), pair.dataset.name
    height, width = facts.shape[1:] or (0, 0)
    if facts.is_text:
        for field in ("crop", "flip", "jitter"):
            if field in said and getattr(train, field):
                yield origin(section, (field,), indices), "changes images, and the data set is a text; leave it out"
    elif "crop" in said and train.crop >= min(height, width):
        yield (
            origin(section, ("crop",), indices),
            (
                f"{train.crop} would move images of {name}, {height}x{width}, out of sight; use "
                f"{min(height, width) - 1} at most"
            ),
        )
    if isinstance(pair.shift.domain, Bands) and (
        undone := [field for field in ("crop", "jitter") if field in said and getattr(train, field)]
    ):
        yield (
            origin(section, (undone[0],), indices),
            f"{' and '.join(undone)} would bring back what bands hide from a member; leave it out (flip may stay)",
        )
    if isinstance(pair.recipe, Federated):
        part, which = client_size(pair.dataset, pair.recipe), "client sees (its part of the training set)"
    else:
        share = "all" if pair.part_size == pair.training_size else "half"
        part, which = pair.part_size, f"member sees ({share} of the training set)"
    if "batch_size" in said and train.batch_size > part:
        yield (
            origin(section, ("batch_size",), indices),
            f"{train.batch_size} is above the {part} examples that a {which}; lower it or raise dataset.train",
        )


def _not_by_class(dataset: DataSpec) -> str:
    """Why examples cannot be chosen by their class; empty if they can."""
    facts = facts_of(dataset)
    if facts.is_text:
        return "text has none: its labels are the next tokens"
    return f"an example of {dataset.name} may have several" if facts.multi_label else ""


def _federation_problems(dataset: DataSpec, federation: FederationSpec) -> Iterator[tuple[str, str]]:
    """Why a data set cannot be split between so many clients: the field, and what is wrong."""
    facts, split = facts_of(dataset), federation.split
    if federation.clients < 2:
        yield "clients", "one client has nobody to be averaged with; use at least 2"
    if (facts.multi_label or facts.is_text) and split != "iid":
        have = "text has none: its labels are the next tokens" if facts.is_text else "an example may have several"
        yield "split", f"{split} splits {dataset.name} by class, and {have}; say iid"
    elif isinstance(split, Pathological):
        dealt = split.classes * federation.clients
        if split.classes > facts.n_classes:
            yield "split", f"{dataset.name} has {facts.n_classes} classes; give a client no more"
        elif dealt < facts.n_classes:
            nobody = f"leave {facts.n_classes - dealt} of the {facts.n_classes} classes of {dataset.name} to nobody"
            yield "split", f"{federation.clients} clients with {split} {nobody}; raise clients or classes"


def _domain_problem(dataset: DataSpec, domain: Domain | None) -> str:
    """Why two domains cannot be made of a data set; empty if they can."""
    if isinstance(dataset, TextSpec):
        return _second_problem(dataset, domain)
    channels = facts_of(dataset).shape[0]
    match domain:
        case Bands(a=a, b=b):
            missing = [band for band in (*a, *b) if band >= channels]
            there = ", ".join(map(str, range(channels)))
            return f"{dataset.name} has no band {missing[0]}; its bands are {there}" if missing else ""
        case Corruption(name="colour") if channels != 3:
            return f"colour needs red, green and blue; {dataset.name} has {channels} channel{'s' * (channels > 1)}"
        case OtherDataset(name=name):
            return _other_problem(dataset, name)
        case SecondText():
            return f"second is a domain of a text; {dataset.name} has images: name a corruption or a data set"
    return ""


def _second_problem(text: TextSpec, domain: Domain | None) -> str:
    """Why a text has no such domain; empty if it has."""
    if domain is None or (isinstance(domain, SecondText) and text.second is not None):
        return ""
    how = "say domain: second, and give the second text's file, or the line at which it begins, as dataset.second"
    return f"the text has no domain {domain}; {how}"


def _other_problem(dataset: DatasetSpec, name: str) -> str:
    """Why a data set cannot be another's second domain."""
    first = dataset.name
    if name not in DATASETS:
        return f"{name!r} is neither a corruption nor a data set{nearest(name, [*CORRUPTIONS, *DATASETS])}"
    if name == first:
        return f"{first} is the data set itself; name another"
    facts, other = facts_of(dataset), facts_of(DatasetSpec(name=name))
    if facts.multi_label:
        return f"examples of {first} may have several labels, so it has no partner; name a corruption, or bands"
    if other.labels != facts.labels:
        return f"the labels of {name} are {other.labels}, those of {first} {facts.labels}; name one of the same"
    if other.shape != facts.shape:
        shapes = ["x".join(map(str, one.shape)) for one in (other, facts)]
        return f"the images of {name} are {shapes[0]}, those of {first} {shapes[1]}; name one of the same"
    return ""


def origin(section: str, location: tuple[str | int, ...], indices: dict[str, int]) -> Location:
    """Where a section's value was written: on an axis, or in the section itself."""
    for axis, index in indices.items():
        if AXES[axis] == (section, *location[:1]):
            return ("axes", axis, index)
        if AXES[axis] == (section,):
            return ("axes", axis, index, *location)
    return (section, *location)
