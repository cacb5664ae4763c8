"""The page of a pair's plane: every point has its colour and its value, where it lies."""

import io
import json
import math
import re
from base64 import b64decode
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from lmc_tune.tracking.chart import LEFT, RIGHT, TOP, WIDTH
from lmc_tune.tracking.planes import COLOURS, LEAST_HEIGHT, MOST_HEIGHT, Frame, plane_maps, planes_page
from tests.tracking.cases import pair_result, plane_rows


def pixels(found) -> np.ndarray:
    """(ny, nx, 4), the highest row first, as a browser shows it."""
    return np.asarray(Image.open(io.BytesIO(b64decode(found.image))))


def colour(text: str) -> tuple[int, ...]:
    return (*(int(text[at : at + 2], 16) for at in (1, 3, 5)), 255)


def test_every_value_is_on_the_page_from_the_lowest_row():
    error, loss = plane_maps(plane_rows())
    assert (error.title, error.unit, error.values) == ("Test error on the plane", "%", list(range(12)))
    assert (loss.title, loss.unit, loss.low, loss.high) == ("Test loss on the plane", "nats", 0.1, 1.2)
    assert loss.values == pytest.approx([0.1 * (at + 1) for at in range(12)])
    assert error.points == [("A", 40, 0.0, 0.0), ("B", 50, 2.0, 0.0), ("start", 90, 1.0, 3.0)]


def test_colours_run_from_the_lowest_value_to_the_highest():
    error, loss = plane_maps(plane_rows())
    for found in (error, loss):
        shown = pixels(found)
        assert shown.shape == (4, 3, 4)
        assert tuple(shown[3, 0]) == colour(COLOURS[0])
        assert tuple(shown[0, 2]) == colour(COLOURS[-1])
    assert (error.logarithmic, loss.logarithmic) == (False, True)
    # 0.4 of 0.1 … 1.2 lies at ln 4 / ln 12 of a logarithmic scale, between two of the five steps.
    share = 5 * math.log(4) / math.log(12)
    low, high = (np.array(colour(COLOURS[at])) for at in (2, 3))
    assert pixels(loss)[2, 0] == pytest.approx(low + (share - 2) * (high - low), abs=0.6)


def test_splits_share_one_scale_of_colours():
    rows = [*plane_rows(), *({**row, "split": "train", "correct": row["correct"] - 8} for row in plane_rows())]
    test, train, *_ = plane_maps(rows)
    assert (test.low, test.high) == (train.low, train.high) == (0, 19)
    assert tuple(pixels(test)[0, 2]) != colour(COLOURS[-1])


def test_what_is_not_finite_is_left_out():
    rows = [{**row, "loss_sum": math.nan} if (row["x"], row["y"]) == (2.0, 3.0) else row for row in plane_rows()]
    _, loss = plane_maps(rows)
    assert (loss.values[-1], loss.high) == (None, pytest.approx(1.1))
    assert pixels(loss)[0, 2, 3] == 0
    assert pixels(loss)[..., 3].sum() == 11 * 255
    assert [found.title for found in plane_maps([{**row, "loss_sum": math.inf} for row in rows])] == [
        "Test error on the plane"
    ]


def test_a_plane_without_differences_has_one_colour():
    rows = [{**row, "correct": 50, "loss_sum": 0.0} for row in plane_rows()]
    for found in plane_maps(rows):
        shown = pixels(found).reshape(-1, 4)
        assert (shown == shown[0]).all()
        assert shown[0, 3] == 255


@pytest.mark.parametrize(("stretched", "height"), [(1.0, None), (0.01, LEAST_HEIGHT), (100.0, MOST_HEIGHT)])
def test_distances_are_equally_long_along_both_axes_unless_that_is_too_extreme(stretched, height):
    frame = Frame([{**row, "y": 0.4 * stretched * row["y"]} for row in plane_rows() if row["point"] == "grid"])
    assert (frame.x(-0.5), frame.x(2.5)) == (LEFT, WIDTH - RIGHT)
    assert frame.y(0.4 * stretched * 3.5) == pytest.approx(TOP, abs=0.06)
    if height is None:
        assert frame.y(0) - frame.y(1) == pytest.approx(frame.x(1) - frame.x(0), rel=0.01)
    else:
        assert frame.bottom - frame.top == height


def test_the_page_is_small_and_asks_no_network():
    page = planes_page(replace(pair_result(), tables={"planes": plane_rows()}), "x")
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL).group(1))
    assert (data["xs"], data["ys"]) == ([0, 1, 2], [0, 1, 2, 3])
    assert data["maps"][0] == list(range(12))
    assert "start <b>90 %</b>" in page
    assert len(page) < 15_000
    assert "http" not in page


def test_a_pair_without_a_plane_says_so():
    assert "No plane was measured." in planes_page(pair_result(status="diverged"), "x")
