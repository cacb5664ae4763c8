"""The notebook of the documentation: its code runs as it stands, shows what it promises, and is short."""

import ast
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from lmc_tune.run import Run, open_run

DOCS = Path(__file__).parents[1] / "docs"
NOTEBOOK = json.loads((DOCS / "notebook.ipynb").read_text(encoding="utf-8"))
RECORD = "reproduction/shift_normalisation_2x2_small"


def cells() -> list[str]:
    return ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def shown(code: str, names: dict[str, Any]) -> Any:
    """Run a cell as a notebook does; what its last line gives."""
    *lines, last = ast.parse(code).body
    assert isinstance(last, ast.Expr)
    exec(compile(ast.Module(lines, []), "notebook", "exec"), names)  # noqa: S102 - our own
    return eval(compile(ast.Expression(last.value), "notebook", "eval"), names)  # noqa: S307


def test_it_opens_a_run_looks_at_it_draws_a_figure_and_exports_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(DOCS / RECORD, tmp_path / RECORD)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    run, chart, figure = (shown(code, names) for code in cells())
    assert isinstance(run, Run)
    assert run.answer in run._repr_html_()
    assert chart.to_dict() == open_run(tmp_path / RECORD).charts["networks"].to_dict()
    (drawn,) = figure.to_dict()["datasets"].values()
    judged = run.cells[run.cells["judged"]]
    assert len(drawn) == len(judged) == 9
    assert {round(row["mean_barrier"], 9) for row in drawn} == set(judged["mean_barrier"].round(9))
    assert (tmp_path / "barrier.svg").read_text(encoding="utf-8").startswith("<svg")


def test_it_has_ten_lines_of_code_at_most_and_no_outputs() -> None:
    assert sum(bool(line.strip()) for code in cells() for line in code.splitlines()) <= 10
    assert [cell["outputs"] for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"] == [[], [], []]
    assert NOTEBOOK["nbformat"] == 4
