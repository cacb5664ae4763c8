"""Members that several groups share: trained once, kept, found again; and members that differ."""

from contextlib import suppress
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from lmc_tune.experiment import ALIGNED, AlignmentSpec, GroupSpec, LayersSpec, MeasureSpec, MlpSpec
from lmc_tune.tables.columns import SPEC_FIELDS, TIME_FIELDS
from lmc_tune.tables.rows import PairResult
from lmc_tune.tables.store import Store
from lmc_tune.training import engines
from lmc_tune.training.checkpoint import Checkpoint
from lmc_tune.training.task import Task
from lmc_tune.work import cohort as cohorts
from lmc_tune.work import members
from lmc_tune.work.cohort import run_cohort, run_pair
from lmc_tune.work.prepare import prepare, task_of
from tests.cases import MEASURE, cohort, pair_spec, timeless

SEVERITIES = [{"kind": "covariate", "severity": severity} for severity in (0.2, 0.5, 1.0)]
SPAWNS = [0, 1, 2, 3]
HIDDEN = pytest.mark.parametrize("hidden", [(8,), (16,)], ids=["loop", "stacked"])
# Of another pair, though the numbers are the same.
APART = {"key", "cell", "spec", "question", "member_a", "member_b", *SPEC_FIELDS, *TIME_FIELDS}


@pytest.fixture
def trained(monkeypatch) -> list[tuple[int, int | None]]:
    """The noise of every network that is trained, and the epoch that it is trained to, None for all."""
    found: list[tuple[int, int | None]] = []
    real = members.train

    def train(tasks, engine):
        found.extend((task.noise_seed, task.epochs) for task in tasks if not (task.resume and task.has_ended))
        return real(tasks, engine)

    monkeypatch.setattr(members, "train", train)
    return found


@pytest.fixture
def epochs(monkeypatch) -> list[int]:
    """Every epoch that any member is trained."""
    found: list[int] = []
    real = Task.feed

    def feed(task, epoch, n_steps):
        found.append(epoch)
        return real(task, epoch, n_steps)

    monkeypatch.setattr(Task, "feed", feed)
    return found


def numbers(result: PairResult) -> dict[str, object]:
    return {name: value for name, value in result.row.items() if name not in APART}


@HIDDEN
def test_a_shared_part_is_trained_once_and_pairs_are_those_that_are_run_alone(bench, trained, hidden):
    pairs = [pair_spec(shift=shift, model={"hidden": hidden}, replicate=k) for k in (0, 1) for shift in SEVERITIES]
    together = run_cohort(cohort(*pairs), bench("together"))
    assert len(trained) == 2 * (1 + 3)
    alone = [run_pair(pair, bench("alone")) for pair in pairs]
    assert timeless(together) == timeless(alone)


@HIDDEN
def test_a_trunk_is_trained_once_for_all_epochs_at_which_members_leave_it(bench, epochs, hidden):
    pairs = [pair_spec(train={"epochs": 5, "spawn_epoch": e}, model={"hidden": hidden}) for e in SPAWNS]
    together = run_cohort(cohort(*pairs), bench("together"))
    assert len(epochs) == 3 + 2 * (5 + 4 + 3 + 2)
    epochs.clear()
    alone = [run_pair(pair, bench(f"alone {at}")) for at, pair in enumerate(pairs)]
    assert len(epochs) == (1 + 2 + 3) + 2 * (5 + 4 + 3 + 2)
    assert timeless(together) == timeless(alone)


def test_nothing_of_dropped_members_is_left(bench):
    tidy = bench()
    run_cohort(cohort(*(pair_spec(train={"epochs": 4, "spawn_epoch": e}) for e in SPAWNS)), tidy)
    assert not list(tidy.store.checkpoints.iterdir())
    assert not tidy.store.members()


