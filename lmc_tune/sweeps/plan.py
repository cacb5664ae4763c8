"""Which pairs are still to run, and how they are packed into cohorts; without Ray."""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from math import ceil

from lmc_tune.experiment import Cohort, Corruption, GroupSpec, MemberSpec
from lmc_tune.tables.rows import Status

# Passes over the remaining pairs. A pair that failed, or whose worker died, is tried again in another pass, in
# smaller cohorts and finally alone, so that a pair that kills its worker takes no other pair with it.
PASSES = 3
_SMALLER = 16


@dataclass(frozen=True, kw_only=True)
class Slots:
    """What cohorts run on: ``number`` at once, each with its own GPU or CPU core."""

    number: int
    gpu: bool = False

    def cohort_size(self, pairs: int) -> int:
        """Pairs in each cohort, if so many pairs are trained by the same programs.

        A core gets several cohorts of a program: enough that the last ones keep all cores busy, few enough that
        starting a trial costs little compared with running it. A GPU trains a large stack in little more time than a
        small one, so it gets one cohort, as large as can be measured in reasonable time before any of it is kept.
        """
        each = 1 if self.gpu else 4
        return max(1, min(self.largest, ceil(pairs / (each * self.number))))

    @property
    def largest(self) -> int:
        """Most pairs that a cohort may have."""
        return 128 if self.gpu else 16


def pending(pairs: Sequence[GroupSpec], statuses: Mapping[str, Status]) -> list[GroupSpec]:
    """Pairs without a result, and failed ones, in their order."""
    return [pair for pair in pairs if statuses.get(pair.key, "failed") == "failed"]


def pack(pairs: Sequence[GroupSpec], slots: Slots, attempt: int = 0) -> list[Cohort]:
    """Pack pairs into cohorts: earlier replicates first, and the longest first among those.

    Pairs that share members are a family. A family goes into one cohort, where these are trained once, even if slots
    stay free: to use them, members would have to be trained twice. A family with more pairs than the largest cohort may
    have is cut where few members are needed on both sides. Families of the same programs share cohorts.

    Args:
        pairs: what is to run.
        slots: what they run on.
        attempt: the pass, from 0.
    """
    alike: dict[frozenset[object], list[list[GroupSpec]]] = defaultdict(list)
    for family in _families(pairs):
        programs = by_program(family)
        alike[frozenset(programs)].append([pair for some in programs.values() for pair in some])
    cohorts = []
    for families in alike.values():
        size = max(1, slots.cohort_size(sum(map(len, families))) // _SMALLER**attempt)
        most = max(1, slots.largest // _SMALLER**attempt)
        cohorts += [Cohort(groups=tuple(some)) for some in _filled(families, size, most)]
    return sorted(cohorts, key=lambda cohort: (cohort.groups[0].replicate, -sum(map(planned_steps, cohort.groups))))


def _families(pairs: Sequence[GroupSpec]) -> list[list[GroupSpec]]:
    """Lists of pairs that share members or trunks, directly or through other pairs; ordered by their first pairs.

    Each member points to another of its family, and finally to the one that stands for all of them (union-find).
    """
    towards: dict[str, str] = {}

    def root(key: str) -> str:
        while towards[key] != key:
            towards[key] = key = towards[towards[key]]  # halves the way for the next search
        return key

    for pair in pairs:
        first, *others = _origins(pair)
        towards.setdefault(first, first)
        for key in others:
            towards[root(towards.setdefault(key, key))] = root(first)
    families: dict[str, list[GroupSpec]] = defaultdict(list)
    for pair in pairs:
        families[root(_origins(pair)[0])].append(pair)
    return list(families.values())


def _origins(pair: GroupSpec) -> list[str]:
    """Keys of what is trained for a pair: its members, or the trunks that they branch from."""
    return [member.branch.trunk.key if member.branch else member.key for member in pair.trained.values()]


def _filled(families: Sequence[list[GroupSpec]], size: int, most: int) -> Iterator[list[GroupSpec]]:
    """Families one after the other until there are ``size`` pairs; a family of up to ``most`` pairs is not split."""
    filled: list[GroupSpec] = []
    for family in families:
        for part in _parts(family, most):
            if filled and len(filled) + len(part) > size:
                yield filled
                filled = []
            filled = [*filled, *part]
    if filled:
        yield filled


def _parts(family: list[GroupSpec], most: int) -> Iterator[list[GroupSpec]]:
    """Parts of up to ``most`` pairs: the family is halved where both halves need the fewest of the same members, and so
    on. A grid of A's and B's becomes blocks, which have fewer members than rows.
    """
    if len(family) <= most:
        yield family
        return
    cuts = [_cut(family, name, most) for name in family[0].members]
    for side in min(cuts, key=lambda sides: len(set.intersection(*map(_members, sides)))):
        yield from _parts(side, most)


def _cut(family: Sequence[GroupSpec], name: str, most: int) -> tuple[list[GroupSpec], list[GroupSpec]]:
    """About half of a family and the rest, in the order of its members ``name``.

    The first half ends where a member's pairs end, or with a whole number of parts if there is no such place near.
    """
    together: dict[str, list[GroupSpec]] = defaultdict(list)
    for pair in family:
        together[pair.members[name].key].append(pair)
    ordered = list(chain(*together.values()))
    whole = most * ceil(ceil(len(family) / most) / 2)
    at = max((end for end in accumulate(map(len, together.values())) if whole / 2 < end <= whole), default=whole)
    return ordered[:at], ordered[at:]


def _members(pairs: Iterable[GroupSpec]) -> set[str]:
    return {key for pair in pairs for key in pair.trained}


def workers_here() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def planned_steps(pair: GroupSpec) -> int:
    """Steps of the member that takes more, joint ones included; slightly fewer if a split has to leave out examples."""
    part, both = pair.part_size, pair.training_size

    def of(member: MemberSpec) -> int:
        own = member.train.steps_for(part)
        if not member.branch:
            return own
        joint = both // member.branch.trunk.train.batch_size - part // member.train.batch_size
        return own + member.branch.epoch * joint

    return max(map(of, pair.members.values()))


def by_program(pairs: Iterable[GroupSpec]) -> dict[tuple[object, ...], list[GroupSpec]]:
    """The pairs by their programs, in the order of the first of each."""
    programs: dict[tuple[object, ...], list[GroupSpec]] = defaultdict(list)
    for pair in pairs:
        programs[program(pair)].append(pair)
    return programs


def program(pair: GroupSpec) -> tuple[object, ...]:
    """The settings that pairs must share to take equally long and to be trained as one stack."""
    trains = [member.train.program for member in pair.members.values()]
    return pair.dataset, _domain(pair), pair.model.text, pair.train.engine, *trains


def _domain(pair: GroupSpec) -> object:
    """The shift, if it needs its own copy of the data; pairs in which only B's images are corrupted can share A."""
    shift = pair.shift
    return shift if shift.kind == "domain" and not isinstance(shift.domain, Corruption) else None
