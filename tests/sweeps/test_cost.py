"""What a pair is said to do, against what it does."""

import json
import sys
from pathlib import Path

import pandas as pd
import pytest

from lmc_tune.experiment.reading import SpaceError, parse_space
from lmc_tune.measurement import conditions
from lmc_tune.measurement import evaluate as scoring
from lmc_tune.measurement.alignment.activations import Seen
from lmc_tune.measurement.network import Network
from lmc_tune.models.registry import build_model
from lmc_tune.sweeps import cost as estimating
from lmc_tune.sweeps.answers import held
from lmc_tune.sweeps.cost import (
    Left,
    _Scoring,
    _time_scoring,
    _time_step,
    estimate_cost,
    measuring_of,
    trainings,
)
from lmc_tune.tables.rows import spec_columns
from lmc_tune.tables.store import MEMBERS, Store
from lmc_tune.training import engines
from lmc_tune.training.task import Task
from lmc_tune.work import cohort as pipeline
from lmc_tune.work.bench import Workbench
from tests.cases import pair_of

SPACE = """
name: s
dataset: {name: digits, train: 200, test: 70, validation: 30}
train: {lr: 0.01, steps: 25}
shift: covariate
axes: {batch_size: [10]}
measure: {lambdas: 5, splits: [train, test, validation]}
"""
COVARIATE, STEPS, LAMBDAS = "shift: covariate", "steps: 25", "lambdas: 5"
BATCH_NORM = (COVARIATE, f"{COVARIATE}\nmodel: {{norm: batch}}")
LARGE_STEPS = ("lr: 0.01", "lr: 1.0")  # so that units part, and alignment moves some
SPAWN = (STEPS, "epochs: 5, spawn_epoch: 2")


@pytest.mark.parametrize(
    "changes",
    [
        [],
        [(COVARIATE, "shift: none")],
        [(COVARIATE, "shift: {kind: covariate, severity: 0.5}"), SPAWN],
        [(COVARIATE, "shift: {kind: domain, domain: contrast}"), SPAWN],
        [(COVARIATE, "shift: {kind: domain, domain: contrast, severity: 0}")],
        [BATCH_NORM],
        [BATCH_NORM, (LAMBDAS, f"{LAMBDAS}, conditions: [naive, endpoint, recalibrated]")],
        [LARGE_STEPS, (LAMBDAS, f"{LAMBDAS}, alignment: {{by: weights}}")],
        [LARGE_STEPS, (LAMBDAS, f"{LAMBDAS}, alignment: {{by: activations}}")],
        [(LAMBDAS, f"{LAMBDAS}, directions: {{random: {{draws: 2}}}}")],
        [BATCH_NORM, (LAMBDAS, f"{LAMBDAS}, directions: {{random: {{draws: 2}}, splits: [test]}}")],
        [(LAMBDAS, f"{LAMBDAS}, directions: {{random: null, noise: {{kinds: [path]}}}}, planes: {{points: 3}}")],
    ],
    ids=[
        *("plain", "none", "shared", "domain", "no domain", "recalibrated", "endpoint", "weights", "activations"),
        *("directions", "directions recalibrated", "noise and planes"),
    ],
)
def test_a_pair_takes_the_steps_and_passes_the_examples_that_were_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: list[tuple[str, str]]
) -> None:
    """Up to the refinement of the paths, whose extent is a guess."""
    text = SPACE
    for old, new in changes:
        text = text.replace(old, new)
    space = parse_space(text)
    pair = space.cells()[0].first
    measure = space.measure.of(pair.model)
    steps, scored, estimated = [], [], []

    def spy(owner: object, name: str, seen: list[int], at: int) -> None:
        """Note the length of an argument at every call."""
        real = getattr(owner, name)

        def noting(*given):
            seen.append(len(given[at]))
            return real(*given)

        monkeypatch.setattr(owner, name, noting)

    spy(Task, "examples", steps, 1)
    spy(scoring, "losses_of", scored, 0)
    for name, module in list(sys.modules.items()):  # in evaluate they are scored, which is noted already
        if name.startswith("lmc_tune.measurement.") and module is not scoring and hasattr(module, "logits_of"):
            spy(module, "logits_of", scored, 1)
    spy(conditions, "_estimate", estimated, 1)
    matched: list[int] = []
    spy(Seen, "on", matched, 1)
    result = pipeline.run_pair(pair, Workbench(store=Store(tmp_path), data_root=tmp_path, measure=measure))
    assert result.columns.get("permuted_units") != 0
    planned, work, points = (
        trainings([pair]).values(),
        measuring_of(pair, measure, len(Network(build_model(pair.model, (1, 8, 8), 10, seed=0)).layers)),
        pd.DataFrame(result.tables["paths"]),
    )
    n = points.groupby("split")["n"].first()
    positions = points.drop_duplicates(["condition", "lambda"]).groupby("condition").size() + 1  # one is measured twice
    beyond = measure.lambdas + 7 - positions  # of the guess
    assert len(steps) == sum(each.steps for each in planned)
    in_training = sum(each.scored for each in planned)
    assert sum(scored) + sum(matched) == in_training + work.scored_on_path + work.scored_apart - n.sum() * beyond.sum()
    of_members = 0  # whose moments are estimated to repair, once for all positions that are prepared together
    for condition, by in beyond.items():
        repaired = condition.endswith("repaired")
        if repaired:
            of_members += conditions.estimating_passes("repaired", measure.lambdas + 7) - (measure.lambdas + 7)
        estimated += [n["train"] * by] if repaired or condition.endswith("recalibrated") else []
    assert sum(estimated) == work.estimated - n["train"] * of_members


