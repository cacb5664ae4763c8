"""Whether a sweep keeps its members' weights, so that another question needs no training."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path

from lmc_tune.errors import UserError
from lmc_tune.experiment import Federated, GroupSpec, MemberSpec, MlpSpec
from lmc_tune.experiment.datasets import facts_of
from lmc_tune.experiment.space import SearchSpace
from lmc_tune.storage import Place, files
from lmc_tune.tables.store import MEMBERS

# ``members: auto`` keeps members up to this many bytes in all.
MOST_BYTES = 2_000_000_000
_NUMBER = 4  # bytes of a float32
# How many numbers an optimizer keeps for every weight; branches continue with them.
_MOMENTS = {"sgd": 1, "adam": 2, "adamw": 2}


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """Whether the members of a sweep are kept, and their size.

    members: how many are trained. bytes: the approximate size of their weights as float32, and of the stages of trunks
    that they branch from, with the optimizer's moments, and of all snapshots.
    """

    keep: bool
    members: int
    bytes: int

    def __str__(self) -> str:
        kept = "kept" if self.keep else "dropped when they are measured"
        return f"members: {kept} ({self.members} networks, about {_in_words(self.bytes)})"


def keeping(space: SearchSpace, pairs: Sequence[GroupSpec], folders: Sequence[str]) -> Keeping:
    """Whether the members of some pairs are kept, as the space says.

    Args:
        space: says ``keep``, ``drop``, or ``auto``: keep up to :data:`MOST_BYTES` in all.
        pairs: all that are planned.
        folders: where factories are looked for; they are run to get the sizes of their networks.
    """
    sizes: dict[tuple[object, ...], int] = {}
    members = {key: member for pair in pairs for key, member in pair.trained.items()}
    stages = {
        (member.branch.trunk.key, member.branch.epoch): member.branch.trunk
        for member in members.values()
        if member.branch
    }
    total = 0
    for member, copies in (
        *((member, 1) for member in members.values()),
        *((trunk, 1 + _MOMENTS[trunk.train.optimizer]) for trunk in stages.values()),
    ):
        facts = facts_of(member.dataset)
        network = member.model.text, facts.name, facts.shape, facts.n_classes
        if network not in sizes:
            sizes[network] = _bytes_of(member, folders)
        total += (copies + len(space.measure.snapshots)) * sizes[network]
    federated = any(isinstance(pair.recipe, Federated) for pair in pairs)  # every round is measured as it is trained
    keep = not federated and (space.members == "keep" or (space.members == "auto" and total <= MOST_BYTES))
    return Keeping(keep=keep, members=len(members), bytes=total)


def check_room(kept: Keeping, folder: Place) -> None:
    """Refuse to keep more members than the folder's disk has room for; of a bucket the room is not known.

    Raises:
        UserError: saying how much there is, and what to do.
    """
    if not kept.keep or not isinstance(folder, Path):
        return
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    stored = sum(size for _, size in files(folder / MEMBERS, end=".safetensors").values())
    free = shutil.disk_usage(there).free
    if kept.bytes - stored > free:
        raise UserError(
            f"the members take about {_in_words(kept.bytes - stored)}, and {folder} has {_in_words(free)} left; say "
            f"--set members=drop, which keeps none, or name another folder"
        )


def _bytes_of(member: MemberSpec, folders: Sequence[str]) -> int:
    facts, model = facts_of(member.dataset), member.model
    if isinstance(model, MlpSpec):  # without torch, whose import takes seconds
        widths = (prod(facts.shape), *model.hidden, facts.n_classes)
        return _NUMBER * sum((ins + 1) * outs for ins, outs in pairwise(widths))
    from lmc_tune.models.registry import count_parameters  # noqa: PLC0415

    return _NUMBER * count_parameters(model, facts.shape, facts.n_classes, folders)


def _in_words(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"
