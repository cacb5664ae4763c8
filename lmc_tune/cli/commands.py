"""The command line: wiring and printing."""

import json
import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from lmc_tune.cli.streams import prepare_streams
from lmc_tune.core.duration import in_words
from lmc_tune.core.printable import printable
from lmc_tune.sweeps.search import SearchName

# Heavy modules are imported inside the commands, so that --help answers at once.

app = typer.Typer(
    name="lmc-tune",
    help="Map where linear mode connectivity holds and where it breaks, under data shift and SGD noise.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
datasets_app = typer.Typer(help="List the data sets; `datasets get NAME` downloads and verifies one.")
app.add_typer(datasets_app, name="datasets")

BAD_INPUT = 2
INTERRUPTED = 130

Space = Annotated[str, typer.Argument(help="A YAML file, or a preset's name (see `lmc-tune presets`).")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change one value: `--set train.epochs=3`, `--set axes.lr=[0.01,0.1]`. Repeatable."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout; all else goes to stderr.")]
DataRoot = Annotated[
    Path | None, typer.Option(help="Folder of the data sets (default: $LMC_TUNE_DATA, else a cache folder).")
]
TrackingUri = Annotated[
    str | None,
    typer.Option(
        help="MLflow store, http://HOST:PORT or sqlite:////PATH/mlflow.db "
        "(default: $MLFLOW_TRACKING_URI, else an embedded one in the run folder)."
    ),
]
# As text: a Path would turn s3:// into s3:/.
RunFolder = Annotated[str, typer.Argument(help="A run folder, e.g. runs/quickstart or s3://BUCKET/runs/quickstart.")]


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


@app.command()
def sweep(  # noqa: PLR0913 - one parameter per option
    space: Space,
    *,
    out: Annotated[str | None, typer.Option(help="Run folder (default: runs/NAME).")] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            help="Where run folders are kept, in place of runs/: a folder that all machines of a cluster share, "
            "s3://BUCKET/FOLDER, gs://BUCKET/FOLDER."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the sweep (default: the space's).")] = None,
    sets: Sets = None,
    data_root: DataRoot = None,
    tracking_uri: TrackingUri = None,
    address: Annotated[
        str | None, typer.Option(help="Address of a Ray cluster (default: run on this machine).")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes at once (default: one per core or GPU that is there).")
    ] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"],
        typer.Option(help="Where to train; on a cluster, cuda also waits for GPUs that have not started yet."),
    ] = "auto",
    search: Annotated[
        SearchName,
        typer.Option(help="Run every cell, or start coarse and refine where neighbouring verdicts differ."),
    ] = "grid",
    max_pairs: Annotated[
        int | None, typer.Option(min=1, help="Train or measure at most this many pairs in this call.")
    ] = None,
    max_hours: Annotated[
        float | None,
        typer.Option(
            min=0.001, max=10_000, help="End after this many hours, as if interrupted: the same command resumes."
        ),
    ] = None,
    no_report: Annotated[bool, typer.Option("--no-report", help="Do not render the report at the end.")] = False,
    json_: Json = False,
) -> None:
    """Run or resume a search space: finished pairs are never trained again."""
    from lmc_tune.cli.terminal import listener_for
    from lmc_tune.data.files import resolve_data_root
    from lmc_tune.experiment.reading import read_space
    from lmc_tune.experiment.sources import folders_beside
    from lmc_tune.storage import FolderError, place_at
    from lmc_tune.sweeps.interruption import one_interruption
    from lmc_tune.sweeps.run import Options, run_sweep

    go_on = f"Continue with the same command: {_this_command()}"
    with _told_plainly(f"Interrupted; every finished pair is kept. {go_on}"), one_interruption():
        study = read_space(space, [*(sets or []), *([f"name={json.dumps(name)}"] if name else [])])
        if out is not None and storage is not None:
            raise FolderError("--out names the run folder itself, --storage the folder of all runs: give one of them")
        runs = "runs" if storage is None else storage
        folder = (place_at(runs) / study.name if out is None else place_at(out)).absolute()
        if folder == Path.cwd():
            raise FolderError("--out is the current folder; name a separate folder for the run, e.g. --out runs/mine")
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
        with listener_for(sys.stderr) as listener:
            outcome = run_sweep(study, folder, options, listener)
        if outcome.mirrored:
            _note_server(folder, tracking_uri)
    if json_:
        _print_json(
            {
                "folder": str(outcome.folder),
                "trained": outcome.trained,
                "remeasured": outcome.remeasured,
                "unanswered": outcome.unanswered,
                "counts": outcome.counts,
                "checkpoints": outcome.checkpoints,
                "report": str(outcome.report) if outcome.report else None,
                "mirrored": outcome.mirrored,
                "interrupted": outcome.interrupted,
            }
        )
    else:
        _print_outcome(outcome)
    complete = max_pairs is None and not (outcome.interrupted or outcome.unanswered)
    if search != "grid" and outcome.counts.get("pending") and complete:
        _note(f"the {search} search has ended and left {_pairs(outcome.counts['pending'])} out")
    if outcome.interrupted:
        rest = _on_checkpoints(outcome.checkpoints) if outcome.checkpoints else "unfinished pairs start again"
        _note(f"Interrupted; every finished pair is kept, {rest}. {go_on}")
        raise typer.Exit(INTERRUPTED)
    if outcome.counts.get("failed"):
        _print_failures(outcome.folder)
    if outcome.counts.get("failed") or outcome.unanswered:
        raise typer.Exit(1)


