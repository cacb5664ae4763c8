"""Weights by name, and those on the straight path between two members."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

State = Mapping[str, Tensor]


def lerp_state(state_a: State, state_b: State, lambda_: float) -> dict[str, Tensor]:
    """θ(λ) = (1−λ) θ_A + λ θ_B, entry by entry; exactly θ_A at 0 and θ_B at 1.

    Integer entries (BatchNorm's ``num_batches_tracked``) are counts, not weights: they are A's.

    Args:
        state_a: A's parameters and buffers by name.
        state_b: B's; the same names, shapes and types.
        lambda_: position on the path, in [0, 1].

    Raises:
        ValueError: if the two states do not have the same entries, naming the first that differs.
    """
    check_same_entries(state_a, state_b)
    return {name: torch.lerp(a, state_b[name], lambda_) if a.is_floating_point() else a for name, a in state_a.items()}


def lerp_into(target: State, state_a: State, state_b: State, lambda_: float) -> None:
    """Write θ(λ), as :func:`lerp_state` gives it, over the entries of ``target``, whose memory stays where it is."""
    check_same_entries(state_a, state_b)
    for name, a in state_a.items():
        if a.is_floating_point():
            torch.lerp(a, state_b[name], lambda_, out=target[name])
        else:
            target[name].copy_(a)


def distance(state_a: State, state_b: State, names: tuple[str, ...]) -> float:
    """Euclidean distance ‖θ_A − θ_B‖ over the entries ``names``, summed in float64."""
    squares = sum(float((state_a[name].double() - state_b[name].double()).square().sum()) for name in names)
    return float(squares**0.5)


def check_same_entries(state_a: State, state_b: State, names: tuple[str, str] = ("A", "B")) -> None:
    """Raise ValueError unless both states have the same names, shapes and types; ``names`` are what it calls them."""
    one, other = names
    for name in sorted(state_a.keys() ^ state_b.keys()):
        raise ValueError(
            f"{one} and {other} differ in architecture: only {one if name in state_a else other} has {name!r}"
        )
    for name, a in state_a.items():
        if a.shape != state_b[name].shape:
            raise ValueError(
                f"{one} and {other} differ in architecture: {name!r} is {tuple(a.shape)} in {one} "
                f"and {tuple(state_b[name].shape)} in {other}"
            )
        if a.dtype != state_b[name].dtype:
            raise ValueError(f"{one} and {other} differ in precision: {name!r} is {a.dtype} and {state_b[name].dtype}")


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of a network's state dict, on the CPU."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in model.state_dict().items()}
