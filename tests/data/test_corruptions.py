import io
import re
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter
from sklearn.datasets import load_digits, load_sample_images
from torch.nn import functional

from lmc_tune.data.corruptions import CORRUPTIONS, corrupt
from lmc_tune.errors import UserError

severities = st.floats(0, 1)
# CIFAR-10-C's levels 1 to 5, from its authors' make_cifar_c.py.
NOISE = [0.04, 0.06, 0.08, 0.09, 0.10]
BLUR = [0.4, 0.6, 0.7, 0.8, 1]
CONTRAST = [0.75, 0.5, 0.4, 0.3, 0.15]
QUALITY = [80, 65, 58, 50, 40]
levels = pytest.mark.parametrize("level", [1, 2, 3, 4, 5])


@cache
def photographs() -> torch.Tensor:
    """(30, 3, 32, 32): tiles of scikit-learn's two photographs, a temple and a flower, at a quarter of their size."""
    whole = torch.from_numpy(np.stack(load_sample_images().images)).permute(0, 3, 1, 2).float()
    tiles = functional.avg_pool2d(whole, 4).unfold(2, 32, 32).unfold(3, 32, 32)
    return tiles.permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, 32, 32).round() / 255


@cache
def digits() -> torch.Tensor:
    return torch.from_numpy(load_digits().images[:100] / 16).float().unsqueeze(1)


PICTURES = {"photographs": photographs, "digits": digits}
cases = pytest.mark.parametrize(
    ("name", "pictures"),
    [(name, pictures) for name in CORRUPTIONS for pictures in PICTURES if (name, pictures) != ("colour", "digits")],
)


def corrupted(images: torch.Tensor, name: str, severity: float, seed: int = 0, first: int = 0) -> torch.Tensor:
    return corrupt(images, name, severity, seed, np.arange(first, first + len(images)))


def distance(name: str, pictures: str, severity: float) -> float:
    images = PICTURES[pictures]()
    return (corrupted(images, name, severity).double() - images).abs().mean().item()


@cases
def test_severity_0_gives_the_images_back(name: str, pictures: str):
    images = PICTURES[pictures]()
    assert torch.equal(corrupted(images, name, 0), images)


@cases
@given(severity=severities)
def test_pixels_stay_in_their_range(name: str, pictures: str, severity: float):
    images = PICTURES[pictures]()[:10]
    found = corrupted(images, name, severity)
    assert (found.shape, found.dtype) == (images.shape, images.dtype)
    assert 0 <= found.min() <= found.max() <= 1


@cases
@given(one=severities, other=severities)
def test_the_mean_distance_from_the_original_grows_with_the_severity(name, pictures, one, other):
    near, far = sorted([one, other])
    # Rounding moves a pixel by less than this.
    assert distance(name, pictures, near) <= distance(name, pictures, far) + 1e-6
    if far - near >= 0.2:
        assert distance(name, pictures, near) < distance(name, pictures, far)


@cases
@given(severity=severities, size=st.integers(1, 10), seed=st.integers(0, 2**63 - 1))
def test_an_image_is_corrupted_alike_in_every_chunk(name, pictures, severity, size, seed):
    images, numbers = PICTURES[pictures]()[:10], np.arange(50_000, 50_010)
    whole = corrupt(images, name, severity, seed, numbers)
    chunks = zip(images.split(size), np.split(numbers, range(size, 10, size)), strict=True)
    assert torch.equal(torch.cat([corrupt(chunk, name, severity, seed, of) for chunk, of in chunks]), whole)
    assert torch.equal(corrupt(images.flip(0), name, severity, seed, numbers[::-1]), whole.flip(0))


def test_noise_differs_by_seed_and_number_and_nothing_else_does():
    images = photographs()[:1].expand(2, -1, -1, -1)
    for name in CORRUPTIONS:
        one, other = corrupted(images, name, 0.5)
        again = corrupted(images, name, 0.5, seed=1)[0]
        assert torch.equal(one, other) == torch.equal(one, again) == (name != "gaussian_noise")


@levels
def test_noise_has_the_deviation_of_cifar_10_cs_level(level: int):
    grey = torch.full((200, 3, 16, 16), 0.5)
    noise = corrupted(grey, "gaussian_noise", level / 5).double() - 0.5
    n = noise.numel()
    # Four standard errors; level 5 clips one pixel in two million.
    assert noise.mean().item() == pytest.approx(0, abs=4 * NOISE[level - 1] / n**0.5)
    assert noise.std().item() == pytest.approx(NOISE[level - 1], rel=4 / (2 * n) ** 0.5)
    ofs = torch.corrcoef(noise.flatten(1)[:50])
    assert (ofs - torch.eye(50)).abs().max() < 6 / 768**0.5


@levels
def test_blur_is_scipys_gaussian_filter_at_cifar_10_cs_level(level: int):
    found = corrupted(photographs(), "blur", level / 5)
    expected = gaussian_filter(photographs().double().numpy(), BLUR[level - 1], axes=(2, 3), mode="nearest", radius=4)
    assert found.numpy() == pytest.approx(expected, abs=1e-6)