@app.command()
def report(  # noqa: PLR0913 - one parameter per option
    folder: RunFolder,
    *,
    output: Annotated[  # as text: a Path would lose the slash that names a folder
        str | None,
        typer.Option(
            "-o", "--output", help="A file, or a folder: one that exists or ends in / (default: DIR/report.html)."
        ),
    ] = None,
    formats: Annotated[
        str | None,
        typer.Option(help="Comma-separated: html, png, svg, pdf, csv (default: what -o ends in, else html)."),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(metavar="HEIGHT", help="Judge cells by this barrier: a fraction for errors, nats for losses."),
    ] = None,
    confidence: Annotated[float | None, typer.Option(metavar="LEVEL", help="Of the intervals, e.g. 0.9.")] = None,
    barrier: Annotated[str | None, typer.Option(metavar="DEFINITION", help="Its definition, e.g. midpoint.")] = None,
    condition: Annotated[str | None, typer.Option(metavar="CONDITION", help="Of the path, e.g. naive.")] = None,
    x: Annotated[
        str | None, typer.Option("--x", metavar="COLUMN", help="Column along the horizontal axis, e.g. epochs.")
    ] = None,
    y: Annotated[str | None, typer.Option("--y", metavar="COLUMN", help="Column along the vertical axis.")] = None,
    theme: Annotated[
        Literal["light", "dark", "paper"] | None,
        typer.Option(help="Colours; paper: black on white without a title (default: as the screen, pictures light)."),
    ] = None,
    width: Annotated[
        float | None, typer.Option(metavar="MM", min=20, max=1000, help="Of pictures, in millimetres.")
    ] = None,
    chart: Annotated[
        str, typer.Option(metavar="NAME", help="The chart of png, svg and pdf, by its name on the page, e.g. noise.")
    ] = "phase",
) -> None:
    """Render the phase-diagram report of a run folder from its tables alone; the folder's space stays as it is."""
    with _told_plainly():
        from lmc_tune.analysis.report import View, render

        wanted = None if formats is None else [part.strip() for part in formats.split(",")]
        view = View(
            threshold=threshold,
            confidence=confidence,
            barrier=barrier,
            condition=condition,
            x=x,
            y=y,
            theme=theme,
            width=width,
            chart=chart,
        )
        for path in render(folder, output, wanted, view=view):
            typer.echo(path)


@app.command()
def status(folder: RunFolder, *, json_: Json = False) -> None:
    """Count a run folder's pairs by status; name what failed and why; estimate the time left."""
    from lmc_tune.storage import place_at
    from lmc_tune.sweeps.status import read_status

    with _told_plainly():
        state = read_status(place_at(folder))
    if json_:
        _print_json(state.plain())
        return
    for name, count in state.counts.items():
        typer.echo(f"{name:>12}  {count}")
    typer.echo(f"{'total':>12}  {state.total}")
    unfinished = state.counts["running"] + state.counts["pending"]
    if unfinished and state.seconds_left is not None:
        typer.echo(f"about {in_words(state.seconds_left)} left")
    if state.checkpoints:
        typer.echo(_on_checkpoints(state.checkpoints))
    if state.other_pairs:
        typer.echo(f"the folder also holds {_pairs(state.other_pairs)} that {folder}/space.yaml does not plan")
    for failure in state.failures:
        typer.echo(printable(f"failed {failure.key} ({failure.what}): {failure.reason}"))
    if state.failures:
        typer.echo(_whole_tracebacks(folder))


