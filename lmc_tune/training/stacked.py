"""Training many members at once, as one stack of networks.

Members of a stack may differ in their weights, data and noise, and in the settings
:data:`~lmc_tune.experiment.PER_MEMBER`; they share all others. No operation mixes members, so what becomes of one never
touches another.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from lmc_tune.data.decisions import stacked_decisions
from lmc_tune.data.examples import ExampleSet, at_once
from lmc_tune.errors import UserError
from lmc_tune.measurement.evaluate import CHUNK, Score, sums_of
from lmc_tune.models.dropout import dropout_seeds
from lmc_tune.models.plain import is_plain
from lmc_tune.models.stack import Stack, Way
from lmc_tune.training.graph import Replay, can_record
from lmc_tune.training.memory import even_share, members_that_fit, peak_bytes
from lmc_tune.training.progress import CurvePoint, Progress
from lmc_tune.training.task import Feed, Task, divergence
from lmc_tune.training.updates import make_update

# Numbers in 16 bytes. On a CPU, matrices that begin at a multiple of them are multiplied alike wherever in a stack they
# stand.
ALIGNED = 4
# A recording, its memory and its steps are tried on so many members and steps.
_MOST_TRIED = 32
_TIMED_STEPS = 5
# Between two rounds of checkpoints, in times that the first of them took.
_REST = 20


def train_stacked(tasks: Sequence[Task]) -> list[Progress]:
    """Train members that share architecture, test set, batch size, steps and optimizer; results in their order.

    On a GPU as many at once as its memory holds.

    Raises:
        UserError: if lmc-tune does not know how to stack the network.
    """
    check_stackable(tasks[0].model)
    at_once, way = _fitted(tasks)
    return [
        trained
        for first in range(0, len(tasks), at_once)
        for trained in StackedRun(tasks[first : first + at_once], way).train()
    ]


def check_stackable(model: nn.Module) -> None:
    """Raise UserError if lmc-tune does not know how to stack a network."""
    if not is_plain(model):
        raise UserError(
            "cannot be trained by engine: stacked, which takes layers that it knows, each used once and trained; leave "
            "the engine out, or say loop"
        )


def _fitted(tasks: Sequence[Task]) -> tuple[int, Way]:
    """How many members make a stack, and how they train faster."""
    way = tasks[0].way
    if tasks[0].positions.device.type != "cuda":
        return len(tasks), way or "vmap"
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info()
    at_once = _at_once(tasks, free, peak_bytes)
    return at_once, way or _faster_way(tasks[: min(at_once, _MOST_TRIED)])


def _at_once(tasks: Sequence[Task], free: int, bytes_of: Callable[[Callable[[], object]], int]) -> int:
    """Members in a stack; all stacks are about equally large, and the two members of a pair stay together."""
    most = members_that_fit(len(tasks), lambda n: bytes_of(lambda: StackedRun(tasks[:n]).probe()), free)
    return even_share(len(tasks), most)


def _faster_way(tasks: Sequence[Task]) -> Way:
    """The faster way to train these members; both are tried.

    One convolution with the weights of many networks may be slower than as many convolutions, depending on sizes, GPU
    and libraries. Perceptrons are always batched.
    """
    ways = ways_of(tasks[0])
    return ways[0] if len(ways) == 1 else min(ways, key=lambda way: StackedRun(tasks, way).seconds())


def ways_of(task: Task) -> tuple[Way, ...]:
    """How a stack of such members may be applied on a GPU."""
    return ("vmap",) if Stack(task.model, [task.start]).batched else ("vmap", "lanes")


class StackedRun:
    """Members that are trained at once; see :class:`~lmc_tune.models.stack.Stack` for the way."""

    def __init__(self, tasks: Sequence[Task], way: Way = "vmap") -> None:
        self.tasks = tasks
        first = tasks[0]
        self.decisions_per_step = first.decisions_per_step
        self.per_epoch = first.steps_per_epoch
        self.n_steps = first.n_steps
        states = [task.resume.state if task.resume else task.start for task in tasks]
        self.stack = Stack(first.model, states, way=way)
        self.gradients = torch.zeros_like(self.stack.weights)
        self.loss = torch.zeros(self.stack.size, dtype=torch.float64, device=self.stack.weights.device)
        self.hits = torch.zeros(self.stack.size, dtype=torch.int64, device=self.stack.weights.device)
        self.update = make_update(self.stack, [task.spec for task in tasks])
        self.update.set_moments([task.resume.moments if task.resume else {} for task in tasks])
        self.snapshots = [task.snapshots_before() for task in tasks]
        self._replay: Replay | None = None
        self._rest_until = 0.0

    def probe(self) -> None:
        """A step and a scoring, which take memory."""
        self._step(self._first_feed())
        _score_stack(self.stack, self.tasks[0].test)

    def seconds(self) -> float:
        """Of some steps on a GPU, once the step is recorded."""
        feed = self._first_feed()
        self._advance(feed)
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(_TIMED_STEPS):
            self._advance(feed)
        torch.cuda.synchronize()
        return time.perf_counter() - started

    def _first_feed(self) -> Feed:
        """The inputs of the first step, at rates of 0."""
        self.stack.model.train()
        return {name: entries[0] for name, entries in self._feeds(0, [[0.0] * self.stack.size]).items()}

    def train(self) -> list[Progress]:
        curves = [list(task.resume.curve) if task.resume else [] for task in self.tasks]
        ended: dict[int, Progress] = {}
        last = self.tasks[0].last_epoch
        for epoch in range(self.tasks[0].epochs_done, last):
            first = epoch * self.per_epoch
            n_steps = min(self.per_epoch, self.n_steps - first)
            rates = [[task.rate(first + at) for task in self.tasks] for at in range(n_steps)]
            losses, hits = self.epoch(epoch, rates)
            tested = _score_stack(self.stack, self.tasks[0].test)
            for member, (task, curve) in enumerate(zip(self.tasks, curves, strict=True)):
                if member not in ended:
                    accuracy = hits[member] / (n_steps * self.decisions_per_step)
                    step, rate = first + n_steps, rates[-1][member]
                    curve.append(task.point(step, rate, losses[member], accuracy, tested[member]))
                    reason = divergence(losses[member], epoch)
                    if epoch + 1 in task.snapshots:
                        self.snapshots[member][epoch + 1] = self._state(member)
                    if reason or task.is_enough(curve):
                        ended[member] = self._progress(member, epoch + 1, curve, reason)
            self._offer(epoch + 1, curves, ended)
            if len(ended) == len(self.tasks):
                break
        return [ended.get(member) or self._progress(member, last, curve) for member, curve in enumerate(curves)]

    def _offer(self, epochs: int, curves: Sequence[list[CurvePoint]], ended: Mapping[int, Progress]) -> None:
        """Write every member's progress, unless writing took a good part of the time since the last one."""
        started = time.monotonic()
        if started < self._rest_until:
            return
        for member, (task, curve) in enumerate(zip(self.tasks, curves, strict=True)):
            now = partial(self._progress, member, epochs, curve)
            task.offer(partial(ended.__getitem__, member) if member in ended else now)
        finished = time.monotonic()
        self._rest_until = finished + _REST * (finished - started)

    def _progress(self, member: int, epochs: int, curve: list[CurvePoint], diverged: str = "") -> Progress:
        return Progress(
            epochs=epochs,
            state=self._state(member),
            moments=self.update.moments(member),
            curve=curve,
            diverged=diverged,
            snapshots=self.snapshots[member],
        )

    def _state(self, member: int) -> dict[str, Tensor]:
        return {name: tensor.cpu() for name, tensor in self.stack.state(member).items()}

    def epoch(self, epoch: int, rates: Sequence[Sequence[float]]) -> tuple[list[float], list[int]]:
        """Every member's mean loss over the epoch's batches, and its hits, each taken before its update."""
        feeds = self._feeds(epoch, rates)
        self.stack.model.train()
        self.loss.zero_()
        self.hits.zero_()
        for step in range(len(rates)):
            self._disturb(epoch * self.per_epoch + step)
            self._advance({name: entries[step] for name, entries in feeds.items()})
        return (self.loss / len(rates)).tolist(), self.hits.tolist()

    def _disturb(self, step: int) -> None:
        for member, task in enumerate(self.tasks):
            if task.disturbance and task.disturbance.step == step:
                task.disturbance.apply({name: rows[member] for name, rows in self.stack.parameters.items()})

    def _feeds(self, epoch: int, rates: Sequence[Sequence[float]]) -> Feed:
        """The inputs of an epoch's steps; entries have the steps first, then the members."""
        own = [task.feed(epoch, len(rates)) for task in self.tasks]
        feeds = {name: torch.stack([feed[name] for feed in own], dim=1) for name in own[0]}
        feeds["rate"] = torch.tensor(rates, dtype=self.stack.weights.dtype, device=self.stack.weights.device)
        return feeds

    def _advance(self, feed: Feed) -> None:
        """One step of every member; entries of the feed have the members first."""
        if not can_record(self.stack.weights.device):
            self._step(feed)
            return
        if self._replay is None:
            self._replay = Replay(self._step, feed, self._changed_by_a_step())
        self._replay(feed)

    def _changed_by_a_step(self) -> list[Tensor]:
        return [self.stack.weights, *self.stack.buffers.values(), *self.update.state, self.loss, self.hits]

    def _step(self, feed: Feed) -> None:
        inputs, labels = self._examples(feed)
        for seed in dropout_seeds(self.stack.buffers.items()):
            seed.copy_(feed["drop"])
        with self.tasks[0].precision():
            logits, labels = stacked_decisions(self.stack.logits(inputs), labels)
            losses = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
            loss = losses.view(labels.shape).mean(1)
        self.stack.differentiate(loss, out=self.gradients)
        with torch.no_grad():
            self.update.step(self.gradients, feed["rate"][:, None])
            self.loss += loss
            self.hits += logits.argmax(2).eq(labels).sum(1)

    def _examples(self, feed: Feed) -> tuple[Tensor, Tensor]:
        """Inputs (members, batch_size, ...) and labels of one step."""
        wholes = {id(task.whole): task.whole for task in self.tasks}
        if len(wholes) == 1:
            (whole,) = wholes.values()
            inputs, labels = whole.inputs[feed["batch"]], whole.labels[feed["batch"]]
        else:
            own = list(zip((task.whole for task in self.tasks), feed["batch"], strict=True))
            inputs = torch.stack([whole.inputs[batch] for whole, batch in own])
            labels = torch.stack([whole.labels[batch] for whole, batch in own])
        return self.tasks[0].augmented(inputs, feed), labels


@torch.no_grad()
def _score_stack(stack: Stack, examples: ExampleSet) -> list[Score]:
    """Loss and error of every network, in evaluation mode, on all ``examples``."""
    stack.model.eval()
    loss = torch.zeros(stack.size, dtype=torch.float64, device=examples.labels.device)
    correct = torch.zeros(stack.size, dtype=torch.int64, device=examples.labels.device)
    for some in examples.chunks(at_once(examples, CHUNK)):
        inputs, labels, n = some.inputs, some.labels, len(some)
        if missing := -n % ALIGNED:  # filled up: aligned matrices round alike wherever a network is in the stack
            inputs = torch.cat([inputs, inputs[:1].expand(missing, *inputs.shape[1:])])
        found, hits = sums_of(stack.logits(inputs, shared=True)[:, :n], labels)
        loss += found
        correct += hits
    return [
        Score(loss_sum=sum_, correct=hits, n=examples.labels.numel())
        for sum_, hits in zip(loss.tolist(), correct.tolist(), strict=True)
    ]
