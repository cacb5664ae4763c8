"""The report of two run folders: its files, what it says, and what it refuses."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from lmc_tune.analysis.comparison import plain_comparison
from lmc_tune.analysis.report import View, render_comparison
from lmc_tune.cli.commands import app
from lmc_tune.errors import UserError
from lmc_tune.experiment import ShiftSpec, VerdictSpec
from tests.analysis.cases import COVARIATE, LABEL, grid, ok_pair, space_of, write_run
from tests.analysis.report.test_render import embedded
from tests.analysis.test_comparison import drawn

SMALL = grid(lrs=(0.01, 0.1), batch_sizes=(16, 64), shifts=(COVARIATE,))
SHIFTED = "In high the barrier is higher in 4 and lower in 0 of 4 cells"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Four connected cells, and the same disconnected."""
    folder = tmp_path_factory.mktemp("runs")
    return (
        write_run(folder / "low", SMALL, lambda spec: drawn(spec, "low", 0.004), name="lower"),
        write_run(folder / "high", SMALL, lambda spec: drawn(spec, "high", 0.2), name="higher"),
    )


def test_the_page_says_what_became_of_the_verdicts(folders: tuple[Path, Path]) -> None:
    (file,), comparison = render_comparison(*folders)
    assert plain_comparison(comparison)["answer"] in file.read_text(encoding="utf-8")
    assert file == folders[0] / "report-high.html"
    html = file.read_text(encoding="utf-8")
    for text in (
        "Of 4 cells that both runs have, 4 have another verdict in high: 4 from connected to disconnected.",
        SHIFTED,
        "Nothing that is fixed in both runs",
    ):
        assert text in html
    assert html.count('class="chip connected"') == html.count('class="chip disconnected"') == 4
    rows = [row for table in embedded(html)["charts"]["comparison"]["datasets"].values() for row in table]
    assert {row["verdict"] for row in rows} == {"connected", "disconnected", "connected, then disconnected"}
    assert {row["changed"] for row in rows if "changed" in row} == {True}


def test_every_format_has_its_file(folders: tuple[Path, Path], tmp_path: Path) -> None:
    files, _ = render_comparison(*folders, f"{tmp_path}/x/", ["csv", "svg", "png", "pdf"])
    assert [file.name for file in files] == [f"report-high.{name}" for name in ("csv", "svg", "png", "pdf")]
    table = pd.read_csv(files[0])
    assert table["changed"].tolist() == [True] * 4
    assert (table["difference"] > 0.1).all()
    svg = files[1].read_text(encoding="utf-8")
    for text in ("low and high", "Barrier of high less that of", "difference (percentage points)"):
        assert text in svg
    assert (
        render_comparison(*folders, tmp_path / "narrow.svg", view=View(width=85))[0][0].read_text().startswith("<svg")
    )


def test_both_are_judged_as_the_first_says(tmp_path: Path) -> None:
    strict = space_of((0.01, 0.1), (16, 64), (COVARIATE,), verdict=VerdictSpec(threshold=0.001))
    ours = write_run(tmp_path / "ours", SMALL, lambda spec: ok_pair(spec, 0.01))
    theirs = write_run(tmp_path / "theirs", SMALL, lambda spec: ok_pair(spec, 0.01), space=strict)
    html = render_comparison(ours, theirs)[0][0].read_text(encoding="utf-8")
    assert "No verdict changed" in html
    assert "theirs: Judged otherwise than space.yaml says: threshold 2% instead of 0.1%." in html
    html = render_comparison(theirs, ours)[0][0].read_text(encoding="utf-8")
    assert "ours: Judged otherwise than space.yaml says: threshold 0.1% instead of 2%." in html