@app.command()
def space(
    space: Space,
    *,
    sets: Sets = None,
    out: Annotated[
        str | None, typer.Option(help="Also print how much of the space this run folder already holds.")
    ] = None,
    run_factories: Annotated[
        bool,
        typer.Option("--run-factories", help="Run the code that the space's factories name, to time their networks."),
    ] = False,
    json_: Json = False,
) -> None:
    """Validate a search space without running it; print cells, pairs, cohorts, steps and an estimated cost."""
    from lmc_tune.experiment.reading import read_space
    from lmc_tune.experiment.sources import folders_beside
    from lmc_tune.storage import place_at
    from lmc_tune.sweeps.answers import held
    from lmc_tune.sweeps.cost import estimate_cost

    with _told_plainly():
        study = read_space(space, sets or [])
        cost = estimate_cost(study, _note, run_factories=run_factories, folders=folders_beside(Path(space)))
        there = None if out is None else held(study, place_at(out))
    if json_:
        _print_json(cost.plain() | (there.plain() if there else {}))
        return
    for axis, values in study.axes.items():
        typer.echo(printable(f"{axis:>12}  {', '.join(_short(axis, value) for value in values)}"))
    for name in ("cells", "pairs", "members", "cohorts", "steps"):
        typer.echo(f"{name:>12}  {getattr(cost, name):,}")
        if name == "members" and cost.trainings > cost.members:
            typer.echo(
                f"{'':>12}  in {cost.trainings:,} trainings, since more pairs share members than a cohort holds; fewer "
                f"where members are kept"
            )
    if cost.tolerance_error > study.measure.tolerance_error:
        typer.echo(
            f"{'tolerance':>12}  {cost.tolerance_error:.4f} for errors, one test example: "
            f"measure.tolerance_error {study.measure.tolerance_error:g} is smaller"
        )
    if cost.seconds_train is None or cost.seconds_measure is None:
        _print_held(there)
        typer.echo(
            f"{'time':>12}  not known: to time the networks of its factories, read their code and add --run-factories"
        )
        return
    train, measure = in_words(cost.seconds_train), in_words(cost.seconds_measure)
    typer.echo(f"{'time':>12}  about {train} of training and {measure} of measuring,")
    typer.echo(f"{'':>12}  on the CPU with {cost.workers} workers, timed just now on random inputs")
    _print_held(there)


def _print_held(there: Any) -> None:
    if there is not None:
        typer.echo(f"{'finished':>12}  {there.finished} of these pairs are in the folder")
        if there.again:
            typer.echo(f"{'':>12}  {there.again}")


@app.command()
def presets() -> None:
    """List the search spaces that ship with lmc-tune."""
    from lmc_tune.experiment.reading import presets as known

    spaces = known()
    width = max(map(len, spaces))
    for name, path in spaces.items():
        about = next((line[2:] for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("# ")), "")
        typer.echo(f"{name:<{width}}  {about}")


@datasets_app.callback(invoke_without_command=True)
def datasets(context: typer.Context, *, data_root: DataRoot = None) -> None:
    """List the data sets: their size, their source, and whether they are here."""
    if context.invoked_subcommand:
        return
    from lmc_tune.data.files import DamagedDataError, DataError, UnreadableDataError, check_files, resolve_data_root
    from lmc_tune.experiment.datasets import DATASETS

    with _told_plainly():
        root = resolve_data_root(data_root)
    typer.echo(f"data root: {root}\n")
    for facts in DATASETS.values():
        try:
            check_files(facts, root)
            here = "ready" if facts.files else "bundled"
        except (DamagedDataError, UnreadableDataError) as error:
            here = str(error)
        except DataError:
            here = f"not here: lmc-tune datasets get {facts.name}"
        shape = "x".join(map(str, facts.shape))
        typer.echo(
            f"{facts.name:<14} {facts.n_train:>6} + {facts.n_test:<6} {shape:<9} {facts.megabytes:>5g} MB  {here}"
        )
        typer.echo(f"{'':<14} {facts.title}; {facts.source}; {facts.terms}")


@datasets_app.command("get")
def datasets_get(name: str, *, data_root: DataRoot = None) -> None:
    """Download a data set and verify every file."""
    from lmc_tune.data.files import DataError, resolve_data_root
    from lmc_tune.experiment.datasets import DATASETS

    with _told_plainly():
        if name not in DATASETS:
            raise DataError(f"unknown data set {name!r}; there are {', '.join(DATASETS)}")
        from lmc_tune.data.datasets import download

        root = resolve_data_root(data_root)
        download(name, root)
    typer.echo(f"{name} is in {root}" if DATASETS[name].files else f"{name} ships with scikit-learn")