def test_kept_members_lie_under_their_key_as_a_plain_state_dict(bench):
    tidy = bench()
    keeping = bench(members=tidy.store.folder / "members")
    spec = pair_spec(model={"norm": "batch"})
    run_cohort(cohort(spec), keeping)
    assert keeping.store.members() == {member.key for member in spec.members.values()}
    for member in spec.members.values():
        state = load_file(tidy.store.folder / "members" / f"{member.key}.safetensors")
        assert {"linear1.weight", "norm1.running_mean", "head.bias"} <= set(state)
    assert not keeping.store.checkpoints.exists() or not list(keeping.store.checkpoints.iterdir())


@HIDDEN
@pytest.mark.parametrize("spawn_epoch", [0, 2])
def test_another_question_trains_nothing_and_is_answered_as_in_a_fresh_run(bench, epochs, hidden, spawn_epoch):
    pairs = [
        pair_spec(train={"epochs": 4, "spawn_epoch": spawn_epoch}, model={"hidden": hidden, "norm": "batch"}, shift=s)
        for s in SEVERITIES
    ]
    question = MeasureSpec(lambdas=9, refinements=2, conditions=("naive", "recalibrated", "repaired"))
    folder = bench().store.folder / "members"
    before = run_cohort(cohort(*pairs), bench(members=folder))
    epochs.clear()
    after = run_cohort(cohort(*pairs), bench(members=folder, measure=question))
    assert epochs == []
    fresh = run_cohort(cohort(*pairs), bench("fresh", measure=question))
    assert timeless(after) == timeless(fresh)
    assert {r.row["question"] for r in after} != {r.row["question"] for r in before}
    assert [r.row["seconds_train"] for r in after] == [r.row["seconds_train"] for r in before]


@pytest.mark.parametrize("by", ["weights", "activations"])
def test_alignment_is_asked_of_kept_members_without_training_and_leaves_other_rows_as_they_were(bench, epochs, by):
    pairs = [pair_spec(train={"epochs": 4}, model={"norm": "batch"}, replicate=k) for k in range(3)]
    asked, folder = MEASURE.model_copy(update={"alignment": AlignmentSpec(by=by)}), bench().store.folder / "members"
    before = run_cohort(cohort(*pairs), bench(members=folder))
    epochs.clear()
    after = run_cohort(cohort(*pairs), bench(members=folder, measure=asked))
    assert epochs == []
    alone = [run_pair(spec, bench("alone", measure=asked)) for spec in reversed(pairs)]
    assert timeless(after) == timeless(alone)
    for one, other in zip(before, after, strict=True):
        now = {row["condition"]: row for row in other.tables["barriers"]}
        assert {row["condition"]: now[row["condition"]] for row in one.tables["barriers"]} == {
            row["condition"]: row for row in one.tables["barriers"]
        }
        assert now.keys() == {"naive", "recalibrated", *ALIGNED}
        assert (
            other.row["aligned_recalibrated_test_error_barrier_chord"]
            == now["aligned + recalibrated"]["test_error_barrier_chord"]
        )
        assert other.row["permutable_units"] == 8
        assert "permutable_units" not in one.row


def test_old_answers_stay_until_the_new_ones_are_there(bench, monkeypatch):
    pairs = [pair_spec(replicate=k) for k in range(3)]
    old = run_cohort(cohort(*pairs), bench())
    asked = bench(measure=MeasureSpec(lambdas=9, refinements=1))
    real, seen = members.train, []

    def train(tasks, engine):
        seen.append(asked.store.answers())
        if len(seen) == 3:  # pairs are trained one by one
            raise KeyboardInterrupt
        return real(tasks, engine)

    monkeypatch.setattr(members, "train", train)
    with suppress(KeyboardInterrupt):
        run_cohort(cohort(*pairs), asked)
    questions = {key: question for key, (_, question) in asked.store.answers().items()}
    first, *others = (pair.key for pair in pairs)
    assert questions[first] != old[0].row["question"]
    assert questions[others[1]] == old[2].row["question"]
    assert len(questions) == 3


