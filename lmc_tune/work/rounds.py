"""What is measured of the rounds of a federation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum

from lmc_tune.core.barrier import average_barriers
from lmc_tune.data.examples import ExampleSet
from lmc_tune.experiment import Condition, barrier_column
from lmc_tune.measurement.evaluate import Score, evaluate
from lmc_tune.measurement.lines import Mixture
from lmc_tune.models.state import State
from lmc_tune.tables.columns import Row
from lmc_tune.training.federation import Federation, Round, estimated_again
from lmc_tune.training.progress import Progress

# By split: the common test set, and the client's own training examples.
Scores = Mapping[str, Score]


@dataclass(frozen=True, kw_only=True)
class RoundScores:
    """Scores of a round. trained, averaged: of every client before and after the average; averaged is empty and pooled
    None where a client diverged. pooled: of the average of all layers, on the test set.
    """

    number: int
    trained: Sequence[Scores]
    averaged: Sequence[Scores] = ()
    pooled: Score | None = None

    def rows(self) -> list[Row]:
        """As the table of rounds has them, without the key."""
        found = [
            {"round": self.number, "client": client, "what": what, "split": split, **vars(score)}
            for what, clients in (("trained", self.trained), ("averaged", self.averaged))
            for client, scores in enumerate(clients, 1)
            for split, score in scores.items()
        ]
        if self.pooled:
            found.append({"round": self.number, "client": 0, "what": "pooled", "split": "test", **vars(self.pooled)})
        return found


def score_round(federation: Federation, found: Round) -> RoundScores:
    """Score the clients of a round, and their average.

    What a client came to on the test set is known from its learning curve. Where all clients have one model after the
    average, it is scored on the test set once; where nothing is averaged, clients are as they were.
    """
    spec, network, clients, test = federation.spec, federation.network, federation.clients, federation.test
    trained = [
        {"test": _last_test(progress, test), "own": evaluate(network.loaded(progress.state), client.own)}
        for client, progress in zip(clients, found.trained, strict=True)
    ]
    if found.pooled is None:
        return RoundScores(number=found.number, trained=trained)
    pooled = evaluate(network.loaded(found.pooled), test)
    if spec.average == "none":
        return RoundScores(number=found.number, trained=trained, averaged=trained, pooled=pooled)
    common = spec.average == "all" and spec.norm in {None, "averaged"}
    averaged = []
    for client, state in zip(clients, found.averaged, strict=True):
        model = network.loaded(state)
        averaged.append({"test": pooled if common else evaluate(model, test), "own": evaluate(model, client.own)})
    return RoundScores(number=found.number, trained=trained, averaged=averaged, pooled=pooled)


def _last_test(progress: Progress, test: ExampleSet) -> Score:
    """The score at the end of a learning curve."""
    point, n = progress.curve[-1], test.labels.numel()
    return Score(loss_sum=point.test_loss * n, correct=round(point.test_accuracy * n), n=n)


def client_columns(scores: RoundScores, weights: Sequence[float]) -> Row:
    """What the row of a federation says of its last round; means over clients have these weights."""

    def mean(clients: Sequence[Scores], split: str) -> float:
        return fsum(weight * scores[split].accuracy for weight, scores in zip(weights, clients, strict=True))

    return {
        **{
            f"{what}_{split}_accuracy": mean(clients, split)
            for what, clients in (("clients", scores.trained), ("averaged", scores.averaged))
            if clients
            for split in ("test", "own")
        },
        "lowest_own_accuracy": min(client["own"].accuracy for client in scores.trained),
        **({"pooled_test_accuracy": scores.pooled.accuracy} if scores.pooled else {}),
    }


def barrier_row(average: Mapping[str, Score], clients: Sequence[Scores], weights: Sequence[float]) -> Row:
    """The barriers of an average, as the table of barriers has them.

    Args:
        average: its scores by split, ``test`` and ``own``, the latter over the examples of all clients.
        clients: those of the clients before the average, each on its own examples.
        weights: of the clients in the average.
    """
    heights = {
        barrier_column(f"{'train' if split == 'own' else split}_{quantity}", definition): height
        for split in ("test", "own")
        for quantity in ("error", "loss")
        for definition, height in average_barriers(
            getattr(average[split], quantity), [getattr(client[split], quantity) for client in clients], weights
        ).items()
    }
    mean = fsum(weight * client["test"].accuracy for weight, client in zip(weights, clients, strict=True))
    return {
        **heights,
        "merge_gain": 100 * (average["test"].accuracy - mean),
        "retention": average["test"].accuracy / mean if mean else None,
        "under_resolved": False,
    }


def barriers_of(
    federation: Federation, found: Round, scores: RoundScores, conditions: Sequence[Condition]
) -> list[Row]:
    """The barriers of the average of all layers of all clients after a round, a row per condition.

    ``naive``: BatchNorm's running statistics are averaged with the weights; ``recalibrated``: they are estimated again
    on the examples of all clients.
    """
    network, everything, weights = federation.network, federation.everything, federation.weights
    naive = Mixture([progress.state for progress in found.trained]).weighted(weights)
    rows = []
    for condition in conditions:
        state: State = naive if condition == "naive" else estimated_again(network, naive, everything)
        average = {
            "test": evaluate(network.loaded(state), federation.test),
            "own": evaluate(network.loaded(state), everything),
        }
        rows.append({"condition": condition, **barrier_row(average, scores.trained, weights)})
    return rows
