"""How many members a device's memory holds at once."""

from collections.abc import Callable
from math import ceil

import torch

# Share of the free memory; the rest is for CUDA graphs and for measuring.
_SHARE = 0.4
_PROBES = (2, 6)


def members_that_fit(members: int, taken: Callable[[int], int], free: int) -> int:
    """The most of ``members`` that a stack may have, at least 1.

    Args:
        members: how many there are.
        taken: measured bytes of a stack of so many members; the need grows linearly with them.
        free: bytes that are free.
    """
    small, large = _PROBES
    if members <= large:
        return members
    taken(small)  # the libraries' workspaces, which stay, must not count as the first stack's
    at_small, at_large = taken(small), taken(large)
    each = max(1, (at_large - at_small) // (large - small))
    base = max(0, at_small - small * each)
    return max(1, min(members, int((_SHARE * free - base) // each)))


def even_share(members: int, most: int) -> int:
    """Members per stack when at most ``most`` fit: an even number, unless one alone is all that fits."""
    if most < 2:
        return 1
    stacks = ceil(members / (most - most % 2))
    share = ceil(members / stacks)
    return share + share % 2


def peak_bytes(work: Callable[[], object]) -> int:
    """The peak memory of some work on the current CUDA device, beyond the memory already in use."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before
