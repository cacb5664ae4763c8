"""A sweep in Python: run one, or open a folder that one has left, and look at its answer."""

import json
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, get_args

from markupsafe import Markup

from lmc_tune.errors import UserError
from lmc_tune.experiment.space import SPACE_FILE, SearchSpace
from lmc_tune.experiment.wording import nearest
from lmc_tune.storage import BucketPath, Place, place_at
from lmc_tune.sweeps.search import SearchName
from lmc_tune.tables.planned import planned_space, why_no_run
from lmc_tune.tables.rows import STATUSES
from lmc_tune.tables.store import RESULTS_FILE, Store, load_results
from lmc_tune.work.bench import Device

if TYPE_CHECKING:
    import pandas as pd

    from lmc_tune.analysis.phase import PhaseDiagram

_INTERRUPTED = "every finished pair is kept; the same call resumes the sweep"


class Run:
    """A run folder: its tables, its verdicts, its charts.

    Everything is read when it is first asked for, and kept: to see what a sweep has finished since, open the folder
    again. Only :meth:`report` always reads the folder as it is. A notebook shows a run as its answer, its counts and
    its phase diagram.

    Pairs that count are those that ``space.yaml`` plans and that answer what it asks: verdicts, counts, charts and
    report are made of them. The tables hold all finished pairs; in ``results`` the columns ``planned`` and ``stale``
    tell them apart, as :func:`lmc_tune.load_results` says.
    """

    def __init__(self, folder: str | os.PathLike[str] | BucketPath) -> None:
        self.folder: Place = place_at(folder).absolute()

    @cached_property
    def space(self) -> SearchSpace | None:
        """What was planned, and how cells are judged; None if the folder has no ``space.yaml``."""
        return planned_space(self.folder)

    @cached_property
    def results(self) -> "pd.DataFrame":
        """One row per finished pair, as :func:`lmc_tune.load_results` returns them."""
        return load_results(self.folder)

    @cached_property
    def paths(self) -> "pd.DataFrame":
        """One row per pair (``key``), condition, split and ``lambda``: ``loss_sum`` in nats, ``correct``, ``n``."""
        return Store(self.folder).table("paths")

    @cached_property
    def curves(self) -> "pd.DataFrame":
        """Learning curves: one row per pair (``key``), member and epoch. Losses in nats, accuracies as fractions."""
        return Store(self.folder).table("curves")

    @cached_property
    def layers(self) -> "pd.DataFrame":
        """One row per pair (``key``) and layer: how far apart and how alike the members are."""
        return Store(self.folder).table("layers")

    @cached_property
    def barriers(self) -> "pd.DataFrame":
        """One row per pair (``key``) and condition: every definition of the barrier, of loss and error."""
        return Store(self.folder).table("barriers")

    @cached_property
    def layer_barriers(self) -> "pd.DataFrame":
        """One row per pair (``key``), condition, epoch (missing at the end of training), base and set of layers."""
        return Store(self.folder).table("layer_barriers")

    @cached_property
    def layer_paths(self) -> "pd.DataFrame":
        """One row per point of the path of every set of layers, as ``loss_sum``, ``correct`` and ``n``."""
        return Store(self.folder).table("layer_paths")

    @cached_property
    def rounds(self) -> "pd.DataFrame":
        """One row per federation (``key``), round, client, scored weights and split; without rows if there is none."""
        return Store(self.folder).table("rounds")

    @cached_property
    def ensembles(self) -> "pd.DataFrame":
        """One row per ensemble (``key``) and number of members; without rows if there is none."""
        return Store(self.folder).table("ensembles")

    @cached_property
    def ensemble_members(self) -> "pd.DataFrame":
        """One row per ensemble (``key``) and member; without rows if there is none."""
        return Store(self.folder).table("ensemble_members")

    @cached_property
    def averages(self) -> "pd.DataFrame":
        """One row per ensemble (``key``), condition, average of members' weights, and split; without rows if there is
        none.
        """
        return Store(self.folder).table("averages")

    @cached_property
    def directions(self) -> "pd.DataFrame":
        """One row per pair (``key``), step from a member or from the path, and split; without rows if not asked."""
        return Store(self.folder).table("directions")

    @cached_property
    def sharpness(self) -> "pd.DataFrame":
        """One row per pair (``key``) and position: the largest eigenvalue of the Hessian; without rows if not asked."""
        return Store(self.folder).table("sharpness")

    @cached_property
    def planes(self) -> "pd.DataFrame":
        """One row per pair (``key``), point of a plane, and split; without rows if not asked."""
        return Store(self.folder).table("planes")

    @property
    def cells(self) -> "pd.DataFrame":
        """One row per judged cell: verdict, mean barrier and its interval, counts, and means of what was measured.

        The columns are those of :func:`lmc_tune.tables.cells.judge_cells`, and ``panel``.
        """
        return self._diagram.in_order(self._diagram.cells).reset_index(drop=True)

    def phase_diagram(self, x: str | None = None, y: str | None = None) -> "PhaseDiagram":
        """The cells over two axes, a panel for each combination of everything else that varies.

        Args:
            x, y: numeric columns of the spec, such as ``lr``; by default learning rate and batch size, or what varies
                in their place.

        Raises:
            ValueError: if a column is unknown, does not vary, or is given twice.
            UserError: if no planned pair has finished.
        """
        from lmc_tune.analysis.phase import why_no_axis  # noqa: PLC0415 - pandas and scipy take a second to import

        if x is None and y is None:
            return self._diagram
        diagram = self._mapped(x, y)
        varying = [axis.column for axis in diagram.axes]
        for name, column in (("x", x), ("y", y)):
            if column is not None and column not in varying:
                raise ValueError(why_no_axis(diagram, column, name))
        return diagram

    @cached_property
    def _diagram(self) -> "PhaseDiagram":
        return self._mapped(None, None)

    def _mapped(self, x: str | None, y: str | None) -> "PhaseDiagram":
        from lmc_tune.analysis.phase import map_regions, usual_axes  # noqa: PLC0415 - pandas and scipy take a second to import
        from lmc_tune.experiment import VerdictSpec  # noqa: PLC0415

        verdict = self.space.verdict if self.space else VerdictSpec()
        return map_regions(self._judged, *usual_axes(x, y), verdict=verdict, space=self.space)

    @cached_property
    def _judged(self) -> "pd.DataFrame":
        """Of the results what verdicts are made of: all columns of a million pairs are gigabytes."""
        from lmc_tune.experiment import VerdictSpec  # noqa: PLC0415 - as above
        from lmc_tune.tables.cells import judged_columns  # noqa: PLC0415

        return load_results(self.folder, judged_columns(self.space.verdict if self.space else VerdictSpec()))

    @property
    def answer(self) -> str:
        """The outcome in one sentence; errors as :meth:`phase_diagram`."""
        from lmc_tune.analysis.answer import answer  # noqa: PLC0415

        return answer(self._diagram)

    @cached_property
    def charts(self) -> "Charts":
        """The report's charts as Altair objects, by name: ``phase``, ``curves``, ``conditions``, …

        ``curves`` and ``learning`` are those of the cell that the report shows first.
        """
        from lmc_tune.analysis.report.standalone import standalone_charts  # noqa: PLC0415 - altair takes seconds

        charts = standalone_charts(self._diagram, self.space, Store(self.folder))
        return Charts({name: chart for name, (_, chart) in charts.items()}, self.space)

    def report(self, out: str | os.PathLike[str] | None = None) -> Place:
        """Write the report, or a picture of the phase diagram, or the table of cells.

        Args:
            out: a file that ends in ``.html``, ``.png``, ``.svg``, ``.pdf`` or ``.csv``, or a folder; ``report.html``
                in the run folder by default.

        Returns:
            The file that was written.

        Raises:
            UserError: as :func:`lmc_tune.analysis.report.render` says.
        """
        from lmc_tune.analysis.report import render  # noqa: PLC0415 - altair takes seconds to import

        return render(self.folder, out)[0]

    def __repr__(self) -> str:
        return " ".join([f"Run({str(self.folder)!r}):", *self._in_words()])

    def _repr_html_(self) -> str:
        line = Markup("<p style='margin:.3em 0;overflow-wrap:anywhere'>{}</p>")
        said = [line.format(text) for text in (Markup("<b>{}</b>").format(str(self.folder)), *self._in_words())]
        return str(Markup("<div>{}{}</div>").format(Markup("").join(said), self._picture()))

    def _in_words(self) -> list[str]:
        """Answer, counts, and what to know before trusting them; or why there are none."""
        from lmc_tune.analysis.answer import remarks  # noqa: PLC0415
        from lmc_tune.analysis.report.content import cautions  # noqa: PLC0415
        from lmc_tune.analysis.report.render import read_sweep  # noqa: PLC0415

        try:
            return [
                self.answer,
                self._counts(),
                *remarks(self._diagram),
                *cautions(self._diagram, read_sweep(self.folder)),
            ]
        except (UserError, FileNotFoundError) as error:
            return [str(error)]

    def _counts(self) -> str:
        diagram = self._diagram
        n = Counter(diagram.pairs["status"])
        total = "" if self.space is None else f" of {len(self.space.cells()) * self.space.replicates} planned"
        by_status = ", ".join(f"{n[status]} {status}" for status in STATUSES if n[status])
        return f"{n.total()}{total} {diagram.group}s: {by_status}."

    def _picture(self) -> Markup:
        try:
            return Markup(self._diagram._repr_html_())  # noqa: S704 - our own
        except (UserError, FileNotFoundError):  # said in words
            return Markup("")


