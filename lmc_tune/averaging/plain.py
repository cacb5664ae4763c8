"""What was found as plain values, for JSON. Names stay; new ones may be added."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

import numpy as np

from lmc_tune.averaging.answer import Answer
from lmc_tune.averaging.findings import LayerFindings, OfCondition, PairFindings, Quality
from lmc_tune.averaging.judging import Judged
from lmc_tune.averaging.many import ManyFindings
from lmc_tune.averaging.metric import Quantity
from lmc_tune.averaging.surroundings import DirectionFindings, PlaneFindings
from lmc_tune.experiment import SplitName

SCHEMA = 1
T = TypeVar("T")


def plain_pair(found: PairFindings, answer: Answer) -> dict[str, Any]:
    """The answer on two checkpoints.

    Errors, accuracies and barriers of errors are fractions; losses are in ``unit``. What is not finite is null.
    """
    content: dict[str, Any] = _plain(
        {
            **_answer(answer),
            "notes": list(found.notes),
            "metric": found.metric,
            "unit": found.unit,
            "judging": {**asdict(found.judging), "barrier": "chord", "n": found.paths[0].judged["test"].n},
            "members": [
                {"name": one.name, "took": one.took, "learned": one.learned, **_quality(one.quality)}
                for one in found.members
            ],
            "conditions": [_path(path) for path in found.paths],
            "ensemble": None if found.ensemble is None else _quality(found.ensemble),
            "ensemble_to_better": None if found.ensemble_to_better is None else asdict(found.ensemble_to_better),
            "alignments": [asdict(aligned) for aligned in found.alignments],
            "identical": found.identical,
            "distance": found.distance,
            "cosine": found.cosine,
            "disagreement": found.disagreement,
            "layers": None if found.layers is None else _layers(found, found.layers),
            "directions": None if found.directions is None else _directions(found.directions),
            "planes": None if found.planes is None else _planes(found.planes),
        }
    )
    return content


def plain_recipe(found: PairFindings, layers: LayerFindings) -> dict[str, Any]:
    """How to build the network of a recipe, and how good it is; numbers as in :func:`plain_pair`.

    ``layers``: the share of B by layer: θ = (1 − λ) θ_A + λ θ_B in all its ``entries``. Under other conditions than
    naive, B is aligned first, and statistics are estimated afterwards.
    """
    recipe, judging = layers.recipe, found.judging
    content: dict[str, Any] = _plain(
        {
            "schema": SCHEMA,
            "members": {key: one.file or one.name for key, one in zip(("a", "b"), found.members, strict=True)},
            "condition": layers.condition.label,
            "layers": {layer.name: lambda_ for layer, lambda_ in layers.lambdas},
            "entries": {layer.name: layer.entries for layer in layers.layers},
            "kept": recipe.kept,
            "share": recipe.share,
            "quantity": judging.quantity,
            "threshold": judging.threshold,
            **_judged(recipe.judged),
            "chosen_on": layers.chosen_on,
            "to_mean": asdict(recipe.to_mean),
            "to_better": asdict(recipe.to_better),
            "less_mean": _by_name(recipe.rises),
        }
    )
    return content


def plain_many(found: ManyFindings, answer: Answer) -> dict[str, Any]:
    """The answer on several checkpoints; numbers as in :func:`plain_pair`."""
    names = found.names

    def members(group: Sequence[int]) -> list[str]:
        return [names[member] for member in group]

    content: dict[str, Any] = _plain(
        {
            **_answer(answer),
            "notes": found.notes,
            "metric": found.metric,
            "unit": found.unit,
            "judging": {**asdict(found.judging), "barrier": "chord", "n": found.chosen_on + found.measured_on},
            "members": [
                {"name": name, "took": took, "learned": learned, **_quality(quality)}
                for name, took, learned, quality in zip(names, found.took, found.learned, found.qualities, strict=True)
            ],
            "conditions": [
                {
                    "condition": basins.condition.label,
                    "alignment": basins.condition.alignment,
                    "statistics": basins.condition.statistics,
                    "pairs": [
                        {
                            "a": names[i],
                            "b": names[j],
                            "test": _judged(judged),
                            **({"train": _judged(basins.on_train[i, j])} if basins.on_train else {}),
                        }
                        for (i, j), judged in basins.judged.items()
                    ],
                    "basins": [members(group) for group in basins.groups],
                    "chains": [members(chain) for chain in basins.chains],
                    "window": members(basins.window) if found.trajectory else None,
                }
                for basins in found.basins
            ],
            "soups": {
                name: {
                    "members": members(soup.members),
                    "order": members(soup.order),
                    "value": soup.value,
                    "to_best": asdict(soup.to_best),
                }
                for name, soup in (("uniform", found.uniform), ("greedy", found.greedy))
            },
            "chosen_on": found.chosen_on,
            "measured_on": found.measured_on,
            "planes": None if found.planes is None else _planes(found.planes),
        }
    )
    return content


def _answer(answer: Answer) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "answer": answer.kind,
        "exit_code": answer.exit_code,
        "verdict": answer.verdict,
        "condition": answer.condition.label if answer.condition else None,
        "in_short": answer.in_short,
        "reasons": answer.reasons,
    }


def _layers(found: PairFindings, layers: LayerFindings) -> dict[str, Any]:
    """The profile, with a row per set of layers, and the recipe."""
    return {
        "condition": layers.condition.label,
        "layers": [
            {"name": layer.name, "parameters": layer.parameters, "distance": apart}
            for layer, apart in zip(layers.layers, layers.distances, strict=True)
        ],
        "sets": [
            {
                "family": one.moved.family,
                "name": one.moved.name,
                "layers": len(one.moved.layers),
                "less_mean": _by_name(one.rises),
                **{f"less_mean_{base}": _by_name(rises) for base, rises in one.from_base.items()},
                **{split: _judged(judged) for split, judged in one.judged.items()},
            }
            for one in layers.sets
        ],
        "recipe": plain_recipe(found, layers),
    }


def _directions(found: DirectionFindings) -> dict[str, Any]:
    """A row per kind of steps, point, layer and length, named as in a sweep's table; contrasts; and curvatures."""
    names = {"layerwise": ("towards", "random"), "whole": ("towards", "random"), "filterwise": ("midpoint", "members")}
    return {
        "condition": found.condition.label,
        "steps": [
            {
                "kind": one.kind,
                "lambda": one.lambda_,
                "layer": one.layer,
                "position": one.position,
                "alpha": one.alpha,
                "norm": one.norm,
                "draws": one.draws,
                "rises": {name: asdict(rise) for name, rise in _by_name(one.rises).items()},
                "less_random": None if one.less_random is None else asdict(one.less_random),
            }
            for one in found.steps
        ],
        **{
            name: [
                {"alpha": each.alpha, one: each.one, other: each.other, "difference": asdict(each.apart)}
                for each in getattr(found, name)
            ]
            for name, (one, other) in names.items()
        },
        "sharpness": [
            {
                "lambda": one.lambda_,
                "eigenvalue": one.eigenvalue,
                "residual": one.residual,
                "products": one.products,
                "examples": one.examples,
            }
            for one in found.curvatures
        ],
    }


