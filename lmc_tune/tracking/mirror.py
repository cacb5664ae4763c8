"""A sweep's runs in MLflow: the sweep, below it a run per cell, below that a run per pair; found again by their tags.

Sending twice changes nothing: runs are identified by the tags ``lmc_tune.sweep`` and ``lmc_tune.key`` (a cell's by
``cell``); every metric of a pair carries its run's own start time, so that MLflow drops the second copy, and of cells
and the sweep only what differs is sent.
"""

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lmc_tune.experiment import VerdictSpec
from lmc_tune.experiment.space import SearchSpace
from lmc_tune.storage import Place
from lmc_tune.tables.planned import planned_space
from lmc_tune.tables.rows import PairResult
from lmc_tune.tables.sweep_record import SweepRecord
from lmc_tune.tracking import connection
from lmc_tune.tracking.cells import CellContent, pending_cell
from lmc_tune.tracking.chart import ensemble_page, interpolation_page, layers_page, learning_page, rounds_page
from lmc_tune.tracking.content import (
    CELL_TAG,
    DIGEST_TAG,
    KEY_TAG,
    KIND_TAG,
    NOTE_TAG,
    SOURCE_TAGS,
    SWEEP_TAG,
    RunContent,
    run_content,
)
from lmc_tune.tracking.directions import directions_page
from lmc_tune.tracking.planes import planes_page
from lmc_tune.tracking.runs import EndStatus, Run, Runs, now
from lmc_tune.tracking.views import experiment_tags

if TYPE_CHECKING:  # imports pandas and scipy, which a sweep does without until its end
    from lmc_tune.tracking.outcome import Outcome

PATH_FILE, LEARNING_FILE, LAYERS_FILE, ROUNDS_FILE = "interpolation.html", "learning.html", "layers.html", "rounds.html"
ENSEMBLE_FILE = "ensemble.html"
DIRECTIONS_FILE, PLANES_FILE = "directions.html", "planes.html"
PARENT_TAG = "mlflow.parentRunId"
RUNNING_NOTE = "The sweep has not ended: its cells get their verdicts at its end, or from `lmc-tune track`."


