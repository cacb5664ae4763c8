import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lmc_tune.data.bands import mask_bands
from lmc_tune.errors import UserError

MEAN = torch.tensor([0.1, 0.4, -0.2, 0.9, 0.5]).view(-1, 1, 1)
bands = st.sets(st.integers(0, 4), min_size=1)


def images(channels: int = 5) -> torch.Tensor:
    return torch.rand(3, channels, 4, 6, generator=torch.Generator().manual_seed(0))


@given(bands, st.floats(0, 1))
def test_kept_bands_stay_and_the_others_move_to_their_means_by_the_severity(kept, severity):
    before = images()
    after = mask_bands(before, kept, severity, MEAN)
    for band in range(5):
        if band in kept:
            assert torch.equal(after[:, band], before[:, band])
        else:
            expected = (1 - severity) * before[:, band].double() + severity * MEAN[band].double()
            assert torch.allclose(after[:, band].double(), expected, rtol=0, atol=1e-7)


@given(bands)
def test_severity_0_changes_nothing_and_severity_1_leaves_nothing(kept):
    before = images()
    assert torch.equal(mask_bands(before, kept, 0, MEAN), before)
    after = mask_bands(before, kept, 1, MEAN)
    lost = [band for band in range(5) if band not in kept]
    assert torch.equal(after[:, lost], MEAN[lost].expand(3, len(lost), 4, 6))


@pytest.mark.parametrize("channels", [1, 2, 12])
def test_there_may_be_any_number_of_bands(channels: int):
    after = mask_bands(images(channels), [0], 1, torch.zeros(channels, 1, 1))
    assert after.flatten(2).any(dim=2).all(dim=0).tolist() == [True] + [False] * (channels - 1)


@pytest.mark.parametrize(
    ("kept", "severity", "message"),
    [
        ([0, 3], 1, "there is no band 3; the bands are 0, 1, 2"),
        ([7, -1, 1], 1, "there is no band -1, 7; the bands are 0, 1, 2"),
        ([], 1, "no band is kept; name at least one of 0, 1, 2"),
        ([0], 1.5, "the severity of masked bands must be in [0, 1], got 1.5"),
        ([0], float("nan"), "the severity of masked bands must be in [0, 1], got nan"),
    ],
)
def test_bands_that_cannot_be_masked_are_refused(kept, severity, message):
    with pytest.raises(UserError, match=re.escape(message)):
        mask_bands(images(3), kept, severity, torch.zeros(3, 1, 1))


def test_means_that_would_be_spread_along_a_row_are_refused():
    with pytest.raises(ValueError, match=re.escape("`mean` must have shape (3, 1, 1), got (3,)")):
        mask_bands(images(3), [0], 1, torch.zeros(3))
