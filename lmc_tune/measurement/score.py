"""One door before all the fast ways of scoring networks on a line."""

from collections.abc import Mapping, Sequence

from lmc_tune.data.examples import ExampleSet
from lmc_tune.experiment import Statistics
from lmc_tune.measurement.conditions import prepare
from lmc_tune.measurement.evaluate import Score
from lmc_tune.measurement.lines import Line, Segment
from lmc_tune.measurement.network import Network
from lmc_tune.measurement.scan import POSITIONS_AT_ONCE, scan, score_states

Scores = dict[str, Score]


def score(  # noqa: PLR0913, PLR0917 - what is scored, where, on what, and how it is prepared
    network: Network,
    line: Line,
    positions: Sequence[float],
    data: Mapping[str, ExampleSet],
    condition: Statistics = "naive",
    statistics: ExampleSet | None = None,
) -> list[Scores]:
    """Loss and error, in evaluation mode, on all examples of every split: one mapping per position, in their order.

    Args:
        network: of the line's architecture.
        line: where the weights are.
        positions: on the line.
        data: examples by split, on the network's device.
        condition: how networks are prepared (:func:`~lmc_tune.measurement.conditions.prepare`).
        statistics: what conditions estimate statistics on, in shuffled order; None if none does.

    Raises:
        MeasurementError: if statistics are missing.
    """
    if condition == "naive" and isinstance(line, Segment) and line.moved is None:
        scanned = {split: scan(network, line, positions, examples) for split, examples in data.items()}
        return _by_position(scanned, len(positions))
    found: list[Scores] = []
    for first in range(0, len(positions), POSITIONS_AT_ONCE):  # few, since the state of every one is kept
        some = positions[first : first + POSITIONS_AT_ONCE]
        prepared = prepare(condition, network, line, statistics, some)
        scored = {split: score_states(prepared.network, prepared.states, examples) for split, examples in data.items()}
        found += _by_position(scored, len(some))
    return found


def _by_position(by_split: Mapping[str, Sequence[Score]], n: int) -> list[Scores]:
    return [{split: scores[at] for split, scores in by_split.items()} for at in range(n)]
