"""Directions, sharpness and planes of a sweep of which everything is known: against loops over pairs."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from lmc_tune.analysis.report.section import Context
from lmc_tune.analysis.report.sections import directions, planes, sharpness
from lmc_tune.analysis.rises import collect_rises
from lmc_tune.tables.columns import TABLES
from tests.analysis.measured import Measured

DRAWS = 3
STEPS = [
    *(("interpolation", layer, 0) for layer in (0, 1)),
    *(("random", layer, draw) for layer in (0, 1) for draw in range(DRAWS)),
    *((kind, None, 0) for kind in ("towards a", "towards b")),
    *((kind, None, draw) for kind in ("span", "complement", "filter") for draw in range(DRAWS)),
]


def surrounded(measured: Measured) -> Context:
    """The sweep with rows of all three tables for every pair, diverged ones too, drawn by chance."""
    rng = np.random.default_rng(4)
    makers = {"directions": direction_rows, "sharpness": sharpness_rows, "planes": plane_rows}
    tables = {
        name: pa.Table.from_pylist(
            [{"key": key, "condition": "naive", **row} for key in measured.results["key"] for row in make(rng)],
            schema=TABLES[name].schema,
        )
        for name, make in makers.items()
    }

    def parts(name: str) -> Iterable[pa.Table]:
        return [tables[name]] if name in tables else measured.store.parts(name)

    return replace(measured.context, parts=parts)


def scored(rng: np.random.Generator, split: str) -> dict:
    return {"split": split, "loss_sum": 50 * rng.uniform(0.1, 2), "correct": int(rng.integers(1, 50)), "n": 50}


def direction_rows(rng: np.random.Generator) -> list[dict]:
    rows = []
    for at in (0.0, 0.5, 1.0):
        steps = [("unmoved", None, 0), *(step for step in STEPS if step[1] is None or at != 0.5)]
        for kind, layer, draw in steps:
            step = {"kind": kind, "lambda": at, "draw": draw, "alpha": 0.5, "norm": 1.0, "position": layer}
            step["layer"] = None if layer is None else ("", "head")[layer]  # the network's own weights, then a module's
            rows += [step | scored(rng, split) for split in ("train", "test")]
    return rows


def sharpness_rows(rng: np.random.Generator) -> list[dict]:
    known = {"residual": 1e-6, "products": 30, "examples": 50}
    return [{"lambda": at, "eigenvalue": rng.uniform(1, 9), **known} for at in (0.0, 0.5, 1.0)]


def plane_rows(rng: np.random.Generator) -> list[dict]:
    places = [("a", 0.0, 0.0), ("b", 2.0, 0.0), ("start", 1.0, 1.5)]
    places += [("grid", x, y) for x in np.linspace(-1, 3, 5) for y in np.linspace(-1, 2, 4)]
    return [
        {"point": point, "x": x, "y": y} | scored(rng, split) for point, x, y in places for split in ("train", "test")
    ]


@pytest.fixture(scope="module")
def context(measured: Measured) -> Context:
    return surrounded(measured)


def by_hand(context: Context, split: str, quantity: str) -> dict[tuple, tuple]:
    """Mean of the means, lows and highs of the pairs' rises, pair by pair."""
    cells = context.diagram.cells[context.diagram.cells["judged"]].set_index("cell")
    rows = pd.concat([part.to_pandas() for part in context.parts("directions")])
    rows = rows[rows["split"] == split]
    rows["value"] = rows["loss_sum"] / rows["n"] if quantity == "loss" else 1 - rows["correct"] / rows["n"]
    found: dict[tuple, list] = {}
    for pair in context.diagram.pairs.to_dict("records"):
        if pair["status"] != "ok" or pair["cell"] not in cells.index:
            continue
        own = rows[rows["key"] == pair["key"]]
        still = own[own["kind"] == "unmoved"].set_index("lambda")["value"]
        steps = own[own["kind"] != "unmoved"].fillna({"position": -1})
        for (kind, layer, at), draws in steps.groupby(["kind", "position", "lambda"]):
            rises = draws["value"] - still[at]
            cell = cells.loc[pair["cell"]]
            found.setdefault((cell["panel"], cell["verdict"], kind, layer, at), []).append(
                (rises.mean(), rises.min(), rises.max())
            )
    return {name: (*np.mean(values, axis=0), len(values)) for name, values in found.items()}


