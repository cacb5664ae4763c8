"""Tiny networks of digits, as users would have trained them; and findings made by hand."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

from lmc_tune.averaging.answer import Answer, answer
from lmc_tune.averaging.data import Split, split_of
from lmc_tune.averaging.findings import Member, OfCondition, PairFindings, Quality
from lmc_tune.averaging.judging import Difference, Judging, difference, judge
from lmc_tune.averaging.paths import Condition, Curve
from lmc_tune.core.barrier import path_grid
from lmc_tune.data.datasets import Dataset, load_dataset
from lmc_tune.experiment import DatasetSpec
from lmc_tune.models.state import State, state_of

CPU = torch.device("cpu")
NETS = """
from torch import nn

def build(norm=True):
    layers = [nn.Flatten(), nn.Linear(64, 32), *([nn.BatchNorm1d(32)] if norm else []), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10))

def plain():
    return build(norm=False)

def loss(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")
"""


@cache
def digits() -> Dataset:
    return load_dataset(DatasetSpec(), Path())


def network(*, norm: bool = True) -> nn.Sequential:
    layers = [nn.Flatten(), nn.Linear(64, 32), *([nn.BatchNorm1d(32)] if norm else []), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10))


def train(model: nn.Module, seed: int, epochs: int) -> nn.Module:
    """By SGD, in an order of its own."""
    data, generator = digits().train, torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    model.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(data), generator=generator).split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(data.inputs[batch]), data.labels[batch]).backward()
            optimizer.step()
    return model.eval()


@cache
def trained(start: int, branch: int, *, norm: bool = True) -> Mapping[str, torch.Tensor]:
    """The state of a network: those of one ``start`` share their first epochs."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(start)
        model = network(norm=norm)
    return state_of(train(_trunk(start, model, norm), 100 * start + branch, 3))


_TRUNKS: dict[tuple[int, bool], nn.Module] = {}


def _trunk(start: int, model: nn.Module, norm: bool) -> nn.Module:  # noqa: FBT001
    if (start, norm) not in _TRUNKS:
        _TRUNKS[start, norm] = train(model, start, 6)
    return copy.deepcopy(_TRUNKS[start, norm])


def digits_split() -> Split:
    return split_of(digits().test, device=CPU, batch_size=64)


def permuted_copy(state: State, seed: int) -> dict[str, torch.Tensor]:
    """The same function: hidden units of both layers in another order."""
    generator = torch.Generator().manual_seed(seed)
    first, second = (torch.randperm(32, generator=generator) for _ in range(2))
    found = {name: entry.clone() for name, entry in state.items()}
    names = [name for name in state if name.startswith(("1.", "2.")) and state[name].ndim]
    linear = [name.split(".")[0] for name in state if name.endswith("weight") and state[name].ndim == 2]
    for name in names:
        if name.split(".")[0] in {linear[0], "2"} and state[name].shape[0] == 32:
            found[name] = state[name][first]
    middle, last = linear[1], linear[2]
    found[f"{middle}.weight"] = state[f"{middle}.weight"][second][:, first]
    found[f"{middle}.bias"] = state[f"{middle}.bias"][second]
    found[f"{last}.weight"] = state[f"{last}.weight"][:, second]
    return found


# Findings by hand: errors of single examples along the path.


def curve(barrier: float, n: int = 2000, ends: tuple[float, float] = (0.1, 0.1), seed: int = 0) -> Curve:
    """Of errors: at the ends so many examples are wrong, and between them more, the most at ½."""
    lambdas = path_grid(11)
    levels = np.round((1 - lambdas) * ends[0] + lambdas * ends[1] + barrier * 4 * lambdas * (1 - lambdas), 9)
    ranks = np.random.default_rng(seed).permutation(n) / n
    return Curve(lambdas=lambdas, values=(ranks[:, None] < levels).astype(np.float64))


def findings(  # noqa: PLR0913
    barriers: Mapping[Condition, float],
    *,
    on_train: float | None = None,
    ends: tuple[float, float] = (0.1, 0.1),
    identical: bool = False,
    lazy: frozenset[Condition] = frozenset(),
    ensemble: float | None = None,
    n: int = 2000,
    prepared: Mapping[Condition, tuple[float, float]] | None = None,
) -> PairFindings:
    """Of paths with barriers of these heights; the ensemble's error less the better member's.

    lazy: conditions under which the ends do no better than the most frequent class. prepared: errors at the ends of
    paths whose ends are not the members as they are.
    """
    judging = Judging(quantity="error", threshold=0.02)
    paths = []
    for condition, height in barriers.items():
        path = _path(condition, curve(height, n, (prepared or {}).get(condition, ends)), on_train, judging, ends)
        judged = {split: replace(one, verdict="undertrained") for split, one in path.judged.items()}
        paths.append(replace(path, judged=judged) if condition in lazy else path)
    members = tuple(
        Member(name=name, file="", took="", quality=Quality(means={("test", "error"): end}), learned=not lazy)
        for name, end in zip("AB", ends, strict=True)
    )
    gain = None if ensemble is None else Difference(mean=ensemble, low=ensemble - 0.01, high=ensemble + 0.01)
    return PairFindings(
        members=(members[0], members[1]),
        judging=judging,
        metric="cross-entropy",
        unit="nats",
        paths=tuple(paths),
        alignments=(),
        identical=identical,
        distance=0.0 if identical else 1.0,
        cosine=0.5,
        disagreement=0.1,
        ensemble=None if ensemble is None else Quality(means={("test", "error"): min(ends) + ensemble}),
        ensemble_to_better=gain,
        notes=(),
    )


def answered(barriers: Mapping[Condition, float], **more: object) -> Answer:
    return answer(findings(barriers, **more))  # type: ignore[arg-type]


def _path(
    condition: Condition, test: Curve, on_train: float | None, judging: Judging, members: tuple[float, float]
) -> OfCondition:
    """The members' own errors may be lower than those at the ends of the path, whose statistics are others."""

    curves = {("test", "error"): test}
    if on_train is not None:
        curves["train", "error"] = curve(on_train, ends=(0.0, 0.0))
    ends = np.stack([curve(0.0, test.n, (level, level)).values[:, 0] for level in members], axis=1)
    return OfCondition(
        condition=condition,
        lambdas=test.lambdas,
        judged={split: judge(one, judging) for (split, _), one in curves.items()},
        means={at: one.mean for at, one in curves.items()},
        barriers={at: one.barriers() for at, one in curves.items()},
        average=Quality(means={at: float(one.at_half.mean()) for at, one in curves.items()}),
        to_mean=difference(test.at_half, ends.mean(axis=1), 0.95),
        to_better=difference(test.at_half, ends[:, int(ends.mean(axis=0).argmin())], 0.95),
    )
