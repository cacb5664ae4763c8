"""The second map by another column than the mean barrier."""

from pathlib import Path

import numpy as np
import pytest

from lmc_tune.analysis.phase import PhaseDiagram, map_regions
from lmc_tune.analysis.report import View, render
from lmc_tune.analysis.report.charts.map_colour import check_colour, map_title
from lmc_tune.analysis.report.charts.phase_chart import phase_chart, phase_table
from lmc_tune.errors import UserError
from lmc_tune.experiment import GroupSpec
from lmc_tune.tables.rows import PairResult
from tests.analysis.cases import COVARIATE, diverged_pair, grid, ok_pair, results_of, write_run
from tests.cases import pair_of

SPECS = grid(lrs=(0.01, 0.1, 1.0), batch_sizes=(16, 64), shifts=(COVARIATE,), replicates=3)


def make(spec: GroupSpec) -> PairResult:
    """The average loses more, the larger the step; the largest diverge."""
    if spec.train.lr == 1.0:
        return diverged_pair(spec)
    pair = ok_pair(spec, 0.1)
    gain = 3.0 - 100 * spec.train.lr + spec.replicate
    return pair_of({**pair.row, "merge_gain": gain, "retention": 1 - spec.train.lr}, paths=pair.tables["paths"])


@pytest.fixture(scope="module")
def diagram() -> PhaseDiagram:
    return map_regions(results_of([make(spec) for spec in SPECS]))


def test_tiles_have_the_mean_of_the_column_where_the_cell_is_judged(diagram: PhaseDiagram) -> None:
    table = phase_table(diagram, "merge_gain").set_index("cell")
    for row in diagram.cells.to_dict("records"):
        tile = table.loc[row["cell"]]
        if row["lr"] == 1.0:
            assert np.isnan(tile["merge_gain"])
            assert tile["colour_text"] == "×"
        else:
            assert tile["merge_gain"] == pytest.approx(4.0 - 100 * row["lr"])
            assert tile["colour_text"] == {0.01: "3", 0.1: "−6"}[row["lr"]]
    assert sorted(phase_table(diagram, "retention")["colour_text"]) == ["90.0%"] * 2 + ["99.0%"] * 2 + ["×"] * 2


def test_a_scale_with_both_signs_meets_at_0_and_others_run_from_the_lowest_to_the_highest(
    diagram: PhaseDiagram,
) -> None:
    for column, domain in (("merge_gain", [-6, 6]), ("retention", [0.9, 0.99])):
        spec = phase_chart(diagram, phase_table(diagram, column), colour=column).to_dict()
        scales = list(_found(spec, column))
        assert scales
        assert all(scale["domain"] == pytest.approx(domain) for scale in scales)
        assert not list(_found(spec, "shown_barrier"))
        assert map_title(column) in str(spec)
    assert map_title("merge_gain") == "Merge gain q(½) (percentage points)"


def _found(spec: object, field: str) -> list[dict[str, object]]:
    """The scales of colours by a field, wherever they stand."""
    if isinstance(spec, list):
        return [scale for one in spec for scale in _found(one, field)]
    if not isinstance(spec, dict):
        return []
    colour = spec.get("color")
    own = [colour["scale"]] if isinstance(colour, dict) and colour.get("field") == field else []
    return own + [scale for one in spec.values() for scale in _found(one, field)]


def test_a_page_in_other_colours_does_not_replace_the_folders_own(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", SPECS, make=make)
    (page,) = render(folder, view=View(colour="merge_gain"))
    assert page.name == "report-view.html"
    assert "Merge gain q(" in page.read_text(encoding="utf-8")


def test_what_cannot_colour_a_map_is_refused(diagram: PhaseDiagram) -> None:
    check_colour(diagram, "retention")
    with pytest.raises(
        UserError, match=r"--colour merge_gian: cells have no mean of that name; did you mean merge_gain\?"
    ):
        check_colour(diagram, "merge_gian")
    with pytest.raises(UserError, match="--colour cka: no judged cell of this run has it"):
        check_colour(diagram, "cka")
    line = map_regions(results_of([make(spec) for spec in SPECS if spec.train.batch_size == 16]))
    with pytest.raises(UserError, match="--colour merge_gain is for maps, and fewer than two axes of this run vary"):
        check_colour(line, "merge_gain")
