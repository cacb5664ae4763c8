"""An interrupted training that goes on ends as if it had never stopped."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lmc_tune.data.examples import Examples
from lmc_tune.errors import UserError
from lmc_tune.experiment import TrainSpec
from lmc_tune.training import checkpoint as checkpoints
from lmc_tune.training import stacked
from lmc_tune.training.checkpoint import Checkpoint
from lmc_tune.training.engines import train
from lmc_tune.training.progress import Progress
from lmc_tune.training.task import Task
from tests.cases import task
from tests.training.cases import AUGMENTED, RULES, member


@pytest.fixture(autouse=True)
def restless(monkeypatch) -> None:
    """Epochs here take less time than writing a file does."""
    monkeypatch.setattr(stacked, "_REST", 0)


class PowerCut(Exception):  # noqa: N818 - it is none
    pass


class Dying(Checkpoint):
    """Keeps every epoch; the power goes after some of them."""

    left = 3

    def offer(self, make):
        super().offer(make)
        self.left -= 1
        if self.left == 0:
            raise PowerCut


def tasks(folder, kind: type[Checkpoint], network: str, **asked) -> list[Task]:
    """Three members, resumed from where their files say that they stand."""
    found = []
    for number in range(3):
        kept = kind(path=folder / f"{number}.safetensors", seconds=0)
        one = member(network, number, **{**asked, "lr": asked.get("lr", [0.003, 0.006, 0.01])[number]})
        found.append(replace(one, checkpoint=kept, resume=kept.read()))
    return found


@pytest.mark.parametrize("engine", ["loop", "stacked"])
@pytest.mark.parametrize("rule", ["sgd", "nesterov", "adam", "adamw"])
def test_a_member_that_is_resumed_ends_bit_for_bit_as_one_that_was_not(tmp_path, engine, rule):
    asked = {**RULES[rule], **AUGMENTED, "steps": 35}
    expected = train(tasks(tmp_path / "whole", Checkpoint, "mlp dropout", **asked), engine)
    for _ in range(2):
        with pytest.raises(PowerCut):
            train(tasks(tmp_path / "cut", Dying, "mlp dropout", **asked), engine)
    resumed = tasks(tmp_path / "cut", Checkpoint, "mlp dropout", **asked)
    assert sum(task.epochs_done for task in resumed) > 3
    for found, other in zip(train(resumed, engine), expected, strict=True):
        assert all(torch.equal(found.state[name], other.state[name]) for name in other.state)
        assert found.curve == other.curve


@pytest.mark.parametrize("rule", ["nesterov", "adam"])
@pytest.mark.parametrize(("first", "second"), [("stacked", "loop"), ("loop", "stacked")])
def test_one_engine_goes_on_where_the_other_stopped(tmp_path, rule, first, second):
    asked = {**RULES[rule], "steps": 35}
    expected = train(tasks(tmp_path / "whole", Checkpoint, "mlp batch", **asked), "loop")
    with pytest.raises(PowerCut):
        train(tasks(tmp_path / "cut", Dying, "mlp batch", **asked), first)
    resumed = tasks(tmp_path / "cut", Checkpoint, "mlp batch", **asked)
    assert any(one.epochs_done for one in resumed)
    for found, other in zip(train(resumed, second), expected, strict=True):
        for name, tensor in other.state.items():
            assert (found.state[name] - tensor).abs().max() < 1e-10, name


@pytest.mark.parametrize("engine", ["loop", "stacked"])
def test_a_diverged_member_stays_as_it_ended(tmp_path, engine):
    asked = {"lr": [0.003, 1e200, 0.01], "steps": 35}
    expected = train(tasks(tmp_path / "whole", Checkpoint, "mlp", **asked), engine)
    assert expected[1].diverged
    (tmp_path / "whole" / "0.safetensors").unlink()
    again = tasks(tmp_path / "whole", Checkpoint, "mlp", **asked)
    assert again[1].resume.diverged == expected[1].diverged
    for found, other in zip(train(again, engine), expected, strict=True):
        assert found.diverged == other.diverged
        assert [vars(p) for p in found.curve] == [pytest.approx(vars(p), nan_ok=True) for p in other.curve]


def test_a_stack_that_takes_long_to_keep_is_kept_less_often(tmp_path, monkeypatch):
    """Keeping three members takes a second each, an epoch ten: after 3 seconds of it come 60 of training."""
    monkeypatch.setattr(stacked, "_REST", 20)
    clock, kept_at = [0.0], []
    monkeypatch.setattr(stacked.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(stacked, "_score_stack", slow := Slow(stacked._score_stack, clock, 10.0))
    found = tasks(tmp_path, Checkpoint, "mlp", steps=8 * 20)
    for number, one in enumerate(found):
        monkeypatch.setattr(
            one.checkpoint, "offer", Slow(lambda _, at=number: kept_at.append((at, clock[0])), clock, 1.0)
        )
    train(found, "stacked")
    assert slow.calls == 20
    assert [at for number, at in kept_at if number == 0] == [11.0, 74.0, 137.0, 200.0]
    assert [number for number, _ in kept_at] == [0, 1, 2] * 4


class Slow:
    """A function that takes some seconds of a clock."""

    def __init__(self, work, clock: list[float], seconds: float) -> None:
        self.work, self.clock, self.seconds, self.calls = work, clock, seconds, 0

    def __call__(self, *args):
        self.calls += 1
        self.clock[0] += self.seconds
        return self.work(*args)


def test_it_is_written_seldom(tmp_path, monkeypatch):
    clock = iter([101.0, 159.0, 160.0, 160.0, 161.0, 219.0, 221.0, 221.0])
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: next(clock))
    kept, made = Checkpoint(path=tmp_path / "c" / "m.safetensors", seconds=60, _last=100.0), []

    def make() -> Progress:
        made.append(offer)
        return Progress(epochs=len(made), state={"w": torch.ones(2)}, moments={}, curve=[])

    for offer in range(6):
        kept.offer(make)
        assert (tmp_path / "c" / "m.safetensors").exists() == (offer >= 2)
    assert made == [2, 5]
    assert kept.read().epochs == 2
    kept.remove()
    assert kept.read() is None


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda _: b"", lambda _: b"\x00" * 64])
def test_a_damaged_file_means_beginning_at_the_start(tmp_path, damage):
    path = tmp_path / "m.safetensors"
    kept = Checkpoint(path=path, seconds=0)
    kept.offer(lambda: Progress(epochs=1, state={"w": torch.ones(2)}, moments={}, curve=[]))
    path.write_bytes(damage(path.read_bytes()))
    assert kept.read() is None


def test_a_file_of_another_layout_means_beginning_at_the_start(tmp_path):
    kept = Checkpoint(path=tmp_path / "m.safetensors", seconds=0)
    facts = {"epochs": 1, "diverged": "", "seconds": 0.0, "curve": []}

    def write(name: str = "progress", **changed: object) -> None:
        save_file({"w": torch.ones(2)}, kept.path, {name: json.dumps(facts | changed)})

    write(curve=[{"step": 3, "perplexity": 2.0}])
    assert kept.read() is None
    write()
    assert kept.read().epochs == 1
    write("facts")
    assert kept.read() is None


class Noisy(nn.Module):
    """Layers of a user's own: one frozen, one that no output depends on, and noise from the global random state."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen, self.unused, self.head = nn.Linear(8, 8), nn.Linear(3, 3), nn.Linear(8, 3)
        self.frozen.requires_grad_(False)

    def forward(self, inputs):
        hidden = self.frozen(inputs.flatten(1)).relu()
        return self.head(nn.functional.dropout(hidden, 0.3, self.training))


