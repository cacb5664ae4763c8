"""Barriers of layers, compared with the loop one would write: ``python -m benchmarks.layers``.

Every layer alone, the first and the last 1, 2, … layers, and all together are moved half-way, from both members. The
loop copies the network for each, loads its weights, and reads the examples through a ``DataLoader`` in batches of 128.
The tree computes once what networks share. Both run in turn on one core, on random networks and images.
"""

import argparse
import copy
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.networks import NETWORKS
from benchmarks.publish import RESULTS, Row
from benchmarks.rows import Benchmark, add_options, run
from benchmarks.timing import medians
from lmc_tune.experiment import LayersSpec
from lmc_tune.measurement.layerwise.blends import Blend, Blender, blended, distinct_runs
from lmc_tune.measurement.layerwise.layers import layers_of
from lmc_tune.measurement.layerwise.sets import layer_sets
from lmc_tune.measurement.network import Network

# Examples, runs that count, and the least ratio, of each network.
MEASURED = {"MLP-12": (10_000, 3, 4.0), "ResNet-18 without norm": (128, 1, 2.5)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=MEASURED, action="append", help="these networks")
    add_options(parser)
    chosen = parser.parse_args()
    run(benchmark(chosen.only), chosen.seconds, chosen.out or (None if chosen.only else RESULTS))


def benchmark(only: list[str] | None = None) -> Benchmark:
    jobs = [{"network": name} for name in only or MEASURED]
    return Benchmark(result="layers", jobs=jobs, session=_session, measure=_measure)


@contextmanager
def _session() -> Iterator[Mapping[str, object]]:
    torch.set_num_threads(1)
    yield {}


def _measure(network: str) -> Iterator[list[Row]]:
    n, runs, least = MEASURED[network]
    loop, tree, networks, layers, passes = ways(network, n)
    seconds = medians({"loop": lambda _: loop(), "tree": lambda _: tree()}, runs, time.process_time)
    difference = max(abs(x - y) for x, y in zip(loop(), tree(), strict=True))
    yield [
        {
            "network": network,
            "layers": layers,
            "networks": networks,
            "passes": passes,
            "examples": n,
            "runs": runs,
            **{f"{way}_seconds": taken for way, taken in seconds.items()},
            "ratio": seconds["loop"] / seconds["tree"],
            "least_ratio": least,
            "largest_difference_of_loss": difference,
        }
    ]


def ways(name: str, n: int) -> tuple[Callable[[], list[float]], Callable[[], list[float]], int, int, float]:
    """The loop and the tree, which give the mean loss of every network; how many networks and layers there are, and
    the passes that the tree takes.
    """
    examples = NETWORKS[name].examples(n, torch.Generator().manual_seed(0))
    a, b, model = (NETWORKS[name].build(seed) for seed in range(3))
    ends, layers = (a.state_dict(), b.state_dict()), layers_of(model, examples.inputs[:2])
    size = len(layers)
    blends: list[Blend] = [(0.0,) * size, (1.0,) * size]
    for moved in layer_sets(layers, LayersSpec()):
        blends += [moved.blend(base, 0.5, size) for base in ("a", "b")]

    @torch.no_grad()
    def loop() -> list[float]:
        loader = DataLoader(TensorDataset(examples.inputs, examples.labels), batch_size=128)
        losses = []
        for blend in blends:
            network = copy.deepcopy(model)
            network.load_state_dict(blended(*ends, layers, blend))
            network.eval()
            found = (functional.cross_entropy(network(x), y, reduction="sum").item() for x, y in loader)
            losses.append(sum(found) / n)
        return losses

    def tree() -> list[float]:
        scores = Blender(Network(model), ends, layers).score(blends, {"all": examples})
        return [scores[blend]["all"].loss for blend in blends]

    return loop, tree, len(blends), size, distinct_runs(blends) / size


if __name__ == "__main__":
    main()
