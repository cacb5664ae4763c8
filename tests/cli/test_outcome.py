"""What the command line says of layers that were moved alone."""

import json
from dataclasses import replace
from pathlib import Path

from typer.testing import CliRunner

from lmc_tune.cli.commands import app
from lmc_tune.experiment import GroupSpec, LayersSpec, MeasureSpec
from lmc_tune.tables.rows import PairResult
from tests.analysis.cases import COVARIATE, grid, space_of, write_run
from tests.analysis.layered import layered_pair

SAID = "In 1 of 2 disconnected cells no single layer carries a barrier; in 1 the first to break is #2 body."


def run_of(folder: Path, asked: MeasureSpec) -> str:
    """A run folder with layers moved alone, whether or not they are asked for."""

    def make(spec: GroupSpec) -> PairResult:
        pair = layered_pair(spec, {"stem": (0, 1), "body": (60 if spec.train.lr == 0.1 else 0, 0), "head": (0, 0)})
        return replace(pair, columns={**pair.columns, "question": asked.of(spec.model).key})

    space = space_of((0.01, 0.1), (64,), (COVARIATE,), 3).model_copy(update={"measure": asked})
    return str(write_run(folder, grid((0.01, 0.1), (64,), (COVARIATE,), 3), make=make, space=space))


def test_the_answer_names_the_first_layer_to_break_where_layers_are_asked_for(tmp_path: Path) -> None:
    folder = run_of(tmp_path / "asked", MeasureSpec(layers=LayersSpec(lambdas=5)))
    shown = CliRunner().invoke(app, ["status", folder])
    assert shown.exit_code == 0, shown.output
    assert SAID in " ".join(shown.output.split())
    assert json.loads(CliRunner().invoke(app, ["status", folder, "--json"]).output)["remarks"][0] == SAID
    plain = CliRunner().invoke(app, ["status", run_of(tmp_path / "plain", MeasureSpec())])
    assert "2 cells are disconnected" in plain.output
    assert "to break" not in plain.output
