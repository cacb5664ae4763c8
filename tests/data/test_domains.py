"""What each member is shown."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lmc_tune.data import corruptions, datasets
from lmc_tune.data.datasets import Dataset
from lmc_tune.data.domains import pair_data, split_views, views
from lmc_tune.data.examples import Examples, Part, Woven
from lmc_tune.data.shifts import split, split_between
from lmc_tune.errors import UserError
from lmc_tune.experiment import CORRUPTIONS, ShiftSpec

GENERATOR = torch.Generator().manual_seed(0)


def examples(n: int, channels: int = 3, size: int = 8) -> Examples:
    return Examples(
        inputs=torch.rand(n, channels, size, size, generator=GENERATOR),
        labels=torch.randint(4, (n,), generator=GENERATOR),
    )


def dataset(n: int = 120, channels: int = 3) -> Dataset:
    """Normalised by a mean and a deviation."""
    mean, std = torch.full((channels, 1, 1), 0.4), torch.full((channels, 1, 1), 0.25)
    parts = {name: examples(k, channels) for name, k in (("train", n), ("validation", 10), ("test", 40))}
    normalised = {name: Examples(inputs=(one.inputs - mean) / std, labels=one.labels) for name, one in parts.items()}
    return Dataset(n_classes=4, mean=mean, std=std, **normalised)


def raw(n: int) -> Dataset:
    """Not normalised."""
    zero, one = torch.zeros(3, 1, 1), torch.ones(3, 1, 1)
    parts = {name: examples(k) for name, k in (("train", n), ("validation", 10), ("test", 40))}
    return Dataset(n_classes=4, mean=zero, std=one, **parts)


DATA, OTHER = dataset(), raw(200)


def as_data_is(images: Tensor) -> Tensor:
    """Pixels of the other data set on the scale of the first's inputs."""
    return (images - DATA.mean) / DATA.std


def test_every_corruption_that_can_be_asked_for_is_there():
    assert set(CORRUPTIONS) == set(corruptions.CORRUPTIONS)


@pytest.mark.parametrize("shift", [{"kind": "none"}, {"kind": "covariate"}, {"kind": "label"}])
def test_without_a_domain_shift_both_see_the_data_set_itself(shift):
    spec = ShiftSpec(**shift)
    a, b = views(DATA, spec)
    assert a is b is DATA
    parts = split(DATA.train.labels.numpy(), spec, 3)
    data = pair_data(a, b, split_views(a, b, spec, seed=3))
    assert (data.a.whole, data.test) == (DATA.train, DATA.test)
    assert np.array_equal(data.a.indices, parts.a)
    assert np.array_equal(data.b.indices, parts.b)
    assert np.array_equal(data.train.indices, np.union1d(parts.a, parts.b))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_b_sees_corrupted_pixels_normalised_as_as_are(name):
    a, b = views(DATA, ShiftSpec(kind="domain", domain=name, severity=0.6))
    assert a is DATA
    for which in ("train", "test", "validation"):
        of_a, of_b = getattr(a, which), getattr(b, which)
        assert torch.equal(of_a.labels, of_b.labels)
        pixels = of_b.inputs * DATA.std + DATA.mean
        assert pixels.min() > -1e-5
        assert pixels.max() < 1 + 1e-5
        assert not torch.allclose(of_a.inputs, of_b.inputs, atol=1e-3)
    again = views(DATA, ShiftSpec(kind="domain", domain=name, severity=0.6))[1]
    assert torch.equal(again.train.inputs, b.train.inputs)


def test_noise_of_the_test_set_is_not_that_of_the_training_set():
    same = Dataset(n_classes=4, mean=DATA.mean, std=DATA.std, train=DATA.test, validation=DATA.test, test=DATA.test)
    _, noisy = views(same, ShiftSpec(kind="domain", domain="gaussian_noise"))
    assert not torch.equal(noisy.train.inputs, noisy.test.inputs)


def test_bands_fade_to_their_mean_in_the_other_members_eyes():
    a, b = views(DATA, ShiftSpec(kind="domain", bands=[[0], [1, 2]]))
    half = views(DATA, ShiftSpec(kind="domain", bands=[[0], [1, 2]], severity=0.5))[0]
    inputs = DATA.train.inputs
    assert torch.equal(a.train.inputs[:, 0], inputs[:, 0])
    assert torch.equal(b.train.inputs[:, 1:], inputs[:, 1:])
    means = inputs.double().mean((0, 2, 3)).float()
    for view, hidden in ((a, [1, 2]), (b, [0])):
        for band in hidden:
            assert (view.train.inputs[:, band] - means[band]).abs().max() < 1e-6
            assert (view.test.inputs[:, band] - means[band]).abs().max() < 1e-6  # the training set's
    assert torch.allclose(half.train.inputs[:, 1], 0.5 * inputs[:, 1] + 0.5 * means[1], atol=1e-6)


