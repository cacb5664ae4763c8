"""Examples, from whatever holds them; and what is read of them."""

from collections import UserDict

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from lmc_tune.averaging.data import called_on, size_of, split_of, with_classes
from lmc_tune.averaging.metric import CrossEntropy, OwnLoss, SquaredError, class_labels, labels_of
from lmc_tune.data.examples import Examples
from lmc_tune.errors import UserError
from tests.averaging.cases import CPU

INPUTS, LABELS = torch.randn(10, 4, generator=torch.Generator().manual_seed(0)), torch.arange(10) % 3


def taken(data, limit=None, batch_size=4):
    return split_of(data, device=CPU, batch_size=batch_size, limit=limit)


@pytest.mark.parametrize(
    "data",
    [
        (INPUTS, LABELS),
        Examples(inputs=INPUTS, labels=LABELS),
        DataLoader(TensorDataset(INPUTS, LABELS), batch_size=3),
        [(INPUTS[:7], LABELS[:7]), [INPUTS[7:], LABELS[7:]]],
        ((INPUTS[at : at + 1], LABELS[at : at + 1]) for at in range(10)),
    ],
    ids=["tensors", "examples", "loader", "batches", "generator"],
)
def test_pairs_of_tensors_are_joined(data):
    split = taken(data)
    assert (split.n, [len(batch[1]) for batch in split.batches]) == (10, [4, 4, 2])
    assert split.examples is not None
    assert torch.equal(split.examples.inputs, INPUTS)
    assert torch.equal(torch.cat([batch[1] for batch in split.batches]), LABELS)


def test_one_row_per_class_becomes_classes_and_several_labels_stay():
    hot = functional.one_hot(LABELS, 3)
    for labels in (hot, hot.float()):
        assert torch.equal(with_classes(taken((INPUTS, labels))).examples.labels, LABELS)
    several = hot.clone()
    several[0] = 1
    assert torch.equal(with_classes(taken((INPUTS, several))).examples.labels, several)


def test_arrays_are_tensors():
    split = taken((INPUTS.numpy(), LABELS.numpy()))
    assert torch.equal(split.examples.labels, LABELS)


@pytest.mark.parametrize("data", [TensorDataset(INPUTS, LABELS), [(INPUTS[0], 1), (INPUTS[1], 2)]])
def test_single_examples_are_refused_with_the_remedy(data):
    with pytest.raises(UserError, match=r"single examples, not batches: wrap them in torch\.utils\.data\.DataLoader"):
        taken(data)


def test_a_limit_takes_the_first_examples_and_reads_no_further():
    read = []

    def batches():
        for at in range(10):
            read.append(at)
            yield INPUTS[at : at + 3], LABELS[at : at + 3]

    split = taken(batches(), limit=5)
    assert split.n == 5
    assert torch.equal(split.examples.inputs, torch.cat([INPUTS[:3], INPUTS[1:3]]))
    assert len(read) <= 3
    assert taken((INPUTS, LABELS), limit=7).n == 7


def test_batches_of_other_kinds_stay_as_they_are():
    mappings = [{"ids": INPUTS[:6], "labels": LABELS[:6]}, {"ids": INPUTS[6:], "labels": LABELS[6:]}]
    split = taken(mappings, limit=8)
    assert (split.n, split.examples) == (8, None)
    assert [size_of(batch) for batch in split.batches] == [6, 2]
    ragged = taken([(torch.ones(2, 3), torch.ones(2)), (torch.ones(2, 5), torch.ones(2))])
    assert (ragged.n, ragged.examples) == (4, None)


@pytest.mark.parametrize("data", [[], iter([]), (INPUTS[:1], LABELS[:1])])
def test_fewer_than_two_examples_are_refused(data):
    with pytest.raises(UserError, match="at least two"):
        taken(data)


def test_a_network_is_called_on_a_batch():
    class Named(nn.Module):
        def forward(self, ids, scale):
            return ids * scale

    assert torch.equal(called_on(Named(), {"ids": INPUTS, "scale": 2, "labels": LABELS}), 2 * INPUTS)
    assert torch.equal(called_on(nn.Identity(), (INPUTS, LABELS)), INPUTS)
    assert torch.equal(called_on(nn.Identity(), INPUTS), INPUTS)


def test_cross_entropy_is_torchs_and_errors_are_counted():
    logits = torch.randn(10, 3, generator=torch.Generator().manual_seed(1))
    values = CrossEntropy().values(logits, (INPUTS, LABELS))
    assert torch.equal(values["loss"], functional.cross_entropy(logits, LABELS, reduction="none"))
    assert torch.equal(values["error"], logits.argmax(1).ne(LABELS).float())


def test_what_is_no_number_is_an_error_of_every_class():
    logits = torch.full((10, 3), float("nan"))
    assert CrossEntropy().values(logits, (INPUTS, LABELS))["error"].tolist() == [1.0] * 10
    masked = torch.zeros(10, 3)
    masked[:, 2] = -float("inf")  # a class that a network rules out
    assert CrossEntropy().values(masked, (INPUTS, LABELS % 2))["error"].mean() == pytest.approx(0.3)