@dataclass(frozen=True, kw_only=True)
class Sent:
    """How many runs were created, updated and left as they were."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0

    def __add__(self, other: "Sent") -> "Sent":
        return Sent(
            created=self.created + other.created,
            updated=self.updated + other.updated,
            unchanged=self.unchanged + other.unchanged,
        )


class Mirror:
    """The runs of one sweep in one MLflow store. Not thread-safe; one writer per sweep.

    Made by :func:`open_mirror`. Methods raise whatever MLflow raises when the store cannot be reached.

    Args:
        runs: those of the sweep.
        sweep: what they say of it.
        space: what was planned, if that is known; what its verdict judges is shown of every pair.
    """

    def __init__(self, runs: Runs, sweep: SweepRecord, space: SearchSpace | None) -> None:
        self._runs = runs
        self._sweep = sweep
        self.space = space
        self._verdict = space.verdict if space else VerdictSpec()
        parent, self._cells, self._pairs = self._find_runs()
        self._parent = self._open_parent(parent)

    def send(self, result: PairResult) -> Sent:
        """Create or update the run of a pair; one that is there already, unchanged, costs nothing.

        It is nested in the run of its cell, which is created if there is none.
        """
        content = run_content(result, self._verdict)
        content = replace(content, tags={**content.tags, PARENT_TAG: self._cell_of(result).id})
        known = self._pairs.get(content.key)
        if known is not None and known.says(content.tags, _status(content)) and self._has_charts(known, result):
            return Sent(unchanged=1)
        run = known
        if known is not None and known.tags.get(DIGEST_TAG) not in ("", content.tags[DIGEST_TAG]):
            # Metrics can only be added to, never replaced: other measurements need a run of their own.
            self._runs.delete(known)
            run = None
        run = run or self._runs.create(content.name, content.tags, content.seconds)
        # The tags go last: a run that has them all is complete.
        for name, page in _charts(result).items():
            self._runs.write_artifact(run, name, page(result, content.name))
        run = self._fill(run, content)
        self._pairs[content.key] = self._runs.end(run, _status(content), content.seconds)
        return Sent(created=1) if known is None else Sent(updated=1)

    def send_cells(self, cells: Sequence[CellContent], progress: Callable[[], None] = lambda: None) -> None:
        """Create or update the runs of cells, and end them. Pairs follow: a cell's run may have been replaced.

        Args:
            cells: with their verdicts.
            progress: called after each.
        """
        for content in cells:
            tags = {**content.tags, PARENT_TAG: self._parent.id}
            run = self._cells.get(content.cell)
            if run is None or not run.says(tags, "FINISHED") or run.metrics != content.metrics:
                self._cells[content.cell] = self._send_cell(run, replace(content, tags=tags))
            progress()

    def finish(self, outcome: "Outcome", artifacts: Sequence[Place] = (), status: EndStatus = "FINISHED") -> None:
        """Close the parent run: counts as metrics, the answer as its description, text files as artifacts.

        Args:
            outcome: of the sweep.
            artifacts: files to log on the parent; those that do not exist are passed over.
            status: KILLED if the sweep was interrupted.
        """
        parent, step = self._parent, outcome.counts["pairs"]
        news = [(name, float(n), step) for name, n in outcome.counts.items() if parent.metrics.get(name) != n]
        # At one step, MLflow shows the latest: a gate may turn as many pairs into other counts.
        parent = self._runs.log(parent, news, timestamp=now(), tags={NOTE_TAG: outcome.note})
        self._parent = replace(parent, metrics={name: float(n) for name, n in outcome.counts.items()})
        for path in artifacts:
            if path.exists():
                self._runs.write_artifact(parent, path.name, path.read_text(encoding="utf-8"))
        self._runs.describe(experiment_tags(outcome.verdict, outcome.varied))
        self._remove_strays()
        self.end(status)

    def end(self, status: EndStatus) -> None:
        """Close the parent run as it is."""
        self._runs.end(self._parent, status)

    def _cell_of(self, result: PairResult) -> Run:
        """The run of a pair's cell; a new one is filled when the cell is judged."""
        cell = result.row["cell"]
        if cell not in self._cells:
            content = pending_cell(result.row)
            self._cells[cell] = self._runs.create(content.name, {**content.tags, PARENT_TAG: self._parent.id})
        return self._cells[cell]

    def _send_cell(self, run: Run | None, content: CellContent) -> Run:
        if run is not None and not run.metrics.keys() <= content.metrics.keys():
            self._runs.delete(run)  # what is no longer known could not be taken from it
            run = None
        run = self._log_cell(run or self._runs.create(content.name, content.tags), content)
        return run if run.status == "FINISHED" else self._runs.end(run, "FINISHED")

    def _log_cell(self, run: Run, content: CellContent) -> Run:
        news = [(name, value, 0) for name, value in content.metrics.items() if run.metrics.get(name) != value]
        run = self._runs.log(run, news, timestamp=now(), params=content.params, tags=content.tags)
        return replace(run, metrics=content.metrics)

    def _fill(self, run: Run, content: RunContent) -> Run:
        return self._runs.log(run, content.metrics, timestamp=run.start_time, params=content.params, tags=content.tags)

    def _has_charts(self, run: Run, result: PairResult) -> bool:
        return self._runs.has_artifacts(run, list(_charts(result)))

    def _find_runs(self) -> tuple[Run | None, dict[str, Run], dict[str, Run]]:
        """The sweep's own run, cells and pairs already in the store, so that sending needs no search for each."""
        parent, cells, pairs = None, dict[str, Run](), dict[str, Run]()
        for run in self._runs.search():
            if KEY_TAG in run.tags:
                _keep(pairs, run.tags[KEY_TAG], run)
            elif run.tags.get(KIND_TAG) == "cell":
                _keep(cells, run.tags[CELL_TAG], run)
            else:
                parent = parent or run
        return parent, cells, pairs

    def _remove_strays(self) -> None:
        """Delete runs whose creation was not answered in time, and which were therefore created once more."""
        known = {self._parent.id, *(run.id for runs in (self._cells, self._pairs) for run in runs.values())}
        for run in list(self._runs.search("attributes.status = 'RUNNING'")):
            if run.id not in known:
                self._runs.delete(run)

    def _open_parent(self, parent: Run | None) -> Run:
        sweep = self._sweep
        tags = {
            SWEEP_TAG: sweep.id,
            KIND_TAG: "sweep",
            "planned_pairs": "" if sweep.planned_pairs is None else str(sweep.planned_pairs),
            **SOURCE_TAGS,
            **{f"version.{name}": version for name, version in sweep.versions.items()},
        }
        if parent is None:
            return self._runs.create(f"{sweep.name} {sweep.id[:8]}", {**tags, NOTE_TAG: RUNNING_NOTE})
        return self._runs.log(self._runs.restart(parent), [], timestamp=now(), tags=tags)


