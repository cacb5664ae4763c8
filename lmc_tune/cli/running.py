"""The options of commands that run sweeps."""

from typing import Annotated, Literal, get_args

import typer

from lmc_tune.sweeps.search import SearchName

Out = Annotated[str | None, typer.Option(metavar="DIR", help="Run folder (default: runs/NAME).")]
Storage = Annotated[
    str | None,
    typer.Option(
        metavar="PLACE",
        help="Where run folders are kept, in place of runs/: a folder that all machines of a cluster share, "
        "s3://BUCKET/FOLDER, gs://BUCKET/FOLDER.",
    ),
]
SweepName = Annotated[str | None, typer.Option(metavar="NAME", help="Name of the sweep (default: the space's).")]
TrackingUri = Annotated[
    str | None,
    typer.Option(
        metavar="URI",
        help="MLflow store, http://HOST:PORT or sqlite:////PATH/mlflow.db "
        "(default: $MLFLOW_TRACKING_URI, else an embedded one in the run folder).",
    ),
]
Address = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="Address of a Ray cluster (default: run on this machine).")
]
Workers = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="Processes at once (default: one per core or GPU that is there)."),
]
DeviceName = Annotated[
    Literal["auto", "cpu", "cuda"],
    typer.Option(
        metavar="auto|cpu|cuda",
        help="Where to train; on a cluster, cuda also waits for GPUs that have not started yet.",
    ),
]
Search = Annotated[
    SearchName,
    typer.Option(
        metavar="|".join(get_args(SearchName)),
        help="Run every cell, or start coarse and refine where neighbouring verdicts differ.",
    ),
]
MaxPairs = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Train or measure at most this many pairs in this call.")
]
MaxHours = Annotated[
    float | None,
    typer.Option(
        metavar="HOURS",
        min=0.001,
        max=10_000,
        help="End after this many hours, as if interrupted: the same command resumes.",
    ),
]
NoReport = Annotated[bool, typer.Option("--no-report", help="Do not render the report at the end.")]
