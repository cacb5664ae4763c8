"""Networks that a user's code makes: importing and calling it, and saying where it fails."""

import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from lmc_tune.errors import UserError
from lmc_tune.experiment import FactorySpec
from lmc_tune.experiment.sources import changed, code_of, has_packages, is_of_user
from lmc_tune.vision import import_torchvision

Factory = Callable[..., Any]


def import_factory(spec: FactorySpec, folders: Sequence[str] = ()) -> Factory:
    """The function that a spec names.

    Args:
        spec: the network; if its code is known, the code here has to be the same.
        folders: searched before ``sys.path``.

    Raises:
        UserError: if it cannot be imported, is not a function, or has changed.
    """
    module, _, name = spec.factory.partition(":")
    if module not in sys.modules:
        _check_code(spec.model_dump_json(), tuple(folders))
    try:
        # What it draws must not change the weights of the first network alone: it is imported once.
        with kept_apart(), torch.random.fork_rng(devices=[]), _first_on_path(folders):
            imported = importlib.import_module(module)
    except (Exception, SystemExit) as error:  # a script without a guard reads our command line, and exits
        raise _refused(
            spec,
            f"cannot be imported: {said(error)}",
            f"install {module}, put it next to the space's file, start lmc-tune in the folder that holds it, or fix "
            f"what python -c 'import {module}' shows",
        ) from error
    factory = getattr(imported, name, None)
    if not callable(factory):
        what = f"is of type {type(factory).__name__}" if hasattr(imported, name) else "is not there"
        file = getattr(imported, "__file__", None) or module
        raise _refused(spec, what, f"name a function of {file} that returns a torch.nn.Module")
    made: Factory = factory
    return made


def call_factory(factory: Factory, spec: FactorySpec, input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
    """A factory's network from its arguments, and from the input shape and number of classes if it names them.

    Raises:
        UserError: if it fails or does not return a network.
    """
    offered = {"input_shape": input_shape, "n_classes": n_classes}
    wanted = {name: value for name, value in offered.items() if name in _parameters(factory)}
    try:
        with kept_apart():
            model = factory(**(wanted | spec.arguments))
    except (Exception, SystemExit) as error:
        given = f", or model.arguments: {spec.arguments}" if spec.arguments else ""
        raise _refused(spec, f"failed with {said(error)}", f"fix it{given}") from error
    if not isinstance(model, nn.Module):
        raise _refused(spec, f"gave {type(model).__name__}, not a torch.nn.Module", "let it return the network")
    tensors = (*model.parameters(), *model.buffers())
    if elsewhere := {tensor.device.type for tensor in tensors} - {"cpu"}:
        raise _refused(spec, f"gave a network on {elsewhere.pop()}", "make it on the CPU: lmc-tune moves it")
    return model


def said(error: BaseException) -> str:
    """The kind of an error, the first line of its message, and where in the user's own code it was raised."""
    told = ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg} ({error.filename}:{error.lineno})"
    places = [
        f"{at.filename}:{at.lineno}" for at in traceback.extract_tb(error.__traceback__) if is_of_user(at.filename)
    ]
    return f"{told} ({places[-1]})" if places else told


def settings() -> dict[str, object]:
    """torch's own settings that change results or running times, by name."""
    return {name: read() for name, (read, _) in _SETTINGS.items()}


@contextmanager
def kept_settings() -> Iterator[None]:
    """Restore torch's own settings after foreign code has run; those that it did not change are not touched."""
    before = settings()
    try:
        yield
    finally:
        for name, (read, write) in _SETTINGS.items():
            if read() != before[name]:
                write(before[name])


@contextmanager
def kept_apart() -> Iterator[None]:
    """While code of the user's own runs: what it prints is not among our answers, which go to stdout."""
    with kept_settings(), redirect_stdout(sys.stderr):
        yield


def _set_deterministic(mode: Any) -> None:
    enabled, warn_only = mode
    torch.use_deterministic_algorithms(enabled, warn_only=warn_only)


_BACKENDS: Any = torch.backends
_ROUNDING = (_BACKENDS, _BACKENDS.cuda.matmul, _BACKENDS.cudnn.conv, _BACKENDS.mkldnn.matmul, _BACKENDS.mkldnn.conv)


def _rounding() -> tuple[tuple[str, bool] | None, list[str]]:
    """How float32 is rounded: torch's older settings, which cannot be read where they are mixed, and its newer ones."""
    try:
        older = (torch.get_float32_matmul_precision(), _BACKENDS.cudnn.allow_tf32)
    except RuntimeError:
        older = None
    return older, [backend.fp32_precision for backend in _ROUNDING]


def _set_rounding(rounding: Any) -> None:
    older, newer = rounding
    if older and _rounding()[0]:  # they set the newer ones too
        torch.set_float32_matmul_precision(older[0])
        _BACKENDS.cudnn.allow_tf32 = older[1]
    for backend, precision in zip(_ROUNDING, newer, strict=True):
        if backend.fp32_precision != precision:
            backend.fp32_precision = precision


def _cudnn(name: str) -> tuple[Callable[[], object], Callable[[Any], None]]:
    return lambda: getattr(_BACKENDS.cudnn, name), lambda value: setattr(_BACKENDS.cudnn, name, value)


_SETTINGS: dict[str, tuple[Callable[[], object], Callable[[Any], object]]] = {
    "the default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "the default device": (
        torch.get_default_device,
        lambda device: torch.set_default_device(None if device == torch.device("cpu") else device),
    ),
    "the number of threads": (torch.get_num_threads, torch.set_num_threads),
    "whether gradients are kept": (torch.is_grad_enabled, torch.set_grad_enabled),
    "anomaly detection": (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    "the rounding of float32": (_rounding, _set_rounding),
    "deterministic algorithms": (
        lambda: (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()),
        _set_deterministic,
    ),
    "cudnn.benchmark": _cudnn("benchmark"),
    "cudnn.deterministic": _cudnn("deterministic"),
    "attention's fast path": (_BACKENDS.mha.get_fastpath_enabled, _BACKENDS.mha.set_fastpath_enabled),
}


@lru_cache
def _check_code(spec: str, folders: tuple[str, ...]) -> None:
    """Called only before the import: an imported module stays as it is, even if its file changes."""
    network = FactorySpec.model_validate_json(spec)
    found = code_of(network.factory, folders)
    if has_packages(found):
        import_torchvision()  # with a CPU build of torch, another package could not import it
    if network.code and (others := changed(network.code, found)):
        raise _refused(
            network,
            f"is not what it was when its space was read: {', '.join(others)} changed",
            "run the same command again, and keep the code as it is while a sweep runs, alike on all machines",
        )


@contextmanager
def _first_on_path(folders: Sequence[str]) -> Iterator[None]:
    """Look for modules in these folders first.

    Afterwards the folders come last, for modules that are imported late: a user's file must not hide a module that
    lmc-tune has yet to import.
    """
    sys.path[:0] = folders
    try:
        yield
    finally:
        for folder in folders:
            sys.path.remove(folder)
        sys.path += [folder for folder in folders if folder not in sys.path]


def _parameters(factory: Factory) -> set[str]:
    """The names of the arguments that a function can be given by name."""
    try:
        known = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # not every function written in C says
        return set()
    return {one.name for one in known if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}


def _refused(spec: FactorySpec, why: str, remedy: str) -> UserError:
    return UserError(f"model.factory: {spec.factory} {why}; {remedy}")