@pytest.mark.parametrize(
    ("tolerance", "settled"), [("", 1 / 70), (", tolerance_error: 0.05", 0.05), (", tolerance_error: 1.0e-9", 1 / 70)]
)
def test_errors_are_said_to_settle_to_one_test_example_at_best(tolerance: str, settled: float) -> None:
    space = parse_space(SPACE.replace(LAMBDAS, LAMBDAS + tolerance))
    assert estimate_cost(space, print).tolerance_error == settled


@pytest.mark.parametrize(
    "asked",
    [
        "conditions: [naive, recalibrated]",
        "conditions: [naive, recalibrated, repaired]",
        "alignment: {by: weights}",
        "alignment: {by: activations}",
        "directions: {sharpness: {}}",
    ],
)
def test_everything_that_is_planned_is_timed(asked: str) -> None:
    text = SPACE.replace(*BATCH_NORM).replace(LAMBDAS, f"{LAMBDAS}, {asked}")
    space = parse_space(text)
    pair = space.cells()[0].first
    each = vars(_time_scoring(pair, space.measure.of(pair.model), space.measure.alignment))
    assert (each.pop("matching") > 0) == ("alignment" in asked)
    assert (each.pop("multiplied") > 0) == ("sharpness" in asked)
    assert min(_time_step(pair.members["a"], together=1), *each.values()) > 0


def test_a_network_that_no_memory_can_hold_is_refused_with_one_message():
    space = parse_space(SPACE.replace(COVARIATE, f"{COVARIATE}\nmodel: {{hidden: [1000000000000]}}"))
    with pytest.raises(SpaceError, match=r"^model: mlp 1000000000000 cannot be built here: .*allocate") as refused:
        estimate_cost(space, print)
    assert "\n" not in str(refused.value)


SHARED = """
name: s
dataset: digits
train: {lr: 0.1, epochs: 12, batch_size: 32}
axes:
"""


@pytest.mark.parametrize(
    ("axes", "members", "steps"),
    [
        # A part has 718 or so digits, 22 steps an epoch. A once, and B of every severity.
        ("shift: [{severity: 0.2}, {severity: 0.4}, {severity: 0.6}, {severity: 0.8}, {}]", 6, 6 * 12 * 22),
        # Two members each, of 12, 11, 9 and 2 epochs; the trunk's ten, of both parts, once.
        ("spawn_epoch: [0, 1, 3, 10]", 8, 2 * (12 + 11 + 9 + 2) * 22 + 10 * 44),
        ("b.lr: [0.03, 0.1, 0.3]", 4, 4 * 12 * 22),
        ("b.batch_size: [16, 32]", 3, 12 * (22 + 44 + 22)),
        # Twenty pairs are more than one cohort may have: two train A.
        (f"severity: {[k / 20 for k in range(1, 21)]}", 21, 22 * 12 * 22),
    ],
)
def test_what_pairs_share_is_counted_once(axes: str, members: int, steps: int) -> None:
    cost = estimate_cost(parse_space(f"{SHARED}  {axes}\nreplicates: 3\n"), print)
    assert (cost.members, cost.steps) == (3 * members, 3 * steps)


