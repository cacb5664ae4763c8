"""A sweep's runs in MLflow: one parent, one nested run per pair, found again by their tags.

Sending twice changes nothing: runs are identified by the tags ``lmc_tune.sweep`` and ``lmc_tune.key``, and
every metric carries its run's own start time, so that MLflow drops the second copy.
"""

import os
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

from lmc_tune.storage import Place
from lmc_tune.tables.rows import STATUSES, PairResult, Status
from lmc_tune.tables.sweep_record import SweepRecord
from lmc_tune.tracking import connection
from lmc_tune.tracking.chart import interpolation_page
from lmc_tune.tracking.content import DIGEST_TAG, KEY_TAG, KIND_TAG, SWEEP_TAG, Metric, RunContent, run_content
from lmc_tune.tracking.views import experiment_tags

CHART_FILE = "interpolation.html"
METRICS_PER_REQUEST = 900  # MLflow takes 1000 metrics, parameters and tags at once
_RUNS_PER_PAGE = 1000

EndStatus = Literal["FINISHED", "KILLED", "FAILED"]


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


@dataclass(frozen=True, kw_only=True)
class _Run:
    """A run as the store knows it."""

    id: str
    start_time: int
    status: str
    artifact_uri: str
    tags: Mapping[str, str]

    @classmethod
    def of(cls, run: Any) -> Self:
        info = run.info
        return cls(
            id=info.run_id,
            start_time=info.start_time,
            status=info.status,
            artifact_uri=info.artifact_uri,
            tags=dict(run.data.tags),
        )

    def says(self, content: RunContent) -> bool:
        return self.status == _status(content) and content.tags.items() <= self.tags.items()


