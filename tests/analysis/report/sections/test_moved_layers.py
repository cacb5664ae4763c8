"""Layers moved alone, on the page: what is drawn against what was measured."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow.compute as pc
import pytest

from lmc_tune.analysis.layers import first_layers
from lmc_tune.analysis.phase import map_regions
from lmc_tune.analysis.report.charts.first_layer_chart import EXCLUDED, NONE, UNDECIDED, first_layer_table, scale_of
from lmc_tune.analysis.report.charts.layer_charts import (
    SHARE,
    WHOLE,
    control_table,
    epoch_table,
    line_table,
    set_table,
)
from lmc_tune.analysis.report.section import Context
from lmc_tune.analysis.report.sections import first_layer, layer_barriers, layer_maps
from lmc_tune.experiment import GroupSpec, VerdictSpec
from lmc_tune.tables.rows import PairResult
from lmc_tune.tables.store import Store
from tests.analysis.cases import COVARIATE, N_TEST, diverged_pair, grid, space_of, write_run
from tests.analysis.layered import layered_pair
from tests.analysis.measured import Measured, context_of

NAMES = [f"body.{at}" for at in range(10)]
SPECS = grid(lrs=(0.01, 0.1, 1.0), batch_sizes=(16, 64), shifts=(COVARIATE,), replicates=3)


def make(spec: GroupSpec) -> PairResult:
    """None breaks at the least rate, the tenth layer at the next; the largest diverges with small batches."""
    if spec.train.lr == 1.0 and spec.train.batch_size == 16:
        return diverged_pair(spec)
    high = {0.01: 0, 0.1: 60, 1.0: 90}[spec.train.lr]
    rises = {name: (5 * at, 1) for at, name in enumerate(NAMES[:3])} | dict.fromkeys(NAMES[3:], (0, 0))
    return layered_pair(spec, {**rises, NAMES[9]: (high, high // 2)}, epochs=(None, 0, 2))


def context_at(
    folder: Path,
    lrs: tuple[float, ...] = (0.01, 0.1, 1.0),
    batch_sizes: tuple[int, ...] = (16, 64),
    verdict: VerdictSpec | None = None,
) -> Context:
    space = space_of(lrs, batch_sizes, (COVARIATE,), 3)
    specs = [spec for spec in SPECS if spec.train.lr in lrs and spec.train.batch_size in batch_sizes]
    store = Store(write_run(folder, specs, make=make, space=space))
    return context_of(map_regions(store.results(), space=space, verdict=verdict), space, store.parts)


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    return context_at(tmp_path_factory.mktemp("layered"))


def test_a_run_without_layers_moved_alone_shows_none_of_it(measured: Measured) -> None:
    assert measured.store.table("layers").size
    assert [module.make(measured.context) for module in (first_layer, layer_barriers, layer_maps)] == [None] * 3


def test_tiles_show_the_place_of_the_first_layer_none_undecided_or_the_verdict(context: Context) -> None:
    firsts = {family: first_layers(context.layer_intervals, family) for family in ("single", "shallow")}
    table = first_layer_table(context.diagram, firsts).set_index(["lr", "batch_size"])
    for batch_size in (16, 64):
        assert table.loc[(0.01, batch_size), ["single_text", "single_layer"]].tolist() == ["none", NONE]
        assert table.loc[(0.1, batch_size), ["single_text", "single_layer"]].tolist() == ["#10", "#10 body.9"]
    row = table.loc[(0.1, 16)]
    assert row["single_words"].startswith("#10 body.9 of 10 layers: 12.5% (")
    assert row["single_words"].endswith("n = 3")
    assert row["shallow_text"] == "#1–3"  # 0.5 + 3 + 5.5 of 360 examples
    assert table.loc[(1.0, 16), "single_text"] == "×"
    assert table.loc[(1.0, 16), "single_layer"] == "×  diverged"


def test_colours_follow_the_place_in_the_network_whichever_layers_break() -> None:
    def scale(*positions: int) -> dict[str, str]:
        first = pd.DataFrame({"position": positions, "moved": [NAMES[at - 1] for at in positions], "places": 10})
        found = scale_of({"single": first}).colour("layer", None).to_dict()["scale"]
        return dict(zip(found["domain"], found["range"], strict=True))

    few, all_of_them = scale(3, 10), scale(*range(1, 11))
    assert list(few) == ["#3 body.2", "#10 body.9", NONE, UNDECIDED, *EXCLUDED.values()]
    assert few.items() <= all_of_them.items()
    assert len(set(all_of_them.values())) == 14
    assert (all_of_them["#1 body.0"], all_of_them["#10 body.9"]) == ("#440154", "#fde725")


def test_the_section_says_what_breaks_and_how_it_moves(context: Context) -> None:
    section = first_layer.make(context)
    assert section is not None
    assert section.lead.startswith(
        "In 2 of 5 disconnected cells no single layer carries a barrier; in 3 the first to break is #10 body.9. "
    )
    table = section.table.set_index(["", "value"])
    assert table.loc[
        ("learning rate", "0.1"), ["cells", "a layer breaks in", "place of the first, mean (range)"]
    ].tolist() == ["2", "2", "10"]
    assert table.loc[("learning rate", "1"), "cells"] == "1"
    assert table.loc[("batch size", "64"), ["cells", "none in", "which (cells)"]].tolist() == ["3", "1", "#10 body.9"]


def test_over_one_axis_layers_stand_in_rows_and_without_axes_there_is_no_chart(tmp_path: Path) -> None:
    section = first_layer.make(context_at(tmp_path / "line", batch_sizes=(64,)))
    assert section is not None
    assert section.chart.to_dict()["vconcat"]
    section = first_layer.make(context_at(tmp_path / "one", lrs=(0.1,), batch_sizes=(64,)))
    assert section is not None
    assert section.chart is None
    assert section.table["value"].tolist() == ["all cells"]


def test_another_condition_than_was_measured_is_said(tmp_path: Path) -> None:
    context = context_at(tmp_path / "run", verdict=VerdictSpec(condition="naive"))
    store_rows = [
        part.set_column(1, "condition", [["aligned"] * len(part)]) for part in context.parts("layer_barriers")
    ]
    other = replace(context, parts=lambda name: store_rows if name == "layer_barriers" else context.parts(name))
    section = first_layer.make(other)
    assert section is not None
    assert "under aligned, and not under naive" in section.lead
    assert section.chart is None
    assert layer_barriers.make(other) is layer_maps.make(other) is None


def test_rows_hold_the_barrier_and_those_of_both_bases_in_the_order_of_the_network(context: Context) -> None:
    verdict, cells = context.diagram.verdict, context.diagram.cells
    table = set_table(context.layer_intervals, verdict)
    for cell, own in table.groupby("cell"):
        assert own["set"].tolist() == [f"#{at + 1} {name}" for at, name in enumerate(NAMES)]
        if cells.set_index("cell").loc[cell, "lr"] == 0.1:
            last = own[own["set"] == "#10 body.9"].iloc[0]
            assert (last[["barrier", "a", "b"]] * N_TEST).tolist() == pytest.approx([45, 60, 30])
            assert last["says"] == "breaks"
            assert last["low"] <= last["barrier"] <= last["high"]


def test_sets_have_the_places_of_their_layers_and_groups_a_name_of_their_own() -> None:
    sets = [
        ("single", "2", 1, 1),
        ("single", "0", 0, 1),
        ("window", "0 … 4", 0, 3),
        ("group", "ends", 1, 2),
        ("group", "body", 0, 2),
    ]
    rows = [
        {"cell": "x", "family": family, "moved": moved, "position": position, "layers": layers, "base": base}
        | {"mean": 0.1, "low": 0.0, "high": 0.2, "n": 3, "says": "undecided"}
        for family, moved, position, layers in sets
        for base in ("a", "b", "both")
    ]
    table = set_table(pd.DataFrame(rows), VerdictSpec())
    assert table.loc[table["family"] == "single", "set"].tolist() == ["#1 0", "#2 2"]
    assert table.loc[table["family"] == "window", "set"].tolist() == ["#1–3 0 … 4"]
    assert table.loc[table["family"] == "group", "set"].tolist() == ["body", "ends"]


def test_letters_of_a_row_stay_in_it(context: Context) -> None:
    section = layer_barriers.make(context)
    assert section is not None
    chart = section.chart.to_dict()["vconcat"][1]["hconcat"][0]
    rows = {row["set"] for row in section.chart.to_dict()["datasets"][chart["layer"][-1]["data"]["name"]]}
    row = chart["height"] / len(rows)
    letters = [part["mark"] for part in chart["layer"] if part["mark"]["type"] == "text"]
    assert [mark["dy"] for mark in letters] == [-9, 9]
    assert all(abs(mark["dy"]) + mark["fontSize"] / 2 < row / 2 - 2 for mark in letters)
    bands = {part["encoding"]["y"]["axis"]["tickBand"] for part in chart["layer"] if "y" in part["encoding"]}
    assert bands == {"extent"}  # a line between any two rows


def test_all_layers_are_the_end_of_both_sums_and_their_share_the_parts_of_it(context: Context) -> None:
    verdict = context.diagram.verdict
    lines = line_table(context.layer_intervals, verdict)
    controls = control_table(context.layer_intervals, verdict).set_index(["cell", "control"])["value"]
    for (cell, line), own in lines.groupby(["cell", "line"]):
        assert own["layers"].tolist() == list(range(1, 11))
        if line.startswith("last"):
            assert own["barrier"].iloc[-1] == pytest.approx(controls[cell, WHOLE])
        assert 10 * controls[cell, SHARE] == pytest.approx(controls[cell, WHOLE])
    one = lines[lines["line"] == "first layers, in A"].set_index(["cell", "layers"])["barrier"] * N_TEST
    assert one[context.diagram.cells["cell"][0]].tolist()[:3] == pytest.approx([0, 5, 15])


def test_heat_maps_have_every_layer_at_every_position_and_epoch(context: Context) -> None:
    section = layer_maps.make(context)
    assert section is not None
    titles = [chart["title"]["text"][0] for chart in section.chart.to_dict()["vconcat"][1]["hconcat"]]
    assert titles == [
        "A, one layer on its way to B's",
        "B, one layer on its way to A's",
        "Barrier during training, mean of A and B",
    ]
    half = context.layer_heights
    assert half is not None
    table = epoch_table(half_epochs := layer_maps.layers_by_epoch(half))
    assert set(table["at"]) == {"0", "2", "end"}
    assert len(table) == 5 * 10 * 3 == len(half_epochs)


def test_half_way_alone_there_is_the_map_by_epoch_alone(context: Context) -> None:
    """Midpoints are the default."""
    half = [part.filter(pc.equal(part["lambda"], 0.5)) for part in context.parts("layer_paths")]
    section = layer_maps.make(
        replace(context, parts=lambda name: half if name == "layer_paths" else context.parts(name))
    )
    assert section is not None
    titles = [chart["title"]["text"][0] for chart in section.chart.to_dict()["vconcat"][1]["hconcat"]]
    assert titles == ["Barrier during training, mean of A and B"]


def test_a_chart_of_one_cell_follows_the_page_unless_there_are_too_many_rows(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = layer_barriers.make(context)
    assert section is not None
    params = {param["name"]: param["value"] for param in section.chart.to_dict()["params"]}
    assert params == {"picked": context.picked, "shown": context.picked}
    assert section.note == ""
    for module in (layer_barriers, layer_maps):
        monkeypatch.setattr(module, "MOST_ROWS", 10)
        section = module.make(context)
        assert section is not None
        assert [param["name"] for param in section.chart.to_dict()["params"]] == ["shown"]
        assert section.note.startswith("Too many cells to draw each: this is learning rate 0.01 · batch size 16.")
        rows = [row for name, table in section.chart.to_dict()["datasets"].items() for row in table if "set" in row]
        assert {row["cell"] for row in rows} == {context.picked}


def test_a_picture_shows_the_cell_that_the_page_shows_first(context: Context) -> None:
    section = layer_barriers.make(replace(context, picked=""))
    assert section is not None
    first = context.diagram.cells.loc[context.diagram.cells["mean_barrier"].idxmax(), "cell"]
    assert {param["value"] for param in section.chart.to_dict()["params"]} == {first}