def test_the_map_of_both_rates_in_the_guide_has_ten_members_a_replicate_and_more_trainings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its 25 pairs become cohorts of 3 by 5 and 2 by 5."""
    _with_times(monkeypatch, lambda *_: 0.0, _Scoring(scored=0, scored_on_path=0, estimated=0, similarity=0))
    guide = (Path(__file__).parents[2] / "docs" / "guide.md").read_text(encoding="utf-8")
    text = next(block for block in guide.split("```yaml\n") if block.startswith("name: two_rates")).split("```")[0]
    cost = estimate_cost(parse_space(f"{text}replicates: 3\n"), print)
    assert (cost.pairs, cost.cohorts, cost.members, cost.trainings) == (3 * 25, 3 * 2, 3 * 10, 3 * (3 + 5 + 2 + 5))
    # 718 digits, 20 epochs; A takes batches of 32, B of 64.
    assert cost.steps == 3 * 20 * ((3 + 2) * 22 + (5 + 5) * 11)
    fewer = estimate_cost(
        parse_space(f"{text}replicates: 3\n".replace("b.lr: {log: [0.003, 0.3], steps: 5}", "")), print
    )
    assert fewer.trainings == fewer.members == 3 * 10


DIFFERING = """
name: s
dataset: digits
train: {train}
b: {b}
axes:
  weight_decay: [0, 0.1]
replicates: 2
"""


@pytest.mark.parametrize(
    ("setting", "one", "other", "steps"),
    [
        # 718 digits, with A's batches and with B's.
        ("batch_size", 8, 512, (89, 1)),
        ("optimizer", "sgd", "adam", (22, 22)),
        ("crop", 0, 2, (22, 22)),
    ],
)
def test_each_member_is_billed_at_its_own_program_whichever_of_both_it_is(
    monkeypatch: pytest.MonkeyPatch, setting: str, one: object, other: object, steps: tuple[int, int]
) -> None:
    """A step of one program is said to take 3 seconds, and one of the other 5; a scored example takes 1/1024."""
    seconds = {one: 3, other: 5}
    billed = []

    def step(member, together):
        billed.append((getattr(member.train, setting), together))
        return seconds[getattr(member.train, setting)]

    scoring = _Scoring(scored=1 / 1024, scored_on_path=0, estimated=0, similarity=0)
    _with_times(monkeypatch, step, scoring)
    costs = []
    for a, b in ((one, other), (other, one)):
        train = {"lr": 0.1, "epochs": 3, "batch_size": 32, setting: a}
        text = DIFFERING.format(train=json.dumps(train), b=json.dumps({setting: b}))
        costs.append(estimate_cost(parse_space(text), print))
    scored = 4 * 2 * 3 * 360  # pairs, members, epochs, test examples
    expected = 4 * 3 * (3 * steps[0] + 5 * steps[1]) + scored / 1024
    assert [(cost.members, cost.steps, cost.seconds_train) for cost in costs] == 2 * [(8, 12 * sum(steps), expected)]
    assert sorted(billed, key=str) == sorted(2 * [(one, 1), (other, 1)], key=str)


def test_a_step_is_timed_as_the_member_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """With B's batches, optimizer and crops, among as many members of its program as a cohort has."""
    trained = []

    def train(tasks, engine):
        trained.append((len(tasks), engine, tasks[0]))

    monkeypatch.setattr(engines, "train", train)
    text = SPACE.replace("axes:", "b: {batch_size: 40, optimizer: adam, crop: 2}\naxes:").replace(
        COVARIATE, f"{COVARIATE}\nmodel: {{hidden: [8]}}"
    )
    b = parse_space(text).cells()[0].first.members["b"]
    for engine, size in (("loop", 1), ("stacked", 7)):
        trained.clear()
        _time_step(b.model_copy(update={"train": b.train.model_copy(update={"engine": engine})}), together=7)
        assert {(members, name) for members, name, _ in trained} == {(size, engine)}
        task = trained[-1][2]
        assert (task.spec.batch_size, task.spec.optimizer, task.augment.crop) == (40, "adam", 2)
        assert task.n_steps <= task.steps_per_epoch  # of one epoch, which has all the batches that are timed


