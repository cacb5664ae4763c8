"""A run in Python: what it shows is what tables, report and command say."""

import ast
import base64
import json
import re
import shutil
import subprocess
import sys
import typing
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path

import pandas as pd
import pytest
import vl_convert
from markupsafe import escape

import lmc_tune
from lmc_tune.analysis.phase import PhaseDiagram
from lmc_tune.analysis.report.content import answer
from lmc_tune.core.statistics import VERDICTS
from lmc_tune.experiment.reading import SpaceError, read_space
from lmc_tune.experiment.space import SearchSpace
from lmc_tune.experiment.yaml_lines import dump
from lmc_tune.run import Run, open_run, sweep
from lmc_tune.storage import FolderError
from lmc_tune.tables.columns import NestedName
from lmc_tune.tables.rows import failed_result
from lmc_tune.tables.store import Store, load_results
from tests.analysis.cases import grid, write_run
from tests.analysis.measured import measured_run
from tests.analysis.report.test_render import embedded
from tests.buckets import address, s3_server

ROOT = Path(__file__).parents[1]
SPACE = {
    "name": "tiny",
    "dataset": {"name": "digits", "train": 200, "test": 100},
    "model": {"hidden": (8,)},
    "train": {"momentum": 0.9, "epochs": 20, "batch_size": 10},
    "axes": {"lr": (0.01, 0.1)},
    "replicates": 2,
    "measure": {"lambdas": 5, "refinements": 1},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"))


def in_python(code: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a script of its own, as a user's."""
    script = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(script, capture_output=True, text=True, timeout=300, check=False, cwd=ROOT)


def test_the_tables_are_those_of_the_folder(folder: Path) -> None:
    run = open_run(folder)
    pd.testing.assert_frame_equal(run.results, load_results(folder))
    for name in typing.get_args(NestedName):
        pd.testing.assert_frame_equal(getattr(run, name), Store(folder).table(name))
    assert run.space is not None
    assert run.cells["verdict"].value_counts().sum() == len(run.space.cells()) == 36


def test_what_is_read_once_is_kept_and_a_run_opened_later_has_more(tmp_path: Path) -> None:
    run = open_run(write_run(tmp_path, grid((0.01, 0.1), (16,), replicates=2)))
    before = run.results
    Store(tmp_path).write_shard("late", [failed_result(grid((0.5,), (16,))[0], "out of luck")])
    assert run.results is before
    assert len(open_run(tmp_path).results) == len(before) + 1


def test_a_run_says_its_answer_its_counts_and_what_was_left_out(tmp_path: Path) -> None:
    write_run(tmp_path, grid((0.01, 0.1), (16,), replicates=2))
    other = grid((0.5,), (16,))[0]
    Store(tmp_path).write_shard("late", [failed_result(other, "of another study")])
    run = open_run(tmp_path)
    assert repr(run).startswith(f"Run('{tmp_path}'): {answer(run.phase_diagram())} 8 of 8 planned pairs: ")
    assert repr(run).endswith("Left out: 1 finished pair in this folder that space.yaml does not plan.")
    assert run.results["planned"].sum() == 8
    asked = dump(replace_measure(run.space, lambdas=7).plain())
    (tmp_path / "space.yaml").write_text(asked)
    assert "All pairs answer an earlier `measure` than space.yaml asks; run the sweep" in repr(open_run(tmp_path))


def replace_measure(space: SearchSpace | None, **changes: int) -> SearchSpace:
    assert space is not None
    return space.model_copy(update={"measure": space.measure.model_copy(update=changes)})


def test_axes_are_those_that_are_asked_for(folder: Path) -> None:
    run = open_run(folder)
    for asked, axes in (
        ({}, ("lr", "batch_size")),
        ({"x": "batch_size"}, ("batch_size", "lr")),
        ({"y": "lr"}, ("batch_size", "lr")),
        ({"x": "batch_size", "y": "lr"}, ("batch_size", "lr")),
    ):
        diagram = run.phase_diagram(**asked)
        assert (diagram.x.column, diagram.y.column) == axes
        assert diagram.cells["verdict"].value_counts().equals(run.cells["verdict"].value_counts())


def test_a_diagram_is_shown_in_words_and_as_the_reports_chart(folder: Path) -> None:
    run = open_run(folder)
    diagram = run.phase_diagram(x="batch_size")
    counts = ", ".join(f"{n} {name}" for name in VERDICTS if (n := (run.cells["verdict"] == name).sum()))
    panels = "covariate; label 80/20"
    assert repr(diagram) == f"PhaseDiagram(batch_size × lr; panels: {panels}; cells: {counts}; not run: 0)"
    assert run.phase_diagram().chart().to_dict() == run.charts["phase"].to_dict()
    assert diagram._repr_html_().count("<img alt=") == 1
    assert diagram.chart().to_dict() != run.charts["phase"].to_dict()


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        ({"x": "lrr"}, "'lrr' is not a numeric column of the spec; did you mean lr?"),
        ({"y": "batchsize"}, "'batchsize' is not a numeric column of the spec; did you mean batch_size?"),
        ({"x": "momentum"}, "x momentum: it is the same in all cells; choose from lr, batch_size"),
        ({"x": "lr", "y": "lr"}, "x and y are both 'lr'"),
    ],
)
def test_an_axis_that_cannot_be_one_is_refused(folder: Path, axes: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(said)}"):
        open_run(folder).phase_diagram(**axes)


