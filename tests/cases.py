"""Tiny experiments, networks and curves that several tests share."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from lmc_tune.data.examples import Examples
from lmc_tune.experiment import (
    Cohort,
    DatasetSpec,
    Ensemble,
    GptSpec,
    GroupSpec,
    MeasureSpec,
    MlpSpec,
    ModelSpec,
    Pair,
    ResnetSpec,
    ShiftSpec,
    TrainSpec,
    VggSpec,
    VitSpec,
)
from lmc_tune.experiment.ensembles import SETTINGS
from lmc_tune.tables.columns import NESTED, TIME_FIELDS, VIEW, Row
from lmc_tune.tables.rows import PairResult
from lmc_tune.training.task import Task

ROOT_5 = math.sqrt(5)

# λ-function and its barriers on eleven equally spaced λ: the first four by the table of docs/definitions.md,
# local_minima by hand: (1) top 1.1 between minima 0.1 and 0.1; (2) and (4) have no interior top;
# (3) top at 0.6, where sin² = (5+√5)/8; before it the minimum is 0.1, after it the value at 0.9, sin² = (3−√5)/8.
TOP_3 = 0.64 + 0.6 * (5 + ROOT_5) / 8
DIP_3 = 0.91 + 0.6 * (3 - ROOT_5) / 8
CURVES: dict[str, tuple[Callable[[float], float], dict[str, float]]] = {
    "hump": (
        lambda x: 0.1 + 4 * x * (1 - x),
        {"chord": 1.0, "endpoint_mean": 1.0, "midpoint": 1.0, "max_endpoint": 1.0, "local_minima": 1.0},
    ),
    "line": (
        lambda x: 0.1 + 0.9 * x,
        {"chord": 0.0, "endpoint_mean": 0.45, "midpoint": 0.0, "max_endpoint": 0.0, "local_minima": 0.0},
    ),
    "tilted hump": (
        lambda x: 0.1 + 0.9 * x + 0.6 * math.sin(math.pi * x) ** 2,
        {
            "chord": 0.6,
            "endpoint_mean": TOP_3 - 0.55,
            "midpoint": 0.6,
            "max_endpoint": TOP_3 - 1.0,
            "local_minima": TOP_3 - 0.5 * (0.1 + DIP_3),
        },
    ),
    "valley": (
        lambda x: 0.5 - 1.2 * x * (1 - x),
        {"chord": 0.0, "endpoint_mean": 0.0, "midpoint": -0.3, "max_endpoint": 0.0, "local_minima": 0.0},
    ),
}


# Every network of the registry, tiny, for inputs of `shape_of`; test_stacked.py asks that none is missing.
NETWORKS: dict[str, ModelSpec] = {
    "mlp": MlpSpec(hidden=(6, 5)),
    "mlp tanh": MlpSpec(hidden=(6,), activation="tanh"),
    "mlp batch": MlpSpec(hidden=(6, 7), norm="batch"),
    "mlp layer": MlpSpec(hidden=(6,), norm="layer"),
    "mlp dropout": MlpSpec(hidden=(6, 5), dropout=0.3),
    "vgg": VggSpec(width=1 / 16),
    "vgg batch": VggSpec(width=1 / 16, norm="batch"),
    "vgg group": VggSpec(width=1 / 16, norm="group"),
    "vgg dropout": VggSpec(width=1 / 16, dropout=0.3),
    "resnet": ResnetSpec(depth=8, width=1 / 4, norm="none"),
    "resnet batch": ResnetSpec(depth=8, width=1 / 4, norm="batch"),
    "resnet layer": ResnetSpec(depth=8, width=1 / 4, norm="layer", shortcut="3x3"),
    "resnet-18 batch": ResnetSpec(depth=18, width=1 / 16, norm="batch"),
    "resnet-18 group": ResnetSpec(depth=18, width=1 / 16, norm="group"),
    "vit": VitSpec(patch=16, depth=2, heads=2, dim=8, mlp_dim=12),
    "vit dropout": VitSpec(patch=16, depth=2, heads=2, dim=8, mlp_dim=12, dropout=0.3),
    "gpt": GptSpec(depth=2, heads=2, dim=8),
    "gpt none dropout": GptSpec(depth=2, heads=2, dim=8, norm="none", init="torch", dropout=0.3),
}
IMAGE, WINDOW = (3, 32, 32), (6,)


def shape_of(spec: ModelSpec) -> tuple[int, ...]:
    """Of an input that one of the NETWORKS takes."""
    return WINDOW if isinstance(spec, GptSpec) else IMAGE


# A coarse grid, refined once: enough for a path, and quick.
MEASURE = MeasureSpec(lambdas=5, refinements=1)


def pair_spec(  # noqa: PLR0913 - one argument per section
    *,
    train: dict[str, Any] | None = None,
    shift: dict[str, Any] | None = None,
    model: dict[str, Any] | None = None,
    dataset: dict[str, Any] | None = None,
    replicate: int = 0,
    recipe: dict[str, Any] | None = None,
    seed: int = 0,
) -> GroupSpec:
    """A pair that trains and measures in a tenth of a second: 400 digits, eight hidden units."""
    return GroupSpec(
        dataset=DatasetSpec(**({"train": 400, "test": 100} | (dataset or {}))),
        model=MlpSpec(**({"hidden": (8,)} | (model or {}))),
        train=TrainSpec(**({"lr": 0.1, "batch_size": 20, "momentum": 0.9, "epochs": 2} | (train or {}))),
        shift=ShiftSpec(**(shift or {})),
        recipe=Pair(**(recipe or {})),
        replicate=replicate,
        seed=seed,
    )


def ensemble_spec(  # noqa: PLR0913 - one argument per section
    family: str,
    *,
    train: dict[str, Any] | None = None,
    shift: dict[str, Any] | None = None,
    model: dict[str, Any] | None = None,
    dataset: dict[str, Any] | None = None,
    replicate: int = 0,
    **settings: Any,
) -> GroupSpec:
    """An ensemble of three that trains and measures in a second."""
    given = {"t": 2} if "t" in SETTINGS[family] else {}
    dropout = 0.2 if family == "mc_dropout" else 0.0
    return GroupSpec(
        dataset=DatasetSpec(**({"train": 400, "test": 100} | (dataset or {}))),
        model=MlpSpec(**({"hidden": (8,), "dropout": dropout} | (model or {}))),
        train=TrainSpec(
            **({"lr": 0.03, "batch_size": 20, "momentum": 0.9, "epochs": 6, "noise": "varied"} | (train or {}))
        ),
        shift=ShiftSpec(**(shift or {"kind": "none"})),
        recipe=Ensemble(**{"family": family, "members": 3} | given | settings),
        replicate=replicate,
    )


def six(engine: str, hidden: int = 8) -> tuple[GroupSpec, ...]:
    """Six pairs of one program; their keys do not depend on the engine."""
    return tuple(
        pair_spec(train={"lr": lr, "epochs": 4, "engine": engine}, model={"hidden": (hidden,)}, replicate=k)
        for lr in (0.1, 0.3)
        for k in range(3)
    )


def cohort(*specs: GroupSpec) -> Cohort:
    return Cohort(groups=specs)


def pair_of(row: Row, **tables: list[Row]) -> PairResult:
    """A result with this row of the results; what that repeats goes to the table of barriers."""
    barriers: dict[str, Row] = {}
    for column, (condition, name) in VIEW.items():
        if column in row:
            barriers.setdefault(condition, {"condition": condition})[name] = row[column]
    columns = {name: value for name, value in row.items() if name not in VIEW}
    of_conditions = [barriers[condition] for condition in sorted(barriers)]
    return PairResult(columns=columns, tables={**{name: [] for name in NESTED}, "barriers": of_conditions, **tables})


def timeless(results: list[PairResult]) -> dict[str, tuple]:
    """Everything but the seconds, in one order of the points."""
    return {
        r.key: (
            {k: v for k, v in r.row.items() if k not in TIME_FIELDS and v is not None},
            sorted(r.tables["paths"], key=lambda p: (p["split"], p["lambda"])),
            sorted(r.tables["curves"], key=lambda p: (p["member"], p["step"])),
        )
        for r in results
    }


def blobs(
    n: int = 60, classes: int = 3, features: int = 4, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Examples:
    """Gaussian blobs around one centre per class, shaped (n, 1, 1, features)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    centres = 2 * torch.randn(classes, features, generator=generator, dtype=torch.float64)
    inputs = centres[labels] + torch.randn(n, features, generator=generator, dtype=torch.float64)
    return Examples(inputs=inputs.to(dtype).view(n, 1, 1, features), labels=labels)


