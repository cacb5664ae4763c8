"""Networks whose layers are each one member's, the other's, or half-way, example by example."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import cast

import numpy as np
from torch import Tensor

from lmc_tune.averaging.average import averaged
from lmc_tune.averaging.data import Split
from lmc_tune.averaging.metric import Quantity
from lmc_tune.averaging.pair import Measuring, Pair
from lmc_tune.averaging.paths import Condition, Values, score_path
from lmc_tune.core.barrier import Array
from lmc_tune.data.examples import Examples
from lmc_tune.experiment import SplitName
from lmc_tune.measurement.conditions import estimating_passes
from lmc_tune.measurement.layerwise.blends import Blend, Blender, BlendStatistics, blended, distinct_runs
from lmc_tune.measurement.layerwise.layers import Layer, layers_of
from lmc_tune.measurement.layerwise.sets import Base
from lmc_tune.models.state import State

Splits = Mapping[SplitName, Split]

SIDES: Mapping[Base, float] = {"a": 0.0, "b": 1.0}


@dataclass(frozen=True, kw_only=True)
class Mixed:
    """Blends of two checkpoints under one condition: every λ is 0, ½ or 1.

    ends: A, and B as the condition aligns it.
    """

    by: Measuring
    ends: tuple[State, State]
    condition: Condition
    layers: tuple[Layer, ...]

    @classmethod
    def of(cls, pair: Pair, condition: Condition) -> "Mixed":
        """Those of a pair."""
        a, b = pair.a.state, pair.end(condition)
        first = pair.by.splits["test"].batches[0]
        layers = layers_of(pair.by.network.loaded(pair.a.state), first, pair.by.metric.outputs)
        return cls(by=pair.by, ends=(a, b), condition=condition, layers=layers)

    def whole(self, base: Base) -> Blend:
        """A member as it is."""
        return (SIDES[base],) * len(self.layers)

    def passes(self, blends: Iterable[Blend], splits: Splits) -> int:
        """About how many passes over the examples :meth:`values` takes, those that estimate statistics among them."""
        asked = set(blends)
        scored = len(asked) if self._shared(splits) is None else ceil(distinct_runs(asked) / len(self.layers))
        return scored * (1 + estimating_passes(self.condition.statistics, 1))

    def values(self, blends: Iterable[Blend], splits: Splits) -> dict[Blend, Values]:
        """Every example's values; what begins alike is computed once, where the network can be recorded."""
        asked, shared = dict.fromkeys(blends), self._shared(splits)
        if shared is not None:
            return self._together(asked, shared)
        return {blend: self.measured(blend, splits) for blend in asked}

    def measured(self, blend: Blend, splits: Splits) -> Values:
        """Every example's values of one network that has the blend's weights."""
        by, middle = self.by, np.array([0.5])
        path = score_path(by.network, self._line(blend), middle, splits, by.metric, self.condition, by.statistics)
        return {at: curve.values[:, 0] for at, curve in path.curves.items()}

    def state(self, blend: Blend) -> dict[str, Tensor]:
        """The weights of a blend, prepared as the condition says, on the CPU.

        Raises:
            UserError: if a layer that is repaired has no bias to take it.
        """
        return averaged(self.by.network, self._line(blend), self.condition, self.by.statistics)

    def _line(self, blend: Blend) -> tuple[State, State]:
        """The ends of the straight line in whose middle the blend lies: statistics are prepared along lines."""
        one, other = (
            blended(*self.ends, self.layers, tuple(end if lambda_ == 0.5 else lambda_ for lambda_ in blend))
            for end in SIDES.values()
        )
        return one, other

    def _shared(self, splits: Splits) -> dict[str, Examples] | None:
        """The examples by split, where blends can be computed as a tree; None where each is loaded by itself."""
        examples = {str(name): split.examples for name, split in splits.items() if split.examples is not None}
        shares = len(examples) == len(splits) and self._is_recorded(next(iter(examples.values())))
        return examples if shares else None

    def _is_recorded(self, examples: Examples) -> bool:
        """Whether blends can be computed as a tree: not if they are repaired, or a user's function calls them."""
        plain = self.by.metric.plain and self.condition.statistics != "repaired"
        return plain and self._blender.records(examples, self._statistics, self.by.statistics)

    def _together(self, blends: Iterable[Blend], examples: Mapping[str, Examples]) -> dict[Blend, Values]:
        how = self._statistics
        parts: dict[Blend, dict[tuple[SplitName, Quantity], list[Array]]] = {blend: {} for blend in blends}
        for blend, split, some, outputs in self._blender.outputs(parts, examples, how, self.by.statistics):
            for quantity, values in self.by.metric.values(outputs, (some.inputs, some.labels)).items():
                at = cast("SplitName", split), quantity
                parts[blend].setdefault(at, []).append(values.double().cpu().numpy())
        return {blend: {at: np.concatenate(own) for at, own in found.items()} for blend, found in parts.items()}

    @property
    def _statistics(self) -> BlendStatistics:
        return "recalibrated" if self.condition.statistics == "recalibrated" else "naive"

    @cached_property
    def _blender(self) -> Blender:
        return Blender(self.by.network, self.ends, self.layers)
