"""The cost of a search space, measured on this machine before it is run."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from lmc_tune.experiment import (
    AlignmentSpec,
    Corruption,
    DataSpec,
    Ensemble,
    FactorySpec,
    Federated,
    FederationSpec,
    GroupSpec,
    MeasureSpec,
    MemberSpec,
    MlpSpec,
    Pair,
    Statistics,
    statistics_of,
)
from lmc_tune.experiment.datasets import facts_of
from lmc_tune.experiment.reading import SpaceError
from lmc_tune.experiment.space import Cell, SearchSpace, by_replicate
from lmc_tune.sweeps.answers import Held
from lmc_tune.sweeps.factories import check_factories
from lmc_tune.sweeps.federations import check_federations
from lmc_tune.sweeps.moved_layers import check_layers
from lmc_tune.sweeps.plan import Slots, pack, workers_here

if TYPE_CHECKING:  # brings torch
    from torch import nn

    from lmc_tune.data.examples import Examples
    from lmc_tune.measurement.measurement import Work
    from lmc_tune.measurement.network import Network

_TIMED_STEPS = 30
_TIMED_SCORINGS = 10
_TIMED_SECONDS = 1.0
_SCORED = 100  # images in a scoring
_TOKENS = 1024  # tokens of a text in a step, at most, and in a scoring: more take longer in proportion
_ESTIMATED = 500  # examples in an estimate of statistics: at most one of its batches


@dataclass(frozen=True, kw_only=True)
class Left:
    """The pairs that a run folder lacks, and what they cost; an upper bound where some of their members are kept."""

    pairs: int
    seconds_train: float | None
    seconds_measure: float | None


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Counts of a space, and the time of all pairs on this machine's cores with all workers busy.

    members: how many different ones there are. trainings: how many members all cohorts together train. It is larger
    than members if more pairs share a member than one cohort may hold, and then an upper bound, since a cohort uses
    what another has kept before. steps: of all trainings, and of the trunks that members branch from; an upper bound
    under a target loss. seconds_train: includes the learning curves. seconds_measure: paths under all conditions,
    similarity, and weight averages. Both are None if factories may not be run. tolerance_error: the tolerance to which
    error barriers settle, a fraction: the space's, but at least one test example of the smallest test set. left: what a
    run folder lacks, where one is named.
    """

    cells: int
    pairs: int
    cohorts: int
    members: int
    trainings: int
    steps: int
    workers: int
    seconds_train: float | None
    seconds_measure: float | None
    tolerance_error: float
    left: Left | None = None

    def plain(self) -> dict[str, object]:
        """As ``lmc-tune space --json`` prints it; ``left`` only where a run folder is named."""
        return {name: value for name, value in vars(self).items() if name != "left"} | (
            {"left": vars(self.left)} if self.left else {}
        )


@dataclass(frozen=True, kw_only=True)
class Training:
    """What training a member, or a trunk to an epoch, does: steps, and examples scored for the learning curve."""

    member: MemberSpec
    steps: int
    scored: int


@dataclass(frozen=True, kw_only=True)
class _Scoring:
    """Seconds for an example that is scored, scored on a path, used to estimate statistics, or whose Hessian is
    multiplied by a vector, and for the similarity and the matching of weights of a pair; all by its network. layers:
    how many it has.
    """

    scored: float
    scored_on_path: float
    estimated: float
    similarity: float
    matching: float = 0.0
    multiplied: float = 0.0
    layers: int = 0