class Mirror:
    """The runs of one sweep in one MLflow store. Not thread-safe; one writer per sweep.

    Made by :func:`open_mirror`. Methods raise whatever MLflow raises when the store cannot be reached.
    """

    def __init__(self, client: Any, experiment_id: str, sweep: SweepRecord, file: Path | None) -> None:
        self._client = client
        self._experiment = experiment_id
        self._sweep = sweep
        self._artifacts = None if file is None else file.parent / connection.ARTIFACTS
        parent, self._runs = self._find_runs()
        self._parent = self._open_parent(parent)

    def send(self, result: PairResult) -> Sent:
        """Create or update the run of a pair; one that is there already, unchanged, costs nothing."""
        content = run_content(result)
        content = replace(content, tags={**content.tags, "mlflow.parentRunId": self._parent.id})
        known = self._runs.get(content.key)
        if known is not None and known.says(content) and self._has_chart(known):
            return Sent(unchanged=1)
        if known is not None and known.tags.get(DIGEST_TAG) not in ("", content.tags[DIGEST_TAG]):
            # Metrics can only be added to, never replaced: other measurements need a run of their own.
            self._client.delete_run(known.id)
            run = self._create(content)
        else:
            run = known or self._create(content)
        # The tags go last: a run that has them all is complete.
        self._write_artifact(run, CHART_FILE, interpolation_page(result, content.name))
        self._fill(run, content)
        self._client.set_terminated(run.id, status=_status(content), end_time=run.start_time + _ms(content.seconds))
        self._runs[content.key] = _Run(
            id=run.id,
            start_time=run.start_time,
            status=_status(content),
            artifact_uri=run.artifact_uri,
            tags={**run.tags, **content.tags},
        )
        return Sent(created=1) if known is None else Sent(updated=1)

    def finish(
        self,
        statuses: Mapping[str, Status],
        artifacts: Sequence[Place] = (),
        status: EndStatus = "FINISHED",
    ) -> None:
        """Close the parent run: counts by status as metrics, the report (and other text files) as artifacts.

        Args:
            statuses: status of every finished pair, by key.
            artifacts: files to log on the parent; those that do not exist are passed over.
            status: KILLED if the sweep was interrupted.
        """
        parent, done = self._parent, list(statuses.values())
        counts = {"pairs": len(done), **{f"pairs_{name}": done.count(name) for name in STATUSES}}
        shown = self._client.get_run(parent.id).data.metrics
        news = [(name, float(count), len(done)) for name, count in counts.items() if shown.get(name) != count]
        now = _now()  # the gate may turn as many pairs into other counts: of those, MLflow shows the later ones
        self._log(parent, news, timestamp=now)
        for path in artifacts:
            if path.exists():
                self._write_artifact(parent, path.name, path.read_text(encoding="utf-8"))
        self._remove_strays()
        self.end(status)

    def end(self, status: EndStatus) -> None:
        """Close the parent run as it is."""
        self._client.set_terminated(self._parent.id, status=status)

    def _create(self, content: RunContent) -> _Run:
        # The tags make the run findable from its first moment: a kill right after leaves no orphan.
        return _Run.of(
            self._client.create_run(
                self._experiment,
                start_time=_now() - _ms(content.seconds),
                tags={SWEEP_TAG: self._sweep.id, **content.tags},
                run_name=content.name,
            )
        )

    def _fill(self, run: _Run, content: RunContent) -> None:
        tags = {name: value for name, value in content.tags.items() if run.tags.get(name) != value}
        self._log(run, content.metrics, params=content.params, tags=tags, timestamp=run.start_time)

    def _log(
        self,
        run: _Run,
        metrics: Sequence[Metric],
        *,
        timestamp: int,
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        from mlflow.entities import Metric, Param, RunTag  # noqa: PLC0415

        rest = {
            "params": [Param(name, value) for name, value in (params or {}).items()],
            "tags": [RunTag(name, value) for name, value in (tags or {}).items()],
        }
        for part in _parts(metrics, METRICS_PER_REQUEST):
            entities = [Metric(name, value, timestamp, step) for name, value, step in part]
            self._client.log_batch(run.id, metrics=entities, **rest, synchronous=True)
            rest = {}

    def _write_artifact(self, run: _Run, name: str, text: str) -> None:
        if folder := self._artifacts_of(run):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
        else:
            self._client.log_text(run.id, text, name)

    def _has_chart(self, run: _Run) -> bool:
        """Whether it exists; True for a server, which would have to be asked for each run."""
        folder = self._artifacts_of(run)
        return folder is None or (folder / CHART_FILE).exists()

    def _artifacts_of(self, run: _Run) -> Path | None:
        """The folder of a run's artifacts in an embedded store; None if they go through a server."""
        if self._artifacts is None or not run.artifact_uri.startswith(connection.ARTIFACT_ROOT):
            return None
        folder = (self._artifacts / run.artifact_uri.removeprefix(connection.ARTIFACT_ROOT)).resolve()
        if not folder.is_relative_to(self._artifacts.resolve()):
            raise connection.TrackingError(
                f"a run's artifacts would be written to {folder}, which is not in {self._artifacts}: the store was "
                f"not made by lmc-tune; delete it and send the run folder again"
            )
        return folder

    def _find_runs(self) -> tuple[_Run | None, dict[str, _Run]]:
        """The sweep's parent and pairs already in the store, so that sending needs no search per pair."""
        parent, runs = None, dict[str, _Run]()
        for run in self._search():
            if KEY_TAG not in run.tags:
                parent = parent or run
            elif (key := run.tags[KEY_TAG]) not in runs or runs[key].status == "RUNNING":
                runs[key] = run
        return parent, runs

    def _remove_strays(self) -> None:
        """Delete runs whose creation was not answered in time, and which were therefore created once more."""
        known = {self._parent.id, *(run.id for run in self._runs.values())}
        for run in list(self._search("attributes.status = 'RUNNING'")):
            if run.id not in known:
                self._client.delete_run(run.id)

    def _search(self, *conditions: str) -> Iterator[_Run]:
        """The sweep's runs for which the conditions hold, oldest first."""
        token = None
        while True:
            page = self._client.search_runs(
                [self._experiment],
                " and ".join([f"tags.`{SWEEP_TAG}` = '{self._sweep.id}'", *conditions]),
                max_results=_RUNS_PER_PAGE,
                order_by=["attributes.start_time ASC"],
                page_token=token,
            )
            yield from map(_Run.of, page)
            token = page.token
            if not token:
                return

    def _open_parent(self, parent: _Run | None) -> _Run:
        sweep = self._sweep
        tags = {
            SWEEP_TAG: sweep.id,
            KIND_TAG: "sweep",
            "planned_pairs": "" if sweep.planned_pairs is None else str(sweep.planned_pairs),
            "mlflow.source.name": "lmc-tune",
            "mlflow.source.type": "LOCAL",
            **{f"version.{name}": version for name, version in sweep.versions.items()},
        }
        if parent is None:
            return _Run.of(
                self._client.create_run(self._experiment, tags=tags, run_name=f"{sweep.name} {sweep.id[:8]}")
            )
        self._client.update_run(parent.id, status="RUNNING")
        for name, value in tags.items():
            if parent.tags.get(name) != value:
                self._client.set_tag(parent.id, name, value)
        return parent


def open_mirror(folder: Place, sweep: SweepRecord, uri: str | None = None) -> Mirror:
    """Find or create the sweep's experiment and parent run.

    Args:
        folder: the run folder.
        sweep: whose runs these are.
        uri: of the MLflow store; by default ``MLFLOW_TRACKING_URI``, else the folder's own SQLite file.
    """
    target = connection.tracking_uri(folder, uri)
    client = connection.connect(target)
    file = connection.embedded_file(target)
    return Mirror(client, _experiment(client, sweep.name, target), sweep, file)


def _experiment(client: Any, sweep_name: str, uri: str) -> str:
    """The id of the sweep's experiment: ``MLFLOW_EXPERIMENT_NAME`` if set, else ``lmc-tune/NAME``."""
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or f"lmc-tune/{sweep_name}"
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        location = connection.ARTIFACT_LOCATION if connection.embedded_file(uri) else None
        created: str = client.create_experiment(name, location, experiment_tags())
        return created
    if experiment.lifecycle_stage != "active":
        raise connection.TrackingError(
            f"the MLflow experiment {name!r} was deleted; set MLFLOW_EXPERIMENT_NAME to another name, or restore it "
            f"with: MLFLOW_TRACKING_URI={shlex.quote(connection.without_credentials(uri))} mlflow experiments restore "
            f"--experiment-id {experiment.experiment_id}"
        )
    known: str = experiment.experiment_id
    return known


def _parts(metrics: Sequence[Metric], size: int) -> Iterator[Sequence[Metric]]:
    """At least one part, so that parameters and tags are sent even if nothing was measured."""
    for start in range(0, max(len(metrics), 1), size):
        yield metrics[start : start + size]


def _status(content: RunContent) -> EndStatus:
    return "FINISHED" if content.finished else "FAILED"


def _now() -> int:
    return time.time_ns() // 1_000_000


def _ms(seconds: float) -> int:
    return round(1000 * seconds)
