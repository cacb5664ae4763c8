"""A chart that a run does not have says what its space has to ask."""

import re
from pathlib import Path

import pytest

from lmc_tune.analysis.report import View, render
from lmc_tune.analysis.report.asked import why_no_chart
from lmc_tune.errors import UserError
from lmc_tune.experiment.reading import read_space
from lmc_tune.run import open_run
from tests.analysis.cases import grid, write_run

GUIDE = Path(__file__).parents[3] / "docs/guide.md"
# Those that every run with judged cells may have, from what is always measured.
ALWAYS = {"noise", "basins", "similarity", "ensembles", "layers", "curves", "learning"}
ASKED = ["conditions", "first_layer", "layer_barriers", "layer_maps", "directions", "sharpness", "planes"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"), grid((0.01, 0.1), (16,), replicates=2))


def test_every_chart_that_the_guide_names_is_always_there_or_says_what_to_ask() -> None:
    (row,) = [line for line in GUIDE.read_text(encoding="utf-8").splitlines() if line.startswith("| `--chart NAME`")]
    names = set(re.findall(r"`(\w+)`", row.split("|")[2]))
    assert names == {*ALWAYS, *ASKED, "rounds", "networks"}
    assert {name for name in names if not why_no_chart(name, None)} == ALWAYS


@pytest.mark.parametrize("name", ASKED)
def test_what_it_says_can_be_asked_and_is_the_question(name: str, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"there is no chart '{name}' of this run: its space does not ask") as raised:
        render(folder, tmp_path / "x.svg", view=View(chart=name))
    (question,) = re.findall(r"--set '(.+?)'; choose from phase, ", str(raised.value))
    assert "asks for" not in why_no_chart(name, read_space("quickstart"))
    asked = read_space("quickstart", [question])
    assert (
        why_no_chart(name, asked) == f"its space asks for {question.split('=')[0]}, and no counted pair has an answer"
    )
    assert not list(tmp_path.iterdir())
    with pytest.raises(KeyError, match=re.escape(f"run the sweep again with --set '{question}'; there are phase, ")):
        open_run(folder).charts[name]


def test_another_study_is_named_where_no_question_would_do(folder: Path, tmp_path: Path) -> None:
    for name, said in (
        ("rounds", "it is of federations, such as federated: {clients: 5, rounds: 5}; choose from phase"),
        ("networks", "it is of networks that vary, such as axes.hidden: [[64], [64, 64]]; choose from phase"),
    ):
        with pytest.raises(UserError, match=re.escape(f"there is no chart '{name}' of this run: {said}")):
            render(folder, tmp_path / "x.svg", view=View(chart=name))