@pytest.mark.parametrize("severity", [0.0, 0.3, 1.0])
def test_another_data_set_gives_b_the_severitys_share_of_its_examples(severity):
    shift = ShiftSpec(kind="domain", domain="usps", severity=severity)
    of_a, of_b = views(DATA, shift, OTHER)
    data = pair_data(of_a, of_b, split_views(of_a, of_b, shift, seed=1))
    n = len(DATA.train)
    assert len(data.a) == len(data.b)
    assert torch.equal(data.a.labels, data.b.labels)
    foreign = data.b.indices >= n
    assert foreign.mean() == pytest.approx(severity, abs=0.05)
    for index, is_foreign in zip(data.b.indices, foreign, strict=True):
        source = as_data_is(OTHER.train.inputs[index - n]) if is_foreign else DATA.train.inputs[index]
        assert torch.equal(data.b.whole.inputs[index], source)
    assert not set(data.a.indices) & set(data.b.indices[~foreign])
    test = torch.cat([some.inputs for some in data.test.chunks(16)])
    assert len(test) == 2 * len(DATA.test)
    from_other = [any(torch.equal(image, own) for own in as_data_is(OTHER.test.inputs)) for image in test]
    assert sum(from_other[: len(DATA.test)]) == 0
    assert sum(from_other[len(DATA.test) :]) == round(severity * len(DATA.test))
    # The first ones stand for all where representations are compared.
    assert np.mean(from_other[len(DATA.test) :][:20]) == pytest.approx(severity, abs=0.2)


@given(st.integers(0, 10_000), st.floats(0, 1), st.integers(5, 80), st.integers(5, 80))
def test_a_split_between_two_data_sets_is_paired_by_label_and_disjoint(seed, severity, n, m):
    rng = np.random.default_rng(seed)
    labels, others = rng.integers(3, size=n), rng.integers(3, size=m)
    parts = split_between(labels, others, severity, seed)
    both = np.concatenate([labels, others])
    assert np.array_equal(both[parts.a], both[parts.b])
    assert len({*parts.a, *parts.b}) == 2 * len(parts.a)
    assert (parts.a < n).all()
    expected = sum(min((labels == c).sum() // 2, (others == c).sum()) for c in range(3))
    assert len(parts.a) == expected  # whatever the severity


def test_what_is_woven_has_as_much_of_both_in_every_chunk():
    a, b = (Part(whole=one.train, indices=np.arange(50)) for one in (DATA, OTHER))
    woven = Woven(a=a, b=b)
    assert len(woven) == 100
    for some in woven.chunks(16):
        half = len(some) // 2
        assert any(torch.equal(some.inputs[0], own) for own in DATA.train.inputs)
        assert any(torch.equal(some.inputs[half], own) for own in OTHER.train.inputs)
    assert torch.equal(woven.labels[:50], a.labels)
    assert [len(some) for some in woven.chunks(1)] == [2] * 50


def of_many_labels() -> Dataset:
    labels = torch.randint(2, (120, 5), generator=torch.Generator().manual_seed(1))
    return replace(DATA, train=Examples(inputs=DATA.train.inputs, labels=labels))


@pytest.mark.parametrize("shift", [{"kind": "covariate"}, {"kind": "domain", "bands": [[0], [1]]}])
def test_examples_of_several_labels_are_split_into_random_halves(shift):
    data, spec = of_many_labels(), ShiftSpec(**shift)
    parts = split_views(*views(data, spec), spec, seed=3)
    assert len(parts.a) == len(parts.b) == 60
    assert sorted([*parts.a, *parts.b]) == list(range(120))
    again, other = (split_views(*views(data, spec), spec, seed=seed) for seed in (3, 4))
    assert np.array_equal(again.a, parts.a)
    assert np.array_equal(again.b, parts.b)
    assert set(other.a) != set(parts.a)


def test_examples_of_several_labels_share_what_the_severity_leaves():
    data, spec = of_many_labels(), ShiftSpec(kind="covariate", severity=0.25)
    parts = split_views(data, data, spec, seed=3)
    assert len(set(parts.a) & set(parts.b)) == 45
    nothing = ShiftSpec(kind="none")
    assert np.array_equal(*vars(split_views(data, data, nothing, seed=3)).values())


def test_several_labels_cannot_be_skewed():
    data = of_many_labels()
    with pytest.raises(UserError, match="no class to skew; take kind: covariate or kind: domain"):
        split_views(data, data, ShiftSpec(kind="label"), seed=3)


def test_what_is_changed_at_once_changes_nothing(monkeypatch):
    shifts = [ShiftSpec(kind="domain", bands=[[0], [1, 2]]), ShiftSpec(kind="domain", domain="gaussian_noise")]
    whole = [view.train.inputs for shift in shifts for view in views(DATA, shift)]
    monkeypatch.setattr(datasets, "_BLOCK_BYTES", 7 * 4 * 3 * 8 * 8)
    assert [at.start for at in datasets.blocks_of((20, 3, 8, 8))] == [0, 7, 14]
    for found, expected in zip(
        (view.train.inputs for shift in shifts for view in views(DATA, shift)), whole, strict=True
    ):
        assert torch.allclose(found, expected, rtol=0, atol=1e-6)