class Charts(dict[str, Any]):
    """Charts by name; an unknown name is answered with the nearest, or with what the space has to ask for it."""

    def __init__(self, charts: Mapping[str, Any], space: SearchSpace | None) -> None:
        super().__init__(charts)
        self._space = space

    def __missing__(self, name: str) -> Any:
        from lmc_tune.analysis.report.asked import why_no_chart  # noqa: PLC0415 - altair takes seconds to import

        why = why_no_chart(name, self._space)
        said = f": {why}" if why else nearest(name, self)
        raise KeyError(f"there is no chart {name!r}{said}; there are {', '.join(self)}")


def open_run(folder: str | os.PathLike[str] | BucketPath) -> Run:
    """A run folder, finished or not, as a :class:`Run`.

    Args:
        folder: its path, or its address in a bucket.

    Raises:
        FileNotFoundError: if it is no run folder.

    Example:
        A folder with pairs whose barrier grows with the learning rate, as a sweep would have written them:

        >>> from tempfile import TemporaryDirectory
        >>> from lmc_tune.experiment.reading import read_space
        >>> from lmc_tune.sweeps.ownership import write_description
        >>> from lmc_tune.tables.rows import PairResult, spec_columns
        >>> space = read_space("quickstart", ["axes.batch_size=[32]", "axes.lr=[0.01, 0.1, 1.0]"])
        >>> learned = {"status": "ok", "train_accuracy_a": 1.0, "train_accuracy_b": 1.0}
        >>> def result(pair):
        ...     barriers = {"condition": "naive", "test_error_barrier_chord": pair.train.lr / 10}
        ...     asked = space.measure.of(pair.model).key
        ...     columns = {**spec_columns(pair), **learned, "question": asked}
        ...     return PairResult(columns=columns, tables={"barriers": [barriers]})
        >>> with TemporaryDirectory() as folder:
        ...     write_description(folder=Path(folder), space=space, workers=1, planned_pairs=30)
        ...     Store(folder).write_shard("example", [result(pair) for pair in space.pairs()])
        ...     run = open_run(folder)
        ...     print(run.answer)
        Of 6 cells, 4 are connected and 2 disconnected.
        >>> run.cells.groupby("lr")["mean_barrier"].mean().round(3).to_dict()
        {0.01: 0.001, 0.1: 0.01, 1.0: 0.1}
    """
    run = Run(folder)
    if not any((run.folder / name).exists() for name in (SPACE_FILE, RESULTS_FILE, "shards")):
        raise FileNotFoundError(f"no sweep in {run.folder}{why_no_run(run.folder)}")
    return run


