"""The members themselves: their losses and accuracies, and how far they went."""

from lmc_tune.experiment import MeasureSpec
from lmc_tune.measurement.evaluate import evaluate
from lmc_tune.measurement.lines import MeasurementError
from lmc_tune.measurement.measurement import Found, Sizes, Work
from lmc_tune.measurement.members import Members
from lmc_tune.models.state import distance
from lmc_tune.tables.columns import Row


class Ends:
    """Loss (nats) and accuracy of every member on its own training examples and on the test set, and distances.

    The one measurement of members whose weights are not finite.
    """

    name = "ends"

    def measure(self, members: Members, asked: MeasureSpec) -> Found:  # noqa: ARG002 - nothing to choose
        """Columns ``{train,test}_{loss,accuracy}_NAME`` and ``distance_NAME``; ``distance`` of a pair."""
        network, columns = members.network, Row()
        if missing := members.states.keys() - members.own.keys():
            raise MeasurementError(f"nobody knows what {', '.join(sorted(missing))} were trained on; give it as own")
        for name, state in members.states.items():
            model = network.loaded(state)
            for split, examples in (("train", members.own[name]), ("test", members.data["test"])):
                found = evaluate(model, examples)
                columns[f"{split}_loss_{name}"], columns[f"{split}_accuracy_{name}"] = found.loss, found.accuracy
            if members.start is not None:
                columns[f"distance_{name}"] = distance(state, members.start, network.parameters)
        if len(members.states) == 2:
            columns["distance"] = distance(*members.pair, network.parameters)
        return Found(columns=columns)

    def work(self, sizes: Sizes, asked: MeasureSpec) -> Work:  # noqa: ARG002
        """Every member's part, and the test set for each."""
        return Work(scored_apart=2 * (sizes.part + sizes.test))