def estimate_cost(
    space: SearchSpace,
    say: Callable[[str], None],
    *,
    run_factories: bool = False,
    folders: Sequence[str] = (),
    there: Held | None = None,
) -> Cost:
    """Count a space, and time a few steps of each of its members' programs and forward passes of each of its networks.

    Inputs are random: the data need not be there. The time is for one worker per core. It leaves out what is done once
    or takes little: starting workers, loading data, making domains, measuring shifts, writing. A target loss makes it
    an upper bound. A factory's network is assumed to have BatchNorm.

    Args:
        space: what is to be run.
        say: called with a message about what takes time.
        run_factories: whether to build and time the networks of factories, which runs the code that the space names; if
            not, a space with factories is counted but not timed.
        folders: where factories are looked for before ``sys.path``.
        there: what a run folder holds already.

    Raises:
        SpaceError: if a factory gives no network, or one takes more memory than there is.
    """
    workers = workers_here()
    slots = Slots(number=workers)
    cells = space.cells()
    timed = run_factories or not any(isinstance(cell.first.model, FactorySpec) for cell in cells)
    if timed:
        check_factories((cell.first for cell in cells), space.measure, folders)
        check_federations((cell.first for cell in cells), folders)
        check_layers((cell.first for cell in cells), space.measure, folders)
    planned = by_replicate(cells, space.replicates)
    cohorts = pack(planned, slots)
    trained = [trainings(cohort.groups) for cohort in cohorts]
    members = [{key for pair in cohort.groups for key in pair.trained} for cohort in cohorts]
    times = _times(space, cells, trained, say) if timed else None
    whole = times and (times.training(trained), times.measuring(planned, space.measure))
    at_once = min(workers, len(cohorts))
    return Cost(
        cells=len(cells),
        pairs=len(cells) * space.replicates,
        cohorts=len(cohorts),
        members=len(set().union(*members)),
        trainings=sum(map(len, members)),
        steps=sum(work.steps for works in trained for work in works.values()),
        workers=workers,
        seconds_train=whole[0] / at_once if whole else None,
        seconds_measure=whole[1] / at_once if whole else None,
        tolerance_error=max(space.measure.tolerance_error, 1 / min(_decided(cell.first) for cell in cells)),
        left=_left(there, space.measure, slots, times) if there else None,
    )


def _left(there: Held, measure: MeasureSpec, slots: Slots, times: "_Times | None") -> Left:
    if times is None or not there.left:
        seconds = None if times is None else 0.0
        return Left(pairs=len(there.left), seconds_train=seconds, seconds_measure=seconds)
    untrained = there.again.untrained if there.again else frozenset[str]()
    cohorts = pack([pair for pair in there.left if pair.key not in untrained], slots)
    return Left(
        pairs=len(there.left),
        seconds_train=times.training(trainings(cohort.groups) for cohort in cohorts)
        / max(1, min(slots.number, len(cohorts))),
        seconds_measure=times.measuring(there.left, measure) / min(slots.number, len(there.left)),
    )


def trainings(pairs: Iterable[GroupSpec]) -> dict[str, Training]:
    """What some pairs have to train, each member and trunk once, by key; an upper bound under a target loss."""
    found: dict[str, Training] = {}
    for pair in pairs:
        for member in pair.trained.values():
            found[member.key] = _training(pair, member)
            if member.branch:
                trunk, epochs = member.branch.trunk, member.branch.epoch
                per_epoch = pair.training_size // trunk.train.batch_size
                whole = Training(member=trunk, steps=epochs * per_epoch, scored=epochs * _tested(pair))
                found[trunk.key] = max(whole, found.get(trunk.key, whole), key=lambda work: work.steps)
    return found


def _training(pair: GroupSpec, member: MemberSpec) -> Training:
    part = pair.part_size
    per_epoch, before = part // member.train.batch_size, member.branch.epoch if member.branch else 0
    steps = member.train.steps_for(part)
    sizes = [pair.dataset.test or facts_of(pair.dataset).n_test]
    sizes += [facts_of(other).n_test for other in pair.datasets[1:]]
    return Training(
        member=member, steps=steps - before * per_epoch, scored=min(sizes) * (ceil(steps / per_epoch) - before)
    )


def measuring_of(pair: GroupSpec, asked: MeasureSpec, layers: int = 0) -> "Work":
    """What is going to be measured of a pair of networks of so many layers, up to the similarity of layers."""
    from lmc_tune.measurement.ends import Ends  # noqa: PLC0415 - brings torch
    from lmc_tune.measurement.ensembles.measure import ensemble_work  # noqa: PLC0415
    from lmc_tune.measurement.measurement import Sizes  # noqa: PLC0415
    from lmc_tune.measurement.registry import MEASUREMENTS  # noqa: PLC0415

    both, test = pair.training_size, _tested(pair)
    if isinstance(pair.recipe, Federated):
        return _measuring_rounds(pair.recipe, both, test, asked)
    sizes = Sizes(
        part=pair.part_size,
        both=both,
        test=test,
        splits={"train": both, "test": test, "validation": _seen(pair, pair.dataset.validation)},
        layers=layers,
    )
    if isinstance(pair.recipe, Ensemble):
        return ensemble_work(pair.recipe.members, len(pair.members), sizes, asked)
    return sum((one.work(sizes, asked) for one in MEASUREMENTS), Ends().work(sizes, asked))


