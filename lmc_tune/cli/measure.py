"""The command that answers whether checkpoints can be averaged."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from lmc_tune.cli.listings import DataRoot
from lmc_tune.cli.plainly import Json, note, plain_errors, print_json
from lmc_tune.core.printable import printable

Checkpoints = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="CHECKPOINT",
        help="Checkpoints: .safetensors, .pt, .pth, .ckpt, or a folder of Hugging Face. No code in them is run.",
    ),
]


def measure(  # noqa: PLR0913 - one parameter per option
    checkpoints: Checkpoints = None,
    *,
    model: Annotated[
        str,
        typer.Option(
            metavar="SPEC",
            help="torchvision:NAME, timm:NAME, hf:FOLDER, FILE.py:BUILD, or a model as in a search space.",
        ),
    ],
    data: Annotated[
        str,
        typer.Option(
            metavar="SPEC",
            help="Test examples: a data set (lmc-tune datasets), a folder with a folder of images per class, an .npz "
            "file, or FILE.py:LOADER, a function that returns batches.",
        ),
    ],
    train: Annotated[
        str | None,
        typer.Option(metavar="SPEC", help="Training examples, likewise (default: those of a data set)."),
    ] = None,
    trajectory: Annotated[
        str | None,
        typer.Option(
            metavar="PATTERN",
            help="Checkpoints of one run, in the order of the numbers in their names, e.g. 'run/step_*.pt'; also says "
            "the widest window that may be averaged.",
        ),
    ] = None,
    loss: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="cross-entropy, mse, or FILE.py:FUNCTION: loss(model, batch) returns a value per example.",
        ),
    ] = "cross-entropy",
    align: Annotated[
        Literal["weights", "activations"] | None,
        typer.Option(
            metavar="weights|activations",
            help="How B's units are matched to A's (default: both, one after the other, as far as it helps).",
        ),
    ] = None,
    conditions: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Comma-separated: naive, endpoint, recalibrated, repaired, aligned, aligned+recalibrated, "
            "aligned+repaired (default: those that may help).",
        ),
    ] = None,
    lambdas: Annotated[int, typer.Option(metavar="N", help="Positions on the path, an odd number.")] = 11,
    threshold: Annotated[
        float | None,
        typer.Option(
            metavar="HEIGHT", help="A barrier below it is none (default: 0.02 of errors, 5% of other losses)."
        ),
    ] = None,
    confidence: Annotated[float, typer.Option(metavar="LEVEL", help="Of the intervals.")] = 0.95,
    residual: Annotated[
        Literal["fixed", "free"],
        typer.Option(metavar="fixed|free", help="free also permutes the residual stream of transformers."),
    ] = "fixed",
    limit: Annotated[
        int, typer.Option(metavar="N", min=2, help="At most so many test examples, and training examples.")
    ] = 10_000,
    batch_size: Annotated[int, typer.Option(metavar="N", min=1, help="So many examples at once.")] = 128,
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(metavar="auto|cpu|cuda", help="Where to measure.")
    ] = "auto",
    layers: Annotated[
        bool,
        typer.Option("--layers", help="Of two: which layers carry the barrier, and which of them can be averaged."),
    ] = False,
    recipe: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="Write what can be averaged layer by layer: .json, .yaml for mergekit, or .safetensors, its network "
            "(implies --layers; repeatable).",
        ),
    ] = None,
    directions: Annotated[
        str | None,
        typer.Option(
            metavar="[MAPPING]",
            help="Of two: whether the way from one to the other is special, and how sharp they are. Alone, or with a "
            "mapping as in a search space: '{random: {draws: 20}}'.",
        ),
    ] = None,
    planes: Annotated[
        str | None,
        typer.Option(
            metavar="[MAPPING]",
            help="Loss and error on the plane through three checkpoints, or through files: '{through: [a, b, "
            "start.pt]}'.",
        ),
    ] = None,
    out: Annotated[
        str | None, typer.Option(metavar="DIR", help="Write measurement.html and measurement.json into this folder.")
    ] = None,
    save: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write the recommended average, as safetensors.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Save an average also where the answer is no.")] = False,
    data_root: DataRoot = None,
    json_: Json = False,
) -> None:
    """Say whether checkpoints can be averaged.

    Measures loss and error along the straight path between their weights: as they are, with statistics estimated again,
    with hidden units aligned. Says what the average is worth, and why.

    Exit code: 0 average, 3 recalibrate or align first, 4 neither, 5 undecided, 1 a recipe could not be written, 2 bad
    input.
    """
    from lmc_tune.cli.terminal import listener_for, width_of

    with plain_errors(), listener_for(sys.stderr) as listener:
        listener.phase("starting")
        from lmc_tune.averaging.command import Options, run, write, write_recipes
        from lmc_tune.data.files import resolve_data_root
        from lmc_tune.errors import UserError

        if save is not None and not save.endswith(".safetensors"):
            raise UserError(f"--save {save}: end its name in .safetensors, which is what is written")
        options = Options(
            checkpoints=tuple(checkpoints or ()),
            trajectory=trajectory,
            model=model,
            data=data,
            train=train,
            loss=loss,
            align=align,
            conditions=conditions,
            lambdas=lambdas,
            threshold=threshold,
            confidence=confidence,
            residual=residual,
            limit=limit,
            batch_size=batch_size,
            layers=layers,
            recipes=tuple(recipe or ()),
            directions=directions,
            planes=planes,
            device=device,
            data_root=resolve_data_root(data_root),
        )
        measured = run(options, listener.phase)
        files = write(measured, Path(out)) if out else []
        refused = save is not None and not (measured.answer.says_yes or force)
        if save is not None and not refused:
            measured.save(save, force=force)
        recipes = write_recipes(measured, options.recipes)
    exit_code = 1 if any(recipes.values()) else measured.answer.exit_code
    if json_:
        content = {
            "files": [str(file) for file in files],
            "saved": None if refused else save,
            "recipes": [file for file, why in recipes.items() if not why],
            "exit_code": exit_code,
        }
        print_json(measured.plain() | content)
    else:
        typer.echo(printable(measured.text(width_of(sys.stdout) or 100)))
        for file in files:
            typer.echo(file)
    if refused:
        note(f"{save} was not written, since the answer is {measured.answer.kind}; --force writes the average anyway")
    elif save is not None:
        note(f"the average was written to {save}")
    for place, why in recipes.items():
        note(why or f"the recipe was written to {place}")
    raise typer.Exit(exit_code)
