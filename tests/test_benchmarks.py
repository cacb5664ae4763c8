"""The benchmarks compare the same work, count it right, and the page says what they found."""

import json
from dataclasses import replace
from importlib import metadata
from itertools import pairwise

import pytest
import torch

from benchmarks import page, plain_loop, publish
from benchmarks.sweep import tiny_pairs
from benchmarks.throughput import (
    CASES,
    Case,
    Floor,
    Plain,
    Stacked,
    make_tasks,
    medians,
    step_bytes,
    step_flops,
    throughput_rows,
)
from lmc_tune.space_yaml import read_space
from lmc_tune.specs import MlpSpec, ResnetSpec
from lmc_tune.sweep.plan import program

TINY = Case(spec=MlpSpec(hidden=(6, 5)), steps=3)


@pytest.mark.parametrize("case", [TINY, replace(TINY, spec=ResnetSpec(depth=8, width=1 / 8), dataset="cifar10")])
def test_both_sides_of_a_throughput_train_the_same_weights(case):
    tasks = make_tasks(case, members=2, batch_size=4, steps=3, dtype=torch.float64)
    sides = [Plain(tasks), Stacked(tasks)]
    for number in range(2):
        for side in sides:
            side.epoch(number)
    plain, stacked = (side.states() for side in sides)
    for name in plain[0]:
        for one, other, task in zip(plain, stacked, tasks, strict=True):
            torch.testing.assert_close(one[name], other[name], rtol=0, atol=1e-10)
            assert not torch.equal(one[name], task.start[name])
        if plain[0][name].is_floating_point():  # the numbers of batches agree
            assert not torch.equal(plain[0][name], plain[1][name])


def test_a_row_gives_both_rates_and_what_follows_from_them(monkeypatch):
    monkeypatch.setitem(CASES, "tiny", TINY)
    floor = Floor(perceptron_flops=1e12, convolution_flops=1e12, bytes=1e12)
    rows = list(throughput_rows("tiny", 32, "cpu", floor, most=2))
    assert [row["pairs"] for row in rows] == [1, 2]
    for row in rows:
        plain, stack = row["plain_steps_per_second"], row["stack_steps_per_second"]
        assert plain > 0
        assert stack > 0
        assert row["ratio"] == pytest.approx(stack / plain)
        steps_of_a_pair = 2 * 20 * 781  # 25 000 examples in batches of 32
        assert row["plain_pairs_per_hour"] * steps_of_a_pair == pytest.approx(3600 * plain)
        assert row["stack_pairs_per_hour"] * steps_of_a_pair == pytest.approx(3600 * stack)
        assert row["share_of_floor"] == pytest.approx(stack * floor.seconds(TINY, 32))


def test_what_is_too_slow_for_a_cpu_is_named_but_not_measured():
    floor = Floor(perceptron_flops=1.0, convolution_flops=1.0, bytes=1.0)
    (row,) = throughput_rows("ResNet-18", 512, "cpu", floor, most=2)
    assert (row["network"], row["batch_size"], row["runs"]) == ("ResNet-18", 512, 0)
    assert row["plain_steps_per_second"] is row["stack_steps_per_second"] is row["ratio"] is None


def test_every_run_is_one_epoch_of_each_side_in_turn():
    seen = []

    class Noted:
        def __init__(self, name: str) -> None:
            self.name = name

        def epoch(self, number: int) -> None:
            seen.append((self.name, number))

        def states(self) -> list:
            return []

    found = medians({name: Noted(name) for name in ("plain", "stack")}, "cpu", runs=3)
    assert seen == [(name, number) for number in range(4) for name in ("plain", "stack")]
    assert found.keys() == {"plain", "stack"}


def test_a_perceptrons_step_is_counted_as_by_hand():
    widths, batch = (784, 512, 512, 512, 10), 32
    products = [2 * batch * ins * outs for ins, outs in pairwise(widths)]
    # Forwards, the gradient of the weights, and that of the inputs, which the first layer's have not.
    assert step_flops(CASES["MLP-L3"], batch) == 3 * sum(products) - products[0]
    parameters = sum((ins + 1) * outs for ins, outs in pairwise(widths))
    assert step_bytes(CASES["MLP-L3"], batch) == 20 * parameters + 4 * batch * 784


