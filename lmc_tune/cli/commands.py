"""The command line: wiring and printing."""

import atexit
import gc
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lmc_tune.cli.doctor import doctor
from lmc_tune.cli.listings import DataRoot, datasets_app, presets
from lmc_tune.cli.mappings import MeasureCommand
from lmc_tune.cli.measure import measure
from lmc_tune.cli.plainly import INTERRUPTED, Json, examples, note, plain_errors, print_json, this_command
from lmc_tune.cli.running import (
    Address,
    DeviceName,
    MaxHours,
    MaxPairs,
    NoReport,
    Out,
    Search,
    Storage,
    SweepName,
    TrackingUri,
    Workers,
)
from lmc_tune.cli.space import Sets, Space, space
from lmc_tune.cli.streams import prepare_streams

if TYPE_CHECKING:
    from lmc_tune.storage import Place

# Heavy modules are imported inside the commands, so that --help answers at once.

app = typer.Typer(
    name="lmc-tune",
    help="Map where linear mode connectivity holds and where it breaks, under data shift and SGD noise.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # whole on a narrow terminal and in a pipe
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples("lmc-tune sweep quickstart", "lmc-tune status runs/quickstart", "lmc-tune ui runs/quickstart"),
)

# As text: a Path would turn s3:// into s3:/.
RunFolder = Annotated[
    str, typer.Argument(metavar="DIR", help="A run folder, e.g. runs/quickstart or s3://BUCKET/runs/quickstart.")
]


