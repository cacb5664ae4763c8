"""What a search space will cost, measured on this machine before it is run."""

import time
from dataclasses import dataclass

from lmc_tune.data.catalogue import DATASETS
from lmc_tune.space import SearchSpace
from lmc_tune.specs import PairSpec
from lmc_tune.sweep.plan import COHORT_LIMITS, pack, planned_steps, workers_here

_TIMED_STEPS = 30


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Counts of a space, and seconds for the training of all pairs on this machine's cores.

    steps: of both members of all pairs. seconds: training only, with all workers busy; measuring comes on top.
    """

    cells: int
    pairs: int
    cohorts: int
    steps: int
    workers: int
    seconds: float

    def plain(self) -> dict[str, float]:
        """As ``lmc-tune space --json`` prints it."""
        return dict(vars(self))


def estimate_cost(space: SearchSpace) -> Cost:
    """Count a space and time a few steps of each of its programs on random inputs, on one CPU thread.

    The data need not be there. The time is for one worker per core.
    """
    workers = workers_here()
    cells = space.cells()
    programs: dict[tuple[object, ...], tuple[PairSpec, int]] = {}
    for cell in cells:
        pair = cell.first
        program = (pair.dataset.name, pair.model, pair.train.batch_size, pair.train.optimizer)
        _, steps = programs.get(program, (pair, 0))
        programs[program] = (pair, steps + 2 * space.replicates * planned_steps(pair))
    seconds = sum(_seconds_per_step(pair) * steps for pair, steps in programs.values())
    return Cost(
        cells=len(cells),
        pairs=len(cells) * space.replicates,
        cohorts=len(pack(space.pairs(), workers, COHORT_LIMITS[0])),
        steps=sum(steps for _, steps in programs.values()),
        workers=workers,
        seconds=seconds / workers,
    )


def _seconds_per_step(pair: PairSpec) -> float:
    import torch  # noqa: PLC0415 - seconds that a plain validation error need not wait for

    from lmc_tune.data.datasets import Examples  # noqa: PLC0415
    from lmc_tune.models.registry import build_model  # noqa: PLC0415
    from lmc_tune.training.loop import train_member  # noqa: PLC0415

    torch.set_num_threads(1)
    facts = DATASETS[pair.dataset.name]
    generator = torch.Generator().manual_seed(0)
    n = pair.train.batch_size
    examples = Examples(
        inputs=torch.randn(n, *facts.shape, generator=generator),
        labels=torch.randint(facts.n_classes, (n,), generator=generator),
    )
    model = build_model(pair.model, facts.shape, facts.n_classes, seed=0)

    def seconds(steps: int) -> float:
        train = pair.train.model_copy(update={"steps": steps, "epochs": None})
        started = time.perf_counter()
        train_member(model, examples, examples, train, order_seed=0)
        return time.perf_counter() - started

    seconds(3)  # first calls allocate
    return seconds(_TIMED_STEPS) / _TIMED_STEPS