def sweep(  # noqa: PLR0913 - one parameter per option of the command
    space: str | os.PathLike[str] | Mapping[str, Any] | SearchSpace,
    *,
    out: str | os.PathLike[str] | BucketPath | None = None,
    storage: str | os.PathLike[str] | None = None,
    name: str | None = None,
    sets: Sequence[str] = (),
    data_root: str | os.PathLike[str] | None = None,
    tracking_uri: str | None = None,
    address: str | None = None,
    workers: int | None = None,
    device: Device = "auto",
    search: SearchName = "grid",
    max_pairs: int | None = None,
    max_hours: float | None = None,
    report: bool = True,
    quiet: bool = False,
) -> Run:
    """Run or resume a search space, as ``lmc-tune sweep`` does: finished pairs are never trained again.

    Progress is written to stderr. Import ray after the first sweep, or not at all: the sweep's own Ray has to be bound
    to this machine before it is imported.

    Args:
        space: a YAML file, a preset's name, a mapping or a space, as :func:`lmc_tune.read_space` takes them.
        out: run folder, such as the ``folder`` of a run (default: ``runs/NAME``).
        storage: where run folders are kept, in place of ``runs``: a folder, or an address in a bucket.
        name: of the sweep (default: the space's).
        sets: overrides such as ``train.epochs=3``.
        data_root: folder of the data sets (default: ``$LMC_TUNE_DATA``, else a cache folder).
        tracking_uri: MLflow store (default: ``$MLFLOW_TRACKING_URI``, else an embedded one in the run folder).
        address: of a Ray cluster (default: this machine).
        workers: processes at once (default: one per core or GPU).
        device: where to train.
        search: every cell, or coarse to fine.
        max_pairs: train or measure at most this many pairs in this call.
        max_hours: end after so many hours; in the main thread only.
        report: render the report at the end.
        quiet: write nothing to stderr.

    Returns:
        The run, complete or as far as ``max_pairs`` or ``max_hours`` let it go. Pairs that failed are in its results.

    Raises:
        UserError: if the space, the data, the folder or the device cannot be used; nothing is written then.
        ValueError: if an option is impossible.
        RuntimeError: if ray was imported before the first sweep of this machine's own Ray.
        KeyboardInterrupt: on Ctrl-C; every finished pair is kept, and the same call resumes the sweep.
    """
    _check_options(workers=workers, max_pairs=max_pairs, max_hours=max_hours, device=device, search=search)
    from lmc_tune.cli.terminal import listener_for  # noqa: PLC0415 - so that opening a run needs neither ray nor torch
    from lmc_tune.data.files import resolve_data_root  # noqa: PLC0415
    from lmc_tune.experiment.reading import read_space  # noqa: PLC0415
    from lmc_tune.experiment.sources import folders_beside  # noqa: PLC0415
    from lmc_tune.sweeps.interruption import one_interruption  # noqa: PLC0415
    from lmc_tune.sweeps.options import Options  # noqa: PLC0415
    from lmc_tune.sweeps.ownership import run_folder  # noqa: PLC0415
    from lmc_tune.sweeps.run import run_sweep  # noqa: PLC0415

    with _handlers_restored(), one_interruption():
        study = read_space(space, [*sets, *([f"name={json.dumps(name)}"] if name else [])])
        folder = run_folder(study.name, out, storage)
        options = Options(
            data_root=resolve_data_root(data_root),
            folders=folders_beside(Path("space" if isinstance(space, Mapping | SearchSpace) else space)),
            workers=workers,
            device=device,
            address=address,
            tracking_uri=tracking_uri,
            search=search,
            max_pairs=max_pairs,
            max_hours=max_hours,
            report=report,
        )
        with _stream(quiet=quiet) as stream, listener_for(stream) as listener:
            outcome = run_sweep(study, folder, options, listener)
    if outcome.interrupted and not outcome.over:
        raise KeyboardInterrupt(_INTERRUPTED)
    return Run(folder)


@contextmanager
def _stream(*, quiet: bool) -> Iterator[TextIO]:
    """Where progress is written: stderr, or nowhere."""
    if not quiet:
        yield sys.stderr
        return
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        yield nowhere


def _check_options(**given: Any) -> None:
    """Reject what the command line would have rejected."""
    for name in ("workers", "max_pairs"):
        if given[name] is not None and not (isinstance(given[name], int) and given[name] >= 1):
            raise ValueError(f"{name} must be a whole number of at least 1, got {given[name]!r}")
    if given["max_hours"] is not None and not 0.001 <= given["max_hours"] <= 10_000:
        raise ValueError(f"max_hours must be between 0.001 and 10000, got {given['max_hours']!r}")
    if given["max_hours"] is not None and threading.current_thread() is not threading.main_thread():
        raise ValueError("max_hours ends a sweep by a signal, which only the main thread receives; leave it out here")
    for name, known in (("device", get_args(Device)), ("search", get_args(SearchName))):
        if given[name] not in known:
            near = nearest(given[name], known)
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {given[name]!r}{near}")


@contextmanager
def _handlers_restored() -> Iterator[None]:
    """Leave signals as they were, also after an interruption: unlike the command, the process goes on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(_INTERRUPTED) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