def test_another_measurement_and_other_versions_are_named(tmp_path: Path) -> None:
    space = space_of((0.01, 0.1), (16, 64), (COVARIATE,))
    finer = space.model_copy(update={"measure": space.measure.model_copy(update={"lambdas": 51})})
    ours = write_run(tmp_path / "ours", SMALL)
    theirs = write_run(tmp_path / "theirs", SMALL, space=finer)
    record = json.loads((theirs / "sweep.json").read_text())
    (theirs / "sweep.json").write_text(json.dumps(record | {"versions": {"torch": "9.9"}}))
    html = render_comparison(ours, theirs)[0][0].read_text(encoding="utf-8")
    settings = re.findall(r"<tr><td>([^<]*)</td><td>([^<]*)</td><td>([^<]*)</td></tr>", html)
    assert ("measure.lambdas", "25", "51") in settings
    assert [other for name, _, other in settings if name == "version of torch"] == ["9.9"]


def test_cells_of_one_run_alone_are_counted(tmp_path: Path) -> None:
    ours = write_run(tmp_path / "ours", SMALL)
    theirs = write_run(tmp_path / "theirs", grid(lrs=(0.1, 0.3), batch_sizes=(16, 64), shifts=(COVARIATE,)))
    html = render_comparison(ours, theirs)[0][0].read_text(encoding="utf-8")
    assert "In ours alone: 2 cells." in html
    assert "In theirs alone: 2 cells." in html


@pytest.mark.parametrize(
    ("view", "message"),
    [
        (View(chart="noise"), "--chart noise is for the report of one folder"),
        (View(colour="cka"), "--colour cka is for the report of one folder"),
        (View(width=85), "--width 85 is for pictures"),
        (View(condition="repaired"), r"no pair of .*low was measured under condition repaired.*--condition"),
        (View(x="epochs"), "--x epochs: it is the same in all cells; choose from lr, batch_size"),
        (View(x="nonsense"), "'nonsense' is not a numeric column"),
    ],
)
def test_what_changes_nothing_is_refused(folders: tuple[Path, Path], tmp_path: Path, view: View, message: str) -> None:
    with pytest.raises(UserError, match=message):
        render_comparison(*folders, tmp_path / "x.html", view=view)
    assert list(tmp_path.iterdir()) == []


def test_a_run_cannot_be_compared_with_itself_or_with_nothing(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be compared with itself; name two run folders"):
        render_comparison(folders[0], folders[0])
    with pytest.raises(FileNotFoundError, match=r"no results in .*nowhere"):
        render_comparison(folders[0], tmp_path / "nowhere")


def test_the_command_takes_two_folders(folders: tuple[Path, Path], tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["report", *map(str, folders), "-o", f"{tmp_path}/two.html", "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert SHIFTED in said["drift"]
    assert [cell["second_verdict"] for cell in said["cells"]] == ["disconnected"] * 4
    assert SHIFTED in (tmp_path / "two.html").read_text(encoding="utf-8")
    plain = CliRunner().invoke(app, ["report", *map(str, folders), "-o", f"{tmp_path}/two.html"])
    assert plain.stdout == f"{tmp_path}/two.html\n"
    assert SHIFTED in " ".join(plain.stderr.split())
    wrong = CliRunner().invoke(app, ["report", str(folders[0]), f"{tmp_path}/nowhere"])
    assert wrong.exit_code == 2
    assert "no results in" in wrong.output


def test_many_panels_are_cut_and_the_page_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmc_tune.analysis.phase.MOST_PANELS", 2)
    specs = grid(lrs=(0.01, 0.1), shifts=(COVARIATE, LABEL, ShiftSpec(kind="label", severity=0.9)))
    ours, theirs = (write_run(tmp_path / name, specs) for name in ("ours", "theirs"))
    html = render_comparison(ours, theirs)[0][0].read_text(encoding="utf-8")
    assert "Drawn: the first 2 of 3 panels." in html
    rows = [row for table in embedded(html)["charts"]["comparison"]["datasets"].values() for row in table]
    assert {row["panel"] for row in rows if "panel" in row} == {"covariate", "label 80/20"}
