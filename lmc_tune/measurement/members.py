"""Trained members in memory: all that a measurement may look at."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn

from lmc_tune.data.examples import ExampleSet
from lmc_tune.errors import UserError
from lmc_tune.measurement.network import Network
from lmc_tune.models.state import State, check_same_entries
from lmc_tune.tables.columns import Row


@dataclass(frozen=True, kw_only=True)
class Members:
    """Networks of one architecture, wherever they come from.

    states: the state dict of every member by its name, on the network's device; at least one.
    data: examples by split (``train``, ``test``, ``validation``), the same for all members.
    own: the training examples of every member, where they are known.
    statistics: examples to estimate statistics of activations on, in shuffled order; None: naive paths alone.
    start: the state from which all members began; None if they had none in common.
    aligned: B's state after an alignment, if that moved it, and what it came to, by the alignment asked for; kept by
        the measurement that needs it first.
    snapshots: of every member, its states at the end of some epochs of its training, by epoch; 0 is the start.
    seed: of whatever is drawn at random to measure them.
    """

    network: Network
    states: Mapping[str, State]
    data: Mapping[str, ExampleSet]
    own: Mapping[str, ExampleSet] = field(default_factory=dict)
    statistics: ExampleSet | None = None
    start: State | None = None
    snapshots: Mapping[str, Mapping[int, State]] = field(default_factory=dict)
    seed: int = 0
    aligned: dict[str, tuple[dict[str, Tensor] | None, Row]] = field(default_factory=dict, repr=False)

    @property
    def pair(self) -> tuple[State, State]:
        """A and B.

        Raises:
            ValueError: if there are not exactly two members.
        """
        if len(self.states) != 2:
            raise ValueError(f"a pair has two members, got {len(self.states)}: {', '.join(self.states)}")
        a, b = self.states.values()
        return a, b


def read_members(
    model: nn.Module,
    files: Mapping[str, str | PathLike[str]],
    data: Mapping[str, ExampleSet],
    statistics: ExampleSet | None = None,
) -> Members:
    """Members from safetensors files, as ``members: keep`` leaves them or any other program wrote them.

    Args:
        model: a network of their architecture; its own weights are overwritten.
        files: a file for every member, by the member's name.
        data: examples by split, on the model's device.
        statistics: training examples in shuffled order, for conditions that estimate statistics.

    Raises:
        UserError: naming the first file that cannot be read, or whose entries are not the model's.
    """
    expected, device = model.state_dict(), next(model.parameters()).device
    states: dict[str, State] = {}
    for name, file in files.items():
        try:
            state = load_file(Path(file), device=str(device))
            check_same_entries(expected, state, ("the network", "the file"))
        except Exception as error:
            raise UserError(f"{file} cannot be member {name!r} of this network: {error}") from error
        states[name] = state
    return Members(network=Network(model), states=states, data=data, statistics=statistics)
