"""How cost grows with pairs, positions and layers: ``python -m benchmarks.scaling``.

It runs whole sweeps of tiny pairs, report and MLflow included, and measures the path between two random networks on the
digits, in this process and on one thread.
"""

import statistics
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.publish import publish
from benchmarks.sweep import timed_sweep, tiny_pairs
from benchmarks.timing import RUNS, medians
from lmc_tune.data.datasets import Dataset, load_dataset
from lmc_tune.experiment import DatasetSpec, MeasureSpec, MlpSpec
from lmc_tune.measurement.path import Path as MeasuredPath
from lmc_tune.measurement.path import measure_path
from lmc_tune.models.registry import build_model

_PAIRS = (10, 100, 1000, 10_000)
_REPEATED = 100  # pairs up to which a sweep is short enough to be repeated
_LAMBDAS, _LAYERS = (11, 25, 51, 101), (1, 2, 4, 8)
_USUAL_LAMBDAS, _USUAL_LAYERS, _WIDTH = 25, 1, 64  # quickstart's
_PATHS = 7


def main() -> None:
    publish("measuring", _measuring())
    publish("scaling", _sweeps())


def _sweeps() -> list[dict[str, object]]:
    """The slope is between a sweep and the next smaller one."""
    rows = [_sweep_row(_REPEATED, workers=1)]
    before, before_seconds = 0, 0.0
    for pairs in _PAIRS:
        row = _sweep_row(pairs, workers=2)
        seconds = float(str(row["seconds"]))
        if before:
            row["slope_ms_per_pair"] = 1000 * (seconds - before_seconds) / (pairs - before)
        before, before_seconds = pairs, seconds
        rows.append(row)
    return rows


def _sweep_row(pairs: int, workers: int) -> dict[str, object]:
    runs = RUNS if pairs <= _REPEATED else 1
    seconds = statistics.median(timed_sweep(tiny_pairs(pairs), workers)[0] for _ in range(runs))
    return {
        "pairs": pairs,
        "workers": workers,
        "runs": runs,
        "seconds": seconds,
        "ms_per_pair": 1000 * seconds / pairs,
        "slope_ms_per_pair": None,
    }


def _measuring() -> list[dict[str, object]]:
    torch.set_num_threads(1)
    digits = load_dataset(DatasetSpec(), Path())
    settings = [(_USUAL_LAYERS, lambdas) for lambdas in _LAMBDAS]
    settings += [(layers, _USUAL_LAMBDAS) for layers in _LAYERS if layers != _USUAL_LAYERS]
    ways = {setting: _measure(digits, *setting) for setting in settings}
    positions = {setting: len(measure(0).lambdas) for setting, measure in ways.items()}
    return [
        {
            "hidden_layers": layers,
            "lambdas": lambdas,
            "positions": positions[layers, lambdas],
            "runs": _PATHS,
            "ms_per_path": 1000 * seconds,
            "ms_per_position": 1000 * seconds / positions[layers, lambdas],
        }
        for (layers, lambdas), seconds in medians(ways, _PATHS).items()
    ]


def _measure(digits: Dataset, layers: int, lambdas: int) -> Callable[[int], MeasuredPath]:
    spec, shape = MlpSpec(hidden=(_WIDTH,) * layers), tuple(digits.train.inputs.shape[1:])
    a, b, model = (build_model(spec, shape, digits.n_classes, seed) for seed in range(3))
    data = {"train": digits.train, "test": digits.test}
    measure = MeasureSpec(lambdas=lambdas)
    return lambda _: measure_path(model, a.state_dict(), b.state_dict(), data, measure)


if __name__ == "__main__":
    main()
