"""Loss and error at many positions of a path, with few passes over the data."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lmc_tune.data.decisions import decisions
from lmc_tune.data.examples import ExampleSet, at_once
from lmc_tune.measurement import evaluate as scoring
from lmc_tune.measurement.evaluate import Score, evaluate
from lmc_tune.measurement.lines import Segment
from lmc_tune.measurement.network import Network, holding
from lmc_tune.models.inference import multiplied_by_onednn
from lmc_tune.models.plain import is_plain
from lmc_tune.models.stack import Stack, evaluates_faster_stacked
from lmc_tune.models.state import State, lerp_state

_Item = TypeVar("_Item")

# Bytes of first-layer outputs that are kept while all positions are scored: weights are loaded and laid out once for
# them. Four times as many make MLP-L3 4 % faster, and workers so much larger.
_KEPT_BYTES = 2**24
# Positions in a stack. Always as many, the last repeated if need be: a kernel chosen for another number may round
# otherwise. Few, since a single position costs as much; the default grid fills five stacks.
POSITIONS_AT_ONCE = 5


def scan(network: Network, path: Segment, lambdas: Sequence[float], examples: ExampleSet) -> list[Score]:
    """Loss and error of θ(λ), in evaluation mode, on all ``examples``: one score per position.

    Where the network begins with a linear layer, that layer is applied to every example twice instead of once per
    position: it is linear in its own weights, so at λ its output is the lerp of its outputs at the two ends. On a GPU
    positions are evaluated together, as stacks of networks; a user's own network, which it may not be possible to
    stack, one by one.

    A position's score does not depend on which others are asked for; in a stack its rounding may, by its place.

    Args:
        network: of the architecture.
        path: from A to B, all entries moved.
        lambdas: positions on the path.
        examples: on the network's device.
    """
    if evaluates_faster_stacked(network.module, examples.labels.device):
        return scan_stacked(network, path, lambdas, examples)
    parts = _behind_first_linear(network.module)
    if parts is None:
        return score_states(network, map(path.at, lambdas), examples)
    return _scan_behind(*parts, path, lambdas, examples)


@torch.no_grad()
def score_states(network: Network, states: Iterable[State], examples: ExampleSet) -> list[Score]:
    """Loss and error of networks of one architecture, in evaluation mode, on all ``examples``; on a GPU as stacks."""
    if evaluates_faster_stacked(network.module, examples.labels.device):
        return score_states_stacked(network.module, list(states), examples)
    return [evaluate(network.loaded(state), examples) for state in states]


@torch.no_grad()
def score_states_stacked(model: nn.Module, states: Sequence[State], examples: ExampleSet) -> list[Score]:
    """What :func:`score_states` does on a GPU: every chunk of examples is read once."""
    stacks = [Stack(model.eval(), group) for group in filled_groups(states)]

    def logits(inputs: Tensor) -> Iterator[Tensor]:
        return (stack.logits(inputs, shared=True) for stack in stacks)

    return _summed(len(stacks), logits, examples)[: len(states)]


@torch.no_grad()
def scan_stacked(network: Network, path: Segment, lambdas: Sequence[float], examples: ExampleSet) -> list[Score]:
    """What :func:`scan` does on a GPU: all positions are held as stacks, and every chunk of examples is read once."""
    begin, rest = _behind_first_linear(network.module) or (None, network.module)
    if begin is None or not rest.state_dict():  # a single layer: nothing would be left to stack
        return score_states_stacked(network.module, list(map(path.at, lambdas)), examples)
    rest.eval()
    rest_a, rest_b = _entries(rest, path.a), _entries(rest, path.b)
    groups = filled_groups(lambdas)
    stacks = [Stack(rest, [lerp_state(rest_a, rest_b, lambda_) for lambda_ in group]) for group in groups]

    def logits(inputs: Tensor) -> Iterator[Tensor]:
        from_a, from_b = (functional_call(begin, _entries(begin, state), inputs) for state in (path.a, path.b))
        shape = (POSITIONS_AT_ONCE, *[1] * from_a.ndim)
        for stack, group in zip(stacks, groups, strict=True):
            yield stack.logits(torch.lerp(from_a, from_b, inputs.new_tensor(group).view(shape)))

    return _summed(len(stacks), logits, examples)[: len(lambdas)]


def filled_groups(items: Sequence[_Item]) -> list[list[_Item]]:
    """Items in groups of equally many, the last filled up with the last item.

    A stack of another size may be computed by another kernel, which rounds otherwise.
    """
    filled = [*items, *list(items[-1:]) * (-len(items) % POSITIONS_AT_ONCE)]
    return [filled[at : at + POSITIONS_AT_ONCE] for at in range(0, len(filled), POSITIONS_AT_ONCE)]


def _summed(stacks: int, logits_of: Callable[[Tensor], Iterator[Tensor]], examples: ExampleSet) -> list[Score]:
    """Scores of the networks of so many stacks, whose logits come stack by stack."""
    losses = torch.zeros(stacks, POSITIONS_AT_ONCE, dtype=torch.float64, device=examples.labels.device)
    correct = torch.zeros(stacks, POSITIONS_AT_ONCE, dtype=torch.int64, device=examples.labels.device)
    for some in examples.chunks(at_once(examples, scoring.CHUNK)):
        for number, logits in enumerate(logits_of(some.inputs)):
            loss, hits = scoring.sums_of(logits, some.labels)
            losses[number] += loss
            correct[number] += hits
    sums, n = zip(losses.flatten().tolist(), correct.flatten().tolist(), strict=True), examples.labels.numel()
    return [Score(loss_sum=loss, correct=hits, n=n) for loss, hits in sums]


def _behind_first_linear(model: nn.Module) -> tuple[nn.Module, nn.Module] | None:
    """A plain sequential network cut behind its first linear layer, if only a flattening precedes that."""
    if type(model) is nn.Sequential and is_plain(model):
        for at, module in enumerate(model, start=1):
            if isinstance(module, nn.Linear):
                return model[:at], model[at:]
            if not isinstance(module, nn.Flatten):
                return None
    return None


@torch.no_grad()
def _scan_behind(
    begin: nn.Module, rest: nn.Module, path: Segment, lambdas: Sequence[float], examples: ExampleSet
) -> list[Score]:
    begins = [holding(multiplied_by_onednn(begin), _entries(begin, state)) for state in (path.a, path.b)]
    rest = multiplied_by_onednn(rest).eval()
    if type(first := next(rest.children(), None)) is nn.ReLU:
        first.inplace = True  # nothing else reads what it gets
    moving, rest_a, rest_b = Network(rest), _entries(rest, path.a), _entries(rest, path.b)
    # One tensor for all: many small ones that stay would leave holes in the heap between the large ones that go.
    losses = next(begin.parameters()).new_empty(len(lambdas), *examples.labels.shape)
    correct = [0] * len(lambdas)
    done, chunks, at_once = 0, examples.chunks(scoring.CHUNK), _chunks_at_once(begin, examples)
    while kept := [(*(end(some.inputs) for end in begins), some.labels) for some in islice(chunks, at_once)]:
        sizes = [len(truth) for _, _, truth in kept]
        for at, lambda_ in enumerate(lambdas):
            moving.moved_to(rest_a, rest_b, lambda_)
            found = losses[at, done : done + sum(sizes)].split(sizes)
            for (a, b, truth), loss in zip(kept, found, strict=True):
                logits, classes = decisions(rest(torch.lerp(a, b, lambda_)), truth)
                loss.copy_(scoring.losses_of(logits, classes).view_as(loss))
                correct[at] += int(logits.argmax(1).eq(classes).sum())
        done += sum(sizes)
    return [
        Score(loss_sum=float(row.sum(dtype=torch.float64)), correct=hits, n=row.numel())
        for row, hits in zip(losses, correct, strict=True)
    ]


def _chunks_at_once(begin: nn.Module, examples: ExampleSet) -> int:
    """Of how many chunks the outputs of the first linear layer, at both ends, may be kept; at least one."""
    outputs, inputs = next(begin.parameters()).shape
    example = next(examples.chunks(scoring.CHUNK)).inputs[0]
    rows = example.numel() // inputs  # of an example that is not flattened
    return max(1, _KEPT_BYTES // (2 * scoring.CHUNK * rows * outputs * example.element_size()))


def _entries(part: nn.Module, state: State) -> dict[str, Tensor]:
    """The entries of a network's state that belong to one part of it; a slice of a Sequential keeps the names."""
    return {name: state[name] for name in part.state_dict()}