@pytest.mark.parametrize(("split", "quantity"), [("test", "error"), ("train", "loss")])
def test_rises_are_means_over_pairs_of_the_spread_of_their_draws(context, split, quantity):
    expected = by_hand(context, split, quantity)
    found = collect_rises(context.diagram, context.parts("directions"), split, quantity)
    assert len(found) == len(expected) > 100
    for row in found.to_dict("records"):
        values = expected[row["panel"], row["verdict"], row["kind"], row["position"], row["lambda"]]
        assert (row["rise"], row["low"], row["high"], row["n"]) == pytest.approx(values)


def test_how_the_rows_are_cut_into_parts_changes_nothing(context):
    (whole,) = context.parts("directions")
    cut = len(whole) // 2
    cut -= cut % (len(whole) // len(context.diagram.pairs))
    parts = [whole.slice(0, cut), whole.slice(cut, 0), whole.slice(cut)]
    once, twice = (collect_rises(context.diagram, some, "test", "error") for some in ([whole], parts))
    pd.testing.assert_frame_equal(once, twice, rtol=0, atol=1e-12)


def test_pairs_whose_loss_is_not_finite_are_left_out(context):
    (whole,) = context.parts("directions")
    rows = whole.to_pandas()
    ok = context.diagram.pairs[context.diagram.pairs["status"] == "ok"]["key"].iloc[0]
    rows.loc[(rows["key"] == ok) & (rows["kind"] == "span"), "loss_sum"] = np.inf
    found = collect_rises(context.diagram, [pa.Table.from_pandas(rows, schema=whole.schema)], "test", "loss")
    assert np.isfinite(found[["rise", "low", "high"]].to_numpy()).all()
    counts = found.groupby("kind")["n"].sum()
    assert counts["complement"] - counts["span"] == 3


def test_every_step_is_drawn_once(context):
    section = directions.make(context)
    assert section is not None
    _, rises = directions.known_rises(context)
    layers, noise = directions.layer_table(rises), directions.noise_table(rises)
    assert set(layers["kind"]) == {"interpolation", "random"}
    assert set(noise["kind"]) == {"towards a", "towards b", "span", "complement"}
    one = layers.iloc[0]
    both = rises[
        (rises[["panel", "verdict", "kind", "layer"]] == one[["panel", "verdict", "kind", "layer"]]).all(axis=1)
    ]
    assert len(both) == 2
    assert one["rise"] == pytest.approx(both["rise"].mean())
    drawn = section.chart.to_dict()["vconcat"]
    assert [len(block["concat"]) for block in drawn] == [
        min(directions.MOST_CHARTS, own["chart"].nunique()) for own in (layers, noise)
    ]
    assert "directions.parquet" in section.note


def test_eigenvalues_are_means_over_the_ok_pairs(context):
    section = sharpness.make(context)
    assert section is not None
    table = sharpness.sharpness_table(context.diagram, context.parts("sharpness"))
    (values,) = (part.to_pandas() for part in context.parts("sharpness"))
    cells = context.diagram.cells[context.diagram.cells["judged"]]
    checked = 0
    for (panel, verdict), own in cells.groupby(["panel", "verdict"]):
        pairs = context.diagram.pairs
        keys = pairs[pairs["cell"].isin(own["cell"]) & (pairs["status"] == "ok")]["key"]
        for at in (0.0, 0.5, 1.0):
            expected = values[values["key"].isin(keys) & (values["lambda"] == at)]["eigenvalue"]
            (row,) = table[(table["panel"] == panel) & (table["verdict"] == verdict) & (table["lambda"] == at)].to_dict(
                "records"
            )
            assert (row["mean"], row["low"], row["high"], row["n"]) == pytest.approx(
                (expected.mean(), expected.min(), expected.max(), len(keys))
            )
            checked += 1
    assert checked == len(table) == len(section.table)


def test_planes_are_those_of_cells_from_the_lowest_barrier_to_the_highest(context):
    section = planes.make(context)
    assert section is not None
    chosen = planes.chosen_pairs(context.diagram, context.parts("planes"))
    pairs = context.diagram.pairs.set_index("key").loc[chosen.index]
    cells = context.diagram.cells.set_index("cell")
    barriers = cells.loc[pairs["cell"], "mean_barrier"].to_numpy()
    judged = cells.loc[cells["judged"], "mean_barrier"]
    assert len(chosen) == planes.MOST_PLANES == len(set(pairs["cell"]))
    assert (np.diff(barriers) >= 0).all()
    assert (barriers[0], barriers[-1]) == (judged.min(), judged.max())
    assert (pairs["status"] == "ok").all()
    assert len(section.chart.to_dict()["concat"]) == planes.MOST_PLANES


def test_a_folder_in_which_nothing_of_this_was_asked_has_no_sections(measured: Measured):
    for section in (directions, sharpness, planes):
        assert section.make(measured.context) is None
