"""The data that the members of a pair see: their parts of a training set, each in its own domain."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from lmc_tune.core.seeding import child_seed
from lmc_tune.data.bands import mask_bands
from lmc_tune.data.corruptions import corrupt
from lmc_tune.data.datasets import Dataset, blocks_of, strata, stratified
from lmc_tune.data.examples import Examples, ExampleSet, Indices, Joined, Part, Woven, are_text
from lmc_tune.data.shifts import Parts, split, split_between
from lmc_tune.errors import UserError
from lmc_tune.experiment import Bands, Corruption, OtherDataset, SecondText, ShiftSpec


@dataclass(frozen=True, kw_only=True)
class PairData:
    """a, b: the members' parts, paired by position. train: the examples of both. test, validation: as both see them.

    test_a, test_b: the test set as one of them sees it.
    """

    a: Part
    b: Part
    test_a: Examples
    test_b: Examples
    train: ExampleSet
    test: ExampleSet
    validation: ExampleSet

    def shuffled(self, seed: int) -> ExampleSet:
        """The training examples of both, shuffled regardless of label and domain."""
        rng = np.random.default_rng(seed)
        if isinstance(self.train, Part):
            return replace(self.train, indices=rng.permutation(self.train.indices))
        a, b = (replace(part, indices=rng.permutation(part.indices)) for part in (self.a, self.b))
        return Woven(a=a, b=b)


def views(dataset: Dataset, shift: ShiftSpec, other: Dataset | None = None) -> tuple[Dataset, Dataset]:
    """A data set in A's domain and in B's; the same object twice without a domain shift.

    Each keeps the order of the examples, so that an index means the same picture in both; with another data set, B
    sees the first's examples, then the other's.

    Args:
        dataset: what is shared.
        shift: which domains.
        other: the data set that the shift names, if any, not normalised: a grey level is the same number in both.
    """
    match shift.domain:
        case Bands(a=a, b=b):
            return _masked(dataset, a, shift.severity), _masked(dataset, b, shift.severity)
        case Corruption(name=name):
            return dataset, _corrupted(dataset, name, shift.severity)
    if other is not None:
        scaled = _scaled_as(dataset, other)
        of_a, of_b = (_tested_between(dataset, scaled, severity) for severity in (0, shift.severity))
        # B can draw from all training examples of both.
        return of_a, replace(of_b, train=_concatenated(dataset.train, scaled.train))
    return dataset, dataset


def split_views(of_a: Dataset, of_b: Dataset, shift: ShiftSpec, seed: int) -> Parts:
    """Split the training set between the members, as indices into each one's own of the :func:`views`.

    Where an example has several labels or tokens, parts are random, and positions are paired at random.

    Raises:
        UserError: if the shift would skew such labels.
    """
    if shift.kind == "label" and of_a.train.labels.ndim == 2:
        raise UserError(
            "examples with several labels, or of text, have no class to skew; take kind: covariate or kind: domain"
        )
    if isinstance(shift.domain, OtherDataset | SecondText) and of_a is not of_b:
        return split_between(_strata(of_a), _strata(of_b)[len(of_a.train) :], shift.severity, seed)
    return split(_strata(of_a), shift, seed)


def pair_data(of_a: Dataset, of_b: Dataset, parts: Parts) -> PairData:
    """The data of both members: each part comes from its own member's view (:func:`views`)."""
    a, b = Part(whole=of_a.train, indices=parts.a), Part(whole=of_b.train, indices=parts.b)
    if of_a is of_b:
        both, test = Part(whole=of_a.train, indices=np.union1d(parts.a, parts.b)), of_a.test
        return PairData(a=a, b=b, test_a=test, test_b=test, train=both, test=test, validation=of_a.validation)
    return PairData(
        a=a,
        b=b,
        test_a=of_a.test,
        test_b=of_b.test,
        train=Joined(sets=(a, b)),
        test=Joined(sets=(of_a.test, of_b.test)),
        validation=Joined(sets=(of_a.validation, of_b.validation)),
    )


def _strata(dataset: Dataset) -> Indices:
    return strata(dataset.train.labels.cpu().numpy())


def _changed(dataset: Dataset, change: Callable[[Tensor, slice, str], Tensor]) -> Dataset:
    """With images that ``change`` makes of some of a part's, where they are, and the name of the part."""

    def changed(which: str) -> Examples:
        examples: Examples = getattr(dataset, which)
        inputs = torch.empty_like(examples.inputs)
        for at in blocks_of(tuple(inputs.shape)):
            inputs[at] = change(examples.inputs[at], at, which)
        return replace(examples, inputs=inputs)

    return replace(dataset, train=changed("train"), validation=changed("validation"), test=changed("test"))


def _masked(dataset: Dataset, kept: tuple[int, ...], severity: float) -> Dataset:
    inputs = dataset.train.inputs
    # Block by block: on a CPU a mean in float64 would copy them all.
    sums = [inputs[at].sum((0, 2, 3), dtype=torch.float64) for at in blocks_of(tuple(inputs.shape))]
    mean = (torch.stack(sums).sum(0) / (inputs.numel() // inputs.shape[1])).view(-1, 1, 1)
    return _changed(dataset, lambda images, _, __: mask_bands(images, kept, severity, mean))


def _corrupted(dataset: Dataset, name: str, severity: float) -> Dataset:
    """One fixed data set, like CIFAR-10-C: an image has the same random corruption in every pair."""

    def change(images: Tensor, at: slice, which: str) -> Tensor:
        pixels = (images * dataset.std + dataset.mean).clamp(0, 1)
        numbers = np.arange(at.start, at.start + len(pixels))
        seed = child_seed(0, "corruption", which)
        return (corrupt(pixels, name, severity, seed, numbers) - dataset.mean) / dataset.std

    return dataset if severity == 0 else _changed(dataset, change)


def _scaled_as(dataset: Dataset, other: Dataset) -> Dataset:
    """Another data set, not normalised before, by the moments of the first."""

    if are_text(other.train.inputs):
        return other

    def scaled(which: str) -> Examples:
        examples: Examples = getattr(other, which)
        return replace(examples, inputs=(examples.inputs - dataset.mean) / dataset.std)

    return replace(other, train=scaled("train"), validation=scaled("validation"), test=scaled("test"))


def _tested_between(dataset: Dataset, other: Dataset, severity: float) -> Dataset:
    """The first data set, whose test and validation sets are as mixed as a part with this severity."""
    test, validation = (
        _mixed(getattr(dataset, name), getattr(other, name), severity) for name in ("test", "validation")
    )
    return replace(dataset, test=test, validation=validation)


def _mixed(one: Examples, two: Examples, severity: float) -> Examples:
    """As many examples as the smaller set has, the fraction severity of them from the second, anywhere among them."""
    n = min(len(one), len(two))
    of_two = round(severity * n)
    both = _concatenated(
        *(
            examples.take(stratified(strata(examples.labels.cpu().numpy()), k, child_seed(0, "mixed")))
            for examples, k in ((one, n - of_two), (two, of_two))
        )
    )
    return both.take(np.random.default_rng(child_seed(0, "mixed", "order")).permutation(n))


def _concatenated(one: Examples, two: Examples) -> Examples:
    return Examples(inputs=torch.cat([one.inputs, two.inputs]), labels=torch.cat([one.labels, two.labels]))