def images(
    n: int,
    *,
    seed: int = 0,
    shape: tuple[int, ...] = (3, 32, 32),
    classes: int = 4,
    dtype: torch.dtype = torch.float64,
) -> Examples:
    """Noise with random labels."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(n, *shape, generator=generator, dtype=dtype)
    return Examples(inputs=inputs, labels=torch.randint(classes, (n,), generator=generator))


# Those that may have several labels per example.
IMAGE_NETWORKS = [name for name, spec in NETWORKS.items() if shape_of(spec) == IMAGE]


def windows(n: int, *, seed: int = 0, tokens: int = 4) -> Examples:
    """Random tokens, each with a random next one."""
    generator = torch.Generator().manual_seed(seed)
    inputs, labels = (torch.randint(tokens, (n, *WINDOW), generator=generator) for _ in range(2))
    return Examples(inputs=inputs, labels=labels)


def examples_for(
    spec: ModelSpec, n: int, *, seed: int = 0, classes: int = 4, dtype: torch.dtype = torch.float64
) -> Examples:
    """Noise that one of the NETWORKS takes."""
    if shape_of(spec) == WINDOW:
        return windows(n, seed=seed, tokens=classes)
    return images(n, seed=seed, shape=shape_of(spec), classes=classes, dtype=dtype)


def network(seed: int, *, features: int = 4, hidden: int = 6, classes: int = 3, norm: bool = False) -> nn.Sequential:
    """A one-hidden-layer ReLU network with weights drawn from ``seed``, global random state left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = [nn.Flatten(), nn.Linear(features, hidden)]
        if norm:
            layers.append(nn.BatchNorm1d(hidden))
        return nn.Sequential(*layers, nn.ReLU(), nn.Linear(hidden, classes))


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def task(model: nn.Module, part: Examples, test: Examples, spec: TrainSpec, noise_seed: int) -> Task:
    """Training ``model`` from its present weights on the whole of ``part``."""
    return Task(
        model=model,
        start=state(model),
        whole=part,
        positions=torch.arange(len(part)),
        test=test,
        spec=spec,
        noise_seed=noise_seed,
    )
