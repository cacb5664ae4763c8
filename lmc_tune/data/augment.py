"""Random changes to training images, on their device."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from lmc_tune.core.seeding import child_seed
from lmc_tune.experiment import TrainSpec

# Weights of red, green and blue in a grey image (ITU-R BT.601), as torchvision rounds them.
_RED, _GREEN, _BLUE = 0.2989, 0.587, 0.114


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Crops, flips and colour jitter, in this order, of images that were normalised by ``mean`` and ``std``.

    crop: black borders of so many pixels are added and a window of the old size is cut out anywhere, as
        ``torchvision.transforms.RandomCrop(size, padding=crop)`` does. flip: mirrors an image left to right with chance
        one half. jitter: multiplies brightness, contrast and (of three channels) saturation, in this order, by factors
        drawn evenly from 1 − jitter to 1 + jitter, as ``torchvision.transforms.ColorJitter`` does in random order.
    mean, std: (channels, 1, 1), in [0, 1].
    """

    crop: int
    flip: bool
    jitter: float
    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, train: TrainSpec, mean: Tensor, std: Tensor) -> "Augmentation | None":
        """The augmentation that a spec asks for; None if it asks for none."""
        if not (train.crop or train.flip or train.jitter):
            return None
        return cls(crop=train.crop, flip=train.flip, jitter=train.jitter, mean=mean, std=std)

    def draws(self, seed: int, epoch: int, steps: int, batch_size: int) -> dict[str, Tensor]:
        """The changes to every image of an epoch: entries of shape (steps, batch_size), drawn on the CPU."""
        generator = torch.Generator().manual_seed(child_seed(seed, "augment", epoch))
        shape = (steps, batch_size)
        draws = {name: torch.randint(2 * self.crop + 1, shape, generator=generator) for name in ("down", "right")}
        draws["mirrored"] = torch.rand(shape, generator=generator) < 0.5 * self.flip
        for name in ("brightness", "contrast", "saturation"):
            draws[name] = 1 + self.jitter * (2 * torch.rand(shape, generator=generator) - 1)
        return {name: draw.to(self.mean.device) for name, draw in draws.items()}

    def apply(self, inputs: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        """Inputs (..., channels, height, width) changed according to the draws (...)."""
        flat = inputs.flatten(end_dim=-4)
        drawn = {name: draw.flatten() for name, draw in draws.items()}
        images = flat * self.std + self.mean
        if self.crop or self.flip:
            images = self._moved(images, drawn)
        if self.jitter:
            images = _coloured(images, {name: drawn[name].to(images.dtype).view(-1, 1, 1, 1) for name in drawn})
        return ((images - self.mean) / self.std).view(inputs.shape)

    def _moved(self, images: Tensor, drawn: Mapping[str, Tensor]) -> Tensor:
        n, channels, height, width = images.shape
        along = torch.arange(width, device=images.device)
        columns = torch.where(drawn["mirrored"][:, None], along.flip(0), along) + drawn["right"][:, None]
        rows = torch.arange(height, device=images.device) + drawn["down"][:, None]
        each = torch.arange(n, device=images.device)[:, None, None, None]
        channel = torch.arange(channels, device=images.device)[:, None, None]
        return functional.pad(images, 4 * (self.crop,))[each, channel, rows[:, None, :, None], columns[:, None, None]]


def _coloured(images: Tensor, factors: Mapping[str, Tensor]) -> Tensor:
    images = (images * factors["brightness"]).clamp(0, 1)
    images = _blend(images, _grey(images).mean((2, 3), keepdim=True), factors["contrast"])
    return _blend(images, _grey(images), factors["saturation"]) if images.shape[1] == 3 else images


def _grey(images: Tensor) -> Tensor:
    if images.shape[1] != 3:
        return images.mean(1, keepdim=True)
    red, green, blue = images[:, :1], images[:, 1:2], images[:, 2:]
    return _RED * red + _GREEN * green + _BLUE * blue


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return (images * factor + other * (1 - factor)).clamp(0, 1)
