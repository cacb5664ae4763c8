"""Averages of the weights of several networks: at drawn weights, between two of them, and as soups."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from lmc_tune.core.ensembles import dirichlet_weights
from lmc_tune.core.seeding import child_seed
from lmc_tune.data.examples import ExampleSet
from lmc_tune.experiment import Condition, MeasureSpec, Statistics, statistics_of
from lmc_tune.measurement.conditions import prepare
from lmc_tune.measurement.evaluate import Score
from lmc_tune.measurement.lines import Listed, Mixture
from lmc_tune.measurement.network import Network
from lmc_tune.measurement.path import Path, measure_path, path_barriers
from lmc_tune.measurement.score import score
from lmc_tune.models.state import State
from lmc_tune.tables.columns import Row


@dataclass(frozen=True, kw_only=True)
class Averages:
    """Networks of one architecture whose weights are averaged.

    states: of each, on the CPU, so that the device holds only what is scored. statistics: examples that BatchNorm's
    statistics are estimated on; None if they are not.
    """

    network: Network
    states: Sequence[State]
    data: Mapping[str, ExampleSet]
    statistics: ExampleSet | None
    seed: int = 0

    @property
    def device(self) -> torch.device:
        return self.data["test"].labels.device

    def at(self, weights: Sequence[float]) -> dict[str, Tensor]:
        """The weighted average, on the device."""
        return self.there(Mixture(self.states).weighted(weights))

    def prepared(self, state: State, condition: Statistics) -> dict[str, Tensor]:
        """A state under a condition, on the device."""
        line = Listed([partial(self.there, state)])
        (found,) = prepare(condition, self.network, line, self.statistics, [0]).states
        return found

    def scores(self, weights: Sequence[Sequence[float]], condition: Statistics, split: str = "test") -> list[Score]:
        """Of the averages with these weights."""
        line = Listed([partial(self.at, own) for own in weights])
        data = {split: self.data[split]}
        found = score(self.network, line, range(len(weights)), data, condition, self.statistics)
        return [by_split[split] for by_split in found]

    def draws(self, condition: Condition, draws: int) -> list[Row]:
        """Averages of all at weights from Dirichlet(1, …, 1), each beside what its members' scores would average to."""
        weights, how = dirichlet_weights(len(self.states), draws), statistics_of(condition)
        alone = self.scores(np.eye(len(self.states)).tolist(), how)
        accuracies, losses = (np.array([getattr(own, name) for own in alone]) for name in ("accuracy", "loss"))
        found = self.scores(weights.tolist(), how)
        return [
            {
                **self._row(condition, "draw", number, range(len(self.states)), "test", own),
                "expected_accuracy": float(weights[number] @ accuracies),
                "expected_loss": float(weights[number] @ losses),
            }
            for number, own in enumerate(found)
        ]

    def pairs(self, condition: Condition, asked: MeasureSpec, most: int) -> tuple[list[Row], list[Path]]:
        """The paths between pairs of networks, and their points as rows."""
        rows, paths = [], []
        for number, (one, other) in enumerate(self.chosen(most)):
            a, b = (self.there(self.states[at]) for at in (one, other))
            how = statistics_of(condition)
            data: Mapping[str, ExampleSet] = {split: self.data[split] for split in asked.splits}
            path = measure_path(self.network.module, a, b, data, asked, how, self.statistics)
            rows += self._path_rows(path, condition, number, (one, other))
            paths.append(path)
        return rows, paths

    def chosen(self, most: int) -> list[tuple[int, int]]:
        """All pairs, or so many at random, the same for as many networks."""
        pairs = list(combinations(range(len(self.states)), 2))
        if len(pairs) <= most:
            return pairs
        rng = np.random.default_rng(child_seed(0, "pairs", len(self.states)))
        return sorted(pairs[at] for at in rng.choice(len(pairs), most, replace=False))

    def soup(self, condition: Condition) -> tuple[Row, list[int]]:
        """The greedy soup (Wortsman et al. 2022): in order of their accuracy on held-out examples, a network stays if
        the average does not get worse on these; ties go to the earlier. As a row, and who stays.
        """
        how, n = statistics_of(condition), len(self.states)

        def accuracy(members: Sequence[int], split: str = "validation") -> Score:
            weights = [1 / len(members) if at in members else 0.0 for at in range(n)]
            (found,) = self.scores([weights], how, split)
            return found

        alone = [accuracy([at]).accuracy for at in range(n)]
        first, *others = sorted(range(n), key=lambda at: -alone[at])
        kept, best = [first], alone[first]
        for other in others:
            tried = accuracy([*kept, other]).accuracy
            if tried >= best:
                kept, best = [*kept, other], tried
        return self._row(condition, "soup", 0, sorted(kept), "test", accuracy(kept, "test")), sorted(kept)

    def _path_rows(self, path: Path, condition: Condition, number: int, pair: tuple[int, int]) -> list[Row]:
        first, last = path.scores[0], path.scores[-1]
        return [
            {
                **self._row(condition, "pair", number, pair, split, own),
                "lambda": float(at),
                "expected_accuracy": (1 - at) * first[split].accuracy + at * last[split].accuracy,
                "expected_loss": (1 - at) * first[split].loss + at * last[split].loss,
            }
            for at, by_split in zip(path.lambdas.tolist(), path.scores, strict=True)
            for split, own in by_split.items()
        ]

    def _row(  # noqa: PLR0913, PLR0917 - which network, and its score
        self, condition: Condition, what: str, number: int, members: Sequence[int], split: str, found: Score
    ) -> Row:
        return {
            "condition": condition,
            "what": what,
            "number": number,
            "members": " ".join(str(at + 1) for at in members),
            "split": split,
            **vars(found),
        }

    def there(self, state: State) -> dict[str, Tensor]:
        """A state on the device."""
        return {name: entry.to(self.device) for name, entry in state.items()}


def connectivity_columns(draws: Sequence[Row]) -> Row:
    """q̄, the lowest q, and the same of the loss, from the rows of all draws under one condition."""
    q = np.array([100 * (row["correct"] / row["n"] - row["expected_accuracy"]) for row in draws])
    of_loss = np.array([row["expected_loss"] - row["loss_sum"] / row["n"] for row in draws])
    return {
        "connectivity": float(q.mean()),
        "lowest_connectivity": float(q.min()),
        "loss_connectivity": float(of_loss.mean()),
    }


def group_barriers(condition: Condition, paths: Sequence[Path]) -> Row:
    """The barriers of a group, the largest of its pairs each, with its λ*; merge gain and retention are those of its
    pairs in the mean.
    """
    rows = [path_barriers(path) for path in paths]
    found: Row = {"condition": condition, "under_resolved": any(row["under_resolved"] for row in rows)}
    heights = [name for name in rows[0] if f"{name}_lambda" in rows[0]]
    for name in heights:
        highest = max(rows, key=lambda row: row[name])
        found[name], found[f"{name}_lambda"] = highest[name], highest[f"{name}_lambda"]
    found["barrier_lambda"] = found["test_error_barrier_chord_lambda"]
    for name, of_all in (("accuracy_difference", min), ("merge_gain", _mean), ("retention", _mean)):
        found[name] = of_all([row[name] for row in rows])
    return found


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
