"""Which maps stand in rows and columns, and how titles and colours follow."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmc_tune.analysis.phase import map_regions
from lmc_tune.analysis.report.charts.layout import facet_grid, independent, lay_out, map_height
from lmc_tune.analysis.report.charts.style import INK, PAPER, THEMES, themed, tick_format, wrapped
from tests.analysis.cases import NETWORKS, grid, networks_space, ok_pair, results_of

FACTORS = {"shift": ["covariate", "label"], "momentum": [0.0, 0.9], "hidden": ["64", "512"]}


def crossed(**values: list[object]) -> pd.DataFrame:
    table = pd.MultiIndex.from_product(values.values(), names=list(values)).to_frame(index=False)
    return table.assign(model="mlp", norm=np.where(table.get("hidden", "64") == "64", "none", "batch"))


def test_columns_that_vary_together_are_one_factor() -> None:
    facets = crossed(**FACTORS).assign(severity=lambda table: np.where(table["shift"] == "label", 0.6, 1.0))
    facets["epochs"] = np.where(facets["momentum"] == 0, 20, 10)
    names = ["shift", "severity", "momentum", "epochs", "hidden", "norm"]
    assert independent(facets, names) == [["shift", "severity"], ["hidden", "norm"], ["momentum", "epochs"]]


def test_networks_are_one_factor_unless_their_fields_are_all_combined() -> None:
    facets = pd.DataFrame({"hidden": ["64", "64", "512"], "norm": ["none", "batch", "none"], "model": "mlp"})
    assert independent(facets, ["hidden", "norm"]) == [["hidden", "norm"]]
    whole = pd.concat([facets, pd.DataFrame({"hidden": ["512"], "norm": ["batch"], "model": ["mlp"]})])
    assert independent(whole, ["hidden", "norm"]) == [["hidden"], ["norm"]]


def test_two_factors_make_a_grid_and_more_or_fewer_do_not() -> None:
    space = networks_space(NETWORKS[:3])
    diagram = map_regions(results_of([ok_pair(pair, 0.1) for pair in space.pairs()]), space=space)
    rows, turned = facet_grid(diagram), facet_grid(diagram, turned=True)
    assert [title for title, _ in rows] == ["covariate", "label 80/20"]
    assert [len(panels) for _, panels in rows] == [3, 3]
    assert sorted(panel for _, panels in rows for panel, _ in panels) == sorted(diagram.panels)
    assert [[panel for panel, _ in panels] for _, panels in turned] == [
        list(panels) for panels in zip(*[[panel for panel, _ in panels] for _, panels in rows], strict=True)
    ]
    three = networks_space(NETWORKS)  # hidden and norm are all combined: with the shift, three factors
    assert facet_grid(map_regions(results_of([ok_pair(pair, 0.1) for pair in three.pairs()]), space=three)) == ()
    assert facet_grid(map_regions(results_of([ok_pair(pair, 0.1) for pair in grid(replicates=1)]))) == ()


@pytest.mark.parametrize(
    ("columns", "width", "beside"), [(6, 752, True), (9, 752, True), (10, 752, False), (6, 320, False)]
)
def test_many_columns_and_narrow_pages_get_one_map_below_the_other(columns: int, width: float, *, beside: bool) -> None:
    lrs = np.geomspace(0.001, 1, columns).tolist()
    diagram = map_regions(results_of([ok_pair(spec, 0.1) for spec in grid(lrs, replicates=1)]))
    assert diagram.x
    assert diagram.y
    layout = lay_out(diagram, diagram.x, diagram.y, width)
    assert layout.beside == beside
    assert (2 if beside else 1) * layout.map_width < width
    assert (2 if beside else 1) * layout.map_width > 0.75 * width


def test_few_rows_fill_a_map_and_many_stay_apart() -> None:
    assert map_height(2) / 2 == 100
    assert map_height(20) / 20 == 24
    assert [map_height(n) for n in range(1, 60)] == sorted(map_height(n) for n in range(1, 60))


@given(
    st.lists(st.text("abc 64-", min_size=1, max_size=20).filter(str.strip), min_size=1, max_size=6),
    st.integers(80, 700),
)
def test_wrapped_titles_fit_and_lose_nothing(parts: list[str], width: int) -> None:
    title = " · ".join(" ".join(part.split()) for part in parts)
    lines = wrapped(title, width)
    assert all(len(line.rstrip()) <= max(8, width / 7.4) for line in lines)
    joined = "".join(line if line.endswith(" ") else f"{line} · " for line in lines)  # as the page's script does
    assert joined.replace(" ", "") == f"{title} · ".replace(" ", "") or "-" in title  # a hyphen may end a line


def test_a_theme_changes_colours_and_no_data() -> None:
    spec = {"mark": {"color": INK}, "config": {"background": PAPER}, "datasets": {"table": [{"reason": INK}]}}
    dark = themed(spec, "dark")
    assert dark["mark"] == {"color": THEMES["dark"][INK]}
    assert dark["config"] == {"background": THEMES["dark"][PAPER]}
    assert dark["datasets"] == spec["datasets"]
    assert themed(spec, "light") == spec


def test_ticks_are_as_short_as_still_tells_them_apart() -> None:
    assert tick_format((1.0, 256.0)) == "d"
    assert tick_format((0.003, 0.00959, 1.0)) == ".2~g"
    assert tick_format((0.001, 0.00101)) == ".3~g"
