"""REPAIR's tables at a small size: ``python -m benchmarks.repair`` trains, measures, and writes the page.

Pairs from different initialisations are trained on all data, their norms fused into the weights before them, and the
average is measured as it is, with B's units permuted, and with REPAIR besides (Jordan et al. 2023). Rows are written to
docs/reproduction/repair.csv as they are measured, and not measured again; docs/repair.md is made of them.
"""

import csv
import sys
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

import lmc_tune
from lmc_tune.averaging.paths import Condition
from lmc_tune.data.datasets import load_dataset
from lmc_tune.data.examples import Examples
from lmc_tune.data.files import resolve_data_root
from lmc_tune.experiment import DatasetSpec, MlpSpec, ModelSpec, ResnetSpec, Statistics, VggSpec
from lmc_tune.models.registry import build_model

ROWS = Path(__file__).parents[1] / "docs" / "reproduction" / "repair.csv"
PAGE = Path(__file__).parents[1] / "docs" / "repair.md"
COLUMNS = ("network", "pair", "members", "naive", "statistics", "permuted", "repaired")


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network and how it is trained. pairs: how many. fused: norms become part of the weights before them.

    published: accuracies at ½ in percent of the nearest network in REPAIR's repository: naive, with statistics alone,
    permuted, permuted and repaired; None where it has none.
    """

    name: str
    model: ModelSpec
    dataset: DatasetSpec
    pairs: int
    epochs: int
    batch_size: int
    lr: float
    fused: bool
    published: tuple[float | None, float | None, float | None, float | None]


MNIST = DatasetSpec(name="mnist")
CIFAR = DatasetSpec(name="cifar10", train=5000, test=2000)
CASES = (
    *(
        Case(
            name=f"MLP, {depth} hidden layers",
            model=MlpSpec(hidden=(128,) * depth, norm="batch"),
            dataset=MNIST,
            pairs=2,
            epochs=30,
            batch_size=2000,
            lr=0.05,
            fused=True,
            published=published,
        )
        for depth, published in (
            (2, (39.60, None, 96.82, 97.51)),
            (4, (15.31, None, 93.67, 96.38)),
            (6, (10.55, None, 93.53, 95.87)),
        )
    ),
    Case(
        name="VGG-11, width 1/4",
        model=VggSpec(depth=11, width=0.25, norm="batch"),
        dataset=CIFAR,
        pairs=2,
        epochs=12,
        batch_size=100,
        lr=0.05,
        fused=True,
        published=(10.00, 34.99, 61.33, 88.18),
    ),
    *(
        Case(
            name=f"ResNet-20, width {width:g}",
            model=ResnetSpec(depth=20, width=width),
            dataset=CIFAR,
            pairs=2,
            epochs=10,
            batch_size=100,
            lr=0.1,
            fused=False,
            published=published,
        )
        for width, published in (
            (0.5, (None, None, None, None)),
            (1.0, (None, None, 12.65, 67.63)),
        )
    ),
)

# Written down before anything was measured here: what the published tables lead one to expect at any size.
EXPECTED = {
    "R1": "MLPs of every depth: naive < permuted < permuted and repaired.",
    "R2": "MLPs: the deeper the network, the lower the permuted average.",
    "R3": "MLPs: REPAIR adds more to the permuted average at 6 hidden layers than at 2.",
    "R4": "VGG-11: naive < statistics alone < permuted and repaired, and permuted < permuted and repaired.",
    "R5": "ResNet-20: with statistics estimated again, the permuted average is better than the one not permuted.",
    "R6": "ResNet-20: that average comes closer to its members at width 1 than at width 1/2.",
}


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", help="folder of the data sets")
    parser.add_argument("--page", action="store_true", help="measure nothing, write the page")
    options = parser.parse_args()
    if not options.page:
        for case in CASES:
            for pair in range(case.pairs):
                if not any(row["network"] == case.name and row["pair"] == str(pair) for row in read_rows()):
                    _keep(_measured(case, pair, resolve_data_root(options.data_root)))
    PAGE.write_text(page(read_rows()), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")


def read_rows() -> list[dict[str, str]]:
    if not ROWS.exists():
        return []
    with ROWS.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _keep(row: Mapping[str, str]) -> None:
    is_new = not ROWS.exists()
    with ROWS.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(row)
    sys.stdout.write(f"{row}\n")
    sys.stdout.flush()


def _measured(case: Case, pair: int, root: Path) -> dict[str, str]:
    data = load_dataset(case.dataset, root)
    networks = [_trained(case, data.train, seed=2 * pair + member) for member in range(2)]
    statistics: Statistics = "repaired" if case.fused else "recalibrated"
    conditions = {
        "naive": Condition(),
        "statistics": Condition(None, statistics),
        "permuted": Condition("activations"),
        "repaired": Condition("activations", statistics),
    }
    found = lmc_tune.measure(
        networks[0],
        [network.state_dict() for network in networks],
        data.test,
        train=data.train,
        conditions=list(conditions.values()),
        lambdas=3,
    )
    errors = found.table.set_index("condition")["average_test_error"]
    members = sum(1 - member["test_error"] for member in found.plain()["members"]) / 2
    numbers = {"members": 100 * members}
    numbers |= {name: 100 * (1 - float(errors[condition.label])) for name, condition in conditions.items()}
    return {"network": case.name, "pair": str(pair), **{name: f"{value:.2f}" for name, value in numbers.items()}}


def _trained(case: Case, train: Examples, seed: int) -> nn.Module:
    """By SGD with momentum, five epochs of warm-up at most, and linear decay."""
    model = build_model(case.model, tuple(train.inputs.shape[1:]), 10, seed)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=case.lr, momentum=0.9)
    steps = -(-len(train) // case.batch_size)
    total, warm = case.epochs * steps, min(5, case.epochs // 4) * steps
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, (total - step) / (total - warm))
    )
    model.train()
    for _ in range(case.epochs):
        for batch in torch.randperm(len(train), generator=generator).split(case.batch_size):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(train.inputs[batch]), train.labels[batch]).backward()
            optimizer.step()
            schedule.step()
    return _fused(model.eval()) if case.fused else model.eval()


def _fused(model: nn.Module) -> nn.Module:
    """A sequence of layers without its norms, which become part of the layers before them."""
    layers: list[nn.Module] = []
    for layer in _flat(model):
        if isinstance(layer, nn.BatchNorm2d) and isinstance(layers[-1], nn.Conv2d):
            layers[-1] = fuse_conv_bn_eval(layers[-1], layer)
        elif isinstance(layer, nn.BatchNorm1d) and isinstance(layers[-1], nn.Linear):
            layers[-1] = fuse_linear_bn_eval(layers[-1], layer)
        else:
            layers.append(layer)
    return nn.Sequential(*layers)


def _flat(model: nn.Module) -> Iterator[nn.Module]:
    for layer in model.children():
        yield from _flat(layer) if isinstance(layer, nn.Sequential) else (layer,)


def means(rows: Sequence[Mapping[str, str]]) -> dict[str, dict[str, float]]:
    """Over the pairs of every network: accuracies at ½ by column, in percent."""
    found = {}
    for name in dict.fromkeys(row["network"] for row in rows):
        own = [row for row in rows if row["network"] == name]
        found[name] = {column: sum(float(row[column]) for row in own) / len(own) for column in COLUMNS[2:]}
    return found


def holds(rows: Sequence[Mapping[str, str]]) -> dict[str, bool | None]:
    """Which expectations hold of the means; None where the networks were not measured."""
    found = means(rows)
    measured = [found.get(f"MLP, {depth} hidden layers", {}) for depth in (2, 4, 6)]
    vgg = found.get("VGG-11, width 1/4")
    half, whole = found.get("ResNet-20, width 0.5"), found.get("ResNet-20, width 1")
    outcome: dict[str, bool | None] = dict.fromkeys(EXPECTED)
    if all(measured):
        two, four, six = measured
        outcome["R1"] = all(mlp["naive"] < mlp["permuted"] < mlp["repaired"] for mlp in measured)
        outcome["R2"] = two["permuted"] > four["permuted"] > six["permuted"]
        outcome["R3"] = six["repaired"] - six["permuted"] > two["repaired"] - two["permuted"]
    if vgg is not None:
        outcome["R4"] = vgg["naive"] < vgg["statistics"] < vgg["repaired"] and vgg["permuted"] < vgg["repaired"]
    if half is not None and whole is not None:
        outcome["R5"] = all(one["statistics"] < one["repaired"] for one in (half, whole))
        outcome["R6"] = whole["members"] - whole["repaired"] < half["members"] - half["repaired"]
    return outcome


def page(rows: Sequence[Mapping[str, str]]) -> str:
    """The page, as Markdown."""
    words = {True: "holds", False: "**contradicted**", None: "not measured"}
    lines = [
        "# Averages of networks from different initialisations",
        "",
        "Written by `python -m benchmarks.repair` from `docs/reproduction/repair.csv`; no measured number is typed by",
        "hand. Test accuracy of the average in percent, means over pairs; in brackets the published figure of the",
        "nearest network in the repository of REPAIR (Jordan et al. 2023, github.com/KellerJordan/REPAIR, the files",
        "of its figures). Units are matched by activations. *Statistics alone* is REPAIR without permutations where",
        "norms are fused into the weights (MLP, VGG), and recalibrated BatchNorm where they are not (ResNet). Networks",
        "and training are much smaller than the published ones (CIFAR-10: 5000 images), so that orderings can be",
        "compared and numbers cannot.",
        "",
        "| network | pairs | members | naive | statistics alone | permuted | permuted, statistics |",
        "|---|---|---|---|---|---|---|",
    ]
    known = {case.name: case for case in CASES}
    for name, values in means(rows).items():
        n = sum(row["network"] == name for row in rows)
        cells = [
            f"{values[column]:.1f}" + ("" if published is None else f" ({published:.1f})")
            for column, published in zip(COLUMNS[3:], known[name].published, strict=True)
        ]
        lines.append(f"| {name} | {n} | {values['members']:.1f} | {' | '.join(cells)} |")
    lines += ["", "What was expected before anything was measured here, and what the means say:", ""]
    lines += [f"- {EXPECTED[name]} {words[outcome]}" for name, outcome in holds(rows).items()]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