@pytest.mark.parametrize(("batch_size", "expected"), [(32, {32: 6}), (16, {32: 1, 16: 5})])
def test_a_step_is_a_share_of_the_largest_stack_of_its_program(
    monkeypatch: pytest.MonkeyPatch, batch_size: int, expected: dict[int, int]
) -> None:
    """One A and five B in a cohort, with A's batches or their own."""
    largest = {}

    def step(member, together):
        largest[member.train.batch_size] = together
        return 0.0

    _with_times(monkeypatch, step, _Scoring(scored=0, scored_on_path=0, estimated=0, similarity=0))
    axes = f"  severity: [0.2, 0.4, 0.6, 0.8, 1.0]\nb: {{batch_size: {batch_size}}}\nreplicates: 1\n"
    estimate_cost(parse_space(f"{SHARED}{axes}"), print)
    assert largest == expected


def _with_times(monkeypatch: pytest.MonkeyPatch, step: object, scoring: _Scoring) -> None:
    """One worker, on which steps and scoring take these times."""
    monkeypatch.setattr(estimating, "workers_here", lambda: 1)
    monkeypatch.setattr(estimating, "_time_step", step)
    monkeypatch.setattr(estimating, "_time_scoring", lambda *_: scoring)


@pytest.mark.parametrize(
    ("finished", "asked_again", "left"),
    [
        (0, 0, Left(pairs=6, seconds_train=6 * 2 * 264, seconds_measure=6)),
        (4, 0, Left(pairs=2, seconds_train=2 * 2 * 264, seconds_measure=2)),
        (6, 0, Left(pairs=0, seconds_train=0, seconds_measure=0)),
        # Of the first, the members are kept: it is only measured again.
        (6, 3, Left(pairs=3, seconds_train=2 * 2 * 264, seconds_measure=3)),
    ],
)
def test_the_rest_of_a_run_folder_costs_what_its_pairs_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: int, asked_again: int, left: Left
) -> None:
    """A step takes a second, and so does the similarity of a pair; all else takes no time."""
    _with_times(monkeypatch, lambda *_: 1.0, _Scoring(scored=0, scored_on_path=0, estimated=0, similarity=1))
    space = parse_space(f"{SHARED}  lr: [0.1, 0.2]\nreplicates: 3\n".replace("lr: 0.1, ", ""))
    first, *_ = planned = space.pairs()
    for at, pair in enumerate(planned[:finished]):
        question = "another" if at < asked_again else space.measure.of(pair.model).key
        row = {**spec_columns(pair), "question": question, "status": "ok", "reason": "", "seconds_train": 1.0}
        Store(tmp_path).write_shard(f"c{at}", [pair_of(row)])
    (tmp_path / MEMBERS).mkdir()
    for member in first.members.values() if finished else ():
        (tmp_path / MEMBERS / f"{member.key}.safetensors").touch()
    found = estimate_cost(space, print, there=held(space, tmp_path))
    assert found.left == left
    assert (found.seconds_train, found.seconds_measure) == (6 * 2 * 264, 6)


TEXT = "{name: text, path: corpus.txt, context: 8}"


def test_a_language_model_is_counted_in_windows_and_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 2 000 characters 200 are held out, 24 windows of 8, each with a token behind it."""
    monkeypatch.chdir(tmp_path)
    Path("corpus.txt").write_text("0123456789" * 200)
    text = SPACE.replace("{name: digits, train: 200, test: 70, validation: 30}", TEXT)
    space = parse_space(f"{text}model: {{name: gpt, depth: 1, heads: 1, dim: 8}}\n".replace(", validation]", "]"))
    cost = estimate_cost(space, lambda _: None)
    assert (cost.pairs, cost.members, cost.steps) == (5, 10, 10 * 25)
    assert cost.tolerance_error == 1 / (24 * 8)
    assert cost.seconds_train > 0
    assert cost.seconds_measure > 0
    (pair, *_) = space.pairs()
    assert trainings([pair])[pair.members["a"].key].scored == 3 * 24, "25 steps, 11 in an epoch"
