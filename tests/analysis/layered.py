"""Pairs of which layers were moved alone, made up from heights of barriers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from lmc_tune.core.barrier import DEFINITIONS, locate_barrier, path_grid
from lmc_tune.experiment import GroupSpec
from lmc_tune.tables.rows import PairResult, Row
from tests.analysis.cases import N_TEST, ok_pair

# Errors of A and B, in test examples.
WRONG = {"a": 36, "b": 56}
OTHER = {"a": "b", "b": "a"}

# Of every layer from the input, the rise of its path from A and from B, in test examples.
Rises = Mapping[str, tuple[int, int]]


def layered_pair(
    spec: GroupSpec, rises: Rises, hump: float = 0.3, *, n_lambdas: int = 5, epochs: Sequence[int | None] = (None,)
) -> PairResult:
    """An ok pair with a hump, whose layers rise alone at λ = ½, and the first ones together as much as all of them.

    n_lambdas: 1 for networks half-way alone. epochs: None after training; at snapshots, layers rise half as much.
    """
    barriers, paths = [], []
    for epoch in epochs:
        now = rises if epoch is None else {name: (a // 2, b // 2) for name, (a, b) in rises.items()}
        for own, rows in _sets(now, n_lambdas, round(N_TEST * hump)):
            barriers.append({**own, "epoch": epoch, **_barriers(rows, own["base"])})
            paths += [{**_named(own), "epoch": epoch, **row} for row in rows]
    pair = ok_pair(spec, hump)
    return replace(pair, tables={**pair.tables, "layer_barriers": barriers, "layer_paths": paths})


def _sets(rises: Rises, n_lambdas: int, whole: int) -> Iterator[tuple[Row, list[Row]]]:
    n = len(rises)
    for base in ("a", "b"):
        side = "ab".index(base)
        for at, name in enumerate(rises):
            alone, first = rises[name][side], sum(rise[side] for rise in list(rises.values())[: at + 1])
            for family, layers, rise in (("single", 1, alone), ("shallow", at + 1, first), ("deep", n - at, whole)):
                yield _set(family, name, at, (layers, n), base), _path(base, rise, n_lambdas)
        yield _set("full", "all", 0, (n, n), base), _path(base, whole, n_lambdas)


def _set(family: str, moved: str, position: int, share: tuple[int, int], base: str) -> Row:
    return {
        "condition": "naive",
        "base": base,
        "family": family,
        "moved": moved,
        "position": position,
        "layers": share[0],
        "share": share[0] / share[1],
        "distance": 1.0,
    }


def _named(own: Row) -> Row:
    return {name: own[name] for name in ("condition", "base", "family", "moved")}


def _path(base: str, rise: int, n_lambdas: int) -> list[Row]:
    """Between the errors of the base and of the other, and so many more in the middle."""
    lambdas = path_grid(n_lambdas) if n_lambdas > 1 else np.array([0.5])
    chord = (1 - lambdas) * WRONG[base] + lambdas * WRONG[OTHER[base]]
    wrong = np.round(chord + rise * np.sin(np.pi * lambdas) ** 2)
    return [
        {"split": split, "lambda": at, "loss_sum": 4.0 * bad, "correct": N_TEST - int(bad), "n": N_TEST}
        for split in ("test", "train")
        for at, bad in zip(lambdas, wrong, strict=True)
    ]


def _barriers(rows: list[Row], base: str) -> Row:
    """As measuring gives them: against the whole members."""
    found = Row()
    lambdas = [row["lambda"] for row in rows if row["split"] == "test"]
    for split in ("test", "train"):
        own = [row for row in rows if row["split"] == split]
        for quantity, values, scale in (
            ("error", [1 - row["correct"] / row["n"] for row in own], 1.0),
            ("loss", [row["loss_sum"] / row["n"] for row in own], 4.0),
        ):
            ends = scale * WRONG[base] / N_TEST, scale * WRONG[OTHER[base]] / N_TEST
            if len(lambdas) == 1:
                found[f"{split}_{quantity}_barrier_midpoint"] = values[0] - sum(ends) / 2
            for definition in DEFINITIONS if len(lambdas) > 1 else ():
                height = locate_barrier(np.array(lambdas), values, definition, ends).height
                found[f"{split}_{quantity}_barrier_{definition}"] = height
    return found