def _planes(found: PlaneFindings) -> dict[str, Any]:
    """The three points by name, then those of the grid."""
    return {
        "condition": found.condition.label,
        "through": found.through,
        "points": [
            {"point": one.point, "x": one.x, "y": one.y, "weights": one.weights, **_by_name(one.means)}
            for one in found.points
        ],
    }


def _by_name(values: Mapping[tuple[SplitName, Quantity], T]) -> dict[str, T]:
    return {f"{split}_{quantity}": value for (split, quantity), value in values.items()}


def _judged(judged: Judged) -> dict[str, Any]:
    return {
        "verdict": judged.verdict,
        "barrier": judged.barrier,
        "low": judged.low,
        "high": judged.high,
        "n": judged.n,
    }


def _path(path: OfCondition) -> dict[str, Any]:
    return {
        "condition": path.condition.label,
        "alignment": path.condition.alignment,
        "statistics": path.condition.statistics,
        "lambdas": path.lambdas,
        **{
            split: {
                **_judged(judged),
                "curves": {what: mean for (name, what), mean in path.means.items() if name == split},
                "barriers": {
                    what: {definition: asdict(barrier) for definition, barrier in found.items()}
                    for (name, what), found in path.barriers.items()
                    if name == split
                },
                "band": None if judged.band is None else {"low": judged.band.low, "high": judged.band.high},
            }
            for split, judged in path.judged.items()
        },
        "average": _quality(path.average),
        "merge_gain": path.merge_gain,
        "retention": path.retention,
        "to_mean": asdict(path.to_mean),
        "to_better": asdict(path.to_better),
    }


def _quality(quality: Quality) -> dict[str, Any]:
    return {
        **{f"{split}_{what}": value for (split, what), value in quality.means.items()},
        "test_brier": quality.brier,
        "test_ece": quality.ece,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(own) for name, own in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(own) for own in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
