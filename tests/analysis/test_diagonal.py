"""The picture of the diagonal network shows its formulas, and the page says their numbers."""

from pathlib import Path

import numpy as np
import pytest

from lmc_tune.analysis.diagonal import A, B, curves, half_way, paths, picture, surface
from lmc_tune.core.diagonal_network import MOVED, loss

PAGE = Path(__file__).parents[2] / "docs" / "diagonal.md"


def test_the_loss_along_a_path_is_that_of_the_weights_where_it_runs():
    there = paths().merge(curves(), on=["moved", "λ"])
    assert len(there) == len(paths())
    np.testing.assert_allclose(0.5 * (there["w₁"] * there["w₂"] - 1) ** 2, there["loss"], atol=1e-12)


def test_the_other_panels_are_the_formulas():
    ground = surface()
    np.testing.assert_allclose(ground["loss"], np.minimum(10, 0.5 * (ground["w₁"] * ground["w₂"] - 1) ** 2))
    nearest = half_way().assign(off=lambda frame: (frame["b"] - 4).abs()).sort_values("off").groupby("moved").first()
    for moved, row in nearest.iterrows():
        assert row["loss"] == pytest.approx(float(loss(moved, A, row["b"], 0.5)))


def test_the_page_says_the_numbers():
    rows = [line.split("|")[1:-1] for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")][2:]
    assert [float(row[-1]) for row in rows] == [
        pytest.approx(float(loss(moved, A, B, 0.5)), abs=5e-5) for moved in MOVED
    ]


def test_it_has_three_panels():
    assert len(picture().to_dict()["hconcat"]) == 3
