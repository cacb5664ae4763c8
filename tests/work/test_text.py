"""Pairs of language models, from a text to their rows."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lmc_tune.data.datasets import load_dataset
from lmc_tune.data.examples import Examples, Part
from lmc_tune.experiment import DatasetSpec, FactorySpec, GptSpec, GroupSpec, MeasureSpec, TextSpec
from lmc_tune.experiment.reading import SpaceError
from lmc_tune.experiment.text import read_content
from lmc_tune.measurement import similarity
from lmc_tune.measurement.conditions import Prepared
from lmc_tune.measurement.evaluate import Score, evaluate, logits_of
from lmc_tune.measurement.network import Network
from lmc_tune.measurement.similarity import similarity_columns
from lmc_tune.models.registry import build_model
from lmc_tune.sweeps.factories import check_factories
from lmc_tune.tables.rows import PairResult
from lmc_tune.work import facts
from lmc_tune.work.bench import Workbench
from lmc_tune.work.cohort import run_pair
from lmc_tune.work.prepare import prepare
from tests import oracles
from tests.cases import MEASURE, pair_spec, state, windows

MODEL = GptSpec(depth=1, heads=2, dim=8)
# Of "aab" only what follows a window's first a is open, an a or a b: (1/10) (2/3) ln 2 a token. From the token before
# alone, what follows any a is: (2/3) ln 2.
AAB, LEAST, FROM_ONE = "aab" * 700, 0.2 / 3 * math.log(2), 2 / 3 * math.log(2)
DIGITS = "0123456789" * 210


@pytest.fixture
def text(tmp_path: Path) -> TextSpec:
    path = tmp_path / "corpus.txt"
    path.write_text(f"{AAB}\n{DIGITS}")
    return read_content(TextSpec(path=str(path), context=10, second=2))


def group(text: TextSpec, shift: dict | None = None, **train) -> GroupSpec:
    return pair_spec(
        train={"optimizer": "adam", "momentum": 0.0, "lr": 0.02, "epochs": 15, "batch_size": 9, **train}, shift=shift
    ).model_copy(update={"dataset": text, "model": MODEL})


@pytest.fixture
def run(bench: Callable[..., Workbench]) -> Callable[..., PairResult]:
    return lambda text, shift=None: run_pair(group(text, shift), bench(measure=MeasureSpec(lambdas=5, refinements=1)))


def test_a_pair_learns_a_text_and_its_losses_are_of_tokens(text: TextSpec, run: Callable[..., PairResult]) -> None:
    result = run(text)
    row = result.row
    assert row["status"] == "ok"
    for name in ("a", "b"):
        assert 0.9 * LEAST < row[f"test_loss_{name}"] < 0.5 * FROM_ONE
        assert row[f"test_accuracy_{name}"] > 0.8
    test, part = text.windows("test"), text.windows("train") // 2
    assert {(point["split"], point["n"]) for point in result.tables["paths"]} == {
        ("test", 10 * test),
        ("train", 10 * 2 * part),
    }
    assert (row["n_train"], row["test_examples"], row["context"]) == (part, test, 10)
    assert row["covariate_shift"] < 0.01, "windows of both parts have a's and b's alike"
    assert 0 <= row["disagreement"] < 0.2
    assert row["same_error"] is not None
    assert math.isfinite(row["cka"])
    assert "ensemble_average_precision" not in row, "tokens are no yes or no"


def test_the_second_text_is_another_domain_which_b_sees_and_both_are_tested_on(
    text: TextSpec, run: Callable[..., PairResult], bench: Callable[..., Workbench]
) -> None:
    shift = {"kind": "domain", "domain": "second"}
    row = run(text, shift).row
    assert (row["domain"], row["label_shift"]) == ("second", 1.0)
    assert row["covariate_shift"] > 0.5
    for name in ("a", "b"):
        assert row[f"train_loss_{name}"] < FROM_ONE
        assert row[f"test_loss_{name}"] > 1, "on both texts, of which it knows one"
    data = prepare(group(text, shift), bench("parts")).data
    assert [digits_among(part) for part in (data.a, data.b)] == [0.0, 1.0]
    assert len(data.test) == 2 * text.windows("test")
    half = prepare(group(text, {**shift, "severity": 0.5}), bench("half")).data
    assert [digits_among(part) for part in (half.a, half.b)] == [0.0, pytest.approx(0.5, abs=0.05)]


def digits_among(part: Part) -> float:
    """The fraction of digits, the first ten symbols."""
    return float(torch.cat([some.inputs.clone() for some in part.chunks(50)]).lt(10).double().mean())


def test_scores_are_those_of_an_obvious_reference(text: TextSpec) -> None:
    dataset = load_dataset(text, Path())
    model = build_model(MODEL, (10,), dataset.n_classes, seed=1)
    score = evaluate(model, dataset.test)
    with torch.no_grad():
        logits = model.eval()(dataset.test.inputs).double().reshape(-1, dataset.n_classes)
    labels = dataset.test.labels.flatten()
    assert score.n == len(labels)
    assert score.loss == pytest.approx(np.mean(oracles.cross_entropy(logits.numpy(), labels.tolist())), rel=1e-6)
    assert score.accuracy == float(logits.argmax(1).eq(labels).double().mean())


def test_chance_level_is_that_of_all_symbols(
    text: TextSpec, bench: Callable[..., Workbench], monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = prepare(group(text), bench())
    monkeypatch.setattr(facts, "evaluate", lambda *_: Score(loss_sum=0.1, correct=1, n=1))  # it began better
    chance = math.log(13)
    assert facts.rose_above_chance(setup, setup.data.a, 0.99 * chance, setup.start) == ""
    found = facts.rose_above_chance(setup, setup.data.a, 1.01 * chance, setup.start)
    assert found == "rose above chance level: train loss 2.59 > ln 13"


def bigrams(n_classes: int) -> nn.Module:
    """A network of the user's own: what follows a token, whatever was before it."""
    return nn.Embedding(n_classes, n_classes)