def test_a_notebook_shows_answer_and_map_without_a_network(folder: Path) -> None:
    run = open_run(folder)
    html = run._repr_html_()
    assert escape(run.answer) in html
    assert str(folder) in html
    (data,) = re.findall(r"<img alt='phase diagram' src='data:image/svg\+xml;base64,([^']+)'>", html)
    svg = base64.b64decode(data).decode()
    letters = re.findall(r">([CDU×?])[/CD]*\*?</text>", svg)
    counts = run.cells["verdict"].value_counts()
    assert letters.count("D") >= counts["disconnected"] > 0
    assert not re.findall(r"(?:href|src)=.?https?:", html + svg)
    assert type(html) is str


def test_many_tiles_are_shown_as_pixels(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmc_tune.analysis.report.standalone.MANY_TILES", 35)
    html = open_run(folder)._repr_html_()
    found = re.search(r"data:image/png;base64,([^']+)'", html)
    assert found is not None
    assert base64.b64decode(found[1]).startswith(b"\x89PNG\r\n\x1a\n")


def test_what_cannot_be_shown_is_said(tmp_path: Path) -> None:
    empty = tmp_path / "<b>empty"
    write_run(tmp_path / "whole", grid((0.01,), (16,), replicates=1))
    empty.mkdir()
    shutil.copy(tmp_path / "whole" / "space.yaml", empty)
    run = open_run(empty)
    assert f"no results in {empty}" in repr(run)
    assert "&lt;b&gt;empty" in run._repr_html_()
    assert "<img" not in run._repr_html_()
    with pytest.raises(FileNotFoundError, match="no results in"):
        _ = run.results
    (tmp_path / "whole" / "results.parquet").write_bytes(b"half a ta")
    assert "results.parquet cannot be read" in repr(open_run(tmp_path / "whole"))


def test_a_folder_that_is_no_run_is_named_with_the_nearest(tmp_path: Path) -> None:
    write_run(tmp_path / "quickstart", grid((0.01,), (16,), replicates=1))
    with pytest.raises(FileNotFoundError, match=r"^no sweep in .*quikstart; did you mean quickstart\? Or start"):
        open_run(tmp_path / "quikstart")
    with pytest.raises(FileNotFoundError, match=f"^no sweep in {tmp_path}; it holds the runs quickstart$"):
        open_run(tmp_path)


def test_the_charts_are_those_of_the_report_and_stand_alone(tmp_path: Path) -> None:
    measured_run(tmp_path)
    run = open_run(tmp_path)
    page = embedded(run.report(tmp_path / "page.html").read_text(encoding="utf-8"))
    assert list(run.charts) == list(page["charts"])
    assert {"phase", "curves", "conditions", "layers"} <= set(run.charts)
    for chart in run.charts.values():
        assert vl_convert.vegalite_to_svg(chart.to_dict()).count("<path") > 5
    bands = page["cells"][page["picked"]]["curves"]
    rows = pd.DataFrame(run.charts["curves"].datasets["curves"])
    for name, (mean, low, high) in bands.items():
        own = rows[(rows["split"] + "_" + rows["quantity"]) == name]
        assert own["lambda"].round(4).tolist() == page["lambdas"]
        for column, values in (("mean", mean), ("low", low), ("high", high)):
            assert own[column].to_numpy() == pytest.approx(values, abs=1e-4)
        has_chord = name == page["judged"]
        assert own["chord"].notna().all() if has_chord else own["chord"].isna().all()
    ends = rows[rows["chord"].notna() & rows["lambda"].isin([0, 1])]
    assert ends["chord"].tolist() == pytest.approx(ends["mean"].tolist())
    with pytest.raises(KeyError, match=r"there is no chart 'phse'; did you mean phase\?"):
        run.charts["phse"]


def test_a_report_is_written_where_it_is_asked_for(folder: Path, tmp_path: Path) -> None:
    run = open_run(folder)
    assert run.report() == folder / "report.html"
    assert run.report(tmp_path / "map.svg").read_bytes().startswith(b"<svg")


def test_a_run_in_a_bucket_is_opened_by_its_address(folder: Path) -> None:
    with s3_server("runs") as port:
        place = Run(address(port, "runs/one")).folder
        store = Store(place)
        store.write_shard("c", Store(folder).pairs(load_results(folder)["key"]))
        run = open_run(address(port, "runs/one"))
        assert run.space is None
        assert "diverged" in run.answer
        assert len(run.paths) == len(Store(folder).table("paths"))


def test_to_open_a_run_needs_neither_torch_nor_ray_nor_mlflow(folder: Path) -> None:
    heavy = "print(sorted(set(sys.modules) & {'torch', 'ray', 'mlflow'}))"
    code = f"import sys, lmc_tune; run = lmc_tune.open_run(sys.argv[1]); run.cells, run._repr_html_(); {heavy}"
    done = in_python(code, folder)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_public_names_are_listed_and_are_what_editors_are_told() -> None:
    assert dir(lmc_tune) == sorted(lmc_tune.__all__)
    tree = ast.parse(Path(lmc_tune.__file__).read_text(encoding="utf-8"))
    (for_editors,) = (node for node in tree.body if isinstance(node, ast.If))
    told = {alias.name: node.module for node in for_editors.body for alias in typing.cast("ast.ImportFrom", node).names}
    assert told == lmc_tune._HOMES
    assert {*told, "__version__"} == set(lmc_tune.__all__)
    for name, home in told.items():
        assert getattr(lmc_tune, name) is getattr(import_module(home), name)
    assert typing.get_type_hints(open_run)["return"] is Run
    assert typing.get_type_hints(sweep)["return"] is Run
    found = typing.get_type_hints(Run.phase_diagram, localns={"PhaseDiagram": PhaseDiagram})
    assert found == {"x": str | None, "y": str | None, "return": PhaseDiagram}


@pytest.mark.slow
def test_a_type_checker_knows_what_the_public_names_are(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from typing import assert_type\n"
        "import pandas as pd\n"
        "import lmc_tune\n"
        "run = lmc_tune.open_run('runs/quickstart')\n"
        "assert_type(run, lmc_tune.Run)\n"
        "assert_type(run.cells, pd.DataFrame)\n"
        "assert_type(lmc_tune.sweep('quickstart', workers=2), lmc_tune.Run)\n"
        "lmc_tune.sweep('quickstart', wokers=2)\n"
    )
    mypy = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), str(script)]
    done = subprocess.run(mypy, capture_output=True, text=True, check=False, cwd=ROOT)
    assert re.findall(r"script\.py:(\d+): error: (.+?)  \[", done.stdout) == [
        ("8", 'Unexpected keyword argument "wokers" for "sweep"; did you mean "workers"?')
    ]


