"""What the command asks for, as texts; and its answer, as files."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from lmc_tune.averaging.data import called_on, first_of, moved, split_of
from lmc_tune.averaging.measure import measure
from lmc_tune.averaging.measurement import Measurement, PairMeasurement
from lmc_tune.averaging.members import named_members, read_member
from lmc_tune.averaging.metric import Loss
from lmc_tune.averaging.named import function_named, names_function
from lmc_tune.averaging.networks import network_of, tokenizer_folder
from lmc_tune.averaging.paths import Condition, Method, condition_named
from lmc_tune.averaging.questions import EXAMPLES, Given, questions_of
from lmc_tune.averaging.recipe_files import form_of, no_whole_numbers, whole_numbers
from lmc_tune.averaging.sources import source_of, training_source
from lmc_tune.errors import UserError
from lmc_tune.experiment.yaml_lines import YamlError, load_value
from lmc_tune.measurement.alignment.links import Residual
from lmc_tune.measurement.checkpoints import files_of, read_checkpoint
from lmc_tune.models.foreign import said
from lmc_tune.work.bench import Device
from lmc_tune.work.device import exact_device


@dataclass(frozen=True, kw_only=True)
class Options:
    """As typed; texts name what is meant."""

    checkpoints: tuple[str, ...]
    trajectory: str | None
    model: str
    data: str
    train: str | None
    loss: str
    align: Method | None
    conditions: str | None
    lambdas: int
    threshold: float | None
    confidence: float
    residual: Residual
    limit: int
    batch_size: int
    layers: bool = False
    recipes: tuple[str, ...] = ()
    directions: str | None = None
    planes: str | None = None
    device: Device
    data_root: Path


def run(options: Options, say: Callable[[str], None]) -> Measurement:
    """Read all that is named, and measure.

    Raises:
        UserError: if anything that is named cannot be used; nothing has been written then.
    """
    checkpoints = options.checkpoints if options.trajectory is None else files_of(options.trajectory)
    if options.trajectory is not None and options.checkpoints:
        raise UserError("name checkpoints, or a --trajectory: not both")
    if len(checkpoints) < 2:
        raise UserError(f"name two checkpoints at least; got {len(checkpoints)}")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: there is no CUDA device here; leave it out, or say --device cpu")
    conditions = chosen(options.conditions, options.align)
    asked: dict[str, Given] = {
        "directions": given(options.directions, "directions"),
        "planes": given(options.planes, "planes"),
    }
    forms = {place: form_of(Path(place)) for place in options.recipes}
    questions_of(  # whatever cannot be had is said before anything is read
        list(named_members(checkpoints)),
        layers=options.layers or bool(forms),
        **asked,
        conditions=conditions,
        trajectory=options.trajectory is not None,
    )
    loss: Loss = function_named(options.loss, "--loss") if names_function(options.loss) else options.loss
    say("reading checkpoints")
    first = read_checkpoint(checkpoints[0])
    say("reading data")
    where = options.data_root, options.limit, tokenizer_folder(options.model)
    source = source_of(options.data, *where)
    train = source.train if options.train is None else training_source(options.train, *where)
    test = split_of(source.test, device=torch.device("cpu"), batch_size=options.batch_size, limit=options.limit)
    shape = None if test.examples is None else tuple(test.examples.inputs.shape[1:])
    say("building the network")
    model = network_of(options.model, first.state, shape, source.n_classes).to(exact_device(options.device))
    read_member(model, checkpoints[0], torch.device("cpu"))  # a wrong network is named before data that do not fit it
    _check_takes(model, test.batches[0], loss)
    why = no_whole_numbers(whole_numbers(model.state_dict()))
    if why and (to_mergekit := [place for place, form in forms.items() if form == "mergekit"]):
        raise UserError(f"--recipe {to_mergekit[0]}: {why}")
    return measure(
        model,
        checkpoints,
        test.examples if test.examples is not None else test.batches,
        train=train,
        loss=loss,
        conditions=conditions,
        align=options.align,
        lambdas=options.lambdas,
        threshold=options.threshold,
        confidence=options.confidence,
        residual=options.residual,
        batch_size=options.batch_size,
        limit=options.limit,
        trajectory=options.trajectory is not None,
        layers=options.layers or bool(forms),
        **asked,
        say=say,
    )


def chosen(text: str | None, align: Method | None) -> list[Condition] | None:
    """The conditions of a list such as ``naive,aligned+repaired``."""
    if text is None:
        return None
    return [condition_named(name, align or "weights") for name in text.split(",") if name.strip()]


def given(text: str | None, name: str) -> Given:
    """What an option asks: a mapping in YAML, ``true``, or nothing."""
    try:
        found = False if text is None else load_value(text)
    except YamlError as error:
        raise UserError(f"--{name} {text}: {error}") from error
    if not isinstance(found, bool | dict):
        raise UserError(f"--{name} {text}: write a mapping, e.g. --{name} '{EXAMPLES[name]}'")
    return found


def write(measured: Measurement, folder: Path) -> list[Path]:
    """The page and the plain values, in a folder."""
    files = {"measurement.html": measured.to_html, "measurement.json": measured.to_json}
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name).write_text(content(), encoding="utf-8")
            written.append(folder / name)
    except OSError as error:
        raise UserError(f"cannot write into {folder}: {error.strerror or error}; choose another --out") from error
    return written


def write_recipes(measured: Measurement, files: Sequence[str]) -> dict[str, str]:
    """Write a pair's recipe into files.

    Returns:
        What kept one from being written, by file; empty for those that were.
    """
    found: dict[str, str] = {}
    if not isinstance(measured, PairMeasurement):
        return found
    for file in files:
        try:
            measured.save_recipe(file)
        except UserError as error:  # the answer is worth having all the same
            found[file] = str(error)
        else:
            found[file] = ""
    return found


@torch.no_grad()
def _check_takes(model: nn.Module, batch: object, loss: Loss) -> None:
    """Whether the network takes what the data give; a user's own loss says how it is called."""
    if callable(loss):
        return
    device = next(model.parameters()).device
    try:
        called_on(model.eval(), moved(first_of(batch, 2), device))
    except Exception as error:
        raise UserError(
            f"the network cannot take these data: {said(error)}. Give another --data, or FILE.py:LOADER that returns "
            f"batches as the network takes them"
        ) from error
