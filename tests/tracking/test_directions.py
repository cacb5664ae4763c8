"""The page of a pair's directions: rises by hand, and what is left out."""

import math
from dataclasses import replace
from typing import get_args

from lmc_tune.analysis.rises import NOISE_KINDS
from lmc_tune.experiment.landscape import Noise
from lmc_tune.tracking.directions import direction_panels, directions_page, sharpness_panels
from tests.tracking.cases import direction_rows, pair_result
from tests.tracking.test_chart import page_data

LAYERS, NOISE, FILTER = ", each layer alone, α = 2", ", noise at λ = 0.5", ", filter by filter"


def curves(rows) -> dict[str, dict[str, list]]:
    """The points of every line by its name, by the title of its panel."""
    return {panel.title: {line.name: line.points for line in panel.lines} for panel in direction_panels(rows)}


def test_a_layers_steps_rise_over_the_mean_of_the_members():
    found = curves(direction_rows())[f"Rise of the test error{LAYERS}"]
    assert found == {"towards the other member": [(1, 3.0), (2, 33.0)], "random directions": [(1, 3.0), (2, 3.0)]}


def test_noise_rises_over_the_point_where_it_begins():
    found = curves(direction_rows())[f"Rise of the test error{NOISE}"]
    assert found == {
        "along the path, towards A": [(0, 0.0), (2, -4.0)],
        "along the path, towards B": [(0, 0.0), (2, 8.0)],
        "orthogonal to training": [(0, 0.0), (2, 4.0)],
    }


def test_filter_by_filter_a_line_begins_at_each_point():
    found = curves(direction_rows())[f"Rise of the test loss{FILTER}"]
    assert found == {name: [(0, 0.0), (2, 0.5)] for name in ("at A", "at the midpoint", "at B")}


def test_the_order_of_the_rows_changes_nothing():
    rows = direction_rows()
    assert curves(rows[::-1]) == curves(rows)


def test_a_place_where_one_draw_is_not_finite_has_no_mean():
    rows = direction_rows()
    wild = [row if row["kind"] != "complement" or row["draw"] else {**row, "loss_sum": math.inf} for row in rows]
    found = curves(wild)
    assert found[f"Rise of the test loss{NOISE}"]["orthogonal to training"] == [(0, 0.0)]
    assert found[f"Rise of the test error{NOISE}"]["orthogonal to training"] == [(0, 0.0), (2, 4.0)]


def test_layers_have_their_names_and_every_panel_its_axis():
    eigenvalue = {"condition": "naive", "lambda": 0.5, "eigenvalue": 7.0}
    result = replace(pair_result(), tables={"directions": direction_rows(), "sharpness": [eigenvalue]})
    page = directions_page(result, "x")
    assert 'data-names="#1 stem\n#2 head" data-axis="layer" data-top="2"' in page
    assert 'data-axis="norm, in distances ‖A − B‖"' in page
    assert 'data-axis="radius, in lengths of every filter"' in page
    assert 'data-axis="λ" data-top="1.0"' in page
    ((name, points, _),) = page_data(page)[-1]
    assert (name, points) == ("train", [[0.5, 7.0]])
    assert "http" not in page


def test_an_eigenvalue_that_did_not_converge_is_left_out():
    rows = [{"condition": "naive", "lambda": at, "eigenvalue": value} for at, value in ((0.0, math.nan), (1.0, 2.0))]
    assert [panel.lines[0].points for panel in sharpness_panels(rows)] == [[(1.0, 2.0)]]
    assert sharpness_panels(rows[:1]) == []


def test_the_condition_is_named_unless_it_is_naive():
    rows = [{**row, "condition": "recalibrated"} for row in direction_rows()]
    assert all(title.endswith(", recalibrated") for title in curves(rows))


def test_a_pair_without_steps_says_so():
    assert "No steps away from the members were measured." in directions_page(pair_result(status="diverged"), "x")


def test_every_kind_of_noise_has_a_name():
    along_the_path = {"towards a", "towards b"}
    assert (set(get_args(Noise)) - {"path"}) | along_the_path == NOISE_KINDS.keys()