def test_a_space_may_be_written_in_python() -> None:
    yaml = json.loads(json.dumps(SPACE))
    space = read_space(SPACE)
    assert space == read_space(yaml) == read_space(space)
    assert read_space(space, ["replicates=3"]).replicates == 3
    assert yaml == json.loads(json.dumps(SPACE))  # what was given is not changed
    arrays = {**SPACE, "axes": {"lr": pd.Series([0.01, 0.1]).to_numpy(), "batch_size": range(8, 24, 8)}}
    rest = {name: value for name, value in SPACE["train"].items() if name != "batch_size"}
    assert read_space({**arrays, "train": rest}).axes == {"lr": (0.01, 0.1), "batch_size": (8, 16)}
    with pytest.raises(SpaceError, match=r"^space: train\.epoch: unknown key 'epoch'; did you mean epochs\?$"):
        read_space({**SPACE, "train": {**SPACE["train"], "epoch": 1}})
    with pytest.raises(SpaceError, match=r"^command line: train\.epochs: should be greater than or equal to 1, got 0"):
        read_space(space, ["train.epochs=0"])


def test_a_space_given_again_keeps_the_code_that_it_was_read_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its factory is next to its file: not in the current folder, where a space that is given is looked up first."""
    for name, text in (("there", "def net(classes): ..."), ("here", "def net(classes): return None")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "my_net_of_test_run.py").write_text(text)
    file = tmp_path / "there" / "mine.yaml"
    file.write_text(json.dumps({**SPACE, "model": {"factory": "my_net_of_test_run:net"}}))
    monkeypatch.chdir(tmp_path)
    space = read_space(file)
    assert space.code
    assert read_space(space).code == space.code
    monkeypatch.chdir(tmp_path / "here")
    assert read_space(space).code not in (space.code, {})


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"workers": 0}, ValueError, "workers must be a whole number of at least 1, got 0"),
        ({"max_pairs": 1.5}, ValueError, "max_pairs must be a whole number of at least 1, got 1.5"),
        ({"max_hours": 0}, ValueError, "max_hours must be between 0.001 and 10000, got 0"),
        ({"device": "cude"}, ValueError, "device must be one of auto, cpu, cuda, got 'cude'; did you mean cuda?"),
        ({"search": "adaptiv"}, ValueError, "search must be one of grid, adaptive, got 'adaptiv'; did you mean"),
        ({"out": "a", "storage": "b"}, FolderError, "--out names the run folder itself, --storage the folder of all"),
        ({"out": "."}, FolderError, "--out is the current folder; name a separate folder for the run"),
    ],
)  # fmt: skip
def test_options_that_are_impossible_are_refused_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, object], error: type[Exception], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=f"^{re.escape(said)}"):
        sweep(SPACE, **options)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_hours_need_the_thread_that_signals_reach() -> None:
    with ThreadPoolExecutor() as threads, pytest.raises(ValueError, match="which only the main thread receives"):
        threads.submit(sweep, SPACE, max_hours=1).result()


# Ray takes this for a notebook, in which it would erase what a cell has shown.
SWEEPING = """
import json, sys, types, unittest.mock
class ZMQInteractiveShell(unittest.mock.MagicMock):
    pass
