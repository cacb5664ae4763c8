import json
import re

import pytest

from lmc_tune.tracking.chart import (
    BOTTOM,
    HEIGHT,
    MAX_CURVE_POINTS,
    TOP,
    interpolation_page,
    layers_page,
    learning_page,
    path_panels,
)
from tests.analysis.layered import layered_pair
from tests.cases import pair_of
from tests.tracking.cases import pair_result, pair_spec

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>&\"'"


def page_data(page: str) -> list:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL).group(1))


def test_every_measured_point_is_on_the_page():
    data = page_data(interpolation_page(pair_result(), "x"))
    assert [[line[0] for line in panel] for panel in data] == [["test", "train"]] * 2
    assert [[(len(line[1]), len(line[2])) for line in panel] for panel in data] == [[(29, 29)] * 2] * 2
    error = data[0][0][1]
    assert error[0] == [0, 10.0]
    assert error[-1] == [1, 12.0]
    assert error[14][1] == pytest.approx(31.0)


def test_learning_curves_of_both_members_are_on_a_page():
    result = pair_result(epochs=20)
    page = learning_page(result, "x")
    data = page_data(page)
    names = ["test A", "test B", "train A", "train B"]
    assert [[line[0] for line in panel] for panel in data] == [names, names]
    kept = {(point["member"], point["epoch"]): point for point in result.tables["curves"]}
    for (name, points, _), quantity, factor in ((data[0][3], "train_loss", 1), (data[1][0], "test_accuracy", 100)):
        member = name[-1].lower()
        expected = [[epoch, factor * kept[member, epoch][quantity]] for epoch in range(1, 21)]
        assert points == [[pytest.approx(x), pytest.approx(y, abs=1e-4)] for x, y in expected]
    assert "Loss during training (nats)" in page
    assert ">epoch</text>" in page


def test_long_learning_curves_are_thinned_but_keep_both_ends():
    [[_, points, _], *_], _ = page_data(learning_page(pair_result(epochs=400), "x"))
    assert len(points) == MAX_CURVE_POINTS
    assert (points[0][0], points[-1][0]) == (1, 400)


def test_what_is_not_finite_is_left_out_of_a_learning_curve():
    result = pair_result(epochs=3)
    curves = [
        {**point, "train_loss": float("inf") if point["epoch"] == 2 else point["train_loss"]}
        for point in result.tables["curves"]
    ]
    data = page_data(learning_page(pair_of(result.row, curves=curves), "x"))
    assert [point[0] for point in data[0][2][1]] == [1, 3]


def test_higher_values_stand_higher_and_all_stay_in_the_frame():
    for panel in path_panels(pair_result(height=0.7).tables["paths"]):
        for line in panel.lines:
            by_value = sorted(zip(line.points, line.pixels, strict=True), key=lambda both: both[0][1])
            heights = [pixel[1] for _, pixel in by_value]
            assert heights == sorted(heights, reverse=True)
            assert min(heights) >= TOP
            assert max(heights) <= HEIGHT - BOTTOM


def test_a_flat_path_at_zero_has_an_axis():
    points = [{**point, "correct": point["n"], "loss_sum": 0.0} for point in pair_result().tables["paths"]]
    for panel in path_panels(points):
        assert len(panel.ticks) >= 3
        assert len({label for label, _ in panel.ticks}) == len(panel.ticks)


def test_a_pair_without_a_path_shows_why():
    page = interpolation_page(pair_result(status="diverged"), "x")
    assert "No path was measured" in page
    assert "No learning curve was kept" in learning_page(pair_result(status="diverged"), "x")
    assert "loss is not finite at step 40" in page


def test_hostile_text_stays_text():
    result = pair_result()
    row = {**result.row, "status": "failed", "reason": HOSTILE}
    paths = [{**point, "split": HOSTILE} for point in result.tables["paths"]]
    page = interpolation_page(pair_of(row, paths=paths), HOSTILE)
    assert "<script>alert" not in page
    assert "<img" not in page
    assert page.count("</script>") == 2
    assert page_data(page)[0][0][0] == HOSTILE


def test_the_page_is_small_and_asks_no_network():
    for page in (interpolation_page(pair_result(), "x"), learning_page(pair_result(), "x")):
        assert len(page) < 20_000
        assert "http" not in page


def test_layers_alone_and_the_first_and_last_ones_are_on_a_page():
    rises = {"stem": (0, 18), "body": (36, 0), "head": (-18, 9)}
    for n_lambdas in (5, 1):
        page = layers_page(layered_pair(pair_spec(), rises, n_lambdas=n_lambdas, epochs=(0, None)), "x")
        data = page_data(page)
        assert [[line[0] for line in panel] for panel in data] == [["test A", "test B", "train A", "train B"]] * 6
        assert "Error barrier (midpoint), each layer alone (%)" in page
        assert 'data-names="#1 stem\n#2 body\n#3 head" data-axis="layer"' in page
        assert 'data-names="1, up to #1 stem\n2, up to #2 body\n3, up to #3 head" data-axis="layers moved"' in page
        assert 'data-names="1, from #3 head\n2, from #2 body\n3, from #1 stem" data-axis="layers moved"' in page
        assert page.count(">#2</text>") == 2  # a tick of error and loss of each layer alone
        assert data[0][0][1] == [[1, 0.0], [2, 10.0], [3, -5.0]]
        assert data[0][1][1] == [[1, 5.0], [2, 0.0], [3, 2.5]]
        assert data[2][1][1] == [[1, 5.0], [2, 5.0], [3, 7.5]]
        assert len(page) < 40_000


def test_a_barrier_below_0_stays_in_the_frame_and_below_a_tick_at_0():
    page = layers_page(layered_pair(pair_spec(), {"stem": (-30, 0), "head": (3, -1)}, n_lambdas=1), "x")
    for panel in page_data(page):
        for _, points, pixels in panel:
            order = [pixel for _, pixel in sorted(zip(points, pixels, strict=True), key=lambda both: both[0][1])]
            assert [y for _, y in order] == sorted((y for _, y in order), reverse=True)
            assert all(TOP <= y <= HEIGHT - BOTTOM for _, y in order)
    assert ">0</text>" in page
    assert ">-8</text>" in page or ">-10</text>" in page
