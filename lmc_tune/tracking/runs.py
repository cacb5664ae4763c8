"""The runs of one sweep in one MLflow store: found by their tags, created, filled, ended, deleted."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

from lmc_tune.tracking import connection
from lmc_tune.tracking.content import KIND_TAG, SWEEP_TAG, Metric

_RUNS_PER_PAGE = 1000

EndStatus = Literal["FINISHED", "KILLED", "FAILED"]


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run as the store knows it. The metrics of pairs are left out: a sweep has very many."""

    id: str
    start_time: int
    status: str
    artifact_uri: str
    tags: Mapping[str, str]
    metrics: Mapping[str, float]

    @classmethod
    def of(cls, run: Any) -> Self:
        info, tags = run.info, dict(run.data.tags)
        return cls(
            id=info.run_id,
            start_time=info.start_time,
            status=info.status,
            artifact_uri=info.artifact_uri,
            tags=tags,
            metrics={} if tags.get(KIND_TAG) == "pair" else dict(run.data.metrics),
        )

    def says(self, tags: Mapping[str, str], status: str) -> bool:
        """Whether it has ended so, with at least these tags."""
        return self.status == status and tags.items() <= self.tags.items()


class Runs:
    """The runs of one sweep in one experiment.

    Args:
        client: of MLflow.
        experiment: its id.
        sweep: the sweep's id, which tags all of its runs.
        artifacts: the folder of an embedded store's artifacts; None if they go through a server.
    """

    def __init__(self, client: Any, experiment: str, sweep: str, artifacts: Path | None) -> None:
        self._client = client
        self._experiment = experiment
        self._sweep = sweep
        self._artifacts = artifacts

    def search(self, *conditions: str) -> Iterator[Run]:
        """The sweep's runs for which the conditions hold, oldest first."""
        token = None
        while True:
            page = self._client.search_runs(
                [self._experiment],
                " and ".join([f"tags.`{SWEEP_TAG}` = '{self._sweep}'", *conditions]),
                max_results=_RUNS_PER_PAGE,
                order_by=["attributes.start_time ASC"],
                page_token=token,
            )
            yield from map(Run.of, page)
            token = page.token
            if not token:
                return

    def create(self, name: str, tags: Mapping[str, str], seconds: float = 0) -> Run:
        """A new run that has been going on for some seconds.

        The tags make it findable from its first moment: a kill right after leaves no orphan.
        """
        created = self._client.create_run(
            self._experiment,
            start_time=now() - milliseconds(seconds),
            tags={SWEEP_TAG: self._sweep, **tags},
            run_name=name,
        )
        return Run.of(created)

    def log(
        self,
        run: Run,
        metrics: Iterable[Metric],
        *,
        timestamp: int,
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Run:
        """Add metrics and parameters, and set the tags that differ; the run as it is then.

        MLflow takes at most 1000 of them at once; a run has fewer than 300.
        """
        from mlflow.entities import Metric, Param, RunTag  # noqa: PLC0415

        news = {name: value for name, value in (tags or {}).items() if run.tags.get(name) != value}
        self._client.log_batch(
            run.id,
            metrics=[Metric(name, value, timestamp, step) for name, value, step in metrics],
            params=[Param(name, value) for name, value in (params or {}).items()],
            tags=[RunTag(name, value) for name, value in news.items()],
            synchronous=True,
        )
        return replace(run, tags={**run.tags, **news})

    def end(self, run: Run, status: EndStatus, seconds: float | None = None) -> Run:
        """Close a run, now or so many seconds after its start; the run as it is then."""
        end_time = None if seconds is None else run.start_time + milliseconds(seconds)
        self._client.set_terminated(run.id, status=status, end_time=end_time)
        return replace(run, status=status)

    def restart(self, run: Run) -> Run:
        """Show a run as running; the run as it is then."""
        self._client.update_run(run.id, status="RUNNING")
        return replace(run, status="RUNNING")

    def delete(self, run: Run) -> None:
        self._client.delete_run(run.id)

    def write_artifact(self, run: Run, name: str, text: str) -> None:
        """Keep a text file with a run, in place of an earlier one."""
        if folder := self._artifacts_of(run):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
        else:
            self._client.log_text(run.id, text, name)

    def has_artifacts(self, run: Run, names: Sequence[str]) -> bool:
        """Whether they exist; True for a server, which would have to be asked for each run."""
        folder = self._artifacts_of(run)
        return folder is None or all((folder / name).exists() for name in names)

    def _artifacts_of(self, run: Run) -> Path | None:
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

    def describe(self, tags: Mapping[str, str]) -> None:
        """Set the tags of the experiment that differ: its description and saved views."""
        shown = self._client.get_experiment(self._experiment).tags
        for name, value in tags.items():
            if shown.get(name) != value:
                self._client.set_experiment_tag(self._experiment, name, value)


def now() -> int:
    """The time, in MLflow's milliseconds."""
    return time.time_ns() // 1_000_000


def milliseconds(seconds: float) -> int:
    return round(1000 * seconds)
