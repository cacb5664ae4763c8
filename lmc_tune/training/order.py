"""SGD noise: which positions of its part a member sees in which step."""

import torch
from torch import Tensor

from lmc_tune.core.seeding import child_seed


def epoch_batches(n_train: int, batch_size: int, order_seed: int, epoch: int) -> Tensor:
    """Positions of one epoch's batches: (n_train // batch_size, batch_size) int64, on the CPU.

    A fresh permutation every epoch; the incomplete last batch is dropped, so that all steps see ``batch_size``
    examples. Two members with one ``order_seed`` see the same positions: that is what ``noise: fixed`` means.
    """
    generator = torch.Generator().manual_seed(child_seed(order_seed, "epoch", epoch))
    steps = n_train // batch_size
    return torch.randperm(n_train, generator=generator)[: steps * batch_size].view(steps, batch_size)