def _measuring_rounds(federation: FederationSpec, train: int, test: int, asked: MeasureSpec) -> "Work":
    """What is going to be measured of a federation besides the learning curves of its clients."""
    from lmc_tune.measurement.measurement import Work  # noqa: PLC0415 - brings torch

    conditions = asked.conditions or ()
    again = (2 if federation.average != "none" else 1) if federation.norm == "recalibrated" else 0
    apart = federation.average != "none" and (federation.average != "all" or federation.norm not in {None, "averaged"})
    tested = 1 + (federation.clients if apart else 0)
    owned = 1 if federation.average == "none" else 2
    return Work(
        scored_apart=federation.rounds * (owned * train + tested * test) + len(conditions) * (train + test),
        estimated=federation.rounds * again * train + ("recalibrated" in conditions) * train,
    )


def _tested(pair: GroupSpec) -> int:
    """Test examples."""
    return _seen(pair, pair.dataset.test or facts_of(pair.dataset).n_test)


def _decided(pair: GroupSpec) -> int:
    """Labels that the test error is a mean over: of text, one for every token."""
    return _tested(pair) * facts_of(pair.dataset).tokens


def _seen(pair: GroupSpec, n: int) -> int:
    """Examples of a test or validation set of ``n``, as both members see it."""
    shift = pair.shift
    if shift.kind != "domain" or (isinstance(shift.domain, Corruption) and shift.severity == 0):
        return n
    other = shift.other_dataset(pair.dataset)
    return n + (n if other is None else min(n, facts_of(other).n_test))


@dataclass(frozen=True, kw_only=True)
class _Times:
    """Seconds on one core: of a step by the member's program, and of scoring by the network."""

    step: Mapping[tuple[str, ...], float]
    scoring: Mapping[tuple[str, ...], _Scoring]

    def training(self, cohorts: Iterable[Mapping[str, Training]]) -> float:
        """Of everything that some cohorts train."""
        return sum(
            work.steps * self.step[work.member.program] + work.scored * self.scoring[_network(work.member)].scored
            for cohort in cohorts
            for work in cohort.values()
        )

    def measuring(self, pairs: Iterable[GroupSpec], measure: MeasureSpec) -> float:
        """Of all that is asked of some pairs; those of one data set, shift and network take equally long."""
        known: dict[object, float] = {}
        total = 0.0
        for pair in pairs:
            recipe = "" if isinstance(pair.recipe, Pair) else pair.recipe.text
            alike = pair.dataset, pair.shift, pair.model.text, recipe
            if alike not in known:
                known[alike] = self._measuring(pair, measure.of(pair.model))
            total += known[alike]
        return total

    def _measuring(self, pair: GroupSpec, asked: MeasureSpec) -> float:
        each = self.scoring[_network(pair)]
        planned = measuring_of(pair, asked, each.layers)
        scored = planned.scored_on_path * each.scored_on_path + planned.scored_apart * each.scored
        apart = planned.estimated * each.estimated + planned.multiplied * each.multiplied
        return scored + apart + _once(pair, each)


def _once(pair: GroupSpec, each: _Scoring) -> float:
    """Seconds for comparing layers, of three networks of a pair, and for matching units."""
    if isinstance(pair.recipe, Federated):
        return 0.0
    if isinstance(pair.recipe, Ensemble):
        n = len(pair.members)
        return each.similarity * n / 3 + each.matching * (n if pair.recipe.is_permuted else 0)
    return each.similarity + each.matching


