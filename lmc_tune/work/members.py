"""The members of a cohort: each is trained once and stored until its groups are measured."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from lmc_tune.experiment import GroupSpec, MemberSpec
from lmc_tune.storage import files
from lmc_tune.training.checkpoint import Checkpoint
from lmc_tune.training.engines import Engines, train
from lmc_tune.training.progress import Progress
from lmc_tune.training.task import Task
from lmc_tune.work.bench import Workbench
from lmc_tune.work.prepare import Setup, task_of


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The members of a group, by name, and what they share: the trunk that they branch from, if there is one."""

    members: dict[str, Progress]
    trunk: Progress | None = None


class MemberShelf:
    """Members by key, as long as a group of the cohort still needs them.

    A trunk is kept where a branch begins: at one epoch or several, each with a name of its own.

    Args:
        bench: where members are kept.
        groups: what is going to be measured.
        engines: which stacks were checked.
    """

    def __init__(self, bench: Workbench, groups: Iterable[GroupSpec], engines: Engines) -> None:
        self._bench = bench
        self._engines = engines
        groups = list(groups)
        self._needed = Counter(name for group in groups for name in _names(group))
        self._epochs: dict[str, set[int]] = defaultdict(set)
        for branch in (member.branch for group in groups for member in group.trained.values() if member.branch):
            self._epochs[branch.trunk.key].add(branch.epoch)
        self._trained: dict[str, Progress] = {}
        self._counted: dict[str, float] = {}
        self._fresh: set[str] = set()

    def train(self, setups: Sequence[Setup]) -> list[Trained]:
        """Train what is missing of some groups."""
        self._train_trunks(setups)
        wanted = {key: (setup, member) for setup in setups for key, member in setup.spec.trained.items()}
        for taught in (False, True):  # who learns from others after these
            self._train(
                {
                    key: (member, self._task(setup, member, key, self._beginning(member)))
                    for key, (setup, member) in wanted.items()
                    if key not in self._trained and (member.distil is not None) is taught
                },
                setups[0].device,
            )
        return [self._of(setup.spec) for setup in setups]

    def seconds(self, group: GroupSpec) -> float:
        """What training the group's members took here, without what was counted for another group."""
        total = 0.0
        for name in dict.fromkeys(_names(group)):
            owner, known = name.partition("@")[0], self._trained[name].seconds if name in self._fresh else 0.0
            total += max(0.0, known - self._counted.get(owner, 0.0))
            self._counted[owner] = max(known, self._counted.get(owner, 0.0))
        return total

    def release(self, group: GroupSpec) -> None:
        """Forget the members of a group that is done with, unless another needs them."""
        self._needed -= Counter(names := _names(group))
        for name in names:
            if not self._needed[name]:
                self._trained.pop(name, None)
                self._checkpoint(name).remove()

    def _train_trunks(self, setups: Sequence[Setup]) -> None:
        """To every epoch at which a member of the cohort leaves them, each going on from the one before."""
        trunks = {
            member.branch.trunk.key: (setup, member.branch.trunk)
            for setup in setups
            for member in setup.spec.trained.values()
            if member.branch and _stage(member) not in self._trained
        }
        for epoch in sorted({epoch for key in trunks for epoch in self._epochs[key]}):
            stages = {
                f"{key}@{epoch}": (setup, trunk)
                for key, (setup, trunk) in trunks.items()
                if epoch in self._epochs[key] and self._needed[f"{key}@{epoch}"]
            }
            self._train(
                {
                    name: (trunk, self._task(setup, trunk, name, self._before(trunk, epoch), epoch))
                    for name, (setup, trunk) in stages.items()
                    if name not in self._trained
                },
                setups[0].device,
            )

    def _task(
        self, setup: Setup, member: MemberSpec, name: str, begin: Progress | None, epochs: int | None = None
    ) -> Task:
        snapshots = self._bench.measure.snapshots
        teacher = self._trained[member.distil.teacher.key] if member.distil else None
        return task_of(setup, member, self._checkpoint(name), begin, epochs, snapshots, teacher)

    def _train(self, wanted: dict[str, tuple[MemberSpec, Task]], device: torch.device) -> None:
        programs: dict[tuple[str, ...], dict[str, Task]] = defaultdict(dict)
        for name, (member, task) in wanted.items():
            if task.resume and task.has_ended:
                self._take(name, task, task.resume)
            else:
                programs[member.program][name] = task
        for tasks in programs.values():
            member = wanted[next(iter(tasks))][0]
            choice = self._engines.choose(member, device, partial(list, tasks.values()))
            told = [replace(task, engine=choice.engine, engine_reason=choice.why) for task in tasks.values()]
            self._fresh |= tasks.keys()
            self._trained |= dict(zip(tasks, train(told, choice.engine), strict=True))

    def _take(self, name: str, task: Task, progress: Progress) -> None:
        """Put a member on the shelf whose training had ended before, and keep it if it is to be kept."""
        if self._is_kept(name):
            self._count(name, progress)
        else:
            self._fresh.add(name)
            task.settle()
        self._trained[name] = progress

    def _count(self, name: str, progress: Progress) -> None:
        """Count a kept stage's seconds for whoever had it trained: those of later stages include them."""
        owner = name.partition("@")[0]
        self._counted[owner] = max(self._counted.get(owner, 0.0), progress.seconds)

    def _beginning(self, member: MemberSpec) -> Progress | None:
        if member.branch is None:
            return None
        return replace(self._trained[_stage(member)], curve=[], seconds=0.0)

    def _before(self, trunk: MemberSpec, epoch: int) -> Progress | None:
        """The latest stage of the trunk before an epoch, of this cohort or kept."""
        kept = files(self._bench.members, start=f"{trunk.key}@", end=".safetensors") if self._bench.members else ()
        stages = {path.stem for path in kept} | {name for name in self._trained if name.startswith(f"{trunk.key}@")}
        earlier = {at: name for name in stages if (at := int(name.rpartition("@")[2])) < epoch}
        if not earlier:
            return None
        name = earlier[max(earlier)]
        if name not in self._trained and (stage := self._checkpoint(name).read()):
            self._count(name, stage)
            return stage
        return self._trained.get(name)

    def _of(self, group: GroupSpec) -> Trained:
        members = {name: self._trained[member.key] for name, member in group.members.items()}
        stages = [_stage(member) for member in group.members.values() if member.branch]
        return Trained(members=members, trunk=self._trained[stages[0]] if stages else None)

    def _checkpoint(self, name: str) -> Checkpoint:
        file, bench = f"{name}.safetensors", self._bench
        return Checkpoint(
            path=bench.store.checkpoints / file,
            seconds=bench.checkpoint_seconds,
            kept=bench.members / file if bench.members else None,
            keep=bench.keep_members,
        )

    def _is_kept(self, name: str) -> bool:
        return bool(self._bench.members and (self._bench.members / f"{name}.safetensors").exists())


def _names(group: GroupSpec) -> list[str]:
    """Of all that is trained for a group, each once: the stages of its trunks, then its members."""
    return list(dict.fromkeys([*(_stage(m) for m in group.trained.values() if m.branch), *group.trained]))


def _stage(member: MemberSpec) -> str:
    assert member.branch is not None  # noqa: S101 - asked for by its callers
    return f"{member.branch.trunk.key}@{member.branch.epoch}"
