"""From a text on the command line to examples: a data set, a folder of images, arrays, a user's loader."""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from lmc_tune.averaging.named import called, function_named, names_function
from lmc_tune.averaging.networks import needing
from lmc_tune.core.home import expanded
from lmc_tune.core.seeding import child_seed
from lmc_tune.data.datasets import strata, stratified
from lmc_tune.data.examples import Examples
from lmc_tune.data.prepared import open_dataset
from lmc_tune.data.texts import read_windows, windows_of
from lmc_tune.errors import UserError
from lmc_tune.experiment import TextSpec
from lmc_tune.experiment.data import DATA, data_kind
from lmc_tune.experiment.datasets import DATASETS
from lmc_tune.experiment.text import TextError, found_file, read_content, read_texts
from lmc_tune.experiment.wording import in_words, nearest
from lmc_tune.experiment.yaml_lines import YamlError, load_value
from lmc_tune.vision import import_torchvision

# Names of arrays in .npz, by split: ours, and Keras's.
_ARRAYS = {
    "test": (("inputs", "labels"), ("x_test", "y_test")),
    "train": (("inputs", "labels"), ("x_train", "y_train")),
}
# What torchvision's networks for ImageNet are given.
_RESIZED, _CROPPED = 256, 224
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class Source:
    """Examples of both kinds; ``train`` is None if they are not known. n_classes: None if that is not."""

    test: Any
    train: Any = None
    n_classes: int | None = None


def source_of(spec: str, root: Path, limit: int | None, tokenizer: Path | None = None) -> Source:
    """What ``--data`` names.

    A data set by its name, or as in YAML: test and training examples, label-stratified if there is a limit. A text, as
    in YAML or as a ``.txt`` file. A folder with a folder of images per class, as torchvision's ``ImageFolder``: some of
    all classes. ``.npz`` with ``inputs`` and ``labels``. ``file.py:loader``, a function that returns batches.

    Args:
        spec: the text.
        root: folder of the data sets.
        limit: so many examples of each kind.
        tokenizer: the folder of the tokenizer that texts are read by; None for characters or bytes.
    """
    if names_function(spec):
        return Source(test=_batches(spec, "--data"))
    if spec.endswith(".npz"):
        return Source(test=_arrays(spec, "test", "--data"))
    if (folder := expanded(spec)).is_dir() and not _is_name(spec):
        return Source(test=_images(folder, limit))
    return _registered(spec, root, limit, "--data", tokenizer)


def training_source(spec: str, root: Path, limit: int | None, tokenizer: Path | None = None) -> Any:
    """What ``--train`` names, as ``--data``; of a data set, its training examples."""
    if names_function(spec):
        return _batches(spec, "--train")
    if spec.endswith(".npz"):
        return _arrays(spec, "train", "--train")
    if (folder := expanded(spec)).is_dir() and not _is_name(spec):
        return _images(folder, limit)
    return _registered(spec, root, limit, "--train", tokenizer).train


def _is_name(spec: str) -> bool:
    return spec in DATASETS or spec.lstrip().startswith("{")


def _registered(spec: str, root: Path, limit: int | None, option: str, tokenizer: Path | None) -> Source:
    if spec.endswith(".txt"):
        return _of_text(TextSpec(path=spec), option, limit, tokenizer)
    if not _is_name(spec):
        hint = nearest(spec, DATASETS)
        raise UserError(
            f"{option} {spec}: no such data set or file{hint or '; there are ' + ', '.join(DATASETS) + '.'} Or give a "
            f"folder of images, a .txt or an .npz file, or FILE.py:LOADER"
        )
    try:
        given = load_value(spec) if spec.lstrip().startswith("{") else {"name": spec}
        if not isinstance(given, dict):
            raise UserError(f"{option} {spec}: write it as '{{name: cifar10, normalise: false}}'")
        kind = DATA[data_kind(given)]
        dataset: Any = kind.model_validate(given)
    except YamlError as error:
        raise UserError(f"{option} {spec}: {error}") from error
    except ValidationError as error:
        raise UserError(f"{option} {spec}: {in_words(error, kind)}") from error
    if isinstance(dataset, TextSpec):
        return _of_text(dataset, option, limit, tokenizer)
    if dataset.name not in DATASETS:
        raise UserError(f"{option} {dataset.name}: no such data set{nearest(dataset.name, DATASETS)}")
    loaded = open_dataset(dataset, root, torch.device("cpu"))
    train, test = (_some(part, limit) for part in (loaded.train, loaded.test))
    return Source(test=test, train=train, n_classes=loaded.n_classes)