def open_mirror(folder: Place, sweep: SweepRecord, uri: str | None = None) -> Mirror:
    """Find or create the sweep's experiment and parent run.

    Args:
        folder: the run folder.
        sweep: whose runs these are.
        uri: of the MLflow store; by default ``MLFLOW_TRACKING_URI``, else the folder's own SQLite file.

    Raises:
        UserError: if the folder's ``space.yaml`` is damaged.
    """
    target, space = connection.tracking_uri(folder, uri), planned_space(folder)
    client = connection.connect(target)
    store = connection.embedded_file(target)
    artifacts = None if store is None else store.parent / connection.ARTIFACTS
    verdict = space.verdict if space else VerdictSpec()
    return Mirror(Runs(client, _experiment(client, sweep.name, target, verdict), sweep.id, artifacts), sweep, space)


def _experiment(client: Any, sweep_name: str, uri: str, verdict: VerdictSpec) -> str:
    """The id of the sweep's experiment: ``MLFLOW_EXPERIMENT_NAME`` if set, else ``lmc-tune/NAME``."""
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or f"lmc-tune/{sweep_name}"
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        location = connection.ARTIFACT_LOCATION if connection.embedded_file(uri) else None
        created: str = client.create_experiment(name, location, experiment_tags(verdict))
        return created
    if experiment.lifecycle_stage != "active":
        raise connection.TrackingError(
            f"the MLflow experiment {name!r} was deleted; set MLFLOW_EXPERIMENT_NAME to another name, or restore it "
            f"with: MLFLOW_TRACKING_URI={shlex.quote(connection.without_credentials(uri))} mlflow experiments restore "
            f"--experiment-id {experiment.experiment_id}"
        )
    known: str = experiment.experiment_id
    return known


def _charts(result: PairResult) -> Mapping[str, Callable[[PairResult, str], str]]:
    """The pages of a run by the names of their files: of a federation its rounds; of an ensemble its sizes, of a pair
    its path, and of both what else was measured.
    """
    if result.columns.get("clients") is not None:
        return {ROUNDS_FILE: rounds_page}
    of_pair = result.columns.get("family") is None
    charts: dict[str, Callable[[PairResult, str], str]] = (
        {PATH_FILE: interpolation_page} if of_pair else {ENSEMBLE_FILE: ensemble_page}
    )
    if result.tables.get("curves"):
        charts[LEARNING_FILE] = learning_page
    if result.tables.get("layer_barriers"):
        charts[LAYERS_FILE] = layers_page
    if result.tables.get("directions"):
        charts[DIRECTIONS_FILE] = directions_page
    if result.tables.get("planes"):
        charts[PLANES_FILE] = planes_page
    return charts


def _keep(runs: dict[str, Run], key: str, run: Run) -> None:
    """Of several runs of one key the first that has ended; the others are strays."""
    if key not in runs or runs[key].status == "RUNNING":
        runs[key] = run


def _status(content: RunContent) -> EndStatus:
    return "FINISHED" if content.finished else "FAILED"
