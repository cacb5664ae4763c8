"""What the driver is told while workers are busy."""

import queue
from dataclasses import replace
from pathlib import Path

import pytest

from lmc_tune.experiment.reading import parse_space
from lmc_tune.sweeps import progress, watch
from lmc_tune.sweeps.keeping import Keeping
from lmc_tune.sweeps.options import Options
from lmc_tune.sweeps.ownership import write_description
from lmc_tune.sweeps.plan import planned_steps
from lmc_tune.sweeps.trainer import Trainer
from lmc_tune.sweeps.watch import Watch
from lmc_tune.tables.rows import PairResult
from lmc_tune.tables.store import Store
from tests.sweeps.cases import PAIRS, SPACE
from tests.tracking.cases import pair_result, pair_spec

KEPT = Keeping(keep=False, members=2 * PAIRS, bytes=0)


def test_pairs_are_told_as_they_finish_and_every_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(watch, "_SECONDS_BETWEEN_LOOKS", 0.01)
    store, told = Store(tmp_path), queue.Queue[str]()
    before, during = pair_result(pair_spec(replicate=0)), pair_result(pair_spec(replicate=1))
    store.write_shard("before", [before])

    def on_results(results: list[PairResult]) -> None:
        for result in results:
            told.put(result.key)

    with Watch(store, on_results, lambda: told.put("look")):
        assert [told.get(timeout=30) for _ in range(2)] == ["look", "look"]
        store.write_shard("during", [during])
        while (heard := told.get(timeout=30)) == "look":
            pass
        assert heard == during.key
        assert told.get(timeout=30) == "look"
        again = replace(during, columns={**during.columns, "question": "another"})
        store.write_shard("again", [before, again])
        while (heard := told.get(timeout=30)) == "look":
            pass
        assert heard == during.key
        assert told.get(timeout=30) == "look"


class News:
    """What a listener was given."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.phases: list[str] = []
        self.at_work: list[tuple[int, float | None]] = []
        self.aims: list[tuple[int, bool]] = []

    def say(self, message: str) -> None:
        self.said.append(message)

    def phase(self, name: str) -> None:
        self.phases.append(name)

    def aim(self, total: int, *, last: bool) -> None:
        self.aims.append((total, last))

    def finished(self, results: list[PairResult]) -> None:
        pass

    def working(self, running: int, seconds_left: float | None) -> None:
        self.at_work.append((running, seconds_left))


class Mirror:
    def send(self, results: list[PairResult]) -> None:
        pass


def trainer_of(folder: Path, listener: object, untrained: frozenset[str] = frozenset(), **given: object) -> Trainer:
    space = parse_space(SPACE)
    write_description(folder, space, workers=1, planned_pairs=PAIRS)
    return Trainer(
        space=space,
        pairs=space.pairs(),
        store=Store(folder),
        check_owned=lambda: None,
        options=Options(data_root=folder, **given),
        listener=listener,
        mirror=Mirror(),
        kept=KEPT,
        untrained=untrained,
    )


def answered(trainer: Trainer, at: int) -> PairResult:
    """One of the planned pairs: 380 steps in 1.75 s."""
    found, pair = pair_result(trainer.pairs[at]), trainer.pairs[at]
    return replace(found, columns={**found.columns, "question": trainer.space.measure.of(pair.model).key})


@pytest.mark.parametrize(
    ("given", "phase", "aims"),
    [
        ({}, "training", [(PAIRS, True)]),
        ({"max_pairs": 3}, "training", [(4, True)]),
        ({"search": "adaptive"}, "training, round 1", [(PAIRS, False)]),
    ],
)
def test_what_is_running_is_known_and_how_long_what_is_proposed_will_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, object], phase: str, aims: list[tuple[int, bool]]
):
    """The mean time per step of the finished pairs, times the steps that are left, less the time since the last."""
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    news = News()
    trainer = trainer_of(tmp_path, news, **given)
    trainer.store.write_shard("c", [answered(trainer, 0)])
    batch = trainer._next_batch()
    trainer.progress.read_pace([pair.key for pair in trainer.pairs])
    trainer._announce(batch)
    trainer.progress.look()
    assert (news.phases, news.at_work) == ([], [])  # no worker has begun
    trainer.store.mark_running("d", [pair.key for pair in [trainer.pairs[0], *batch[:2]]])
    clock[0] += 2
    trainer.progress.look()
    steps = sum(planned_steps(pair) for pair in batch)
    assert (news.phases, news.aims) == ([phase], aims)
    assert news.at_work == [(2, pytest.approx(1.75 / 380 * steps))]
    clock[0] += 1
    trainer.progress.look()  # too soon for news
    clock[0] += 1
    trainer._on_results([answered(trainer, trainer.pairs.index(batch[0]))])
    clock[0] += 3
    trainer.progress.look()
    left = steps - planned_steps(batch[0])
    assert news.at_work[1:] == [(1, pytest.approx(max(0, 1.75 / 380 * left - 3)))]
    assert news.phases == [phase]


def test_pairs_that_are_only_measured_again_take_as_long_as_measuring_does(tmp_path: Path):
    news = News()
    untrained = frozenset(pair.key for pair in parse_space(SPACE).pairs()[1:])
    trainer = trainer_of(tmp_path, news, untrained=untrained)
    trainer.store.write_shard("c", [answered(trainer, 0)])
    trainer.progress.read_pace([pair.key for pair in trainer.pairs])
    trainer._announce(trainer._next_batch())
    trainer.store.mark_running("d", [trainer.pairs[1].key])
    trainer.progress.look()
    assert news.phases == ["measuring again"]
    assert news.at_work == [(1, pytest.approx(15 * 0.25, abs=0.1))]


def test_a_worker_that_does_not_start_is_told_once_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    news = News()
    trainer = trainer_of(tmp_path, news)
    trainer.ray_logs = tmp_path
    trainer._announce(trainer._next_batch())
    for seconds in (2, 60, 60):
        clock[0] += seconds
        trainer.progress.look()
    assert news.said == [
        f"no worker has started: Ray's logs in {tmp_path} do not say why; Ctrl-C ends the sweep",
    ]
    assert news.phases == []


def test_the_terminal_says_once_that_another_engine_trains_and_why(tmp_path: Path):
    news, reason = News(), "in 3 steps a stack came to another weight than the loop"
    trainer = trainer_of(tmp_path, news)
    usual, *others = [pair_result(pair) for pair in trainer.pairs[:3]]
    usual.row["engine_reason"] = ""
    for other in others:
        other.row["engine_reason"] = reason
    for result in (usual, *others):
        trainer._on_results([result])
    (told,) = (line for line in news.said if "engine" in line)
    assert told == f"mlp 8 is trained by engine: loop: {reason}. The column engine_reason has the reason for every pair"