def test_the_floor_is_the_slower_of_arithmetic_and_memory():
    case, flops, moved = CASES["small MLP"], step_flops(CASES["small MLP"], 8), step_bytes(CASES["small MLP"], 8)
    convolutional = CASES["ResNet-20"]
    fast = {"perceptron_flops": 1e30, "convolution_flops": 1e30, "bytes": 1e30}
    assert Floor(**(fast | {"perceptron_flops": 2.0})).seconds(case, 8) == flops / 2
    assert Floor(**(fast | {"bytes": 4.0})).seconds(case, 8) == moved / 4
    assert Floor(**(fast | {"convolution_flops": 2.0})).seconds(convolutional, 8) == step_flops(convolutional, 8) / 2


def test_the_plain_loop_steps_through_every_batch_in_order():
    """On one weight and a batch of one, a step of plain SGD by hand."""
    model = torch.nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0], [0.0]]))
    part = plain_loop.Examples(inputs=torch.tensor([[1.0], [2.0]]), labels=torch.tensor([0, 1]))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    plain_loop.train_epoch(model, optimizer, part, torch.tensor([[0], [1]]))
    weight = 0.5  # the first example moves logit 0 by half of its input, logit 1 by minus that
    p = 1 / (1 + torch.exp(torch.tensor(-2 * 2 * weight)))  # of class 0 for the second, whose logits are ±2·weight
    expected = torch.tensor([[weight - 2 * p], [-weight + 2 * p]])
    torch.testing.assert_close(model.weight.detach(), expected)


def test_results_name_the_packages_that_are_there(monkeypatch, tmp_path, capsys):
    """A GPU machine may have torch without Ray."""

    def version(package: str) -> str:
        if package == "ray":
            raise metadata.PackageNotFoundError(package)
        return f"{package} 1"

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(publish, "RESULTS", tmp_path / "results")
    publish.publish("some", [{"figure": 2.5}], {"device": "a GPU"})
    written = json.loads((tmp_path / "results" / "some.json").read_text(encoding="utf-8"))
    assert written["rows"] == [{"figure": 2.5}]
    named = {"torch": "torch 1", "mlflow": "mlflow 1", "device": "a GPU"}
    assert {name: written["machine"].get(name) for name in (*named, "ray")} == named | {"ray": None}
    assert "2.5" in capsys.readouterr().out


def test_tiny_pairs_are_as_many_as_said_and_run_one_program():
    for n in (10, 100):
        pairs = read_space("quickstart", tiny_pairs(n)).pairs()
        assert len({pair.key for pair in pairs}) == n
        assert len({program(pair) for pair in pairs}) == 1


def test_the_page_is_what_the_results_say():
    assert page.PAGE.read_text(encoding="utf-8") == page.render(publish.RESULTS)


def test_the_page_judges_targets_and_names_what_was_not_measured(tmp_path):
    rows = [
        {"pairs": 12_345, "seconds": 9.5, "target_seconds": 10, "slope": None},
        {"pairs": 10, "seconds": 3.25, "target_seconds": 3, "slope": 0.12345},
        {"pairs": 1, "seconds": 99.0, "target_seconds": None, "slope": None},
    ]
    (tmp_path / "one.json").write_text(json.dumps({"machine": {"cores": 2}, "rows": rows}), encoding="utf-8")
    (tmp_path / "two.json").write_text(json.dumps({"machine": {}, "rows": rows[:1]}), encoding="utf-8")
    sections = [
        page.Section(title=name.title(), result=name, command=f"run {name}", text="Text.", gpu=name == "four")
        for name in ("one", "two", "three", "four")
    ]
    text = page.render(tmp_path, sections)
    assert (
        "| One | seconds | ≤ 10 | 9.5 | holds |\n| One | seconds | ≤ 3 | 3.25 | does not hold |\n"
        "| Two | seconds | ≤ 10 | 9.5 | holds |\n"
    ) in text
    assert (
        "| pairs | seconds | target seconds | slope |\n| --- | --- | --- | --- |\n| 12 345 | 9.5 | 10 | – |\n" in text
    )
    faster = [{"other_ratio": 1.0, "ratio": ratio, "least_ratio": 1.5} for ratio in (5.0, 1.7)]
    (tmp_path / "three.json").write_text(json.dumps({"machine": {}, "rows": faster}), encoding="utf-8")
    assert "| Three | ratio | ≥ 1.5 | 1.7 | holds |\n" in page.render(tmp_path, sections)
    assert "| 10 | 3.25 | 3 | 0.123 |\n| 1 | 99 | – | – |\n\nMeasured with cores 2.\n" in text
    assert "    run three\n\nNot measured.\n" in text
    assert "    run four\n\nNot measured: no GPU was at hand.\n" in text
