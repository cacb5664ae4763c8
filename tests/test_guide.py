"""The search spaces that README and guide show are spaces, and what the guide says of them is so."""

import re
from pathlib import Path

import pytest

from lmc_tune.experiment.reading import parse_space
from lmc_tune.experiment.space import SearchSpace

ROOT = Path(__file__).parents[1]
_BLOCK = re.compile(r"^```yaml\n(.+?)^```$", re.DOTALL | re.MULTILINE)


def texts(page: str) -> dict[str, str]:
    """The YAML blocks of a page, by the name of the space; every block is a whole space."""
    blocks = _BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))
    return {parse_space(block, page).name: block for block in blocks}


def shown(page: str) -> dict[str, SearchSpace]:
    return {name: parse_space(text, page) for name, text in texts(page).items()}


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
