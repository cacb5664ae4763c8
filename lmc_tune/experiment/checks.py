"""Checks of spaces whose values are valid one by one: whether every cell can be trained and measured as it says."""

from collections.abc import Iterator, Sequence

from pydantic import ValidationError

from lmc_tune.experiment.data import CORRUPTIONS, Bands, Corruption, DatasetSpec, Domain, OtherDataset
from lmc_tune.experiment.datasets import DATASETS, facts_of, part_size
from lmc_tune.experiment.group import GroupSpec
from lmc_tune.experiment.measuring import ALIGNED, SAME_WITHOUT_BATCH_NORM
from lmc_tune.experiment.space import AXES, Cell, SearchSpace
from lmc_tune.experiment.training import TrainSpec
from lmc_tune.experiment.wording import message, nearest
from lmc_tune.experiment.yaml_lines import Location

# Where it was written, and what is wrong.
Problem = tuple[Location, str]

# About the accuracy of a network that says no to every label: BigEarthNet has 2 to 3 of its 19 labels per patch.
_ALWAYS_NO = 0.87


def problems(space: SearchSpace) -> Iterator[Problem]:
    """Why the cells of a space whose values are valid cannot be run."""
    try:
        cells = space.cells()
    except ValidationError as error:
        for detail in error.errors():
            yield (("axes",), f"a combination of values is impossible: {message(detail, GroupSpec)}")
        return
    yield from _conditions(space, [cell.first for cell in cells])
    seen: dict[str, Cell] = {}
    for cell in cells:
        indices = {axis: space.axes[axis].index(value) for axis, value in cell.coordinates.items()}
        yield from _sizes(cell.first, indices)
        yield from _splits(space, cell.first)
        yield from _gate(space, cell.first)
        if (other := seen.setdefault(cell.key, cell)) is not cell:
            yield (("axes",), f"two cells are the same experiment: {other} and {cell}")
            return


def too_few_examples(space: SearchSpace) -> str:
    """That one test example is no less than the threshold, and what to do; empty where some cell can be connected."""
    verdict = space.verdict
    sizes = [pair.dataset.test or facts_of(pair.dataset).n_test for pair in (cell.first for cell in space.cells())]
    if verdict.of != "test_error" or 1 / max(sizes) < verdict.threshold:
        return ""
    return (
        f"no cell can be connected: one test example is {100 / max(sizes):.2g}% of the error, and the threshold is "
        f"{100 * verdict.threshold:.2g}%; raise dataset.test or verdict.threshold"
    )


def _conditions(space: SearchSpace, pairs: Sequence[GroupSpec]) -> Iterator[Problem]:
    asked = {pair.model.text: space.measure.of(pair.model).conditions or () for pair in pairs}
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
    if space.measure.alignment and not any(pair.model.may_be_aligned for pair in pairs):
        yield (
            ("measure", "alignment"),
            "would change nothing: no unit can be permuted between the groups of norm: group; leave it out",
        )
    judged = space.verdict.condition
    for pair in pairs:
        conditions = asked[pair.model.text]
        same = None if pair.model.may_have_batch_norm else SAME_WITHOUT_BATCH_NORM.get(judged)
        if judged not in conditions and same not in conditions:
            add = "say measure.alignment: {by: weights}" if judged in ALIGNED else "add it to measure.conditions"
            yield ("verdict", "condition"), f"{judged} is not measured; {add}, or judge {' or '.join(conditions)}"
            return


def _splits(space: SearchSpace, pair: GroupSpec) -> Iterator[Problem]:
    if "validation" in space.measure.splits and pair.dataset.validation == 0:
        yield (("measure", "splits"), "validation is named, but dataset.validation holds no example out")


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
    if facts.multi_label and pair.shift.kind == "label":
        yield (
            origin("shift", ("kind",), indices),
            f"label skews classes, and an example of {dataset.name} may have several; say covariate or domain",
        )
    if wrong := _domain_problem(dataset, pair.shift.domain):
        yield (origin("shift", ("domain",), indices), wrong)
        return
    height, width = facts.shape[1:]
    if needs := pair.model.needs(height, width):
        yield (origin("model", (), indices), f"{pair.model.name} {needs}; {dataset.name} has {height}x{width}")
    yield from _training("train", pair.train, set(TrainSpec.model_fields), pair, indices)
    if said := set(pair.recipe.b.given()):
        yield from _training("b", pair.recipe.b.applied_to(pair.train), said, pair, indices)
    disturbed, steps = pair.recipe.perturb, pair.train.steps_for(part_size(dataset, pair.shift))
    if disturbed and disturbed.step >= steps:
        yield (
            origin("perturb", ("step",), indices),
            f"{disturbed.step} is never reached in training of {steps} steps; use {steps - 1} at most",
        )


def _training(
    section: str, train: TrainSpec, said: set[str], pair: GroupSpec, indices: dict[str, int]
) -> Iterator[Problem]:
    """Check one member's training against what the member sees; a section sets its fields ``said``."""
    (height, width), name = facts_of(pair.dataset).shape[1:], pair.dataset.name
    if "crop" in said and train.crop >= min(height, width):
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
    if "batch_size" in said and train.batch_size > (part := part_size(pair.dataset, pair.shift)):
        yield (
            origin(section, ("batch_size",), indices),
            (
                f"{train.batch_size} is above the {part} examples that a member sees "
                f"(half of the training set); lower it or raise dataset.train"
            ),
        )


def _domain_problem(dataset: DatasetSpec, domain: Domain | None) -> str:
    """Why two domains cannot be made of a data set; empty if they can."""
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
    return ""


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
        if AXES[axis] == (section, *location[:1]) or AXES[axis] == (section,):
            return ("axes", axis, index)
    return (section, *location)