def test_a_kept_member_is_not_trained_for_another_cohort(bench, trained):
    folder = bench().store.folder / "members"
    first, second = (pair_spec(shift=shift) for shift in SEVERITIES[:2])
    run_cohort(cohort(first), bench(members=folder))
    assert len(trained) == 2
    kept = run_cohort(cohort(second), bench(members=folder))
    assert len(trained) == 3
    assert timeless(kept) == timeless([run_pair(second, bench("alone"))])


@pytest.mark.parametrize("keep", [True, False])
def test_a_killed_cohort_trains_no_finished_member_again(bench, epochs, monkeypatch, keep):
    """The loop: A of the first pair is finished, B in its second epoch."""
    tidy = bench()
    settings = {"members": tidy.store.folder / "members"} if keep else {}
    pairs = [pair_spec(train={"epochs": 4}, shift=shift) for shift in SEVERITIES]
    expected = timeless([run_pair(pair, bench("whole")) for pair in pairs])
    epochs.clear()
    real = Task.feed

    def feed(task, epoch, n_steps):
        if len(epochs) == 6:
            raise KeyboardInterrupt
        return real(task, epoch, n_steps)

    with monkeypatch.context() as killed:
        killed.setattr(Task, "feed", feed)
        with pytest.raises(KeyboardInterrupt):
            run_cohort(cohort(*pairs), bench(**settings))
    results = run_cohort(cohort(*pairs), bench(**settings))
    assert timeless(results) == expected
    assert len(epochs) == 6 + 4 * 3  # B of the first is begun again


def test_a_damaged_member_is_trained_again(bench, trained):
    folder = bench().store.folder / "members"
    spec, question = pair_spec(), MeasureSpec(lambdas=9, refinements=1)
    run_cohort(cohort(spec), bench(members=folder))
    (folder / f"{spec.members['a'].key}.safetensors").write_bytes(b"\0" * 30)
    trained.clear()
    after = run_cohort(cohort(spec), bench(members=folder, measure=question))
    assert len(trained) == 1
    assert timeless(after) == timeless([run_pair(spec, bench("fresh", measure=question))])


# Members that differ


def rates(one: float, other: float | None, **model: object) -> GroupSpec:
    return pair_spec(train={"lr": one, "epochs": 3}, model=model, recipe={} if other is None else {"b": {"lr": other}})


@HIDDEN
def test_on_the_diagonal_a_pair_of_two_rates_is_the_ordinary_pair_bit_for_bit(bench, hidden):
    ordinary = run_pair(rates(0.3, None, hidden=hidden), bench("ordinary"))
    diagonal = run_pair(rates(0.3, 0.3, hidden=hidden), bench("diagonal"))
    assert numbers(diagonal) == numbers(ordinary)
    assert diagonal.tables["paths"] == ordinary.tables["paths"]


@HIDDEN
def test_off_the_diagonal_each_member_is_that_of_its_own_rate(bench, hidden):
    slow, fast = (run_pair(rates(lr, None, hidden=hidden), bench(f"{lr}")).row for lr in (0.03, 0.3))
    mixed = run_pair(rates(0.03, 0.3, hidden=hidden), bench("mixed")).row
    for name in ("train_loss", "test_accuracy", "distance"):
        assert mixed[f"{name}_a"] == slow[f"{name}_a"]
        assert mixed[f"{name}_b"] == fast[f"{name}_b"]
    assert (mixed["lr"], mixed["b_lr"]) == (0.03, 0.3)
    assert mixed["distance"] not in {slow["distance"], fast["distance"]}