@pytest.mark.parametrize("rule", ["sgd", "nesterov", "adam"])
def test_a_network_of_ones_own_repeats_and_resumes_exactly_and_keeps_what_is_frozen(tmp_path, rule):
    generator = torch.Generator().manual_seed(0)
    examples = Examples(
        inputs=torch.randn(40, 8, generator=generator), labels=torch.randint(3, (40,), generator=generator)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Noisy()
    spec = TrainSpec(lr=0.05, batch_size=10, epochs=5, **RULES[rule])
    plain = task(model, examples, examples, spec, 3)

    def run(kind: type[Checkpoint], name: str):
        kept = kind(path=tmp_path / name, seconds=0)
        return train([replace(plain, checkpoint=kept, resume=kept.read())], "loop")[0]

    whole, again = run(Checkpoint, "whole"), run(Checkpoint, "again")
    with pytest.raises(PowerCut):
        run(Dying, "cut")
    resumed = run(Checkpoint, "cut")
    for found in (again, resumed):
        assert all(torch.equal(found.state[name], tensor) for name, tensor in whole.state.items())
    assert torch.equal(whole.state["frozen.weight"], plain.start["frozen.weight"])
    assert not torch.equal(whole.state["head.weight"], plain.start["head.weight"])
    with pytest.raises(UserError, match="cannot be trained by engine: stacked"):
        train([plain], "stacked")


@pytest.mark.parametrize("engine", ["loop", "stacked"])
def test_snapshots_are_the_weights_at_the_end_of_their_epochs(tmp_path, engine):
    """Those of a training that ends there; copies, which later epochs do not change."""

    def trained(folder, epochs: int | None, snapshots: tuple[int, ...]) -> list[Progress]:
        found = tasks(tmp_path / folder, Checkpoint, "mlp batch", steps=35, momentum=0.9)
        return train([replace(one, epochs=epochs, snapshots=snapshots) for one in found], engine)

    whole = trained("whole", None, (1, 3, 99))
    for epoch in (1, 3):
        for found, expected in zip(whole, trained(f"to {epoch}", epoch, ()), strict=True):
            assert all(torch.equal(found.snapshots[epoch][name], entry) for name, entry in expected.state.items())
    assert all(one.snapshots.keys() == {1, 3} for one in whole)
    assert all(not torch.equal(one.snapshots[1]["head.weight"], one.snapshots[3]["head.weight"]) for one in whole)
    plain = trained("plain", None, ())
    assert all(torch.equal(a.state["head.weight"], b.state["head.weight"]) for a, b in zip(whole, plain, strict=True))


@pytest.mark.parametrize("engine", ["loop", "stacked"])
def test_an_interrupted_training_keeps_its_snapshots(tmp_path, engine):
    def asked(folder, kind: type[Checkpoint]) -> list[Task]:
        found = tasks(tmp_path / folder, kind, "mlp batch", steps=35)
        return [replace(one, snapshots=(1, 2, 4)) for one in found]

    expected = train(asked("whole", Checkpoint), engine)
    with pytest.raises(PowerCut):
        train(asked("cut", Dying), engine)
    for found, other in zip(train(asked("cut", Checkpoint), engine), expected, strict=True):
        assert found.snapshots.keys() == {1, 2, 4}
        for epoch, state in other.snapshots.items():
            for name, entry in state.items():
                assert (found.snapshots[epoch][name] - entry).abs().max() < 1e-10, name
