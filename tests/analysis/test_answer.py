"""What the terminal says at the end of a sweep; every diagram is drawn from pairs with known barriers."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from lmc_tune.analysis.answer import Step, answer, character_map, next_steps, plain_cells, remarks, verdict_counts
from lmc_tune.analysis.phase import PhaseDiagram, map_regions
from lmc_tune.analysis.wording import interval
from lmc_tune.experiment import GroupSpec, VerdictSpec
from lmc_tune.experiment.space import SearchSpace
from lmc_tune.tables.rows import PairResult
from tests.analysis.cases import (
    COVARIATE,
    diverged_pair,
    failed_pair,
    networks_space,
    ok_pair,
    results_of,
    space_of,
    undertrained_pair,
)


def _pair(spec: GroupSpec, letter: str) -> PairResult:
    """A pair of a cell that is to have this letter; F is a cell of pairs that crash."""
    match letter:
        case "U":
            return undertrained_pair(spec, accuracy=0.2)
        case "×":
            return diverged_pair(spec, "too fast")
        case "F":
            return failed_pair(spec)
    return ok_pair(spec, hump={"C": 0.0, "D": 0.3, "?": 0.1 * (spec.replicate % 2)}[letter])


def diagram_of(space: SearchSpace, letters: str, replicates: int = 5) -> PhaseDiagram:
    """The diagram of a space whose cells have these letters, in the order of its cells; a dot is a cell not run."""
    cells = space.cells()
    assert len(letters) == len(cells)
    pairs = [
        _pair(cell.pair(replicate), letter)
        for cell, letter in zip(cells, letters, strict=True)
        for replicate in range(replicates)
        if letter != "."
    ]
    return map_regions(results_of(pairs), space=space)


TWO = space_of(lrs=(0.01, 0.1), batch_sizes=(16,), shifts=(COVARIATE,))
ONE = space_of(lrs=(0.1,), batch_sizes=(16,), shifts=(COVARIATE,))


@pytest.mark.parametrize(
    ("space", "letters", "words"),
    [
        (ONE, "C", "The one cell is connected."),
        (TWO, "DD", "All 2 cells are disconnected."),
        (TWO, "C?", "Of 2 cells, 1 is connected and 1 undecided."),
        (TWO, "U.", "1 of 2 cells has been run: 1 is undertrained."),
        (space_of(lrs=(0.01, 0.1, 1.0), batch_sizes=(16,), shifts=(COVARIATE,)), "CD×", None),
    ],
)
def test_the_answer_is_one_sentence(space: SearchSpace, letters: str, words: str | None) -> None:
    words = words or "Of 3 cells, 1 is connected, 1 disconnected and 1 diverged."
    assert answer(diagram_of(space, letters)) == words


def test_what_qualifies_the_answer_is_said() -> None:
    diagram = diagram_of(space_of(lrs=(0.01, 0.1, 1.0), batch_sizes=(16,), shifts=(COVARIATE,)), "CD×")
    assert remarks(diagram) == ["1 judged cell lies next to divergence, where small causes change barriers a lot."]
    assert remarks(diagram_of(TWO, "CC")) == []
    assert remarks(diagram_of(TWO, "DD", replicates=4)) == ["2 cells rest on fewer than 5 pairs."]
    assert remarks(diagram_of(TWO, "D.", replicates=2)) == ["1 cell has fewer than 3 ok pairs: too few to decide."]
    (said,) = remarks(diagram_of(TWO, "UU"))
    assert said.startswith("In no cell do most pairs reach 50% train accuracy: train longer or")


def test_cells_that_are_measured_too_coarsely_are_counted_and_more_pairs_are_not_advised() -> None:
    diagram = diagram_of(TWO, "C?")
    coarse = replace(diagram, cells=diagram.cells.assign(one_example=[0.05, 0.001]))
    (said,) = remarks(coarse)
    assert said.startswith(
        "1 cell cannot be connected: one test example is 5.0% of the error, and the threshold is 2%."
    )
    undecided = diagram.cells["verdict"] == "undecided"
    coarse = replace(diagram, cells=diagram.cells.assign(one_example=np.where(undecided, 0.05, 0.001)))
    assert len(next_steps(diagram, 5, lambda *_: "again", ended=True)) == 1
    assert next_steps(coarse, 5, lambda *_: "again", ended=True) == []


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.091, 0.15, "9.1 to 15.0%"),
        (0.001, 0.0196, "0.10 to 1.96%"),  # not "to 2.0%", which the threshold is
        (0.02004, 0.03, "2.004 to 3.000%"),
        (0.02, 0.03, "2.0 to 3.0%"),
        (0.0, np.inf, "no interval"),
    ],
)
def test_a_bound_is_told_apart_from_the_threshold(low: float, high: float, said: str) -> None:
    assert interval(low, high, VerdictSpec(threshold=0.02)) == said


def test_a_split_that_says_the_opposite_is_named() -> None:
    results = diagram_of(TWO, "CC").pairs
    overfitted = results["lr"] == 0.1
    results.loc[overfitted, "train_error_barrier_chord"] = 0.3 + 0.01 * results.loc[overfitted, "replicate"]
    of_test = map_regions(results, space=TWO)
    assert remarks(of_test) == ["On train error, of 2 connected cells 1 is disconnected."]
    of_train = map_regions(results, space=TWO, verdict=of_test.verdict.on("train"))
    assert remarks(of_train) == ["On test error, of 1 disconnected cell 1 is connected."]
    assert [cell["on_train"] for cell in plain_cells(of_test)] == ["connected", "disconnected"]


# Cells run through the learning rates, then through the batch sizes from below, then through the shifts.
_ALL_NAMED = """\
   batch size  covariate          label 80/20
           64  C    ?    D    ×   C    ·    ·    ×
           16  U    C    D    D   U    D    D    D
