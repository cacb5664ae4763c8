"""Answers and reasons, from findings made by hand."""

import re
from pathlib import Path

import pytest

from lmc_tune.averaging.answer import EXIT_CODES, answer
from lmc_tune.averaging.paths import Condition
from tests.averaging.cases import answered, findings

NAIVE, RECALIBRATED = Condition(), Condition(None, "recalibrated")
BY_WEIGHTS, BY_ACTIVATIONS = Condition("weights"), Condition("activations")
REPAIRED = Condition("weights", "repaired")


def test_exit_codes_are_those_of_the_guide():
    guide = (Path(__file__).parents[2] / "docs" / "guide.md").read_text(encoding="utf-8")
    said = re.search(r"The exit code is the answer: ([^.]+)\.", guide)[1].replace("\n", " ")
    codes = {int(part.split()[0]): part for part in said.split(", ")}
    assert set(EXIT_CODES.values()) == set(codes) - {2}
    assert all(any(word in codes[code] for word in (kind, "first")) for kind, code in EXIT_CODES.items())


def test_a_flat_path_is_averaged():
    found = answered({NAIVE: 0.0})
    assert (found.kind, found.verdict, found.condition) == ("average", "connected", NAIVE)
    assert found.in_short == "Average them: the average has an error of 10.00%."


def test_a_condition_that_is_better_still_is_named():
    found = answered({NAIVE: 0.0, RECALIBRATED: 0.0}, prepared={RECALIBRATED: (0.08, 0.08)})
    assert found.condition == NAIVE
    assert "better still, recalibrated: the average then has an error of 8.00%" in found.reasons
    assert not any("better still" in one for one in answered({NAIVE: 0.0, RECALIBRATED: 0.0}).reasons)


def test_stale_statistics_are_named():
    found = answered({NAIVE: 0.4, RECALIBRATED: 0.0})
    assert (found.kind, found.condition) == ("recalibrate", RECALIBRATED)
    assert found.reasons[0] == ("only the statistics are stale: recalibrating removes 100% of the barrier of 40.00%")


def test_a_permutation_is_named_with_what_it_removes():
    found = answered({NAIVE: 0.4, BY_WEIGHTS: 0.0})
    assert (found.kind, found.condition) == ("align", BY_WEIGHTS)
    assert "a permutation matched by weights removes 100% of the barrier of 40.00%" in found.reasons
    found = answered({NAIVE: 0.4, RECALIBRATED: 0.2, BY_WEIGHTS: 0.3, REPAIRED: 0.0})
    assert found.in_short.startswith("Align B to A by weights, then average them, and rescale its channels (REPAIR): ")
    assert "a permutation matched by weights (repaired) removes 100% of the barrier of 20" in found.reasons[1]


def test_the_first_condition_that_is_connected_is_chosen():
    assert answered({NAIVE: 0.0, RECALIBRATED: 0.0, BY_WEIGHTS: 0.0}).condition == NAIVE


def test_weights_that_fail_where_activations_do_not_are_reported():
    found = answered({NAIVE: 0.4, BY_WEIGHTS: 0.35, BY_ACTIVATIONS: 0.0})
    assert found.condition == BY_ACTIVATIONS
    assert "matching by weights fails here, by activations it does not: use --align activations" in found.reasons
    assert not any(
        "fails here" in reason for reason in answered({NAIVE: 0.4, BY_WEIGHTS: 0.3, BY_ACTIVATIONS: 0.3}).reasons
    )


def test_a_member_that_is_worse_everywhere_is_not_averaged():
    found = answered({NAIVE: 0.0}, ends=(0.1, 0.5))
    assert (found.kind, found.verdict, found.condition) == ("neither", "connected", None)
    assert found.in_short == "No: B is worse everywhere, so there is nothing to average; keep A."
    assert "B has an error of 50.00%" in found.reasons


def test_a_small_loss_against_the_better_member_is_a_remark():
    found = answered({NAIVE: 0.0}, ends=(0.1, 0.12))
    assert found.kind == "average"
    assert "the average is 1.00 points worse than A alone" in found.reasons


def test_identical_files_are_named():
    found = answered({NAIVE: 0.0}, identical=True)
    assert (found.kind, found.reasons[0]) == ("average", "identical files: every entry is the same")


def test_networks_at_chance_are_not_judged():
    found = answered({NAIVE: 0.0}, lazy={NAIVE})
    assert (found.kind, found.verdict, found.condition) == ("neither", "undertrained", None)
    assert found.in_short.startswith("No: neither does better than naming the most frequent class")
    assert "inputs are scaled as in training" in found.reasons[1]


