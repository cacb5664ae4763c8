"""Whether a sweep keeps its members' weights, so that another question needs no training."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

from lmc_tune.experiment import GroupSpec, MemberSpec, MlpSpec
from lmc_tune.experiment.datasets import facts_of
from lmc_tune.experiment.space import SearchSpace

# Up to so many bytes in all, ``members: auto`` keeps them.
MOST_BYTES = 2_000_000_000
_NUMBER = 4  # bytes of a float32


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """What is decided of the members of a sweep.

    members: how many are trained. bytes: about what they take, float32 weights; None if that is not known.
    """

    keep: bool
    members: int
    bytes: int | None

    def __str__(self) -> str:
        size = "an unknown size" if self.bytes is None else f"about {_in_words(self.bytes)}"
        return f"members: {'kept' if self.keep else 'dropped when they are measured'} ({self.members} networks, {size})"


def keeping(space: SearchSpace, pairs: Sequence[GroupSpec], *, run_factories: bool) -> Keeping:
    """Decide about the members of some pairs as the space says.

    Args:
        space: says ``keep``, ``drop``, or ``auto``: keep up to :data:`MOST_BYTES` in all.
        pairs: all that are planned.
        run_factories: networks of factories are built to see their size; else it is unknown, and ``auto`` drops them.
    """
    sizes: dict[tuple[str, str], int | None] = {}
    members = {member.key: member for pair in pairs for member in pair.members.values()}
    total: int | None = 0
    for member in members.values():
        network = member.model.text, facts_of(member.dataset).name
        if network not in sizes:
            sizes[network] = _bytes_of(member, run_factories=run_factories)
        size = sizes[network]
        total = None if total is None or size is None else total + size
    fits = total is not None and total <= MOST_BYTES
    keep = space.members == "keep" or (space.members == "auto" and fits)
    return Keeping(keep=keep, members=len(members), bytes=total)


def _bytes_of(member: MemberSpec, *, run_factories: bool) -> int | None:
    facts, model = facts_of(member.dataset), member.model
    if isinstance(model, MlpSpec):  # without torch, whose import takes seconds
        widths = (prod(facts.shape), *model.hidden, facts.n_classes)
        return _NUMBER * sum((ins + 1) * outs for ins, outs in pairwise(widths))
    from lmc_tune.models.registry import count_parameters  # noqa: PLC0415

    n = count_parameters(model, facts.shape, facts.n_classes, run_factories=run_factories)
    return None if n is None else _NUMBER * n


def _in_words(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"
