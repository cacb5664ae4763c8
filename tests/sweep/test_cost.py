"""What a pair is said to do, against what it does."""

from pathlib import Path

import pytest
import torch

from lmc_tune import pipeline
from lmc_tune.measurement import evaluate as scoring
from lmc_tune.space_yaml import parse_space
from lmc_tune.store import Store
from lmc_tune.sweep.cost import work_of
from lmc_tune.workbench import Workbench

SPACE = """
name: s
dataset: {name: digits, train: 200, test: 70, validation: 30}
train: {lr: 0.01, steps: 25}
shift: covariate
axes: {batch_size: [10]}
measure: {lambdas: 5, splits: [train, test, validation]}
"""


def test_a_pair_takes_the_steps_and_scores_the_examples_that_were_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to the refinement of the path, whose extent is a guess."""
    pair = parse_space(SPACE).cells()[0].first
    scored, real = [], scoring.losses_of

    def losses_of(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        scored.append(len(labels))
        return real(logits, labels)

    monkeypatch.setattr(scoring, "losses_of", losses_of)
    result = pipeline.run_pair(pair, Workbench(store=Store(tmp_path), data_root=tmp_path, device="cpu"))
    work = work_of(pair)
    assert work.steps == 2 * result.row["steps"]
    positions = len({row["lambda"] for row in result.paths}) + 1  # the first is measured twice
    guessed = pair.measure.lambdas + 7
    of_the_guess = (guessed - positions) * (200 + 70 + 30)
    assert sum(scored) == work.scored_in_training + work.scored_in_measuring - of_the_guess
