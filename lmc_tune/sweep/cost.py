"""What a search space will cost, measured on this machine before it is run."""

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

from lmc_tune.data.catalogue import DATASETS, part_size
from lmc_tune.space import SearchSpace, by_replicate
from lmc_tune.specs import MlpSpec, PairSpec
from lmc_tune.sweep.factories import check_factories
from lmc_tune.sweep.plan import Slots, pack, planned_steps, program, workers_here

_TIMED_STEPS = 30
_TIMED_SCORINGS = 10
_TIMED_SECONDS = 1.0
_SCORED = 100  # examples in a scoring
# Positions that refinement adds to a path's grid: about 6 on the quickstart, and the first is measured twice.
_ADDED_POSITIONS = 7


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Counts of a space, and what all pairs take on this machine's cores with all workers busy.

    steps: of both members of all pairs. seconds_train: with the learning curves; seconds_measure: the paths.
    """

    cells: int
    pairs: int
    cohorts: int
    steps: int
    workers: int
    seconds_train: float
    seconds_measure: float

    def plain(self) -> dict[str, float]:
        """As ``lmc-tune space --json`` prints it."""
        return dict(vars(self))


@dataclass(frozen=True, kw_only=True)
class Work:
    """What one pair does: steps of both members, and examples scored for the learning curves and for the rest."""

    steps: int
    scored_in_training: int
    scored_in_measuring: int


def estimate_cost(space: SearchSpace) -> Cost:
    """Count a space, and time a few steps and forward passes of each of its programs on random inputs.

    The data need not be there. The time is for one worker per core.

    Raises:
        SpaceError: if a factory gives no network.
    """
    workers = workers_here()
    slots = Slots(number=workers)
    cells = space.cells()
    check_factories(cell.first for cell in cells)
    programs: dict[tuple[object, ...], list[PairSpec]] = defaultdict(list)
    for cell in cells:
        pair = cell.first
        programs[program(pair)].append(pair)
    steps, seconds_train, seconds_measure = 0, 0.0, 0.0
    for pairs in programs.values():
        together = slots.cohort_size(space.replicates * len(pairs))
        per_step, per_example, per_position = _seconds(pairs[0], together)
        for work in map(work_of, pairs):
            steps += work.steps
            seconds_train += work.steps * per_step + work.scored_in_training * per_example
            seconds_measure += work.scored_in_measuring * per_position
    cohorts = len(pack(by_replicate(cells, space.replicates), slots))
    each = space.replicates / min(workers, cohorts)
    return Cost(
        cells=len(cells),
        pairs=len(cells) * space.replicates,
        cohorts=cohorts,
        steps=space.replicates * steps,
        workers=workers,
        seconds_train=each * seconds_train,
        seconds_measure=each * seconds_measure,
    )


def work_of(pair: PairSpec) -> Work:
    """What a pair is going to do; how far its path is refined is a guess."""
    part, steps = part_size(pair.dataset, pair.shift), planned_steps(pair)
    test = pair.dataset.test or DATASETS[pair.dataset.name].n_test
    sizes = {
        "train": part if pair.shift.kind == "none" else 2 * part,
        "test": test,
        "validation": pair.dataset.validation,
    }
    positions = pair.measure.lambdas + _ADDED_POSITIONS
    return Work(
        steps=2 * steps,
        scored_in_training=2 * test * ceil(steps / (part // pair.train.batch_size)),
        scored_in_measuring=2 * (part + test) + positions * sum(sizes[split] for split in pair.measure.splits),
    )


def _seconds(pair: PairSpec, together: int) -> tuple[float, float, float]:
    """Seconds per training step, per example scored, and per example and position of a path, on one CPU thread.

    together: pairs in a cohort; where they are trained as a stack, a step of one is its share of the stack's.
    """
    import torch  # noqa: PLC0415 - seconds that a plain validation error need not wait for

    from lmc_tune.data.datasets import Examples  # noqa: PLC0415
    from lmc_tune.measurement.evaluate import evaluate  # noqa: PLC0415
    from lmc_tune.measurement.scan import scan  # noqa: PLC0415
    from lmc_tune.models.registry import build_model  # noqa: PLC0415
    from lmc_tune.training.engines import engine_for, train  # noqa: PLC0415
    from lmc_tune.training.task import Task  # noqa: PLC0415

    torch.set_num_threads(1)
    facts = DATASETS[pair.dataset.name]
    generator = torch.Generator().manual_seed(0)
    one = torch.randn(1, *facts.shape, generator=generator)

    def examples(n: int) -> Examples:
        labels = (n, facts.n_classes) if facts.multi_label else (n,)
        return Examples(inputs=one.expand(n, *facts.shape), labels=torch.zeros(labels, dtype=torch.int64))

    part = examples(_TIMED_STEPS * pair.train.batch_size)
    model = build_model(pair.model, facts.shape, facts.n_classes, seed=0)
    engine = engine_for(pair, torch.device("cpu"))
    # A convolution takes as long for each member of a large stack as of a small one.
    stacked = 2 * (together if isinstance(pair.model, MlpSpec) else min(2, together))
    members = stacked if engine == "stacked" else 1

    def train_for(steps: int) -> None:
        task = Task(
            model=model,
            start=model.state_dict(),
            whole=part,
            positions=torch.arange(len(part)),
            test=examples(1),
            spec=pair.train.model_copy(update={"steps": steps, "epochs": None}),
            noise_seed=0,
        )
        train(members * [task], engine)

    state, positions = model.state_dict(), [0.2, 0.4, 0.6, 0.8]
    return (
        _each(train_for, _TIMED_STEPS) / members,
        _each(lambda n: evaluate(model, examples(_SCORED * n)), _TIMED_SCORINGS) / _SCORED,
        _each(lambda n: scan(model, state, state, positions, examples(_SCORED * n)), _TIMED_SCORINGS)
        / (_SCORED * len(positions)),
    )


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
