"""The search spaces that README and guide show are spaces, and what the guide says of them is so."""

import ast
import inspect
import re
from pathlib import Path

import pytest

from lmc_tune.experiment.reading import parse_space, read_space
from lmc_tune.experiment.space import SearchSpace
from lmc_tune.run import Run, sweep

ROOT = Path(__file__).parents[1]
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


def test_every_rate_of_either_member_is_trained_once():
    space = shown("docs/guide.md")["two_rates"]
    assert (len(space.cells()), trained(space)) == (25, 10)


def test_a_copy_of_every_disturbance_is_compared_with_one_member():
    space = shown("docs/guide.md")["butterfly"]
    assert (len(space.cells()), trained(space)) == (20, 21)
    assert {cell.first.recipe.perturb.weights for cell in space.cells()} == {"layer"}


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
