"""Crops, flips and colour jitter, held against torchvision's image by image."""

import pytest
import torch

from lmc_tune.data.augment import Augmentation
from lmc_tune.experiment import TrainSpec
from lmc_tune.vision import import_torchvision

GENERATOR = torch.Generator().manual_seed(0)
MEAN, STD = (torch.tensor(values).view(3, 1, 1) for values in ([0.4, 0.5, 0.6], [0.2, 0.3, 0.25]))
PIXELS = torch.rand(40, 3, 9, 7, generator=GENERATOR)
IMAGES = (PIXELS - MEAN) / STD


def augmentation(*, crop: int = 0, flip: bool = False, jitter: float = 0.0) -> Augmentation:
    return Augmentation(crop=crop, flip=flip, jitter=jitter, mean=MEAN, std=STD)


def drawn(augment: Augmentation, seed: int = 1) -> dict[str, torch.Tensor]:
    return {name: draw[0] for name, draw in augment.draws(seed, 0, 1, len(IMAGES)).items()}


@pytest.mark.parametrize(
    "asked", [{"crop": 2}, {"flip": True}, {"jitter": 0.6}, {"crop": 3, "flip": True, "jitter": 0.3}]
)
def test_every_image_is_changed_as_torchvision_would_with_the_same_draws(asked):
    functional = import_torchvision().transforms.functional
    augment = augmentation(**asked)
    draws = drawn(augment)
    found = augment.apply(IMAGES, draws)
    for at, pixels in enumerate(PIXELS):
        one = {name: draw[at].item() for name, draw in draws.items()}
        image = functional.pad(pixels, [augment.crop])
        image = functional.crop(image, one["down"], one["right"], 9, 7)
        image = functional.hflip(image) if one["mirrored"] else image
        for name in ("brightness", "contrast", "saturation"):
            image = getattr(functional, f"adjust_{name}")(image, one[name])
        torch.testing.assert_close(found[at], (image - MEAN) / STD, atol=2e-5, rtol=0)


def test_draws_cover_their_range_evenly():
    draws = augmentation(crop=2, flip=True, jitter=0.4).draws(0, 0, 100, 100)
    assert torch.bincount(draws["down"].flatten()).float().div(10_000).sub(0.2).abs().max() < 0.02
    assert draws["mirrored"].float().mean().sub(0.5).abs() < 0.02
    for name in ("brightness", "contrast", "saturation"):
        factors = draws[name]
        assert 0.6 <= factors.min() < 0.61
        assert 1.39 < factors.max() <= 1.4
        assert factors.mean().sub(1).abs() < 0.01
    assert not torch.equal(draws["brightness"], draws["contrast"])


def test_draws_follow_from_seed_and_epoch():
    augment = augmentation(crop=2)
    assert all(torch.equal(one, two) for one, two in zip(drawn(augment).values(), drawn(augment).values(), strict=True))
    assert not torch.equal(drawn(augment, 1)["down"], drawn(augment, 2)["down"])
    assert not torch.equal(augment.draws(1, 0, 1, 40)["down"], augment.draws(1, 1, 1, 40)["down"])


def test_several_members_images_are_changed_as_each_members_alone():
    augment = augmentation(crop=2, flip=True, jitter=0.5)
    draws = [drawn(augment, seed) for seed in (1, 2)]
    both = augment.apply(
        torch.stack([IMAGES, IMAGES]), {name: torch.stack([d[name] for d in draws]) for name in draws[0]}
    )
    for found, own in zip(both, draws, strict=True):
        torch.testing.assert_close(found, augment.apply(IMAGES, own))


def test_grey_images_have_brightness_and_contrast_but_no_saturation():
    functional = import_torchvision().transforms.functional
    augment = Augmentation(crop=0, flip=False, jitter=0.5, mean=torch.zeros(1, 1, 1), std=torch.ones(1, 1, 1))
    draws, grey = drawn(augment), PIXELS[:, :1]
    for at, (found, pixels) in enumerate(zip(augment.apply(grey, draws), grey, strict=True)):
        brighter = functional.adjust_brightness(pixels, draws["brightness"][at].item())
        torch.testing.assert_close(found, functional.adjust_contrast(brighter, draws["contrast"][at].item()))


def test_a_spec_that_asks_for_nothing_augments_nothing():
    assert Augmentation.of(TrainSpec(lr=0.1, batch_size=2, epochs=1), MEAN, STD) is None
    asked = Augmentation.of(TrainSpec(lr=0.1, batch_size=2, epochs=1, flip=True), MEAN, STD)
    assert asked is not None
    assert asked.flip
