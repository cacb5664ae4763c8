"""REPAIR's tables at a small size: the page says what the rows do, and expectations are read off right."""

import pytest
import torch

from benchmarks import repair
from lmc_tune.models.registry import build_model
from tests.cases import images


def test_the_page_is_made_of_the_rows():
    assert repair.PAGE.read_text(encoding="utf-8") == repair.page(repair.read_rows())


def rows(**changed: tuple[float, ...]) -> list[dict[str, str]]:
    """As the published tables lead one to expect; members, naive, statistics, permuted, repaired of each network."""
    usual = {
        "MLP, 2 hidden layers": (98, 40, 70, 97, 97.5),
        "MLP, 4 hidden layers": (98, 15, 40, 94, 96),
        "MLP, 6 hidden layers": (98, 11, 30, 90, 95),
        "VGG-11, width 1/4": (60, 10, 20, 15, 50),
        "ResNet-20, width 0.5": (60, 10, 20, 10, 30),
        "ResNet-20, width 1": (65, 10, 20, 10, 45),
    }
    named = {name: values for name, values in (usual | changed).items() if values}
    return [
        {
            "network": name,
            "pair": "0",
            **{column: str(value) for column, value in zip(repair.COLUMNS[2:], own, strict=True)},
        }
        for name, own in named.items()
    ]


def test_what_was_expected_holds_of_rows_that_are_so():
    assert repair.holds(rows()) == dict.fromkeys(repair.EXPECTED, True)


@pytest.mark.parametrize(
    ("name", "values", "contradicted"),
    [
        ("MLP, 4 hidden layers", (98, 95, 40, 94, 96), {"R1"}),
        ("MLP, 6 hidden layers", (98, 11, 30, 96, 96.1), {"R2", "R3"}),
        ("VGG-11, width 1/4", (60, 10, 20, 55, 50), {"R4"}),
        ("ResNet-20, width 0.5", (60, 10, 31, 10, 30), {"R5"}),
        ("ResNet-20, width 1", (65, 10, 20, 10, 30), {"R6"}),
    ],
)
def test_what_rows_contradict_is_said(name, values, contradicted):
    found = repair.holds(rows(**{name: values}))
    assert {key for key, holds in found.items() if not holds} == contradicted


def test_what_was_not_measured_is_not_judged():
    found = repair.holds(rows(**{"MLP, 4 hidden layers": (), "ResNet-20, width 1": ()}))
    assert {key for key, holds in found.items() if holds is None} == {"R1", "R2", "R3", "R5", "R6"}


@pytest.mark.parametrize("case", [case for case in repair.CASES if case.fused][2:], ids=lambda case: case.name)
def test_fused_networks_compute_the_same(case):
    shape = (1, 28, 28) if case.dataset.name == "mnist" else (3, 32, 32)
    model = build_model(case.model, shape, 10, seed=0)
    inputs = images(8).inputs.float()
    inputs = inputs.mean(1, keepdim=True)[..., :28, :28] if shape[0] == 1 else inputs
    model(inputs)  # leaves statistics behind
    with torch.no_grad():
        torch.testing.assert_close(repair._fused(model.eval())(inputs), model(inputs), atol=1e-4, rtol=1e-4)
