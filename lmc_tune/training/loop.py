"""Training one member, step by step."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from lmc_tune.core.seeding import child_seed
from lmc_tune.data.decisions import decisions
from lmc_tune.experiment import TrainSpec
from lmc_tune.measurement.evaluate import evaluate
from lmc_tune.models.dropout import dropout_seeds
from lmc_tune.models.state import state_of
from lmc_tune.training.distillation import Lesson
from lmc_tune.training.progress import CurvePoint, Progress
from lmc_tune.training.task import Task, divergence


def train_member(task: Task) -> Progress:
    """Train one member.

    Training stops at the end of the first epoch in which the loss was not finite, or got to the target.
    """
    model, per_epoch, in_all = task.model, task.steps_per_epoch, task.n_steps
    model.load_state_dict(task.resume.state if task.resume else task.start)
    optimizer = _optimizer(model.parameters(), task.spec)
    if task.resume:
        _set_moments(optimizer, task.resume.moments)
    curve = list(task.resume.curve) if task.resume else []
    diverged, epochs, snapshots = "", task.epochs_done, task.snapshots_before()
    lesson = task.teacher.lesson(model) if task.teacher else None
    for epoch in range(epochs, task.last_epoch):
        first = epoch * per_epoch
        n_steps = min(per_epoch, in_all - first)
        rates = [task.rate(first + at) for at in range(n_steps)]
        with _global_noise(task, epoch):
            loss, accuracy = _train_epoch(task, optimizer, epoch, rates, lesson)
        curve.append(task.point(first + n_steps, rates[-1], loss, accuracy, evaluate(model, task.test)))
        diverged, epochs = divergence(loss, epoch), epoch + 1
        if epochs in task.snapshots:
            snapshots[epochs] = state_of(model)
        task.offer(partial(_progress, model, optimizer, epochs, curve, diverged, snapshots))
        if diverged or task.is_enough(curve):
            break
    return _progress(model, optimizer, epochs, curve, diverged, snapshots)


@contextmanager
def _global_noise(task: Task, epoch: int) -> Iterator[None]:
    """Seed torch's global random state, from which a user's layers may draw, by the task's noise."""
    device = task.positions.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(child_seed(task.noise_seed, "global", epoch))
        yield


def _train_epoch(
    task: Task, optimizer: torch.optim.Optimizer, epoch: int, rates: Sequence[float], lesson: Lesson | None
) -> tuple[float, float]:
    """Mean cross-entropy and accuracy over the epoch's batches, each taken before its update."""
    task.model.train()
    seeds = dropout_seeds(task.model.named_buffers())
    feeds = task.feed(epoch, len(rates))
    losses, hits = [], []
    first = epoch * task.steps_per_epoch
    for step, rate in enumerate(rates):
        if task.disturbance and task.disturbance.step == first + step:
            task.disturbance.apply(dict(task.model.named_parameters()))
        feed = {name: entries[step] for name, entries in feeds.items()}
        inputs, labels = task.examples(feed)
        for seed in seeds:
            seed.copy_(feed["drop"])
        with task.precision():
            logits, truth = decisions(task.model(inputs), labels)
            entropy = functional.cross_entropy(logits, truth)
            loss = lesson(inputs, logits, labels) if lesson else entropy
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        losses.append(entropy.detach())
        hits.append(logits.detach().argmax(1).eq(truth).sum())
    n = len(rates) * task.decisions_per_step
    return float(torch.stack(losses).double().mean()), float(torch.stack(hits).sum()) / n


def _optimizer(parameters: Iterable[nn.Parameter], spec: TrainSpec) -> torch.optim.Optimizer:
    # The fused kernels do one pass over the weights instead of one call per tensor and operation.
    parameters = [parameter for parameter in parameters if parameter.requires_grad]
    if spec.optimizer == "sgd":
        return torch.optim.SGD(
            parameters,
            lr=spec.lr,
            momentum=spec.momentum,
            nesterov=spec.nesterov,
            weight_decay=spec.weight_decay,
            fused=True,
        )
    kind: type[torch.optim.Adam] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[spec.optimizer]
    return kind(parameters, lr=spec.lr, weight_decay=spec.weight_decay, fused=True)


def _progress(  # noqa: PLR0913, PLR0917
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    epochs: int,
    curve: list[CurvePoint],
    diverged: str,
    snapshots: Mapping[int, dict[str, Tensor]],
) -> Progress:
    return Progress(
        epochs=epochs,
        state=state_of(model),
        moments=_moments(optimizer),
        curve=curve,
        diverged=diverged,
        snapshots=snapshots,
    )


def _moments(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    (group,) = optimizer.param_groups
    found = [optimizer.state.get(parameter, {}) for parameter in group["params"]]
    # A parameter without a gradient has no moments.
    example: dict[str, Tensor | None] = next(filter(None, found), {})
    moments = {
        name: torch.cat(
            [
                (entries[name] if entries else torch.zeros_like(parameter)).flatten().cpu()
                for parameter, entries in zip(group["params"], found, strict=True)
            ]
        )
        for name, value in example.items()
        if value is not None and name != "step"
    }
    step = example.get("step")
    return moments if step is None else {**moments, "step": step.to("cpu", copy=True)}


def _set_moments(optimizer: torch.optim.Optimizer, moments: Mapping[str, Tensor]) -> None:
    (group,) = optimizer.param_groups
    flat = {name: moment for name, moment in moments.items() if name != "step"}
    offset = 0
    for parameter in group["params"]:
        end = offset + parameter.numel()
        entries = {
            name: moment[offset:end].view_as(parameter).to(parameter.device, copy=True) for name, moment in flat.items()
        }
        if "step" in moments:
            entries["step"] = moments["step"].to(parameter.device, torch.float32, copy=True)
        optimizer.state[parameter] = entries
        offset = end