def _print_version(asked: bool) -> None:  # noqa: FBT001 - typer's callback
    if asked:
        from lmc_tune import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[  # noqa: ARG001 - its callback has done it
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """Map where linear mode connectivity holds and where it breaks, under data shift and SGD noise."""
    prepare_streams()
    atexit.register(
        gc.freeze
    )  # Python would end by collecting what MLflow and Ray leave, object by object, for a second


@app.command(
    epilog=examples(
        "lmc-tune sweep quickstart",
        "lmc-tune sweep mine.yaml --out runs/mine --set replicates=3 --workers 2",
        "lmc-tune sweep mine.yaml --search adaptive --max-hours 8",
    )
)
def sweep(  # noqa: PLR0913 - one parameter per option
    space: Space,
    *,
    out: Out = None,
    storage: Storage = None,
    name: SweepName = None,
    sets: Sets = None,
    data_root: DataRoot = None,
    tracking_uri: TrackingUri = None,
    address: Address = None,
    workers: Workers = None,
    device: DeviceName = "auto",
    search: Search = "grid",
    max_pairs: MaxPairs = None,
    max_hours: MaxHours = None,
    no_report: NoReport = False,
    json_: Json = False,
) -> None:
    """Run or resume a search space.

    Finished pairs are never trained again. Ctrl-C ends the sweep early and in order; the same command resumes it. At
    the end it says what came out, in words and as a map of the cells, and what to do next.
    """
    from lmc_tune.cli.terminal import listener_for
    from lmc_tune.sweeps.interruption import one_interruption

    def interrupted() -> str:
        return f"Interrupted; every finished pair is kept. {_go_on()}"

    with plain_errors(interrupted), one_interruption(), listener_for(sys.stderr) as listener:
        listener.phase("reading the space")
        from lmc_tune.cli.outcome import on_checkpoints, plain_outcome, print_failures, print_outcome, read_found
        from lmc_tune.data.files import resolve_data_root
        from lmc_tune.experiment.reading import read_space
        from lmc_tune.experiment.sources import folders_beside
        from lmc_tune.storage import hurried
        from lmc_tune.sweeps.options import Options
        from lmc_tune.sweeps.ownership import run_folder
        from lmc_tune.sweeps.run import run_sweep

        study = read_space(space, [*(sets or []), *([f"name={json.dumps(name)}"] if name else [])])
        folder = run_folder(study.name, out, storage)
        options = Options(
            data_root=resolve_data_root(data_root),
            folders=folders_beside(Path(space)),
            workers=workers,
            device=device,
            address=address,
            tracking_uri=tracking_uri,
            search=search,
            max_pairs=max_pairs,
            max_hours=max_hours,
            report=not no_report,
        )
        outcome = run_sweep(study, folder, options, listener)
        listener.phase("reading the answer")
        place = hurried(folder) if outcome.interrupted else folder
        found = read_found(place, study) if outcome.judged else None
    if outcome.mirrored:
        _note_server(folder, tracking_uri)
    if json_:
        print_json(outcome.plain() | plain_outcome(found))
    else:
        print_outcome(outcome, study, found)
    if outcome.interrupted:
        rest = "networks that were not finished are trained again"
        rest = on_checkpoints(outcome.checkpoints, study.group) if outcome.checkpoints else rest
        note(f"Interrupted; every finished {study.group} is kept, {rest}. {_go_on()}")
        raise typer.Exit(INTERRUPTED)
    if outcome.counts.get("failed"):
        print_failures(outcome.folder)
    if outcome.counts.get("failed") or outcome.unanswered:
        raise typer.Exit(1)


@app.command(
    epilog=examples(
        "lmc-tune ensemble basin_mlp_small",
        "lmc-tune ensemble mine.yaml --families deep,constrained,distilled --members 5 --t 10",
    )
)
def ensemble(  # noqa: PLR0913 - one parameter per option
    space: Space,
    *,
    families: Annotated[
        str,
        typer.Option(metavar="NAMES", help="Families side by side, where the space names none; with commas between."),
    ] = "deep,constrained,swe,permuted,multi_pcd,distilled,distilled_deep",
    members: Annotated[
        int | None, typer.Option(metavar="N", min=2, help="Members of an ensemble (default: 5).")
    ] = None,
    t: Annotated[
        int | None,
        typer.Option(
            "--t",
            metavar="EPOCHS",
            min=0,
            help="Epochs that members of constrained and distilled ensembles have in common "
            "(default: a tenth of all, as Lion et al. 2024).",
        ),
    ] = None,
    out: Out = None,
    storage: Storage = None,
    name: SweepName = None,
    sets: Sets = None,
    data_root: DataRoot = None,
    tracking_uri: TrackingUri = None,
    address: Address = None,
    workers: Workers = None,
    device: DeviceName = "auto",
    max_pairs: MaxPairs = None,
    max_hours: MaxHours = None,
    no_report: NoReport = False,
    json_: Json = False,
) -> None:
    """Run or resume ensembles of several families.

    In one basin and in several, side by side. As sweep does, of a space of ensembles, or of pairs: then every cell
    gets an ensemble of each family.
    """
    with plain_errors():
        from lmc_tune.experiment.families import with_families

        sets = with_families(space, sets or [], families.split(","), members, t)
    sweep(
        space,
        out=out,
        storage=storage,
        name=name,
        sets=sets,
        data_root=data_root,
        tracking_uri=tracking_uri,
        address=address,
        workers=workers,
        device=device,
        max_pairs=max_pairs,
        max_hours=max_hours,
        no_report=no_report,
        json_=json_,
    )


@app.command(
    epilog=examples(
        "lmc-tune report runs/quickstart",
        "lmc-tune report runs/quickstart -o figures/ --formats png,csv",
        "lmc-tune report runs/quickstart -o strict.html --threshold 0.01 --confidence 0.99",
        "lmc-tune report runs/quickstart runs/wide",
    )
)
def report(  # noqa: PLR0913 - one parameter per option
    folder: RunFolder,
    other: Annotated[
        str | None,
        typer.Argument(metavar="[OTHER]", help="A second run folder: both are set side by side, judged as DIR says."),
    ] = None,
    *,
    output: Annotated[  # as text: a Path would lose the slash that names a folder
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="A file, or a folder: one that exists or ends in / (default: DIR/report.html; "
            "report-view.html if cells are judged or arranged otherwise; report-NAME.html for a second folder NAME).",
        ),
    ] = None,
    formats: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES", help="Comma-separated: html, png, svg, pdf, csv (default: what -o ends in, else html)."
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(metavar="HEIGHT", help="Judge cells by this barrier: a fraction for errors, nats for losses."),
    ] = None,
    confidence: Annotated[float | None, typer.Option(metavar="LEVEL", help="Of the intervals, e.g. 0.9.")] = None,
    barrier: Annotated[str | None, typer.Option(metavar="DEFINITION", help="Its definition, e.g. midpoint.")] = None,
    condition: Annotated[str | None, typer.Option(metavar="CONDITION", help="Of the path, e.g. aligned.")] = None,
    x: Annotated[
        str | None, typer.Option("--x", metavar="COLUMN", help="Column along the horizontal axis, e.g. epochs.")
    ] = None,
    y: Annotated[str | None, typer.Option("--y", metavar="COLUMN", help="Column along the vertical axis.")] = None,
    colour: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Column of the second map, e.g. merge_gain (default: the mean barrier)."),
    ] = None,
    theme: Annotated[
        Literal["light", "dark", "paper"] | None,
        typer.Option(
            metavar="light|dark|paper",
            help="Colours; paper: black on white without a title (default: as the screen, pictures light).",
        ),
    ] = None,
    width: Annotated[
        float | None, typer.Option(metavar="MM", min=20, max=1000, help="Of pictures, in millimetres.")
    ] = None,
    chart: Annotated[
        str, typer.Option(metavar="NAME", help="The chart of png, svg and pdf, by its name on the page, e.g. noise.")
    ] = "phase",
    json_: Json = False,
) -> None:
    """Render the report of one or two run folders.

    Of two, both are set side by side: which cells have another verdict, and by how much barriers differ. Only tables
    are read, and folders stay as they are.
    """
    with plain_errors():
        from lmc_tune.analysis.comparison import answer, drift, plain_comparison
        from lmc_tune.analysis.report import View, render, render_comparison

        wanted = None if formats is None else [part.strip() for part in formats.split(",")]
        view = View(
            threshold=threshold,
            confidence=confidence,
            barrier=barrier,
            condition=condition,
            x=x,
            y=y,
            colour=colour,
            theme=theme,
            width=width,
            chart=chart,
        )
        comparison = None
        if other is None:
            files = render(folder, output, wanted, view=view)
        else:
            files, comparison = render_comparison(folder, other, output, wanted, view=view)
    if json_:
        print_json({"files": [str(path) for path in files]} | (plain_comparison(comparison) if comparison else {}))
        return
    if comparison:
        note(f"{answer(comparison)} {drift(comparison)}")
    for path in files:
        typer.echo(path)