def test_networks_that_only_lost_their_statistics_are_recalibrated():
    found = answered({NAIVE: 0.0, RECALIBRATED: 0.0}, lazy={NAIVE})
    assert (found.kind, found.condition) == ("recalibrate", RECALIBRATED)
    assert found.reasons[0].startswith("the statistics are stale: as they are, the networks do no better than naming")


def test_preparing_networks_on_other_data_harms_both():
    found = answered({NAIVE: 0.4, RECALIBRATED: 0.0}, prepared={RECALIBRATED: (0.5, 0.5)})
    assert (found.kind, found.verdict) == ("neither", "connected")
    assert found.in_short == "No: recalibrated networks are worse than A as it is; keep A."
    assert "harms both of them" in found.reasons[1]


def test_a_connected_average_that_is_worse_does_not_hide_a_later_one():
    """Statistics of other data made both ends worse; units that are aligned need none."""
    found = answered({NAIVE: 0.4, RECALIBRATED: 0.0, BY_WEIGHTS: 0.0}, prepared={RECALIBRATED: (0.5, 0.5)})
    assert (found.kind, found.condition) == ("align", BY_WEIGHTS)


def test_no_barrier_leaves_nothing_to_remove():
    assert answered({NAIVE: 0.1, RECALIBRATED: 0.0, BY_WEIGHTS: 0.0}).condition == RECALIBRATED
    for barriers in (
        {NAIVE: 0.4, RECALIBRATED: 0.0, Condition("weights", "recalibrated"): 0.3},
        {NAIVE: 0.0, BY_WEIGHTS: 0.4},
    ):
        assert not any("permutation" in reason for reason in answered(barriers).reasons)
    assert "removes nothing of the barrier" in " ".join(answered({NAIVE: 0.3, BY_WEIGHTS: 0.4}).reasons)
    assert "removes 99.9% of" in " ".join(answered({NAIVE: 0.8, BY_WEIGHTS: 0.0006}, ends=(0.05, 0.05)).reasons)


@pytest.mark.parametrize(
    ("condition", "kind", "how"),
    [
        (Condition(None, "endpoint"), "recalibrate", "Average them with A's BatchNorm statistics: "),
        (Condition(None, "repaired"), "recalibrate", "Average them, and rescale its channels (REPAIR): "),
        (BY_ACTIVATIONS, "align", "Align B to A by activations, then average them: "),
    ],
)
def test_every_condition_has_its_own_instruction(condition, kind, how):
    found = answered({NAIVE: 0.4, condition: 0.0})
    assert found.kind == kind
    assert found.in_short.startswith(how)


def test_a_barrier_on_training_examples_alone_is_told():
    """Overfitted members look connected on test data."""
    found = answered({NAIVE: 0.0}, on_train=0.14)
    assert found.kind == "average"
    assert any("on the training examples a barrier of 14.00%" in reason for reason in found.reasons)
    assert not any("training examples" in reason for reason in answered({NAIVE: 0.0}, on_train=0.0).reasons)


def test_too_few_examples_leave_it_undecided():
    found = answered({NAIVE: 0.03, RECALIBRATED: 0.015}, n=300)
    assert (found.kind, found.verdict, found.condition) == ("undecided", "undecided", RECALIBRATED)
    assert any(re.fullmatch(r"give more test examples: about \d+ may decide", reason) for reason in found.reasons)


def test_how_many_examples_may_decide_is_about_right():
    """Of as many as are said, the same barrier is decided; of half as many it is not."""
    found = findings({NAIVE: 0.01}, n=300)
    (reason,) = [one for one in answer(found).reasons if one.startswith("give more")]
    n = int(re.search(r"about (\d+)", reason)[1])
    assert answered({NAIVE: 0.01}, n=2 * n).kind == "average"
    assert answered({NAIVE: 0.01}, n=n // 3).kind == "undecided"
    assert "many more" in " ".join(answered({NAIVE: 0.02}, n=300).reasons)


@pytest.mark.parametrize(("gain", "said"), [(-0.03, "let both predict"), (0.0, "keep A"), (None, "keep A")])
def test_what_to_do_instead_of_averaging(gain, said):
    found = answered({NAIVE: 0.4, BY_WEIGHTS: 0.3}, ensemble=gain)
    assert (found.kind, found.verdict, found.condition) == ("neither", "disconnected", None)
    assert said in found.in_short
    assert "the lowest of 2 conditions" in found.reasons[0]
