"""An ensemble as a unit of work: its trained members are permuted if its family says so, and measured."""

import time
from collections.abc import Mapping
from dataclasses import asdict

from torch import Tensor

from lmc_tune.core.noise import noise_scale
from lmc_tune.data.examples import ExampleSet, Part
from lmc_tune.experiment import AlignmentSpec, Ensemble, GroupSpec, MemberSpec
from lmc_tune.measurement.alignment.align import align
from lmc_tune.measurement.alignment.multi import match_together
from lmc_tune.measurement.alignment.trace import specification_of
from lmc_tune.measurement.ensembles.measure import measure_ensemble
from lmc_tune.measurement.evaluate import Score, evaluate
from lmc_tune.measurement.members import Members
from lmc_tune.measurement.network import Network
from lmc_tune.models.state import State, distance
from lmc_tune.tables.columns import NestedName, Row
from lmc_tune.tables.rows import PairResult, gate, spec_columns
from lmc_tune.work.bench import Workbench
from lmc_tune.work.facts import rose_above_chance
from lmc_tune.work.members import MemberShelf, Trained
from lmc_tune.work.prepare import Setup

# How members were trained.
_TOLD = ("device", "engine", "engine_reason")


def finish_ensemble(
    setup: Setup, trained: Trained, bench: Workbench, shelf: MemberShelf, before: PairResult | None = None
) -> PairResult:
    """Measure a trained ensemble; ``before`` is what was known of it, if anything was."""
    spec, started, known = setup.spec, time.perf_counter(), before.columns if before else {}
    recipe = spec.recipe
    assert isinstance(recipe, Ensemble)  # noqa: S101 - asked for by its callers
    asked = bench.measure.of(spec.model)
    ends = {name: _scored(setup, spec.members[name], progress.state) for name, progress in trained.members.items()}
    columns = {
        **spec_columns(spec),
        "question": asked.key,
        **_training_facts(spec),
        **setup.measured_shift,
        "lowest_train_accuracy": min(train.accuracy for train in ends.values()),
        **_status(setup, trained, ends),
        "seconds_train": shelf.seconds(spec) or known.get("seconds_train") or 0.0,
        "seconds_measure": 0.0,
        **{what: _of_training(trained, what) or known.get(what) or "" for what in _TOLD},
    }
    tables: dict[NestedName, list[Row]] = {"curves": _learning_rows(trained)}
    if any(progress.diverged for progress in trained.members.values()):
        return PairResult(columns=columns, tables=tables)
    found = measure_ensemble(_members(setup, trained, recipe), asked, passes=recipe.members)
    for row in found.tables["ensemble_members"]:
        name = f"member {row['number']}"
        if name in ends:
            member, progress = spec.members[name], trained.members[name]
            way = distance(progress.state, setup.start_of(member), Network(setup.model).parameters)
            row |= {"member": member.key, "distance": way, "train_loss": ends[name].loss}
            row["train_accuracy"] = ends[name].accuracy
    columns |= found.columns | {"stored_bytes": _bytes_of(trained)}
    columns["seconds_measure"] = time.perf_counter() - started
    return PairResult(columns=gate(columns, bench.min_train_accuracy), tables=tables | dict(found.tables))


def _members(setup: Setup, trained: Trained, recipe: Ensemble) -> Members:
    """The members as they are measured: on the CPU, permuted if the family says so."""
    data: dict[str, ExampleSet] = {"train": setup.data.train, "test": setup.data.test}
    if len(setup.data.validation):
        data["validation"] = setup.data.validation
    states: Mapping[str, State] = {name: progress.state for name, progress in trained.members.items()}
    statistics = setup.data.shuffled(setup.spec.seed_for("recalibration"))
    if recipe.is_permuted:
        states = _permuted(setup, states, statistics, together=recipe.family == "multi_pcd")
    return Members(
        network=Network(setup.model),
        states=states,
        data=data,
        statistics=statistics,
        seed=setup.spec.seed_for("measurement"),
    )


def _permuted(
    setup: Setup, states: Mapping[str, State], examples: ExampleSet, *, together: bool
) -> dict[str, dict[str, Tensor]]:
    """The members with their units where the first has them, or where all others have them."""
    specification = specification_of(setup.model, next(examples.chunks(2)).inputs)
    names, own = list(states), list(states.values())
    if together:
        found = match_together(specification, own).permutations
        return {
            name: specification.permuted(state, order) for name, state, order in zip(names, own, found, strict=True)
        }
    how = AlignmentSpec()
    moved = [align(setup.model, specification, (own[0], state), how, examples).state for state in own[1:]]
    return dict(zip(names, [dict(own[0]), *moved], strict=True))


def _scored(setup: Setup, member: MemberSpec, state: State) -> Score:
    """A member on its own training examples."""
    return evaluate(Network(setup.model).loaded(state), _own(setup, member))


def _own(setup: Setup, member: MemberSpec) -> ExampleSet:
    own: dict[str, Part | ExampleSet] = {"b": setup.data.b, "both": setup.data.train}
    return own.get(member.part.side, setup.data.a)


def _training_facts(spec: GroupSpec) -> Row:
    train = spec.train
    return {
        "n_train": spec.part_size,
        "steps": train.steps_for(spec.part_size),
        "noise_scale": noise_scale(train.lr, train.batch_size, spec.part_size),
        "training_steps": trained_steps(spec),
    }


def trained_steps(spec: GroupSpec) -> int:
    """Steps of all that is trained for an ensemble: members, what they have in common, once, and their teachers."""
    total, common = 0, dict[str, int]()
    for member in spec.trained.values():
        before = member.branch.epoch if member.branch else 0
        total += member.train.steps_for(spec.part_size) - before * (spec.part_size // member.train.batch_size)
        if member.branch:
            trunk = member.branch.trunk
            steps = before * (spec.training_size // trunk.train.batch_size)
            common[trunk.key] = max(steps, common.get(trunk.key, 0))
    return total + sum(common.values())


def _bytes_of(trained: Trained) -> int:
    return sum(entry.nbytes for progress in trained.members.values() for entry in progress.state.values())


def _status(setup: Setup, trained: Trained, ends: Mapping[str, Score]) -> Row:
    """``status`` and ``reason``: whether a member diverged, by its training or by what it came to."""
    reasons = []
    for name, progress in trained.members.items():
        member = setup.spec.members[name]
        if reason := progress.diverged or rose_above_chance(
            setup, _own(setup, member), ends[name].loss, setup.start_of(member)
        ):
            reasons.append(f"{name}: {reason}")
    return {"status": "diverged" if reasons else "ok", "reason": "; ".join(reasons)}


def _learning_rows(trained: Trained) -> list[Row]:
    """The learning curves of the members, and of what they have in common."""
    rows = [{"member": name, **asdict(point)} for name, progress in trained.members.items() for point in progress.curve]
    return rows + [{"member": "joint", **asdict(point)} for point in (trained.trunk.curve if trained.trunk else ())]


def _of_training(trained: Trained, name: str) -> str:
    """What is kept of how the members were trained; all answers if they differ."""
    return " and ".join(dict.fromkeys(filter(None, (getattr(p, name) for p in trained.members.values()))))
