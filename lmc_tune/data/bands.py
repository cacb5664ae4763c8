"""Images of which a member sees only some bands: members that look through different sensors."""

from collections.abc import Collection

import torch
from torch import Tensor

from lmc_tune.errors import UserError


def mask_bands(images: Tensor, kept: Collection[int], severity: float, mean: Tensor) -> Tensor:
    """Images whose bands outside ``kept`` are moved towards their means.

    A pixel x of such a band becomes (1 − severity) x + severity · mean; at severity 1 every pixel is the mean, so
    nothing of the band is left. The bands kept stay as they are.

    Args:
        images: (n, channels, height, width) floats, normalised or not; a band is a channel.
        kept: bands from 0 that stay.
        severity: in [0, 1].
        mean: (channels, 1, 1), of every band, on the scale of ``images``: 0 once they are normalised.

    Raises:
        UserError: if no band is kept, a band does not exist, or the severity is out of range.
        ValueError: if ``mean`` has another shape.
    """
    bands = range(images.shape[1])
    there = ", ".join(map(str, bands))
    if not kept:
        raise UserError(f"no band is kept; name at least one of {there}")
    if missing := sorted(set(kept) - set(bands)):
        raise UserError(f"there is no band {', '.join(map(str, missing))}; the bands are {there}")
    if not 0 <= severity <= 1:
        raise UserError(f"the severity of masked bands must be in [0, 1], got {severity}")
    if mean.shape != (len(bands), 1, 1):
        raise ValueError(f"`mean` must have shape {(len(bands), 1, 1)}, got {tuple(mean.shape)}")
    masked = torch.tensor([band not in kept for band in bands], device=images.device).view(-1, 1, 1)
    return torch.where(masked, images.lerp(mean.to(images), severity), images)
