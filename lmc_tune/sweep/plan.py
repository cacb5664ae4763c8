"""Which pairs are still to run, and how they are packed into cohorts. No Ray."""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from lmc_tune.experiment import PER_MEMBER, Cohort, PairSpec
from lmc_tune.experiment.datasets import part_size
from lmc_tune.tables.rows import Status

# Passes over the pairs that are left. A pair that failed, or whose worker died, is tried again in another pass, in
# smaller cohorts and at last in one of its own, so that one that kills its worker takes no other with it.
PASSES = 3
_SMALLER = 16


@dataclass(frozen=True, kw_only=True)
class Slots:
    """What cohorts run on: so many at once, each with a GPU or a CPU core of its own."""

    number: int
    gpu: bool = False

    def cohort_size(self, pairs: int) -> int:
        """Pairs in each cohort of a program that has ``pairs`` of them.

        A core gets several cohorts of a program: enough that the last ones keep all cores busy, few enough that
        starting a trial costs little beside running it. A GPU trains a large stack in little more time than a small
        one, so it gets one, up to what can still be measured in reasonable time before any of it is kept.
        """
        each, largest = (1, 128) if self.gpu else (4, 16)
        return max(1, min(largest, ceil(pairs / (each * self.number))))


def pending(pairs: Sequence[PairSpec], statuses: Mapping[str, Status]) -> list[PairSpec]:
    """Pairs without a result, and failed ones, in their order."""
    return [pair for pair in pairs if statuses.get(pair.key, "failed") == "failed"]


def pack(pairs: Sequence[PairSpec], slots: Slots, attempt: int = 0) -> list[Cohort]:
    """Pack pairs that run the same program into cohorts: earlier replicates first, and the longest first among those.

    Args:
        pairs: what is to run.
        slots: what they run on.
        attempt: the pass, from 0.
    """
    programs: dict[tuple[object, ...], list[PairSpec]] = defaultdict(list)
    for pair in pairs:
        programs[program(pair)].append(pair)
    cohorts = []
    for group in programs.values():
        size = max(1, slots.cohort_size(len(group)) // _SMALLER**attempt)
        cohorts += [Cohort(pairs=tuple(group[at : at + size])) for at in range(0, len(group), size)]
    return sorted(cohorts, key=lambda cohort: (cohort.pairs[0].replicate, -sum(map(planned_steps, cohort.pairs))))


def workers_here() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def planned_steps(pair: PairSpec) -> int:
    """Steps of one member; a split may leave out a few examples and so come out slightly lower."""
    return pair.train.steps_for(part_size(pair.dataset, pair.shift))


def program(pair: PairSpec) -> tuple[object, ...]:
    """What pairs of one cohort share, so that they take equally long and can be trained as one stack of networks."""
    # A domain is the same for all members of a stack: they share a test set. As text: a factory's arguments cannot be
    # hashed.
    domain = pair.shift if pair.shift.kind == "domain" else None
    return pair.dataset, domain, pair.model.model_dump_json(), pair.train.model_dump_json(exclude=PER_MEMBER)
