"""The requirements for a user's network, checked before anything is trained with it."""

import copy
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lmc_tune.errors import UserError
from lmc_tune.experiment.datasets import DatasetFacts
from lmc_tune.models.dropout import dropout_seeds
from lmc_tune.models.foreign import said, settings

_MODES = {"evaluation": False, "training": True}


def check_fits(model: nn.Module, input_shape: tuple[int, ...], n_classes: int, batch_size: int = 2) -> None:
    """Pass some images, or windows of text, forward, in both modes.

    Raises:
        UserError: if the network cannot take them, does not return one output per class (and token), returns different
            outputs in evaluation mode, or changes its inputs or torch's own settings.
    """
    shape, what = "x".join(map(str, input_shape)), "images" if len(input_shape) == 3 else "windows"
    for mode, training in _MODES.items():
        images = some_inputs(2 if mode == "evaluation" else batch_size, input_shape, n_classes)
        given, before = images.clone(), settings()
        outputs = _passed(model.train(training), images, f"cannot take {what} of {shape} in {mode} mode")
        expected = (len(images), n_classes) if what == "images" else (*images.shape, n_classes)
        if not isinstance(outputs, Tensor) or outputs.shape != expected:
            found = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            raise UserError(
                f"gives {found} for {len(images)} {what} in {mode} mode; there are {n_classes} classes, so it has to "
                f"be one tensor of logits, {expected}"
            )
        if not training and not _alike(outputs, _passed(model, given.clone(), "fails in a second pass")):
            raise UserError(
                "gives other outputs in a second pass in evaluation mode, where nothing may be drawn or counted; ask "
                "self.training first"
            )
        if not torch.equal(images, given):
            raise UserError(
                f"changes its inputs in {mode} mode, which other networks are given too; take inplace=True from the "
                f"layers that see the images first, or clone them"
            )
        if altered := [name for name, value in settings().items() if value != before[name]]:
            raise UserError(
                f"changes {' and '.join(altered)} of torch in a pass in {mode} mode; leave them as they are"
            )


def check_state(model: nn.Module, input_shape: tuple[int, ...]) -> None:
    """Check the parts of a network that are kept.

    Raises:
        UserError: if it has lazy weights; if its state cannot be read, has entries that are not tensors, or complex
            ones, or lacks parameters; or if the network cannot be copied.
    """
    if any(is_lazy(tensor) for _, tensor in _tensors(model)):
        shape = "x".join(map(str, input_shape))
        raise UserError(f"has weights without a size; pass images of {shape} through it before it is returned")
    try:
        state: Mapping[str, object] = model.state_dict()
    except Exception as error:
        raise UserError(f"cannot give its state dict: {said(error)}") from error
    for name, entry in state.items():
        if not isinstance(entry, Tensor):
            raise UserError(
                f"keeps {name!r} of type {type(entry).__name__} in its state dict, which may hold tensors alone; "
                f"register it as a buffer, or leave it out"
            )
        if entry.is_complex():
            raise UserError(f"keeps complex numbers in {name!r}; keep real and imaginary parts as real tensors")
    if missing := [name for name, _ in model.named_parameters() if name not in state]:
        raise UserError(f"has parameters that its state dict lacks: {', '.join(missing)}; keep all of them there")
    try:
        copy.deepcopy(model)
    except Exception as error:
        raise UserError(f"cannot be copied, which measuring has to do: {said(error)}") from error


def check_apart(one: nn.Module, other: nn.Module) -> None:
    """Check two networks from separate calls.

    Raises:
        UserError: if they share parameters or buffers.
    """
    shared = {tensor.untyped_storage().data_ptr() for _, tensor in _tensors(one) if tensor.numel()}
    for name, tensor in _tensors(other):
        if tensor.numel() and tensor.untyped_storage().data_ptr() in shared:
            raise UserError(f"shares {name!r} with a network from another call; create a new network in each call")


def check_same_start(one: nn.Module, other: nn.Module) -> None:
    """Check two networks of one factory, made with one seed.

    Raises:
        UserError: if they do not start with the same state.
    """
    states = one.state_dict(), other.state_dict()
    different = sorted(states[0].keys() ^ states[1].keys()) or [
        name for name, entry in states[0].items() if not _same(entry, states[1][name])
    ]
    if different:
        raise UserError(
            f"begins with another {different[0]!r} in every call; draw initial weights from torch's global random "
            f"state alone, which is seeded before"
        )


def check_restored(trained: nn.Module, fresh: nn.Module, images: Tensor) -> None:
    """Load the state of a network that took a step into a new one.

    Raises:
        UserError: if it cannot be loaded, or if the two networks then return different outputs in some mode.
    """
    try:
        state = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
        fresh.load_state_dict(state)
    except Exception as error:
        raise UserError(f"cannot load its own state dict: {said(error)}") from error
    for mode, training in _MODES.items():
        outputs = []
        for model in (trained, fresh):
            model.load_state_dict(state)
            for seed in dropout_seeds(model.named_buffers()):
                seed.zero_()
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(0)
                outputs.append(_passed(model.train(training), images, f"fails after a step in {mode} mode"))
        if not _alike(*outputs):
            raise UserError(
                f"gives other outputs in {mode} mode once its state dict is loaded into a new one: it keeps something "
                f"outside its state; register that as a buffer"
            )


def some_inputs(n: int, input_shape: tuple[int, ...], n_classes: int) -> Tensor:
    """Images as varied as real ones, with pixels of both signs; or windows of tokens."""
    generator = torch.Generator().manual_seed(0)
    if len(input_shape) == 1:
        return torch.randint(n_classes, (n, *input_shape), generator=generator)
    return torch.randn(n, *input_shape, generator=generator)


def no_labels(n: int, facts: DatasetFacts) -> Tensor:
    """Labels of so many examples, all 0."""
    each = facts.shape if facts.is_text else (facts.n_classes,) if facts.multi_label else ()
    return torch.zeros(n, *each, dtype=torch.int64)


@torch.no_grad()
def _passed(model: nn.Module, images: Tensor, refusal: str) -> Tensor:
    try:
        outputs: Tensor = model(images)
    except (Exception, SystemExit) as error:
        raise UserError(f"{refusal}: {said(error)}") from error
    return outputs


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _alike(one: Tensor, other: Tensor) -> bool:
    """Whether they are equal up to rounding, which may depend on the position in memory."""
    return torch.allclose(one, other, rtol=1e-4, atol=1e-5, equal_nan=True)


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool(torch.eq(one, other).logical_or(one.ne(one) & other.ne(other)).all())
