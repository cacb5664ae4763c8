"""The search spaces that README and guide show are spaces, and what the guide says of them is so."""

import ast
import inspect
import math
import re
from collections import Counter
from pathlib import Path
from typing import get_args

import pytest

from lmc_tune.experiment import Cohort
from lmc_tune.experiment.reading import parse_space, read_space
from lmc_tune.experiment.space import SearchSpace
from lmc_tune.run import Run, sweep
from lmc_tune.tables.columns import NestedName
from lmc_tune.tables.store import Store
from lmc_tune.work.bench import Workbench
from lmc_tune.work.cohort import run_cohort, run_pair

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's own text, of two parts, in the current folder."""
    monkeypatch.chdir(tmp_path)
    lines = [f"{'So it was' if number < 300 else 'And 0 1 2'} {number}.\n" for number in range(600)]
    Path("corpus.txt").write_text("".join(lines), encoding="utf-8")


_BLOCK = re.compile(r"^```yaml\n(.+?)^```$", re.DOTALL | re.MULTILINE)


def texts(page: str) -> dict[str, str]:
    """The YAML blocks of a page, by the name of the space; every block is a whole space."""
    blocks = _BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))
    return {parse_space(block, page).name: block for block in blocks}


def shown(page: str) -> dict[str, SearchSpace]:
    return {name: parse_space(text, page) for name, text in texts(page).items()}


