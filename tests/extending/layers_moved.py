"""A measurement per layer as anybody may add one: the barrier at the midpoint of every layer alone."""

from lmc_tune.experiment import MeasureSpec
from lmc_tune.measurement.lines import Segment
from lmc_tune.measurement.measurement import Found, Sizes, Work
from lmc_tune.measurement.members import Members
from lmc_tune.measurement.score import score


class LayersMoved:
    """Rows of a table of its own: A's network with one layer half-way to B's, on the test set."""

    name = "moved"

    def measure(self, members: Members, asked: MeasureSpec) -> Found:  # noqa: ARG002
        a, b = members.pair
        network, test = members.network, {"test": members.data["test"]}
        rows = []
        for layer, names in network.layers.items():
            losses = [found["test"].loss for found in score(network, Segment(a, b, moved=frozenset(names)), ENDS, test)]
            rows.append({"layer": layer, "barrier": losses[1] - (losses[0] + losses[2]) / 2})
        return Found(tables={"moved": rows})

    def work(self, sizes: Sizes, asked: MeasureSpec) -> Work:  # noqa: ARG002
        return Work(scored_apart=len(ENDS) * sizes.test)


ENDS = [0.0, 0.5, 1.0]
