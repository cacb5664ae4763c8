"""From a text on the command line to a network: torchvision's, timm's, Hugging Face's, lmc-tune's, a user's own."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import nn

from lmc_tune.averaging.named import called, function_named, names_function
from lmc_tune.core.home import expanded
from lmc_tune.errors import UserError
from lmc_tune.experiment import MODELS
from lmc_tune.experiment.networks import model_name
from lmc_tune.experiment.wording import in_words, nearest
from lmc_tune.experiment.yaml_lines import YamlError, load_value
from lmc_tune.models.foreign import said
from lmc_tune.models.registry import build_model
from lmc_tune.models.state import State
from lmc_tune.vision import import_torchvision

_LIBRARIES = ("torchvision", "timm", "hf")
# What transformers keeps of a tokenizer.
_TOKENIZERS = ("tokenizer.json", "tokenizer_config.json")


def network_of(spec: str, state: State, input_shape: tuple[int, ...] | None, n_classes: int | None) -> nn.Module:
    """What ``--model`` names, with any weights.

    ``torchvision:NAME`` and ``timm:NAME`` have as many classes as the checkpoint; ``hf:FOLDER`` is what the folder's
    ``config.json`` says, of the classes that transformers has: no code of the folder is run. ``file.py:build`` is
    called, with ``input_shape`` and ``n_classes`` if it names them. All else is a model as in a search space.

    Args:
        spec: the text.
        state: of the first checkpoint.
        input_shape: of one example; None if it is not known.
        n_classes: of the data; None if it is not known.

    Raises:
        UserError: if there is no such network, or its library is not installed.
    """
    if names_function(spec):
        return _own(spec, input_shape, n_classes)
    library, _, name = spec.partition(":")
    if library in _LIBRARIES and name:
        return {"torchvision": _of_torchvision, "timm": _of_timm, "hf": _of_transformers}[library](name, state)
    return _registered(spec, state, input_shape, n_classes)


def _own(spec: str, input_shape: tuple[int, ...] | None, n_classes: int | None) -> nn.Module:
    build = function_named(spec, "--model")
    known = signature(build).parameters
    offered = {"input_shape": input_shape, "n_classes": n_classes}
    made = called(build, spec, "--model", **{name: value for name, value in offered.items() if name in known})
    if not isinstance(made, nn.Module):
        raise UserError(f"--model: {spec} returned {type(made).__name__}; let it return a torch.nn.Module")
    return made


def _of_torchvision(name: str, state: State) -> nn.Module:
    models = import_torchvision().models
    if name not in models.list_models():
        raise UserError(f"--model torchvision:{name}: no such network{nearest(name, models.list_models())}")
    return _with_classes(lambda **more: models.get_model(name, weights=None, **more), state)


def _of_timm(name: str, state: State) -> nn.Module:
    with needing("timm", f"timm:{name}"):
        timm = import_module("timm")
    if name not in timm.list_models():
        raise UserError(f"--model timm:{name}: no such network{nearest(name, timm.list_models())}")
    return _with_classes(lambda **more: timm.create_model(name, pretrained=False, **more), state)


def tokenizer_folder(model: str) -> Path | None:
    """The folder of a ``--model hf:FOLDER`` that has a tokenizer of its own."""
    library, _, folder = model.partition(":")
    has_one = library == "hf" and any((expanded(folder) / name).is_file() for name in _TOKENIZERS)
    return expanded(folder) if has_one else None


def _of_transformers(folder: str, state: State) -> nn.Module:  # noqa: ARG001 - the folder says the classes
    place = expanded(folder)
    if not (place / "config.json").is_file():
        raise UserError(f"--model hf:{folder}: there is no config.json; give a folder that save_pretrained wrote")
    with needing("transformers", f"hf:{folder}"):
        transformers = import_module("transformers")
    names = json.loads((place / "config.json").read_text(encoding="utf-8")).get("architectures") or [""]
    kind = getattr(transformers, str(names[0]), None)
    if kind is None:
        raise UserError(
            f"--model hf:{folder}: config.json names the architecture {names[0]!r}, which transformers does not have; "
            f"give --model FILE.py:BUILD"
        )
    config = transformers.AutoConfig.from_pretrained(str(place), local_files_only=True, trust_remote_code=False)
    made: nn.Module = kind(config)
    return made.float()


def _with_classes(build: Callable[..., nn.Module], state: State) -> nn.Module:
    """The network with as many classes as its head has in the checkpoint: its last entry is the head's."""
    usual = build()
    classes = _head_size(usual.state_dict(), state)
    return usual if classes is None else build(num_classes=classes)


def _head_size(usual: State, state: State) -> int | None:
    """How many classes a checkpoint's head has, if another number than the usual one; None if it has as many.

    Args:
        usual: the state of the same network, whose last entry is its head's.
        state: of the checkpoint, in any order and with any prefix.
    """
    head = list(usual)[-1]
    entry = next((entry for name, entry in state.items() if name == head or name.endswith(f".{head}")), None)
    if entry is None or entry.shape == usual[head].shape or entry.dim() != usual[head].dim():
        return None
    return len(entry)


def _registered(spec: str, state: State, input_shape: tuple[int, ...] | None, n_classes: int | None) -> nn.Module:
    try:
        given = load_value(spec) if spec.lstrip().startswith("{") else {"name": spec}
    except YamlError as error:
        raise UserError(f"--model {spec}: {error}") from error
    if not isinstance(given, Mapping) or model_name(dict(given)) not in MODELS:
        name = model_name(dict(given)) if isinstance(given, Mapping) else str(given)
        known = [*MODELS, *(f"{library}:" for library in _LIBRARIES)]
        raise UserError(
            f"--model {spec}: no such network{nearest(name, known) or '.'} Give torchvision:NAME, timm:NAME, "
            f"hf:FOLDER, FILE.py:BUILD, or a model as in a search space, e.g. '{{name: mlp, hidden: [128]}}'"
        )
    kind = MODELS[model_name(dict(given))]
    try:
        network: Any = kind.model_validate(dict(given))
    except ValidationError as error:
        raise UserError(f"--model {spec}: {in_words(error, kind)}") from error
    if input_shape is None:
        raise UserError(f"--model {spec}: the shape of inputs is not known from these data; give FILE.py:BUILD")
    if len(input_shape) == 1 and network.needs(input_shape):
        input_shape = (1, 1, *input_shape)
    if len(input_shape) not in {1, 3}:
        shape = "×".join(map(str, input_shape))
        raise UserError(f"--model {spec}: it takes images, and examples are {shape}; give FILE.py:BUILD")
    made = build_model(network, input_shape, n_classes or 10, seed=0, folders=(str(Path.cwd()),))
    classes = _head_size(made.state_dict(), state)
    return made if classes is None else build_model(network, input_shape, classes, seed=0, folders=(str(Path.cwd()),))


@contextmanager
def needing(library: str, spec: str) -> Iterator[None]:
    """Import a library that need not be installed; ``spec`` says what for."""
    import_torchvision()  # with a CPU build of torch, another package could not import it
    try:
        yield
    except ImportError as error:
        raise UserError(f"--model {spec} needs {library}; install it: pip install {library} ({said(error)})") from error