def _times(
    space: SearchSpace, cells: Sequence[Cell], trained: Sequence[Mapping[str, Training]], say: Callable[[str], None]
) -> _Times:
    """Time a few steps of each program and a few passes of each network; ``trained`` is what each cohort trains."""
    first: dict[tuple[str, ...], MemberSpec] = {}
    together: Counter[tuple[str, ...]] = Counter()  # members of a program in the cohort that has most of them
    for cohort in trained:
        for work in cohort.values():
            first.setdefault(work.member.program, work.member)
        together |= Counter(work.member.program for work in cohort.values())
    say("timing 1 program" if len(first) == 1 else f"timing {len(first)} programs")
    networks = {_network(cell.first): cell.first for cell in cells}
    permuted = any(isinstance(cell.first.recipe, Ensemble) and cell.first.recipe.is_permuted for cell in cells)
    matching = AlignmentSpec() if permuted else space.measure.alignment
    return _Times(
        step={name: _time_step(member, together[name]) for name, member in first.items()},
        scoring={name: _time_scoring(pair, space.measure.of(pair.model), matching) for name, pair in networks.items()},
    )


def _network(spec: GroupSpec | MemberSpec) -> tuple[str, ...]:
    """What decides the time of a forward pass."""
    facts = facts_of(spec.dataset)
    return facts.name, str(facts.shape), str(facts.n_classes), spec.model.text


