"""What a measurement is: members in, columns and rows out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from lmc_tune.experiment import MeasureSpec
from lmc_tune.measurement.members import Members
from lmc_tune.tables.columns import NestedName, Row


@dataclass(frozen=True, kw_only=True)
class Found:
    """columns: of the group's row. tables: rows of other tables, by the table's name, without the group's key."""

    columns: Row = field(default_factory=dict)
    tables: Mapping[NestedName, list[Row]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Numbers of examples: of one member's part, of all members' parts together, of the test set, of every split.

    layers: of the network; 0 if that is not known.
    """

    part: int
    both: int
    test: int
    splits: Mapping[str, int]
    layers: int = 0


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a measurement is going to do, up to layer similarity.

    scored_on_path: examples scored on naive paths, again at every position; scored_apart: all others that are scored;
    estimated: those that statistics are estimated on. multiplied: those whose Hessian is multiplied by a vector.
    """

    scored_on_path: int = 0
    scored_apart: int = 0
    estimated: int = 0
    multiplied: int = 0

    def __add__(self, other: "Work") -> "Work":
        return Work(
            scored_on_path=self.scored_on_path + other.scored_on_path,
            scored_apart=self.scored_apart + other.scored_apart,
            estimated=self.estimated + other.estimated,
            multiplied=self.multiplied + other.multiplied,
        )


class Measurement(Protocol):
    """One file each; running and cost estimation loop over :data:`lmc_tune.measurement.registry.MEASUREMENTS`."""

    name: str

    def measure(self, members: Members, asked: MeasureSpec) -> Found:
        """Measure members; ``asked`` is resolved for their network (:meth:`MeasureSpec.of`)."""

    def work(self, sizes: Sizes, asked: MeasureSpec) -> Work:
        """What measuring a pair is going to do; how far paths are refined is a guess."""
