"""The options of `lmc-tune report` reach the report."""

from pathlib import Path

import pandas as pd

from tests.analysis.cases import grid, write_run
from tests.sweeps.cases import lmc_tune


def test_cells_are_judged_and_arranged_as_the_options_say(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", grid(lrs=(0.01, 0.1), replicates=2))
    judged = ("--threshold", "0.3", "--confidence", "0.9", "--barrier", "midpoint", "--condition", "naive")
    done = lmc_tune("report", folder, "-o", tmp_path / "x.csv", *judged, "--x", "batch_size", "--y", "lr")
    assert (done.returncode, done.stdout) == (0, f"{tmp_path}/x.csv\n")
    cells = pd.read_csv(tmp_path / "x.csv")
    assert cells.columns[1:3].tolist() == ["batch_size", "lr"]
    assert (set(cells["threshold"]), set(cells["confidence"])) == ({0.3}, {0.9})
    done = lmc_tune("report", folder, "--barrier", "cord")
    assert done.returncode == 2
    assert "--barrier: should be" in done.stderr


def test_a_chart_is_drawn_as_the_options_say(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", grid(lrs=(0.01, 0.1), replicates=2))
    options = ("--chart", "noise", "--theme", "dark", "--width", "100")
    done = lmc_tune("report", folder, "-o", tmp_path / "x.svg", *options)
    assert done.returncode == 0, done.stderr
    svg = (tmp_path / "x.svg").read_text(encoding="utf-8")
    assert 'width="100mm"' in svg
    assert "#15191c" in svg
    assert "noise scale g" in svg