@app.command()
def track(folder: RunFolder, *, tracking_uri: TrackingUri = None, json_: Json = False) -> None:
    """Send a run folder to an MLflow store again; runs that are already there stay as they are."""
    with _told_plainly():
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
        _print_json({"created": sent.created, "updated": sent.updated, "unchanged": sent.unchanged})
    else:
        typer.echo(f"{sent.created} runs created, {sent.updated} updated, {sent.unchanged} already there")


@app.command()
def ui(
    folder: RunFolder = "runs/quickstart",
    *,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 5000,
) -> None:
    """Open the MLflow UI over a run folder's own store, on this machine only."""
    with _told_plainly():
        from lmc_tune.storage import place_at
        from lmc_tune.tracking.ui import serve_ui

        serve_ui(place_at(folder).absolute(), port, _note)


@contextmanager
def _told_plainly(interrupted: str = "Interrupted.") -> Iterator[None]:
    """Turn errors that a user can fix into one message and an exit code."""
    from lmc_tune.errors import UserError

    try:
        yield
    except UserError as error:
        _note(str(error))
        raise typer.Exit(error.exit_code) from error
    except OSError as error:
        _note(_what_the_system_says(error))
        raise typer.Exit(BAD_INPUT if isinstance(error, FileNotFoundError) else 1) from error
    except KeyboardInterrupt:
        _note(interrupted)
        raise typer.Exit(INTERRUPTED) from None


def _what_the_system_says(error: OSError) -> str:
    """A sentence for an error of the system; our own errors already are sentences."""
    from lmc_tune.storage import what_fails

    if error.errno is None:
        return str(error)
    try:
        here = Path.cwd()
    except FileNotFoundError:
        return "the current folder has been deleted; change to a folder that exists (cd), and run the command again"
    where = here if error.filename is None else Path(os.fsdecode(error.filename))
    return f"{where} cannot be used ({what_fails(where, error)}); change that, or name another place"


def _this_command() -> str:
    """The command line that was typed, without credentials."""
    from lmc_tune.tracking.connection import without_credentials

    called = sys.argv[0]
    if called == shutil.which("lmc-tune"):
        called = "lmc-tune"
    elif Path(called).name == "__main__.py":
        called = "python -m lmc_tune"
    return without_credentials(f"{called} {shlex.join(sys.argv[1:])}")


def _print_outcome(outcome: Any) -> None:
    counts = ", ".join(f"{count} {name}" for name, count in outcome.counts.items())
    again = f" and {outcome.remeasured} only measured again" if outcome.remeasured else ""
    _note(f"{_pairs(outcome.trained)} trained{again} in this call; now {counts}")
    _note(f"tables  {outcome.folder}")
    if outcome.report:
        typer.echo(f"report  {outcome.report}")


def _note_server(folder: Any, tracking_uri: str | None) -> None:
    """Say how to show runs in a file that is not the folder's own: without this, MLflow's server finds no artifacts."""
    from lmc_tune.tracking import connection

    file = connection.embedded_file(connection.tracking_uri(folder, tracking_uri))
    if file is not None and file != connection.own_store(folder):
        _note(f"show these runs with: {connection.server_command(file)}")


def _print_failures(folder: Any) -> None:
    from lmc_tune.sweeps.status import read_status

    failures = read_status(folder).failures
    for failure in failures[:5]:
        _note(f"failed {failure.key} ({failure.what}): {failure.reason}")
    see = f"lmc-tune status {shlex.quote(str(folder))}"
    _note(f"{_pairs(len(failures))} failed; run the same command to try them again, or see: {see}")
    _note(_whole_tracebacks(folder))


def _whole_tracebacks(folder: Any) -> str:
    return f"whole tracebacks: the column 'reason' of lmc_tune.load_results({str(folder)!r})"


def _pairs(n: int) -> str:
    return "1 pair" if n == 1 else f"{n} pairs"


def _on_checkpoints(n: int) -> str:
    unfinished = "1 network of unfinished pairs has" if n == 1 else f"{n} networks of unfinished pairs have"
    return f"{unfinished} a checkpoint to resume from"


def _print_json(content: dict[str, Any]) -> None:
    typer.echo(json.dumps(content, ensure_ascii=False))


def _note(text: str) -> None:
    typer.echo(printable(text), err=True)


def _short(axis: str, value: object) -> str:
    from lmc_tune.experiment import ShiftSpec

    if axis == "shift" and isinstance(value, dict) and "kind" in value:
        return ShiftSpec.model_validate(value).label
    if isinstance(value, dict):
        return " ".join(str(part) for part in value.values() if part is not None)
    return str(value)
