"""Fabricated pairs: whole results without a single training step."""

import math
from pathlib import Path

from lmc_tune.core.barrier import DEFINITIONS, locate_barrier
from lmc_tune.experiment import DatasetSpec, GroupSpec, MeasureSpec, MlpSpec, ShiftSpec, TrainSpec, VerdictSpec
from lmc_tune.tables.rows import PairResult, Row, Status, spec_columns
from lmc_tune.tables.store import Store
from lmc_tune.tables.sweep_record import SweepRecord
from tests.cases import pair_of

N = {"train": 600, "test": 500}


def pair_spec(
    *, lr: float = 0.03, batch_size: int = 32, replicate: int = 0, shift: ShiftSpec | None = None
) -> GroupSpec:
    return GroupSpec(
        dataset=DatasetSpec(),
        model=MlpSpec(),
        train=TrainSpec(lr=lr, batch_size=batch_size, momentum=0.9, epochs=20),
        shift=shift or ShiftSpec(kind="label", ratio=0.8),
        replicate=replicate,
    )


def pair_result(
    spec: GroupSpec | None = None, *, status: Status = "ok", height: float = 0.2, epochs: int = 20
) -> PairResult:
    """A pair whose error rises by ``height`` in the middle of the path; diverged and failed pairs have none."""
    spec = spec or pair_spec()
    asked = {"question": MeasureSpec().of(spec.model).key}
    row: Row = {**spec_columns(spec), **asked, "status": status, "reason": "", "device": "cpu", "engine": "loop"}
    if status in ("diverged", "failed"):
        reason = (
            "member B: loss is not finite at step 40"
            if status == "diverged"
            else "ValueError: no <b>luck</b>\nTraceback"
        )
        return pair_of({**row, "reason": reason})
    paths = path(height)
    row |= {"train_accuracy_a": 1.0, "train_accuracy_b": 0.99, "test_accuracy_a": 0.9, "test_accuracy_b": 0.88}
    row |= {"n_train": 600, "steps": 380, "noise_scale": math.nan, "under_resolved": False, "disagreement": 0.125}
    row |= {"seconds_train": 1.5, "seconds_measure": 0.25, **barriers(paths)}
    return pair_of(row, paths=paths, curves=curves(epochs))


def path(height: float, n: int = 29) -> list[Row]:
    points = []
    for split in ("test", "train"):
        for i in range(n):
            lambda_ = i / (n - 1)
            error = height * math.sin(math.pi * lambda_) ** 2 + (0.1 + 0.02 * lambda_ if split == "test" else 0.0)
            wrong = round(N[split] * error)
            point = {"condition": "naive", "split": split, "lambda": lambda_, "n": N[split]}
            points.append({**point, "loss_sum": 3.0 * wrong, "correct": N[split] - wrong})
    return points


def barriers(points: list[Row]) -> Row:
    row: Row = {}
    for split in ("train", "test"):
        own = [point for point in points if point["split"] == split]
        values = {"error": [1 - p["correct"] / p["n"] for p in own], "loss": [p["loss_sum"] / p["n"] for p in own]}
        for quantity, curve in values.items():
            for definition in DEFINITIONS:
                found = locate_barrier([p["lambda"] for p in own], curve, definition)
                row[f"{split}_{quantity}_barrier_{definition}"] = found.height
                row[f"{split}_{quantity}_barrier_{definition}_lambda"] = found.lambda_
    return {**row, "barrier_lambda": row["test_error_barrier_chord_lambda"]}


def curves(epochs: int) -> list[Row]:
    return [
        {
            "member": member,
            "step": 19 * epoch,
            "epoch": float(epoch),
            "lr": 0.03,
            "train_loss": 2.0 / epoch + shift,
            "train_accuracy": 1 - 0.5 / epoch,
            "test_loss": 2.2 / epoch + shift,
            "test_accuracy": 0.9 - 0.4 / epoch,
        }
        for member, shift in (("a", 0.0), ("b", 0.01))
        for epoch in range(1, epochs + 1)
    ]


def direction_rows() -> list[Row]:
    """Of 100 examples, A gets 10 wrong, the midpoint 20, B 14; the loss is a twentieth of that, and of a step of α = 2
    so much higher as is said here, by draw.
    """
    still = {0.0: 10, 0.5: 20, 1.0: 14}
    rows = [_step("unmoved", at, None, 0, 0.0, wrong) for at, wrong in still.items()]
    for at in (0.0, 1.0):
        for place, layer in enumerate(("stem", "head")):
            rows.append(_step("interpolation", at, (place, layer), 0, 2.0, 12 + 30 * place + (6 if at else 0)))
            rows += [_step("random", at, (place, layer), draw, 2.0, 12 + rise) for draw, rise in enumerate((1, 5))]
    for kind, rises in {"towards a": (-4,), "towards b": (8,), "complement": (3, 5)}.items():
        rows += [_step(kind, 0.5, None, draw, 2.0, 20 + rise) for draw, rise in enumerate(rises)]
    return rows + [
        _step("filter", at, None, draw, 2.0, wrong + 9 + draw) for at, wrong in still.items() for draw in (0, 2)
    ]


def _step(kind: str, at: float, layer: tuple[int, str] | None, draw: int, alpha: float, wrong: int) -> Row:  # noqa: PLR0913, PLR0917
    position, name = layer or (None, None)
    place = {"condition": "naive", "kind": kind, "lambda": at, "layer": name, "position": position}
    scored = {"split": "test", "loss_sum": 5.0 * wrong, "correct": 100 - wrong, "n": 100}
    return {**place, "draw": draw, "alpha": alpha, "norm": alpha, **scored}


def plane_rows() -> list[Row]:
    """Three by four points; of 100 examples, as many are wrong as the place from the lowest left corner, row by row."""
    corners = {"a": (0.0, 0.0, 40), "b": (2.0, 0.0, 50), "start": (1.0, 3.0, 90)}
    grid = [("grid", (float(x), float(y), 3 * y + x)) for y in range(4) for x in range(3)]
    return [
        {"condition": "naive", "split": "test", "point": point, "x": x, "y": y}
        | {"loss_sum": 10.0 * (wrong + 1), "correct": 100 - wrong, "n": 100}
        for point, (x, y, wrong) in (*corners.items(), *grid)
    ]


def six_results() -> list[PairResult]:
    """Four ok, one diverged, one failed."""
    pairs = [
        pair_result(pair_spec(lr=lr, replicate=replicate), height=2 * lr) for lr in (0.03, 0.1) for replicate in (0, 1)
    ]
    return [*pairs, pair_result(pair_spec(lr=1.0), status="diverged"), pair_result(pair_spec(lr=0.3), status="failed")]


def write_folder(folder: Path, results: list[PairResult], sweep_id: str = "5eed0001") -> Path:
    """A run folder as a finished sweep leaves it, but for the mirror."""
    folder.mkdir(parents=True, exist_ok=True)
    versions = {"lmc-tune": "0.1.0", "torch": "2.13.0"}
    SweepRecord(id=sweep_id, name="quickstart", planned_pairs=len(results), versions=versions).write(folder)
    (folder / "report.html").write_text("<h1>phase diagram</h1>", encoding="utf-8")
    store = Store(folder)
    store.write_shard("c0", results)
    store.compact(VerdictSpec())
    return folder