learning rate  0.01 0.03 0.1  1   0.01 0.03 0.1  1
C connected  D disconnected  ? undecided  U undertrained  × diverged  · not run"""
_ENDS_NAMED = """\
   batch size  covariate     label 80/20
           64  C ? D ×       C · · ×
           16  U C D D       U D D D
learning rate  0.01  1       0.01  1
C connected  D disconnected  ? undecided
U undertrained  × diverged  · not run"""
_BELOW = """\
   batch size  covariate
           64  C ? D ×
           16  U C D D
learning rate  0.01  1
   batch size  label 80/20
           64  C · · ×
           16  U D D D
learning rate  0.01  1
C connected  D disconnected
? undecided  U undertrained
× diverged  · not run"""
_GRID = space_of(lrs=(0.01, 0.03, 0.1, 1.0), batch_sizes=(16, 64))


@pytest.mark.parametrize(
    ("width", "height", "drawn"), [(79, 12, _ALL_NAMED), (45, 6, _ENDS_NAMED), (28, 12, _BELOW), (21, 12, None)]
)
def test_panels_are_beside_each_other_where_they_fit(width: int, height: int, drawn: str | None) -> None:
    lines = character_map(diagram_of(_GRID, "UCDDC?D×UDDDC..×"), width, height)
    assert lines == (drawn.splitlines() if drawn else None)


@pytest.mark.parametrize(
    ("space", "letters", "drawn"),
    [
        (TWO, "CD", "               C    D\nlearning rate  0.01 0.1\nC connected  D disconnected"),
        (
            space_of(lrs=(0.01, 0.1), batch_sizes=(16,)),
            "CD?.",
            "covariate      C    D\nlabel 80/20    ?    ·\n"  # noqa: ISC004 - one text
            "learning rate  0.01 0.1\nC connected  D disconnected  ? undecided  · not run",
        ),
        (space_of(lrs=(0.1,), batch_sizes=(16,)), "C×", "C  covariate\n×  label 80/20\nC connected  × diverged"),
        (ONE, "C", None),
    ],
)
def test_a_panel_is_a_line_where_one_axis_or_none_varies(space: SearchSpace, letters: str, drawn: str | None) -> None:
    assert character_map(diagram_of(space, letters), 80) == (drawn.splitlines() if drawn else None)


def test_a_map_that_does_not_fit_is_left_out() -> None:
    fine = space_of(lrs=(0.01, 0.1), batch_sizes=tuple(2**k for k in range(10)), shifts=(COVARIATE,), replicates=1)
    diagram = diagram_of(fine, "U" * 20, replicates=1)
    assert character_map(diagram, 80) is None  # a head, ten rows, the axis, the letters
    assert len(character_map(diagram, 80, 13) or ()) == 13
    networks = networks_space(lrs=(0.1,), replicates=1)
    assert character_map(diagram_of(networks, "U" * 8, replicates=1), 46) is not None
    assert character_map(diagram_of(networks, "U" * 8, replicates=1), 40) is None


def test_counts_name_every_verdict() -> None:
    counts = {"connected": 1, "disconnected": 0, "undecided": 0, "undertrained": 0, "diverged": 0, "not_run": 1}
    assert verdict_counts(diagram_of(TWO, "C.")) == counts


def test_cells_are_plain_and_in_the_order_of_the_page() -> None:
    """As JSON has them: neither NaN, nor infinity, nor numbers of NumPy."""
    diagram = diagram_of(space_of(lrs=(0.01, 0.1), batch_sizes=(16,)), "CD×D")
    cells = json.loads(json.dumps(plain_cells(diagram), allow_nan=False))
    assert [(cell["place"]["shift"], cell["place"]["lr"], cell["verdict"]) for cell in cells] == [
        ("covariate", 0.01, "connected"),
        ("covariate", 0.1, "disconnected"),
        ("label", 0.01, "diverged"),
        ("label", 0.1, "disconnected"),
    ]
    of_a_cell = {"cell", "place", "verdict", "mean", "low", "high", "n", "on_test", "on_train", "beside_diverged"}
    assert set(cells[0]) == of_a_cell
    assert [cell["beside_diverged"] for cell in cells] == [False, False, False, True]
    assert [cell["n"] for cell in cells] == [5, 5, 0, 5]
    assert cells[1]["low"] <= cells[1]["mean"] <= cells[1]["high"]
    row = diagram.cells.set_index("cell").loc[cells[1]["cell"]]
    assert np.isclose(cells[1]["mean"], row["mean_barrier"], rtol=0, atol=0)
    assert (cells[2]["mean"], cells[2]["low"], cells[2]["high"]) == (None, None, None)


def _again(*options: str) -> str:
    return f"lmc-tune sweep s.yaml {shlex.join(options)}"


_UNDECIDED = Step(
    words="1 cell is undecided; 10 replicates (10 more pairs) give narrower intervals",
    command="lmc-tune sweep s.yaml --set replicates=10",
)


@pytest.mark.parametrize(
    ("letters", "steps"),
    [
        ("CD", []),
        ("C?", [_UNDECIDED]),
        ("CF", []),  # more pairs would crash too
        ("C.", [Step(words="the search left 1 cell out; this runs it too", command=_again("--search", "grid"))]),
    ],
)
def test_the_next_step_names_what_is_not_decided_and_the_command(letters: str, steps: Sequence[Step]) -> None:
    assert next_steps(diagram_of(TWO, letters), 5, _again, ended=True) == steps


@pytest.mark.parametrize("letters", ["C?", "C."])
def test_before_the_search_has_ended_pairs_are_still_to_come(letters: str) -> None:
    assert next_steps(diagram_of(TWO, letters), 5, _again, ended=False) == []


def test_one_pair_per_cell_is_not_doubled_to_two_which_decide_nothing() -> None:
    (step,) = next_steps(diagram_of(TWO, "CD", replicates=1), 1, _again, ended=True)
    assert step.words == "2 cells are undecided; 3 replicates (4 more pairs) are enough for intervals"
    assert step.command == "lmc-tune sweep s.yaml --set replicates=3"


def test_several_undecided_cells_are_counted() -> None:
    (step,) = next_steps(diagram_of(space_of(lrs=(0.01, 0.1), batch_sizes=(16,)), "C???"), 3, _again, ended=True)
    assert step.words == "3 cells are undecided; 6 replicates (12 more pairs) give narrower intervals"