def test_a_users_own_network_takes_tokens(text: TextSpec, bench: Callable[..., Workbench]) -> None:
    own = FactorySpec(factory=f"{__name__}:bigrams")
    spec = group(text, lr=0.1).model_copy(update={"model": own})
    check_factories([spec], MEASURE)
    row = run_pair(spec, bench()).row
    assert row["test_loss_a"] == pytest.approx(FROM_ONE, rel=0.1)
    images = spec.model_copy(update={"dataset": DatasetSpec(name="digits")})
    with pytest.raises(SpaceError, match="cannot take images of 1x8x8 in evaluation mode"):
        check_factories([images], MEASURE)


def test_no_token_sees_those_behind_it() -> None:
    model, inputs = build_model(MODEL, (6,), 4, seed=1).double().eval(), windows(3).inputs
    later = inputs.clone()
    later[:, 4:] = (later[:, 4:] + 1) % 4
    with torch.no_grad():
        one, other = model(inputs), model(later)
    assert torch.equal(one[:, :4], other[:, :4])
    assert not torch.equal(one[:, 4:], other[:, 4:])


def test_predictions_of_as_many_windows_are_compared_as_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    networks = [build_model(MODEL, (6,), 4, seed=seed) for seed in range(3)]
    prepared = Prepared(network=Network(networks[0]), states=[state(network) for network in networks])
    many = windows(200)
    whole = similarity_columns(prepared, many)
    assert whole == similarity_columns(prepared, many)
    monkeypatch.setattr(similarity, "_MOST_LOGITS", 50 * 6 * 4)
    asked = []
    monkeypatch.setattr(similarity, "logits_of", lambda model, some: asked.append(len(some)) or logits_of(model, some))
    some = similarity_columns(prepared, many)
    assert max(asked) == 50
    chosen = np.linspace(0, 199, 50).round().astype(int)
    monkeypatch.undo()
    assert some == similarity_columns(prepared, Examples(inputs=many.inputs[chosen], labels=many.labels[chosen]))
    assert some != whole