def test_members_may_differ_in_budget_batch_size_and_optimizer(bench):
    changes = {"epochs": 5, "batch_size": 40, "optimizer": "adam", "lr": 0.003, "momentum": 0.0}
    row = run_pair(pair_spec(recipe={"b": changes}), bench()).row
    n = row["n_train"]
    assert row["steps"] == max(2 * (n // 20), 5 * (n // 40))
    plain = run_pair(pair_spec(), bench("plain")).row
    assert row["train_loss_a"] == plain["train_loss_a"]
    assert row["train_loss_b"] != plain["train_loss_b"]
    alone = run_pair(pair_spec(train=changes), bench("alone")).row
    assert row["train_loss_b"] == alone["train_loss_b"]


# Weights that are disturbed


def disturbed(scale: float, step: int = 5, weights: str = "all", hidden: tuple[int, ...] = (8,)) -> GroupSpec:
    recipe = {"perturb": {"step": step, "scale": scale, "weights": weights}}
    return pair_spec(shift={"kind": "none"}, train={"epochs": 3}, model={"hidden": hidden}, recipe=recipe)


@HIDDEN
@pytest.mark.parametrize("weights", ["one", "layer", "all"])
def test_a_disturbance_of_scale_0_leaves_the_members_together_and_a_larger_one_parts_them(bench, hidden, weights):
    rows = [
        run_pair(disturbed(scale, weights=weights, hidden=hidden), bench(f"{scale}")).row for scale in (0.0, 0.1, 1.0)
    ]
    assert rows[0]["distance"] == 0.0
    assert 0 < rows[1]["distance"] < rows[2]["distance"]
    assert len({row["test_loss_a"] for row in rows}) == 1
    assert [row["perturb_scale"] for row in rows] == [0.0, 0.1, 1.0]


@HIDDEN
def test_a_disturbance_after_the_last_step_but_one_is_followed_by_one_step(bench, hidden):
    """Its size is the scale times the norm of the initial weights, but for the two gradients of one step."""
    never = run_pair(disturbed(0.5, step=1000, hidden=hidden), bench("never")).row
    spec = disturbed(0.5, step=never["steps"] - 1, hidden=hidden)
    row = run_pair(spec, bench("last")).row
    assert never["distance"] == 0.0
    assert row["distance"] == pytest.approx(0.5 * initial_norm(spec, bench), rel=0.2)


def initial_norm(spec: GroupSpec, bench) -> float:
    start = prepare(spec, bench()).start
    return float(sum(tensor.double().square().sum() for tensor in start.values()) ** 0.5)


def test_engines_disturb_alike(bench):
    specs = {
        engine: pair_spec(
            shift={"kind": "none"},
            train={"epochs": 2, "engine": engine},
            recipe={"perturb": {"step": 4, "scale": 0.2, "weights": "layer"}},
        )
        for engine in ("loop", "stacked")
    }
    states = {}
    for engine, spec in specs.items():
        folder = bench(engine).store.folder / "members"
        run_pair(spec, bench(engine, members=folder))
        states[engine] = load_file(folder / f"{spec.members['b'].key}.safetensors")
    for name, tensor in states["loop"].items():
        assert torch.allclose(tensor, states["stacked"][name], atol=1e-5), name


def test_members_that_are_there_are_used_though_no_more_are_kept(bench, trained):
    folder, spec = bench().store.folder / "members", pair_spec()
    run_cohort(cohort(spec), bench(members=folder))
    trained.clear()
    question = MeasureSpec(lambdas=9, refinements=1)
    run_cohort(cohort(spec), bench(members=folder, keep_members=False, measure=question))
    assert not trained
    other = pair_spec(replicate=1)
    run_cohort(cohort(other), bench(members=folder, keep_members=False))
    assert len(trained) == 2
    assert {path.stem for path in folder.iterdir()} == {member.key for member in spec.members.values()}


def test_a_member_is_refused_that_a_group_cannot_have(bench):
    """Data, start and network are made of the group's."""
    setup = prepare(pair_spec(), bench())
    (known, *_) = setup.spec.members.values()
    for change in ({"replicate": 1}, {"seed": 1}, {"model": MlpSpec(hidden=(7,))}):
        member = known.model_copy(update=change)
        with pytest.raises(ValueError, match=f"a member has the {next(iter(change))} of its group"):
            task_of(setup, member, Checkpoint(path=bench().store.folder / "m", seconds=60))


def test_a_writer_publishes_what_it_found_and_nothing_older(bench, monkeypatch):
    pairs = [pair_spec(replicate=k) for k in range(3)]
    run_cohort(cohort(*pairs), bench())
    published: list[list[PairResult]] = []
    real = Store.write_shard

    def write_shard(store, name, results):
        published.append(list(results))
        real(store, name, results)

    monkeypatch.setattr(Store, "write_shard", write_shard)
    asked = MeasureSpec(lambdas=9, refinements=1)
    results = run_cohort(cohort(*pairs), bench(measure=asked))
    assert [len(each) for each in published] == [1, 2, 3]
    assert {row.row["question"] for each in published for row in each} == {asked.of(pairs[0].model).key}
    assert timeless(results) == timeless(bench().store.pairs(pair.key for pair in pairs))


def test_a_new_question_does_not_say_that_another_engine_trained_the_members(bench):
    folder, spec = bench().store.folder / "members", pair_spec(model={"hidden": (16,)}, train={"engine": "loop"})
    (before,) = run_cohort(cohort(spec), bench(members=folder))
    other = pair_spec(model={"hidden": (16,)}, train={"engine": "stacked"})
    assert other.key == spec.key
    (after,) = run_cohort(cohort(other), bench(members=folder, measure=MeasureSpec(lambdas=9, refinements=1)))
    assert before.row["engine"] == after.row["engine"] == "loop"
    assert after.row["device"] == "cpu"
    assert before.row["engine_reason"] == after.row["engine_reason"] == ""


def test_a_new_question_checks_no_stack(bench, monkeypatch):
    """Where stacks are unproven, the check trains some steps."""
    folder, spec = bench().store.folder / "members", pair_spec(model={"hidden": (16,)})
    run_cohort(cohort(spec), bench(members=folder))
    monkeypatch.setattr(engines, "is_unproven", lambda _: True)
    monkeypatch.setattr(engines, "_fault", lambda _: pytest.fail("it was checked"))
    (after,) = run_cohort(cohort(spec), bench(members=folder, measure=MeasureSpec(lambdas=9, refinements=1)))
    assert after.status == "ok"


def test_members_that_were_trained_before_they_were_to_be_kept_are_kept(bench, monkeypatch, epochs):
    """Killed between training and measuring, then told to keep members."""
    spec, folder = pair_spec(), bench().store.folder / "members"
    monkeypatch.setattr(cohorts, "_finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with suppress(KeyboardInterrupt):
        run_cohort(cohort(spec), bench())
    monkeypatch.undo()
    keeping = bench(members=folder)
    (result,) = run_cohort(cohort(spec), keeping)
    assert result.status == "ok"
    assert result.row["seconds_train"] > 0
    assert keeping.store.members() == {member.key for member in spec.members.values()}
    assert not keeping.store.checkpointed()


def test_a_trunk_goes_on_from_a_kept_stage(bench, epochs):
    folder = bench().store.folder / "members"
    first, later = (pair_spec(train={"epochs": 5, "spawn_epoch": epoch}) for epoch in (2, 3))
    run_cohort(cohort(first), bench(members=folder))
    epochs.clear()
    (after,) = run_cohort(cohort(later), bench(members=folder))
    assert sorted(epochs) == [2, 3, 3, 4, 4]
    (fresh,) = run_cohort(cohort(later), bench("fresh"))
    assert timeless([after]) == timeless([fresh])


@pytest.mark.parametrize("batch_size", [5, 40])
def test_steps_of_a_member_go_on_from_joint_training(bench, batch_size):
    (result,) = run_cohort(
        cohort(pair_spec(train={"epochs": 4, "spawn_epoch": 2}, recipe={"b": {"batch_size": batch_size}})), bench()
    )
    curves = {name: [p for p in result.tables["curves"] if p["member"] == name] for name in ("joint", "a", "b")}
    joint, n = curves["joint"][-1]["step"], result.row["n_train"]
    for name, size in (("a", pair_spec().train.batch_size), ("b", batch_size)):
        assert [point["step"] for point in curves[name]] == [joint + k * (n // size) for k in (1, 2)]
    assert result.row["steps"] == max(curve[-1]["step"] for curve in curves.values())


@pytest.mark.parametrize("steps", ["offered", "of an earlier version"])
def test_what_trained_a_member_is_known_however_its_training_ended(bench, monkeypatch, steps):
    """Killed when the last epoch was offered but the member not finished; kept before this was kept with it."""
    folder = bench().store.folder / "members"
    spec = pair_spec(model={"hidden": (8,)})
    if steps == "offered":
        monkeypatch.setattr(Task, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with suppress(KeyboardInterrupt):
            run_cohort(cohort(spec), bench(checkpoint_seconds=0))
        monkeypatch.undo()
        assert bench().store.checkpointed()
        (result,) = run_cohort(cohort(spec), bench(members=folder))
        kept = [Checkpoint(path=file, seconds=0).read() for file in folder.glob("*.safetensors")]
        assert [progress.moments for progress in kept] == [{}, {}]
    else:
        run_cohort(cohort(spec), bench(members=folder))
        member = next(iter(folder.glob("*.safetensors")))
        stored = Checkpoint(path=member, seconds=0)
        stored.finish(replace(stored.read(), engine="", device=""))
        (result,) = run_cohort(cohort(spec), bench(members=folder, measure=MeasureSpec(lambdas=9, refinements=1)))
    assert (result.row["engine"], result.row["device"]) == ("loop", "cpu")


def test_a_kept_stage_was_counted_for_whoever_had_it_trained(bench):
    folder = bench().store.folder / "members"
    early, late = (pair_spec(train={"epochs": 9, "spawn_epoch": epoch}) for epoch in (6, 7))
    run_cohort(cohort(early), bench(members=folder))
    stage = next(iter(folder.glob("*@6.safetensors")))
    stored = Checkpoint(path=stage, seconds=0)
    stored.finish(replace(stored.read(), seconds=1000.0))
    (after,) = run_cohort(cohort(late), bench(members=folder))
    assert 0 < after.row["seconds_train"] < 500


@HIDDEN
@pytest.mark.parametrize("spawn_epoch", [0, 2])
def test_snapshots_of_kept_members_are_plain_state_dicts_and_answer_without_training(
    bench, epochs, hidden, spawn_epoch
):
    pair = pair_spec(train={"epochs": 4, "spawn_epoch": spawn_epoch}, model={"hidden": hidden})
    folder = bench().store.folder / "members"
    asked = MEASURE.model_copy(update={"snapshots": (0, 1, 3), "layers": LayersSpec(families=("single",))})
    first = run_cohort(cohort(pair), bench(members=folder, measure=asked))
    assert {row["epoch"] for row in first[0].tables["layer_barriers"]} == {None, 0, 1, 3}
    epochs.clear()
    other = asked.model_copy(update={"snapshots": (1, 3), "layers": LayersSpec()})
    again = run_cohort(cohort(pair), bench(members=folder, measure=other))
    assert epochs == []
    assert timeless(again) == timeless([run_pair(pair, bench("fresh", measure=other))])
    for member in pair.members.values():
        then = load_file(folder / f"{member.key}@3.safetensors")
        assert then.keys() == load_file(folder / f"{member.key}.safetensors").keys()
    assert bench(members=folder).store.members() == {member.key for member in pair.members.values()}


def test_a_member_kept_without_a_snapshot_is_trained_again_to_the_same_weights(bench, epochs):
    pair, folder = pair_spec(train={"epochs": 4}), bench().store.folder / "members"
    run_cohort(cohort(pair), bench(members=folder))
    before = {member.key: load_file(folder / f"{member.key}.safetensors") for member in pair.members.values()}
    asked = MEASURE.model_copy(update={"snapshots": (2, 9), "layers": LayersSpec()})
    epochs.clear()
    run_cohort(cohort(pair), bench(members=folder, measure=asked))
    assert len(epochs) == 2 * 4
    for key, state in before.items():
        assert all(torch.equal(state[name], entry) for name, entry in load_file(folder / f"{key}.safetensors").items())
    epochs.clear()
    question = asked.model_copy(update={"lambdas": 3})
    run_cohort(cohort(pair), bench(members=folder, measure=question))
    assert epochs == []  # epoch 9 never came
