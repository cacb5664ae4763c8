"""Corrupted images in the manner of CIFAR-10-C: the pictures of one domain, seen through a worse camera."""

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from lmc_tune.core.seeding import child_seed
from lmc_tune.data.examples import Indices
from lmc_tune.errors import UserError
from lmc_tune.vision import import_torchvision

# Pixels. Four standard deviations of the widest blur, as scikit-image takes them for CIFAR-10-C.
_BLUR_RADIUS = 4


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Random draws that follow from a seed and from each image's own number."""

    seed: int
    numbers: Indices

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal numbers of the shape, on the device and in the precision of these images.

        They are drawn on the CPU, image by image, so that neither the device nor the batch changes them.
        """

        def generator(number: int) -> torch.Generator:
            return torch.Generator().manual_seed(child_seed(self.seed, "corruption", number))

        drawn = [torch.randn(like.shape[1:], generator=generator(int(number))) for number in self.numbers]
        return torch.stack(drawn).to(like)


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """One way to corrupt images.

    apply: from images (n, channels, height, width) in [0, 1], an amount and the draws to images of the same shape.
    amounts: at severities 0, 0.2, 0.4, 0.6, 0.8 and 1; interpolated linearly between them.
    colour: whether images need three channels: red, green, blue.
    """

    apply: Callable[[Tensor, float, Draws], Tensor]
    amounts: tuple[float, float, float, float, float, float]
    colour: bool = False

    def amount(self, severity: float) -> float:
        return float(np.interp(severity, np.linspace(0, 1, len(self.amounts)), self.amounts))


def corrupt(images: Tensor, name: str, severity: float, seed: int, numbers: Indices) -> Tensor:
    """Images after the corruption ``name`` of :data:`CORRUPTIONS`, in [0, 1].

    The result for an image depends only on the image, ``seed`` and its number, never on other images.

    Args:
        images: (n, channels, height, width) floats in [0, 1], before any normalisation, on any device.
        name: which corruption.
        severity: in [0, 1]; 0 returns ``images`` themselves. A fifth is one of CIFAR-10-C's five levels where the
            corruption comes from there; then 1 is its fifth.
        seed: of the noise; the other corruptions are not random.
        numbers: (n,) the images' own numbers: their indices in the data set.

    Raises:
        UserError: if there is no such corruption, it cannot handle so many channels, or the severity is out of range.
        ValueError: if pixels are not in [0, 1], or there is not one number per image.
    """
    if name not in CORRUPTIONS:
        raise UserError(f"unknown corruption {name!r}; there are {', '.join(CORRUPTIONS)}")
    if not 0 <= severity <= 1:
        raise UserError(f"the severity of a corruption must be in [0, 1], got {severity}")
    corruption = CORRUPTIONS[name]
    if corruption.colour and images.shape[1] != 3:
        others = ", ".join(other for other, one in CORRUPTIONS.items() if not one.colour)
        raise UserError(
            f"the corruption {name!r} needs images of three channels (red, green, blue), got {images.shape[1]}; "
            f"take one of {others}"
        )
    if len(numbers) != len(images):
        raise ValueError(f"every image needs its number, got {len(numbers)} numbers for {len(images)} images")
    if not len(images):
        return images
    lowest, highest = (bound.item() for bound in images.aminmax())
    if not 0 <= lowest <= highest <= 1:
        raise ValueError(f"pixels must be in [0, 1], got {lowest:g} to {highest:g}; corrupt before normalising")
    if severity == 0:
        return images
    draws = Draws(seed=seed, numbers=numbers)
    return corruption.apply(images, corruption.amount(severity), draws).clamp(0, 1)


def _noisy(images: Tensor, deviation: float, draws: Draws) -> Tensor:
    return images + deviation * draws.normal(images)


def _blurred(images: Tensor, deviation: float, _: Draws) -> Tensor:
    # Borders repeat their last pixel, as in CIFAR-10-C; torchvision's blur would mirror them.
    places = range(-_BLUR_RADIUS, _BLUR_RADIUS + 1)
    weights = [math.exp(-0.5 * (place / deviation) * (place / deviation)) for place in places]
    for axis, padding in ((2, (0, 0, _BLUR_RADIUS, _BLUR_RADIUS)), (3, (_BLUR_RADIUS, _BLUR_RADIUS, 0, 0))):
        size = images.shape[axis]
        padded = functional.pad(images, padding, mode="replicate")
        images = torch.zeros_like(images)
        for first, weight in enumerate(weights):
            images += weight / sum(weights) * padded.narrow(axis, first, size)
    return images


def _flattened(images: Tensor, contrast: float, _: Draws) -> Tensor:
    mean = images.mean((2, 3), keepdim=True, dtype=torch.float64).to(images)
    return mean + contrast * (images - mean)


def _rotated(images: Tensor, degrees: float, _: Draws) -> Tensor:
    v2 = _transforms()
    rotated: Tensor = v2.functional.rotate(images, degrees, interpolation=v2.InterpolationMode.BILINEAR)
    return rotated


def _recoloured(images: Tensor, turn: float, _: Draws) -> Tensor:
    recoloured: Tensor = _transforms().functional.adjust_hue(images, turn)
    return recoloured


def _transforms() -> Any:
    import_torchvision()  # first, because it fixes the import
    return import_module("torchvision.transforms.v2")


def _compressed(images: Tensor, quality: float, _: Draws) -> Tensor:
    """Three channels as one picture in colour, any other number of channels as grey pictures."""
    colour = images.shape[1] == 3
    pictures = images.permute(0, 2, 3, 1) if colour else images.flatten(end_dim=1)
    stored = (255 * pictures).round().to(torch.uint8).cpu().numpy()
    decoded = torch.from_numpy(np.stack([_through_jpeg(picture, round(quality)) for picture in stored]))
    restored = decoded.to(images) / 255
    return restored.permute(0, 3, 1, 2).contiguous() if colour else restored.view(images.shape)


def _through_jpeg(picture: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


# Noise, blur, contrast and JPEG: the five levels of CIFAR-10-C (Hendrycks & Dietterich 2019; make_cifar_c.py in
# github.com/hendrycks/robustness), after the amount that changes nothing. Rotation and hue: our own scales. CIFAR-10-C
# has neither; its `saturate` removes colour at two levels and adds it at three, so it is not an axis of severity.
# Amounts are the noise's standard deviation; the Gaussian's, in pixels; the factor of distances from a channel's mean;
# degrees anticlockwise; turns of the hue's circle (at a third, red has become green); the quality, which is rounded.
CORRUPTIONS = {
    "gaussian_noise": Corruption(apply=_noisy, amounts=(0, 0.04, 0.06, 0.08, 0.09, 0.1)),
    "blur": Corruption(apply=_blurred, amounts=(0, 0.4, 0.6, 0.7, 0.8, 1)),
    "contrast": Corruption(apply=_flattened, amounts=(1, 0.75, 0.5, 0.4, 0.3, 0.15)),
    "rotation": Corruption(apply=_rotated, amounts=(0, 9, 18, 27, 36, 45)),
    "colour": Corruption(apply=_recoloured, amounts=(0, 1 / 15, 2 / 15, 3 / 15, 4 / 15, 5 / 15), colour=True),
    "jpeg": Corruption(apply=_compressed, amounts=(100, 80, 65, 58, 50, 40)),
}