def in_python(page: str) -> list[ast.Module]:
    """The Python blocks of a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [ast.parse(block) for block in re.findall(r"^```python\n(.+?)^```$", text, re.DOTALL | re.MULTILINE)]


def trained(space: SearchSpace) -> int:
    return len({member.key for cell in space.cells() for member in cell.first.members.values()})


@pytest.mark.parametrize(("page", "least"), [("docs/guide.md", 7), ("README.md", 1)])
def test_every_example_is_a_space_whose_cells_are_possible(page, least):
    spaces = shown(page)
    assert len(spaces) >= least
    assert all(len({cell.key for cell in space.cells()}) > 1 for space in spaces.values())


def test_the_language_model_is_trained_and_measured(bench):
    """Three epochs are enough to see that both shifts run, not for members that have learned the text."""
    space = parse_space(texts("docs/guide.md")["language"], sets=["train.epochs=3", "measure.lambdas=3"])
    rows = [run_pair(pair, bench("language", measure=space.measure)).row for pair in space.pairs()[:4]]
    assert [row["shift"] for row in rows] == ["covariate", "domain"] * 2
    for row in rows:
        assert row["status"] in {"ok", "undertrained"}
        assert row["test_loss_a"] < math.log(space.pairs()[0].dataset.known.symbols)
    assert rows[1]["label_shift"] > rows[0]["label_shift"]


def test_every_rate_of_either_member_is_trained_once():
    space = shown("docs/guide.md")["two_rates"]
    assert (len(space.cells()), trained(space)) == (25, 10)


def test_a_copy_of_every_disturbance_is_compared_with_one_member():
    space = shown("docs/guide.md")["butterfly"]
    assert (len(space.cells()), trained(space)) == (20, 21)
    assert {cell.first.recipe.perturb.weights for cell in space.cells()} == {"layer"}


def test_what_lies_around_a_path_is_measured_as_the_guide_asks(tmp_path):
    space = parse_space(texts("docs/guide.md")["around"], sets=["train.epochs=5", "dataset.train=200"])
    bench = Workbench(store=Store(tmp_path), data_root=tmp_path, measure=space.measure)
    result = run_pair(space.pairs()[0], bench)
    steps, sharpness, plane = (result.tables[name] for name in ("directions", "sharpness", "planes"))
    n = Counter(row["kind"] for row in steps if row["split"] == "test")
    of_noise = 3 * 3 * 5  # positions, fractions, draws
    assert n == {
        "unmoved": 3,
        "interpolation": 3 * 2 * 2,
        "random": 3 * 2 * 2 * 5,  # layers, members, alphas, draws
        "towards a": 9,
        "towards b": 9,
        "span": of_noise,
        "complement": of_noise,
        "filter": of_noise,
    }
    assert [(row["lambda"], row["examples"]) for row in sharpness] == [(0.0, 200), (0.5, 200), (1.0, 200)]
    assert all(math.isfinite(row["eigenvalue"]) for row in sharpness)
    assert len(plane) == 2 * 228
    assert "a\nplane of 15 points to a side has 228" in (ROOT / "docs/guide.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "flat", "high"), [("layers", (32, 0.03), (16, 0.06)), ("around", (64, 0.03), (16, 0.1))]
)
def test_what_asks_where_a_barrier_is_has_cells_with_one_and_without(tmp_path, name, flat, high):
    space = parse_space(texts("docs/guide.md")[name], sets=["measure={lambdas: 5, refinements: 0}"])
    bench = Workbench(store=Store(tmp_path), data_root=tmp_path, measure=space.measure)
    by_place = {(cell.coordinates["batch_size"], cell.coordinates["lr"]): cell for cell in space.cells()}
    pairs = [by_place[place].pair(replicate) for place in (flat, high) for replicate in (0, 1)]
    rows = [result.row for result in run_cohort(Cohort(groups=tuple(pairs)), bench)]
    assert [row["status"] for row in rows] == ["ok"] * 4
    barriers = [row[space.verdict.column] for row in rows]
    assert max(barriers[:2]) < space.verdict.threshold < min(barriers[2:])


def test_another_question_leaves_the_pairs_what_they_are():
    kept = texts("docs/guide.md")["kept"]
    before, after = parse_space(kept), parse_space(kept, sets=["measure.lambdas=51"])
    assert before.members == "keep"
    assert before.measure.key != after.measure.key
    assert [pair.key for pair in before.pairs()] == [pair.key for pair in after.pairs()]


@pytest.mark.parametrize("page", ["docs/guide.md", "README.md"])
def test_what_python_is_told_of_a_run_exists(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    members = set(re.findall(r"\brun\.([a-z_]+)\b", text)) - {"py"}
    assert {"cells", "results"} <= members
    assert [name for name in members if not hasattr(Run, name)] == []
    calls = [node for module in in_python(page) for node in ast.walk(module) if isinstance(node, ast.Call)]
    sweeps = [call for call in calls if ast.unparse(call.func) == "lmc_tune.sweep"]
    assert {keyword.arg for call in sweeps for keyword in call.keywords} <= set(inspect.signature(sweep).parameters)
    if page == "docs/guide.md":
        (mine,) = (call.args[0] for call in sweeps if isinstance(call.args[0], ast.Dict))
        assert len(read_space(ast.literal_eval(mine)).cells()) == 12


def test_the_guide_names_every_table_of_a_run():
    rows = [line for line in (ROOT / "docs/guide.md").read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    files = {name for row in rows for name in re.findall(r"`(\w+)\.parquet`", row.split("|")[1])}
    of_a_run = {name for row in rows for name in re.findall(r"`run\.(\w+)`", row.split("|")[1])}
    assert files == {"results", *get_args(NestedName)}
    assert of_a_run >= files


def test_the_federations_of_the_guide_run_and_keep_every_round(tmp_path):
    space = shown("docs/guide.md")["federated"]
    assert {cell.first.recipe.norm for cell in space.cells()} == {"averaged", "local", "recalibrated"}
    store = Store(tmp_path)
    groups = [cell.first for cell in space.cells() if cell.coordinates["lr"] == 0.1][:2]
    bench = Workbench(store=store, data_root=tmp_path, measure=space.measure)
    assert [result.status for result in run_cohort(Cohort(groups=tuple(groups)), bench)] == ["ok", "ok"]
    rounds = store.table("rounds")
    assert set(rounds["what"]) == {"trained", "averaged", "pooled"}
    assert rounds.groupby("key")["round"].max().tolist() == [5, 5]


def test_the_families_of_the_guide_share_members_and_differ_in_what_averages_of_them_are_worth(tmp_path):
    sets = ["train.epochs=6", "measure={lambdas: 5, refinements: 0}"]
    space = parse_space(texts("docs/guide.md")["families"], sets=sets)
    groups = {cell.first.recipe.family: cell.first for cell in space.cells() if cell.coordinates["lr"] == 0.05}
    assert len(groups) == 7
    store = Store(tmp_path)
    bench = Workbench(store=store, data_root=tmp_path, measure=space.measure)
    rows = {r.row["family"]: r.row for r in run_cohort(Cohort(groups=tuple(groups.values())), bench)}
    assert {row["status"] for row in rows.values()} == {"ok"}
    basin, several = rows["constrained"], rows["deep"]
    assert several["connectivity"] < rows["permuted"]["connectivity"] < basin["connectivity"]
    assert basin["test_error_barrier_chord"] < space.verdict.threshold < several["test_error_barrier_chord"]
    for column in ("ensemble_accuracy", "scaled_nll", "scaled_ece", "greedy_accuracy", "average_accuracy"):
        assert all(math.isfinite(row[column]) for row in rows.values()), column
    counts = store.table("ensemble_members")["member"].value_counts()
    assert Counter(counts) == {3: 3, 1: 4 * 3}, "deep, permuted and multi_pcd have the same members"
    assert set(store.table("averages")["what"]) == {"draw", "pair", "soup"}
    assert store.table("ensembles").groupby("key")["members"].max().tolist() == [3] * 7


def test_common_epochs_and_teachers_of_the_guide_are_trained_once():
    space = shown("docs/guide.md")["branching"]
    everything = {key for cell in space.cells() for key in cell.first.trained}
    # At five epochs, three members and three students; and three teachers, the first of which is a member of t = 0.
    assert (len(space.cells()), len(everything)) == (10, 5 * (3 + 3) + 2)