@app.command(epilog=examples("lmc-tune status runs/quickstart", "lmc-tune status runs/quickstart --json"))
def status(folder: RunFolder, *, json_: Json = False) -> None:
    """Show the progress and the answer of a sweep.

    Pairs by status, the time left, the answer with a map of the cells, what to do next, and which pairs failed and why.
    """
    from lmc_tune.cli.outcome import plain_outcome, print_status, read_found
    from lmc_tune.storage import place_at
    from lmc_tune.sweeps.status import read_status

    with plain_errors():
        place = place_at(folder)
        state = read_status(place)
        found = read_found(place, state.space) if state.judged else None
    if json_:
        print_json(state.plain() | plain_outcome(found))
    else:
        print_status(place, state, found)


@app.command(
    epilog=examples("lmc-tune track runs/quickstart", "lmc-tune track runs/quickstart --tracking-uri http://HOST:5000")
)
def track(folder: RunFolder, *, tracking_uri: TrackingUri = None, json_: Json = False) -> None:
    """Send a run folder to an MLflow store again. Runs that are already there stay as they are."""
    with plain_errors():
        from lmc_tune.storage import place_at
        from lmc_tune.sweeps.ownership import owned
        from lmc_tune.tables.sweep_record import SweepRecord
        from lmc_tune.tracking.track import track as send

        place = place_at(folder)
        SweepRecord.read(place)  # a folder without a sweep is an error, and is not created
        with owned(place):  # two senders would give a pair two runs
            sent = send(place.absolute(), tracking_uri)
        _note_server(place.absolute(), tracking_uri)
    if json_:
        print_json({"created": sent.created, "updated": sent.updated, "unchanged": sent.unchanged})
    else:
        typer.echo(f"{sent.created} runs created, {sent.updated} updated, {sent.unchanged} already there")


@app.command(epilog=examples("lmc-tune ui runs/quickstart", "lmc-tune ui runs/quickstart --port 5001 --no-browser"))
def ui(
    folder: RunFolder = "runs/quickstart",
    *,
    port: Annotated[int, typer.Option(metavar="N", min=1, max=65535, help="Port on 127.0.0.1.")] = 5000,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the address, and open no browser.")] = False,
) -> None:
    """Show a run folder in the MLflow UI.

    Serves the UI over the folder's own store until Ctrl-C, to this machine alone. Prints the address of the page that
    lists all cells, and opens it in the browser of this machine if there is one.
    """
    with plain_errors():
        from lmc_tune.cli.browser import open_page
        from lmc_tune.storage import place_at
        from lmc_tune.tracking.ui import serve_ui

        ready = (lambda _: None) if no_browser else open_page
        serve_ui(place_at(folder).absolute(), port, note, ready)


def _go_on() -> str:
    return f"Continue with the same command:\n    {this_command()}"


def _note_server(folder: "Place", tracking_uri: str | None) -> None:
    """Say how to show runs in a file that is not the folder's own: without this, MLflow's server finds no artifacts."""
    from lmc_tune.tracking import connection

    file = connection.embedded_file(connection.tracking_uri(folder, tracking_uri))
    if file is not None and file != connection.own_store(folder):
        note(f"show these runs with: {connection.server_command(file)}")


app.command(
    epilog=examples(
        "lmc-tune measure a.pt b.pt --model torchvision:resnet18 --data cifar10",
        "lmc-tune measure run/epoch=8.ckpt run/epoch=9.ckpt --model nets.py:build --data nets.py:batches --out out/",
        "lmc-tune measure a.safetensors b.safetensors --model timm:vit_tiny_patch16_224 --data images/val "
        "--train images/train",
        "lmc-tune measure hf_a hf_b --model hf:hf_a --data text.py:batches --loss text.py:loss --json",
        "lmc-tune measure round3/*.pt --model nets.py:build --data test.npz --save average.safetensors",
    ),
    cls=MeasureCommand,
)(measure)
app.command(
    epilog=examples("lmc-tune space quickstart", "lmc-tune space mine.yaml --set replicates=10 --out runs/mine")
)(space)
app.command(epilog=examples("lmc-tune presets", "lmc-tune presets quickstart", "lmc-tune presets quickstart --copy"))(
    presets
)
app.add_typer(datasets_app, name="datasets")
app.command(epilog=examples("lmc-tune doctor", "lmc-tune doctor --json"))(doctor)
