"""Training many members at once, as one stack of networks.

All members of a stack share architecture, batch size, number of steps and optimizer; everything else is each member's
own: weights, data, order, learning rate, momentum, weight decay, schedule. No operation mixes members, so what becomes
of one never touches another.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from lmc_tune.data.datasets import Examples
from lmc_tune.measurement.evaluate import Score
from lmc_tune.specs import TrainSpec
from lmc_tune.training.schedule import learning_rate
from lmc_tune.training.task import CurvePoint, Task, Trained, divergence

# Examples times members per forward pass of an evaluation; bounds memory.
_SCORED_AT_ONCE = 16384


def train_stacked(tasks: Sequence[Task]) -> list[Trained]:
    """Train members that share architecture, training set, batch size, steps and optimizer; results in their order."""
    return _Run(tasks).train()


class _Stack:
    """The weights of several networks of one architecture, member by member in one tensor.

    weights: (members, parameters), every network's parameters in one row; the parameters are views of it. gradients: of
    the same shape, filled by :meth:`differentiate`. buffers: (members, ...) by name.
    """

    def __init__(self, model: nn.Module, states: Sequence[Mapping[str, Tensor]]) -> None:
        self.model = model
        self.size = len(states)
        names = {name: parameter.shape for name, parameter in model.named_parameters()}
        self.weights = torch.stack([torch.cat([state[name].flatten() for name in names]) for state in states])
        self.gradients = torch.zeros_like(self.weights)
        self.buffers = {name: torch.stack([state[name] for state in states]) for name, _ in model.named_buffers()}
        self._parameters: dict[str, Tensor] = {}
        offset = 0
        for name, shape in names.items():
            columns = slice(offset, offset + math.prod(shape))
            self._parameters[name] = self.weights[:, columns].view(self.size, *shape).requires_grad_()
            offset = columns.stop

    def logits(self, inputs: Tensor, *, shared: bool = False) -> Tensor:
        """(members, n, classes) of inputs (members, n, ...), or of one (n, ...) that all members see."""

        def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor], batch: Tensor) -> Tensor:
            logits: Tensor = functional_call(self.model, (parameters, buffers), (batch,))
            return logits

        with sdpa_kernel(SDPBackend.MATH):  # the fused kernels of attention cannot be stacked
            stacked: Tensor = vmap(one, in_dims=(0, 0, None if shared else 0))(self._parameters, self.buffers, inputs)
        return stacked

    def differentiate(self, losses: Tensor) -> None:
        """Put the gradient of every network's own loss, (members,), into :attr:`gradients`."""
        found = torch.autograd.grad(losses.sum(), list(self._parameters.values()))
        torch.cat([gradient.flatten(1) for gradient in found], dim=1, out=self.gradients)

    def state(self, member: int) -> dict[str, Tensor]:
        """A copy of one network's state."""
        found = {**self._parameters, **self.buffers}
        return {name: found[name][member].detach().clone() for name in self.model.state_dict()}