def test_a_picture_smaller_than_the_blur_is_blurred():
    point = torch.zeros(1, 1, 3, 1)
    point[0, 0, 1] = 1
    below, centre = np.exp(-0.5), 1
    # Beyond the borders the last pixels repeat; they are 0 here.
    total = sum(np.exp(-0.5 * place**2) for place in range(-4, 5))
    expected = np.array([below, centre, below]) / total
    assert corrupted(point, "blur", 1).flatten().numpy() == pytest.approx(expected, abs=1e-6)


@levels
def test_contrast_shrinks_towards_each_channels_mean_at_cifar_10_cs_level(level: int):
    found = corrupted(photographs(), "contrast", level / 5).double()
    images = photographs().double()
    assert found.mean((2, 3)).numpy() == pytest.approx(images.mean((2, 3)).numpy(), abs=1e-6)
    ratio = found.std((2, 3)) / images.std((2, 3))
    assert ratio.numpy() == pytest.approx(np.full((len(images), 3), CONTRAST[level - 1]), rel=1e-4)


@levels
def test_jpeg_has_the_quality_of_cifar_10_cs_level(level: int):
    found = (255 * corrupted(photographs()[:5], "jpeg", level / 5)).round().byte().permute(0, 2, 3, 1).numpy()
    for pixels, picture in zip((255 * photographs()[:5]).byte().permute(0, 2, 3, 1).numpy(), found, strict=True):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=QUALITY[level - 1])
        assert np.array_equal(np.asarray(Image.open(file)), picture)


def test_jpeg_of_bands_that_are_no_colours_is_that_of_each_alone():
    bands = torch.cat([photographs()[:4], photographs()[4:8]], dim=1)
    found = corrupted(bands, "jpeg", 0.8)
    alone = torch.cat([corrupted(bands[:, [band]], "jpeg", 0.8) for band in range(6)], dim=1)
    assert torch.equal(found, alone)


def test_a_whole_rotation_turns_a_pointer_by_45_degrees_anticlockwise():
    pointer = torch.zeros(1, 1, 41, 41)
    pointer[0, 0, 20, 20:36] = 1  # to the right
    found = corrupted(pointer, "rotation", 1)[0, 0]
    up, right = 20 - found.nonzero()[:, 0], found.nonzero()[:, 1] - 20
    assert (up - right).abs().max() <= 1
    assert 10 <= up.max() <= 12  # 15 / √2


def test_rotation_brings_black_into_the_corners():
    found = corrupted(torch.ones(1, 3, 32, 32), "rotation", 1)
    assert not found[:, :, [0, 0, -1, -1], [0, -1, 0, -1]].any()
    assert found[:, :, 16, 16].eq(1).all()


def test_a_whole_shift_of_colour_turns_red_to_green_green_to_blue_and_blue_to_red():
    found = corrupted(photographs(), "colour", 1)
    assert found.numpy() == pytest.approx(photographs().roll(1, dims=1).numpy(), abs=1e-5)


def test_a_shift_of_colour_leaves_grey_pixels_grey():
    grey = digits().expand(-1, 3, -1, -1)
    assert corrupted(grey, "colour", 0.7).numpy() == pytest.approx(grey.numpy(), abs=1e-6)


@pytest.mark.parametrize("severity", [0, 5e-324, 1])
def test_there_may_be_no_images(severity: float):
    for name in CORRUPTIONS:
        assert corrupted(torch.zeros(0, 3, 8, 8), name, severity).shape == (0, 3, 8, 8)


@pytest.mark.parametrize("name", ["gaussian_noise", "blur", "contrast", "rotation", "colour"])
def test_the_least_severity_changes_next_to_nothing(name: str):
    assert corrupted(photographs(), name, 5e-324).numpy() == pytest.approx(photographs().numpy(), abs=1e-6)


@pytest.mark.parametrize(
    ("channels", "name", "severity", "message"),
    [
        (3, "fog", 0.5, "unknown corruption 'fog'; there are gaussian_noise, blur, contrast, rotation, colour, jpeg"),
        (3, "blur", 1.1, "the severity of a corruption must be in [0, 1], got 1.1"),
        (3, "blur", float("nan"), "the severity of a corruption must be in [0, 1], got nan"),
        *(
            (
                channels,
                "colour",
                severity,
                f"the corruption 'colour' needs images of three channels (red, green, blue), got {channels}; take ",
            )
            for channels, severity in [(1, 0), (1, 1), (4, 1)]
        ),
    ],
)
def test_corruptions_that_cannot_be_are_refused(channels, name, severity, message):
    with pytest.raises(UserError, match=re.escape(message)):
        corrupted(torch.zeros(2, channels, 8, 8), name, severity)


@pytest.mark.parametrize("severity", [0, 0.5])
def test_normalised_images_are_refused(severity: float):
    images = torch.tensor([-0.5, 2.25]).expand(1, 3, 2, 2)
    with pytest.raises(ValueError, match=re.escape("pixels must be in [0, 1], got -0.5 to 2.25; corrupt before norm")):
        corrupted(images, "blur", severity)
    with pytest.raises(ValueError, match=r"pixels must be in \[0, 1\], got nan to nan"):
        corrupted(torch.full((1, 3, 2, 2), torch.nan), "blur", severity)


def test_a_number_is_needed_for_every_image():
    with pytest.raises(ValueError, match="every image needs its number, got 9 numbers for 10 images"):
        corrupt(digits()[:10], "blur", 0.5, 0, np.arange(9))