def _time_step(member: MemberSpec, together: int) -> float:
    """Seconds for a step of a member on one CPU thread.

    together: members of its program in a cohort; where they are trained as a stack, a step of one is its share of the
    stack's.
    """
    import torch  # noqa: PLC0415 - takes seconds, and a validation error need not wait for it

    from lmc_tune.data.augment import Augmentation  # noqa: PLC0415
    from lmc_tune.training.engines import engine_for, train  # noqa: PLC0415
    from lmc_tune.training.task import Task  # noqa: PLC0415

    torch.set_num_threads(1)
    facts = facts_of(member.dataset)
    most = max(1, _TOKENS // facts.tokens) if facts.is_text else member.train.batch_size
    batch_size = min(member.train.batch_size, most)
    model, part = _built(member), _examples(member.dataset, _TIMED_STEPS * batch_size)
    engine = engine_for(member, torch.device("cpu"))
    # A convolution takes as long for each member of a large stack as of a small one.
    stacked = together if isinstance(member.model, MlpSpec) else min(4, together)
    members = stacked if engine == "stacked" else 1
    channels = (facts.shape[0], 1, 1)

    def train_for(steps: int) -> None:
        task = Task(
            model=model,
            start=model.state_dict(),
            whole=part,
            positions=torch.arange(len(part)),
            test=_examples(member.dataset, 1),
            spec=member.train.model_copy(update={"steps": steps, "epochs": None, "batch_size": batch_size}),
            noise_seed=0,
            augment=Augmentation.of(member.train, torch.zeros(channels), torch.ones(channels)),
        )
        train(members * [task], engine)

    return _each(train_for, _TIMED_STEPS) / members * (member.train.batch_size / batch_size)


def _time_scoring(pair: GroupSpec, measure: MeasureSpec, matching: AlignmentSpec | None) -> _Scoring:
    """What measuring takes on one CPU thread."""
    import torch  # noqa: PLC0415

    from lmc_tune.measurement.conditions import prepare  # noqa: PLC0415
    from lmc_tune.measurement.evaluate import evaluate  # noqa: PLC0415
    from lmc_tune.measurement.layerwise.layers import layers_of  # noqa: PLC0415
    from lmc_tune.measurement.lines import Segment  # noqa: PLC0415
    from lmc_tune.measurement.network import Network  # noqa: PLC0415
    from lmc_tune.measurement.representation import LIMIT, compare_grams, layer_grams  # noqa: PLC0415
    from lmc_tune.measurement.scan import scan  # noqa: PLC0415

    torch.set_num_threads(1)
    facts = facts_of(pair.dataset)
    model, n_scored = _built(pair), max(1, _TOKENS // facts.tokens) if facts.is_text else _SCORED
    state, positions = model.state_dict(), [0.2, 0.4, 0.6, 0.8]
    network, path = Network(model), Segment(state, state)

    def examples(n: int) -> "Examples":
        return _examples(pair.dataset, n)

    layers = [layer.name for layer in layers_of(model, examples(2).inputs)]

    # Repairing takes four passes: which layers, A's moments, B's moments, and the statistics.
    asked = {statistics_of(condition) for condition in measure.conditions or ()}
    slowest: tuple[Statistics, int] = ("repaired", 4) if "repaired" in asked else ("recalibrated", 1)
    condition, passes = slowest

    def estimate(n: int) -> object:
        return prepare(condition, network, path, examples(n), [0.5])

    def compare(_: int) -> object:
        grams = layer_grams(network, state, examples(LIMIT), layers)
        return compare_grams(grams, grams)

    return _Scoring(
        scored=_each(lambda n: evaluate(model, examples(n_scored * n)), _TIMED_SCORINGS) / n_scored,
        scored_on_path=_each(lambda n: scan(network, path, positions, examples(n_scored * n)), _TIMED_SCORINGS)
        / (n_scored * len(positions)),
        estimated=_each(lambda n: estimate(n_scored * n), _ESTIMATED // _SCORED) / (n_scored * passes),
        similarity=3 * _each(compare, 1),  # of A and B, and of each and the average
        multiplied=_time_products(network, examples(n_scored))
        if measure.directions and measure.directions.sharpness
        else 0.0,
        matching=_time_matching(model, matching, examples(2)) if matching else 0.0,
        layers=len(layers),
    )


def _time_products(network: "Network", examples: "Examples") -> float:
    """Seconds for an example whose Hessian is multiplied by a vector."""
    import numpy as np  # noqa: PLC0415

    from lmc_tune.measurement.hessian import Hessian, precision_for  # noqa: PLC0415

    hessian = Hessian(network.copy().module, examples, precision_for(network.module))
    vector = np.ones(hessian.size)
    return _each(lambda n: [hessian.times(vector) for _ in range(n)], _TIMED_SCORINGS) / len(examples)


def _time_matching(model: "nn.Module", how: AlignmentSpec, examples: "Examples") -> float:
    """Seconds of aligning a network to one drawn anew, on one CPU thread, but for the passes that match activations."""
    import torch  # noqa: PLC0415

    from lmc_tune.measurement.alignment.align import align  # noqa: PLC0415
    from lmc_tune.measurement.alignment.trace import specification_of  # noqa: PLC0415
    from lmc_tune.models.state import state_of  # noqa: PLC0415

    specification, state = specification_of(model, examples.inputs), state_of(model)
    generator = torch.Generator().manual_seed(0)
    other = {
        name: torch.randn(entry.shape, generator=generator, dtype=entry.dtype) * entry.std()
        if entry.dim() > 1
        else entry
        for name, entry in state.items()
    }
    return _each(lambda _: align(model, specification, (other, state), how, examples), 1)


def _built(spec: GroupSpec | MemberSpec) -> "nn.Module":
    from lmc_tune.models.registry import build_model  # noqa: PLC0415 - brings torch

    facts = facts_of(spec.dataset)
    try:
        return build_model(spec.model, facts.shape, facts.n_classes, seed=0)
    except (RuntimeError, MemoryError) as error:
        reason = str(error).split("\n", 1)[0]
        raise SpaceError([f"model: {spec.model.label} cannot be built here: {reason}"]) from error


def _examples(dataset: DataSpec, n: int) -> "Examples":
    """A random image or window of tokens, ``n`` times."""
    from lmc_tune.data.examples import Examples  # noqa: PLC0415
    from lmc_tune.models.contract import no_labels, some_inputs  # noqa: PLC0415

    facts = facts_of(dataset)
    one = some_inputs(1, facts.shape, facts.n_classes)
    return Examples(inputs=one.expand(n, *facts.shape), labels=no_labels(n, facts))


def _each(work: Callable[[int], object], most: int) -> float:
    """Seconds of work per unit, from up to ``most`` units: as many as take about a second."""

    def seconds(units: int) -> float:
        started = time.perf_counter()
        work(units)
        return time.perf_counter() - started

    work(1)  # the first call allocates
    once = seconds(1)
    units = min(most, int(_TIMED_SECONDS / once))
    return seconds(units) / units if units > 1 else once