class _Run:
    """One call of :func:`train_stacked`."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.tasks = tasks
        first = tasks[0]
        self.batch_size = first.spec.batch_size
        self.per_epoch = first.steps_per_epoch
        self.n_steps = first.n_steps
        self.stack = _Stack(first.model, [task.start for task in tasks])
        self.update = _make_update(self.stack, [task.spec for task in tasks])

    def train(self) -> list[Trained]:
        curves: list[list[CurvePoint]] = [[] for _ in self.tasks]
        ended: dict[int, Trained] = {}
        for epoch, first in enumerate(range(0, self.n_steps, self.per_epoch)):
            n_steps = min(self.per_epoch, self.n_steps - first)
            rates = [[learning_rate(t.spec, first + at, self.n_steps) for t in self.tasks] for at in range(n_steps)]
            losses, hits = self._epoch(epoch, rates)
            tested = _score_stack(self.stack, self.tasks[0].test)
            for member, curve in enumerate(curves):
                if member in ended:
                    continue
                accuracy = hits[member] / (n_steps * self.batch_size)
                step, rate = first + n_steps, rates[-1][member]
                curve.append(self.tasks[member].point(step, rate, losses[member], accuracy, tested[member]))
                if reason := divergence(losses[member], epoch):
                    ended[member] = Trained(state=self.stack.state(member), curve=curve, diverged=reason)
            if len(ended) == len(self.tasks):
                break
        return [
            ended.get(member) or Trained(state=self.stack.state(member), curve=curve)
            for member, curve in enumerate(curves)
        ]

    def _epoch(self, epoch: int, rates: Sequence[Sequence[float]]) -> tuple[list[float], list[int]]:
        """Every member's mean loss over the epoch's batches, and its hits, each taken before its update."""
        whole = self.tasks[0].whole
        batches = torch.stack([task.positions[task.order(epoch, len(rates))] for task in self.tasks])
        at_rates = torch.tensor(rates, dtype=self.stack.weights.dtype, device=whole.labels.device)
        self.stack.model.train()
        total_loss = torch.zeros(self.stack.size, dtype=torch.float64, device=whole.labels.device)
        total_hits = torch.zeros(self.stack.size, dtype=torch.int64, device=whole.labels.device)
        for step, rate in enumerate(at_rates):
            loss, hits = self._step(whole, batches[:, step], rate)
            total_loss += loss
            total_hits += hits
        return (total_loss / len(rates)).tolist(), total_hits.tolist()

    def _step(self, whole: Examples, batch: Tensor, rate: Tensor) -> tuple[Tensor, Tensor]:
        labels = whole.labels[batch]
        logits = self.stack.logits(whole.inputs[batch])
        losses = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape)
        loss = losses.mean(1)
        self.stack.differentiate(loss)
        with torch.no_grad():
            self.update.step(rate[:, None])
            return loss.detach(), logits.argmax(2).eq(labels).sum(1)


@torch.no_grad()
def _score_stack(stack: _Stack, examples: Examples) -> list[Score]:
    """Loss and error of every network, in evaluation mode, on all ``examples``."""
    stack.model.eval()
    loss = torch.zeros(stack.size, dtype=torch.float64, device=examples.labels.device)
    correct = torch.zeros(stack.size, dtype=torch.int64, device=examples.labels.device)
    chunk = max(1, _SCORED_AT_ONCE // stack.size)
    for inputs, labels in zip(examples.inputs.split(chunk), examples.labels.split(chunk), strict=True):
        logits = stack.logits(inputs, shared=True)
        losses = functional.cross_entropy(
            logits.flatten(0, 1), labels.expand(stack.size, -1).flatten(), reduction="none"
        )
        loss += losses.view(stack.size, -1).sum(1, dtype=torch.float64)
        correct += logits.argmax(2).eq(labels).sum(1)
    return [
        Score(loss_sum=sum_, correct=hits, n=len(examples))
        for sum_, hits in zip(loss.tolist(), correct.tolist(), strict=True)
    ]


class _Sgd:
    """Momentum, Nesterov and weight decay as :class:`torch.optim.SGD`, with each member's own coefficients."""

    def __init__(self, stack: _Stack, specs: Sequence[TrainSpec]) -> None:
        self._stack = stack
        self._decay = _column(stack, [spec.weight_decay for spec in specs])
        self._momentum = _column(stack, [spec.momentum for spec in specs])
        self._nesterov = specs[0].nesterov
        self._velocity = torch.zeros_like(stack.weights)

    def step(self, rate: Tensor) -> None:
        """One update; ``rate`` is (members, 1)."""
        gradient = torch.addcmul(self._stack.gradients, self._stack.weights, self._decay)
        self._velocity.mul_(self._momentum).add_(gradient)
        direction = torch.addcmul(gradient, self._velocity, self._momentum) if self._nesterov else self._velocity
        self._stack.weights.addcmul_(direction, -rate)


class _Adam:
    """:class:`torch.optim.Adam` or :class:`~torch.optim.AdamW`, with each member's own weight decay."""

    _BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8

    def __init__(self, stack: _Stack, specs: Sequence[TrainSpec]) -> None:
        self._stack = stack
        self._decay = _column(stack, [spec.weight_decay for spec in specs])
        self._decoupled = specs[0].optimizer == "adamw"
        self._mean, self._square = torch.zeros_like(stack.weights), torch.zeros_like(stack.weights)
        self._steps = torch.zeros((), dtype=torch.float64, device=stack.weights.device)

    def step(self, rate: Tensor) -> None:
        """One update; ``rate`` is (members, 1)."""
        weights, gradient = self._stack.weights, self._stack.gradients
        if self._decoupled:
            weights.mul_(1 - rate * self._decay)
        else:
            gradient = torch.addcmul(gradient, weights, self._decay)
        self._steps += 1
        self._mean.lerp_(gradient, 1 - self._BETA1)
        self._square.mul_(self._BETA2).addcmul_(gradient, gradient, value=1 - self._BETA2)
        first = 1 - self._BETA1**self._steps
        second = (1 - self._BETA2**self._steps).sqrt()
        scale = (self._square.sqrt() / second).add_(self._EPSILON)
        weights.addcdiv_(self._mean * (-rate / first), scale)


def _make_update(stack: _Stack, specs: Sequence[TrainSpec]) -> _Sgd | _Adam:
    return (_Sgd if specs[0].optimizer == "sgd" else _Adam)(stack, specs)


def _column(stack: _Stack, values: Sequence[float]) -> Tensor:
    """(members, 1) of the stack's own type."""
    return torch.tensor(values, dtype=stack.weights.dtype, device=stack.weights.device)[:, None]
