"""The average of two networks as weights of their own architecture, to be saved."""

import torch
from torch import Tensor

from lmc_tune.averaging.paths import Condition
from lmc_tune.data.examples import ExampleSet
from lmc_tune.errors import UserError
from lmc_tune.measurement.conditions import prepare
from lmc_tune.measurement.lines import Segment
from lmc_tune.measurement.network import Network
from lmc_tune.models.state import State


@torch.no_grad()
def averaged(
    network: Network, states: tuple[State, State], condition: Condition, statistics: ExampleSet | None
) -> dict[str, Tensor]:
    """θ(½) under a condition, on the CPU. What REPAIR does to a layer's outputs is folded into its weight and bias.

    Args:
        network: of the architecture.
        states: A, and B as the condition aligns it.
        condition: how the average is prepared.
        statistics: examples for those that estimate statistics.

    Raises:
        UserError: if a layer that is repaired has no bias to take it.
    """
    prepared = prepare(condition.statistics, network, Segment(*states), statistics, [0.5])
    state = prepared.states[0]
    if condition.statistics == "repaired":
        state = _folded(state, prepared.network)
    return {name: entry.detach().cpu().contiguous() for name, entry in state.items()}


def _folded(state: State, repaired: Network) -> dict[str, Tensor]:
    found = dict(state)
    held = [entry.data_ptr() for entry in repaired.module.state_dict().values() if entry.numel()]
    for repair in [name for name in repaired.norms if name.endswith(".repair")]:
        layer = repair.removesuffix(".repair")
        own = {entry: found.pop(f"{repair}.{entry}") for entry in ("weight", "bias", "running_mean", "running_var")}
        found.pop(f"{repair}.num_batches_tracked")
        weight = found.pop(f"{layer}.layer.weight")
        if held.count(repaired.module.get_parameter(f"{layer}.layer.weight").data_ptr()) > 1:
            raise UserError(f"a repaired average cannot be saved: {layer} shares its weight; save another condition")
        if f"{layer}.layer.bias" not in found:
            raise UserError(
                f"a repaired average cannot be saved: {layer} has no bias, which would have to take what REPAIR adds; "
                f"save another condition"
            )
        bias = found.pop(f"{layer}.layer.bias")
        scale = own["weight"] / (own["running_var"] + repaired.norms[repair].eps).sqrt()
        found[f"{layer}.weight"] = weight * scale.reshape(-1, *[1] * (weight.dim() - 1))
        found[f"{layer}.bias"] = (bias - own["running_mean"]) * scale + own["bias"]
    return found
