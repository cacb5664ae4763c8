"""What stands at the ticks of axes: names of layers, and numbers that differ, as the browser draws them."""

import re

import altair as alt
import pandas as pd
import pytest
import vl_convert

from lmc_tune.analysis.phase import Axis
from lmc_tune.analysis.report.charts.layer_axis import layer_axis, layers_in_words
from lmc_tune.analysis.report.charts.phase_chart import set_apart
from lmc_tune.analysis.report.charts.style import fitted, tick_style
from lmc_tune.analysis.report.sections.similarity import MEASURES


def texts(chart: alt.Chart) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", vl_convert.vegalite_to_svg(chart.to_dict()))


def drawn_layers(table: pd.DataFrame, width: int, *, named: bool = True) -> list[str]:
    x = layer_axis("place", table, width, named=named)
    return [text for text in texts(alt.Chart(table).mark_point().encode(x=x).properties(width=width)) if text != "–"]


@pytest.mark.parametrize(("names", "width"), [(["0", "2", "4"], 200), (["stem", "", "head"], 60)])
def test_layers_have_place_and_name_where_there_is_room_for_them(names, width):
    table = pd.DataFrame({"place": [1, 2, 3], "layer": layers_in_words([1, 2, 3], names)})
    assert drawn_layers(table, width)[:3] == [f"#{at} {name or '(network)'}" for at, name in enumerate(names, start=1)]
    assert drawn_layers(table, width, named=False) == []


def test_of_many_layers_some_are_named_and_of_two_networks_both():
    many = pd.DataFrame({"place": range(1, 61), "layer": layers_in_words(range(1, 61), ["conv"] * 60)})
    found = drawn_layers(many, 204)
    assert found[:-1] == [f"#{place} conv" for place in range(1, 61, 5)]
    both = pd.DataFrame(
        {"place": [1, 1, 2, 2], "layer": layers_in_words([1, 1, 2, 2], ["stem", "conv", "head", "head"])}
    )
    assert drawn_layers(both, 204)[:2] == ["#1 stem or #1 conv", "#2 head"]


@pytest.mark.parametrize(("low", "high"), [(0.0207, 0.0215), (0.5, 0.5001), (0.0, 0.9), (1e-5, 3e-5)])
@pytest.mark.parametrize(
    "number_format", sorted({*MEASURES.values(), *(tick_style(percent=one) for one in (True, False))})
)
def test_no_two_ticks_of_an_axis_read_alike(low, high, number_format):
    table = pd.DataFrame({"value": [low, high]})
    x = fitted(alt.X, table, (), title=None, number_format=number_format)
    found = texts(alt.Chart(table).mark_point().encode(x=x).properties(width=420))
    assert len(found) == len(set(found)) >= 4
    in_numbers = [float(text.rstrip("%")) / (100 if "%" in text else 1) for text in found]
    assert in_numbers == sorted(in_numbers)
    assert in_numbers[0] >= low - (high - low)
    assert in_numbers[-1] <= high + (high - low)


@pytest.mark.parametrize(
    ("ticks", "scale"), [((2.0, 5.0), "linear"), ((0.001, 0.01, 1.0), "log"), ((0.0, 0.001, 1.0), "steps")]
)
def test_points_of_one_place_stand_side_by_side_in_the_order_of_their_panels(ticks, scale):
    axis, panels = Axis(column="lr", title="learning rate", ticks=ticks, scale=scale), ("b", "a", "c", "d")
    table = pd.DataFrame([{"panel": panel, "lr": tick} for panel in [*panels, "other"] for tick in ticks])
    found = set_apart(table, axis, panels, width=600)
    assert set(found["panel"]) == set(panels)
    edges = axis.drawn(axis.edges)
    for at, tick in enumerate(ticks):
        x = found[found["lr"] == tick].set_index("panel")["x"][list(panels)]
        assert x.is_monotonic_increasing
        assert x.is_unique
        assert edges[at] < x.min() < axis.drawn([tick])[0] < x.max() < edges[at + 1]
    alone = set_apart(table, axis, ("b",), width=600)
    assert alone["x"].tolist() == pytest.approx(axis.drawn(list(ticks)).tolist())