def test_halves_do_not_overflow():
    wide = SquaredError().values(torch.full((2, 3), 300.0, dtype=torch.float16), (INPUTS[:2], torch.zeros(2, 3)))
    assert wide["loss"].tolist() == [90_000.0] * 2


def test_several_labels_are_averaged_example_by_example():
    logits = torch.randn(10, 3, generator=torch.Generator().manual_seed(1))
    labels = (torch.rand(10, 3, generator=torch.Generator().manual_seed(2)) > 0.5).long()
    values = CrossEntropy().values(logits, (INPUTS, labels))
    known = functional.binary_cross_entropy_with_logits(logits, labels.float(), reduction="none").mean(1)
    torch.testing.assert_close(values["loss"], known)
    torch.testing.assert_close(values["error"], ((logits > 0).long() != labels).float().mean(1))


def test_tokens_are_averaged_window_by_window():
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(10, 3, 5, generator=generator)
    tokens, labels = (torch.randint(5, (10, 3), generator=generator) for _ in range(2))
    values = CrossEntropy().values(logits, (tokens, labels))
    known = torch.stack(
        [functional.cross_entropy(*window, reduction="none") for window in zip(logits, labels, strict=True)]
    )
    torch.testing.assert_close(values["loss"], known.mean(1))
    torch.testing.assert_close(values["error"], (logits.argmax(2) != labels).float().mean(1))
    with pytest.raises(UserError, match="labels run from 0 to 5; the network has 5 classes"):
        CrossEntropy().values(logits, (tokens, labels.clamp(0, 3).index_fill(1, torch.tensor([0]), 5)))


def test_tokens_are_not_taken_for_one_hot_classes():
    tokens = torch.eye(4, dtype=torch.int64)
    split = split_of((tokens, tokens), device=CPU, batch_size=2)
    assert with_classes(split) is split
    images = split_of((tokens.float(), tokens), device=CPU, batch_size=2)
    assert with_classes(images).examples.labels.tolist() == [0, 1, 2, 3]
    classified = split_of(
        (torch.zeros(4, 7, dtype=torch.int64), tokens), device=CPU, batch_size=2
    )  # texts with a class
    assert with_classes(classified).examples.labels.tolist() == [0, 1, 2, 3]


def test_outputs_of_transformers_are_their_logits():
    class Outputs(UserDict):
        logits = INPUTS

    class Model(nn.Module):
        def forward(self, **_):
            return Outputs()

    assert torch.equal(CrossEntropy().outputs(Model(), {"ids": INPUTS, "labels": LABELS}), INPUTS)


def test_squared_error_is_torchs():
    values = SquaredError().values(INPUTS, (INPUTS, INPUTS + 2))
    torch.testing.assert_close(values["loss"], torch.full((10,), 4.0))
    single = SquaredError().values(INPUTS[:, :1], (INPUTS, INPUTS[:, 0]))
    assert torch.equal(single["loss"], torch.zeros(10))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: CrossEntropy().values(torch.ones(10, 2), (INPUTS, LABELS)), "run from 0 to 2; the network has 2"),
        (lambda: CrossEntropy().values(torch.ones(10, 3, 2), (INPUTS, LABELS)), "gives 10×3×2 for labels of 10"),
        (lambda: CrossEntropy().values(torch.ones(10, 3), (INPUTS, LABELS.float())), "for numbers, give --loss mse"),
        (lambda: CrossEntropy().outputs(lambda _: ("a", "b"), (INPUTS, LABELS)), "gives tuple, not a tensor"),
        (lambda: SquaredError().values(INPUTS, (INPUTS, torch.ones(10, 3))), "10×4, and targets are 10×3"),
        (lambda: OwnLoss(lambda _, __: 1.0, "f").outputs(nn.Identity(), None), "f gave float"),
        (lambda: OwnLoss(lambda _, __: INPUTS, "f").outputs(nn.Identity(), None), "one number per example"),
        (lambda: OwnLoss(lambda _, __: 1 / 0, "f").outputs(nn.Identity(), None), "f failed with ZeroDivisionError"),
        (lambda: OwnLoss(lambda _, __: INPUTS[:3, 0], "f").outputs(nn.Identity(), (INPUTS, LABELS)), "3 values for 10"),
        (lambda: SquaredError().values(INPUTS.T, (INPUTS, INPUTS)), "4×10, and targets are 10×4"),
        (lambda: labels_of(INPUTS), "has no labels"),
        (lambda: labels_of({"ids": INPUTS}), "has no labels"),
    ],
)
def test_what_does_not_fit_is_refused(call, said):
    with pytest.raises(UserError, match=said):
        call()


def test_class_labels_are_those_of_all_batches():
    split = taken((INPUTS, LABELS))
    assert class_labels(split, CrossEntropy()).tolist() == LABELS.tolist()
    assert class_labels(split, SquaredError()) is None
    assert class_labels(taken((INPUTS, LABELS[:, None].repeat(1, 3))), CrossEntropy()) is None
