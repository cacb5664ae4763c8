"""BatchNorm on a path: running statistics estimated anew at every position.

The running statistics of two members, interpolated, are not those of the interpolated network: its activations have
collapsed, and much of a barrier may be that alone (Jordan et al. 2023, REPAIR).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from lmc_tune.core.interpolation import State, lerp_state
from lmc_tune.models.stack import Stack, evaluates_faster_stacked


def recalibrated(
    model: nn.Module, state_a: State, state_b: State, lambdas: Sequence[float], batches: Sequence[Tensor]
) -> list[dict[str, Tensor]]:
    """θ(λ) with the running statistics of its own activations, for every λ.

    They are averages over the batches of every batch's mean and (unbiased) variance, in training mode; nothing of the
    members' running statistics is left. A network without BatchNorm is interpolated, no more.

    Args:
        model: a network of the architecture; its own weights, statistics and mode may be changed.
        state_a: A's state dict.
        state_b: B's, with the same entries.
        lambdas: positions on the path.
        batches: inputs (n, ...), on the model's device. All batches count alike: leave out one that is incomplete.
    """
    states = [lerp_state(state_a, state_b, lambda_) for lambda_ in lambdas]
    if not _norms(model):
        return states
    if evaluates_faster_stacked(model, batches[0].device):
        return recalibrated_stack(model, states, batches)
    return [_recalibrated_alone(model, state, batches) for state in states]


@torch.no_grad()
def recalibrated_stack(model: nn.Module, states: Sequence[State], batches: Sequence[Tensor]) -> list[dict[str, Tensor]]:
    """What :func:`recalibrated` does on a GPU: one pass over the batches for all positions."""
    norms = _norms(model)
    stack = Stack(model, states)
    model.train()
    for name in norms:
        stack.buffers[f"{name}.running_mean"].zero_()
        stack.buffers[f"{name}.running_var"].fill_(1)
        stack.buffers[f"{name}.num_batches_tracked"].zero_()
    momenta = {name: norm.momentum for name, norm in norms.items()}
    for number, inputs in enumerate(batches):
        # What momentum=None stands for, which asks a counter for its value and so cannot be stacked.
        for norm in norms.values():
            norm.momentum = 1 / (number + 1)
        stack.logits(inputs, shared=True)
    for name, norm in norms.items():
        norm.momentum = momenta[name]
    return [stack.state(number) for number in range(stack.size)]


def _recalibrated_alone(model: nn.Module, state: State, batches: Sequence[Tensor]) -> dict[str, Tensor]:
    model.load_state_dict(state)
    update_bn(batches, model)
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _norms(model: nn.Module) -> dict[str, _BatchNorm]:
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats
    }