shell, display = types.ModuleType("IPython"), types.ModuleType("IPython.display")
shell.get_ipython, shell.display = ZMQInteractiveShell, display
display.HTML, display.display = str, lambda *shown, **options: print("erased")
display.clear_output = lambda wait: print("erased")
sys.modules |= {"IPython": shell, "IPython.display": display}
import lmc_tune
out, space = sys.argv[1], json.loads(sys.argv[2])
first = lmc_tune.sweep(space, out=out, workers=1)
print(first.results["status"].tolist())
print("told so far", file=sys.stderr)
again = lmc_tune.sweep(first.space, out=out, sets=["verdict.threshold=0.5"], workers=1, quiet=True)
print(again.results["seconds_train"].tolist() == first.results["seconds_train"].tolist())
print(again.space.verdict.threshold, again.cells["threshold"].unique().tolist())
"""


@pytest.mark.slow
def test_a_sweep_in_python_is_the_commands(tmp_path: Path) -> None:
    done = in_python(SWEEPING, tmp_path / "run", json.dumps(SPACE))
    assert done.returncode == 0, done.stderr
    statuses, same, threshold = done.stdout.splitlines()
    assert len(ast.literal_eval(statuses)) == 4
    assert (same, threshold) == ("True", "0.5 [0.5]")
    told, quiet = done.stderr.split("told so far\n")
    assert re.match(r"\d\d:\d\d:\d\d 4 pairs\n", told)
    assert "4/4 pairs" in told
    assert quiet == ""
    assert (tmp_path / "run" / "report.html").exists()


INTERRUPTED = """
import json, os, pathlib, signal, sys, threading, time
import lmc_tune
before = signal.getsignal(signal.SIGINT)
def once_trained():
    while not list(pathlib.Path(sys.argv[1]).glob("shards/*.arrow")):
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=once_trained, daemon=True).start()
try:
    lmc_tune.sweep(json.loads(sys.argv[2]), out=sys.argv[1], workers=1)
except KeyboardInterrupt as error:
    print(error)
print(signal.getsignal(signal.SIGINT) is before)
"""


@pytest.mark.slow
def test_ctrl_c_ends_the_sweep_in_order_and_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    long = {**SPACE, "replicates": 60}
    done = in_python(INTERRUPTED, tmp_path / "run", json.dumps(long))
    assert done.returncode == 0, done.stderr
    said, restored = done.stdout.splitlines()
    assert said == "every finished pair is kept; the same call resumes the sweep"
    assert restored == "True"
    run = open_run(tmp_path / "run")
    assert 0 < len(run.results) < 120
    assert "Not finished" in repr(run)