def _of_text(given: TextSpec, option: str, limit: int | None, tokenizer: Path | None) -> Source:
    """The first of a text's two, looked for in the current folder."""
    if given.train or given.test or given.validation:
        raise UserError("a text is measured in whole; leave train, test and validation out, and give --limit")
    files = {"path": given.path} | ({"second": given.second} if isinstance(given.second, str) else {})
    here = (str(Path.cwd()),)
    try:
        text = given.model_copy(update={name: found_file(file, here) for name, file in files.items()})
    except TextError as error:
        raise UserError(f"{option}: {error}; name another") from error
    if tokenizer is None:
        text = read_content(text)
        n_classes, (train, test) = text.known.symbols, read_windows(text)
    else:
        n_classes, (train, test) = None, _tokenised(text, tokenizer)
    return Source(test=_some(test, limit), train=_some(train, limit), n_classes=n_classes)


def _tokenised(text: TextSpec, folder: Path) -> tuple[Examples, Examples]:
    """Windows of the training text and of what is held out, in tokens of a folder's own tokenizer."""
    with needing("transformers", f"hf:{folder}"):
        transformers = import_module("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    whole = read_texts(text).texts["first"]
    train, test = (
        windows_of(np.array(tokenizer(part, add_special_tokens=False)["input_ids"], dtype=np.int64), text.context)
        for part in (whole.train, whole.test)
    )
    if min(len(train), len(test)) < 2:
        raise UserError(
            f"{text.path} has {len(train)} windows of {text.context} tokens and {len(test)} held out; give a longer "
            f"text or a smaller context: '{{name: text, path: {text.path}, context: 32}}'"
        )
    return train, test


def _some(examples: Examples, limit: int | None) -> Examples:
    if limit is None or limit >= len(examples):
        return examples
    return examples.take(stratified(strata(examples.labels.numpy()), limit, child_seed(0, "measured examples")))


def _batches(spec: str, option: str) -> Any:
    found = called(function_named(spec, option), spec, option)
    if not isinstance(found, Iterable):
        raise UserError(f"{option}: {spec} returned {type(found).__name__}; let it return batches, e.g. a DataLoader")
    return found


def _arrays(spec: str, split: str, option: str) -> tuple[Tensor, Tensor]:
    file = expanded(spec)
    if not file.is_file():
        raise UserError(f"{option}: there is no file {file}")
    try:
        with np.load(file, allow_pickle=False) as content:
            arrays = dict(content.items())
    except (OSError, ValueError) as error:
        raise UserError(f"{option}: {file} is no .npz file of plain arrays: {error}") from error
    for inputs, labels in _ARRAYS[split]:
        if inputs in arrays and labels in arrays:
            return _as_inputs(arrays[inputs]), _as_labels(arrays[labels])
    wanted = " or ".join(" and ".join(names) for names in _ARRAYS[split])
    raise UserError(f"{option}: {file} has {', '.join(arrays) or 'nothing'}; it should have {wanted}")


def _as_inputs(array: np.ndarray) -> Tensor:
    """Bytes are pixels, which become 0 to 1; other whole numbers are tokens; fractions are single precision."""
    if array.dtype == np.uint8:
        return torch.from_numpy(array).float() / 255
    return torch.from_numpy(array.astype(np.int64 if np.issubdtype(array.dtype, np.integer) else np.float32))


def _as_labels(array: np.ndarray) -> Tensor:
    flat = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    return torch.from_numpy(flat.astype(np.int64 if np.issubdtype(flat.dtype, np.integer) else np.float32))


def _images(folder: Path, limit: int | None) -> tuple[Tensor, Tensor]:
    """Shuffled: in the folder's order, the first of them would be of one class."""
    torchvision = import_torchvision()
    from torchvision import transforms  # noqa: PLC0415 - only after that import

    scaled = transforms.Compose(
        [
            transforms.Resize(_RESIZED),
            transforms.CenterCrop(_CROPPED),
            transforms.ToTensor(),
            transforms.Normalize(_MEAN, _STD),
        ]
    )
    try:
        images = torchvision.datasets.ImageFolder(str(folder), transform=scaled)
    except (FileNotFoundError, OSError) as error:
        raise UserError(
            f"{folder} is no folder of images: it should hold a folder per class ({str(error).splitlines()[0]})"
        ) from error
    order = np.random.default_rng(child_seed(0, "measured examples")).permutation(len(images))[:limit]
    pairs = [images[int(at)] for at in order]
    return torch.stack([image for image, _ in pairs]), torch.tensor([label for _, label in pairs])
