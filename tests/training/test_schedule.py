import math
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lmc_tune.experiment import Course, TrainSpec
from lmc_tune.training.schedule import course_rate, learning_rate


def spec(schedule: str = "constant", warmup: float = 0.0, lr: float = 0.4) -> TrainSpec:
    return TrainSpec(lr=lr, batch_size=1, epochs=1, schedule=schedule, warmup=warmup)


def rates(schedule: str, n: int, warmup: float = 0.0) -> list[float]:
    return [learning_rate(spec(schedule, warmup), step, n) for step in range(n)]


def torch_rates(n: int, make) -> list[float]:
    """What a scheduler of torch gives, stepped once after every optimizer step."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.4)
    scheduler = make(optimizer)
    found = []
    for _ in range(n):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


LENGTHS = (1, 2, 3, 4, 7, 10, 100, 101)


@pytest.mark.parametrize("n", LENGTHS)
def test_cosine_is_torchs_annealing_to_zero(n):
    expected = torch_rates(n, lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=n))
    assert rates("cosine", n) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("n", LENGTHS)
def test_step_is_torchs_multi_step_at_a_half_and_three_quarters(n):
    milestones = [math.ceil(n / 2), math.ceil(3 * n / 4)]
    expected = torch_rates(n, lambda o: torch.optim.lr_scheduler.MultiStepLR(o, milestones, gamma=0.1))
    assert rates("step", n) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("n", "warmup", "steps"), [(10, 0.5, 5), (100, 0.1, 10), (7, 0.5, 4), (4, 1.0, 4)])
def test_warm_up_is_torchs_linear_ramp_then_the_schedule(n, warmup, steps):
    ramp = torch_rates(
        steps,
        lambda o: torch.optim.lr_scheduler.LinearLR(o, start_factor=1 / steps, total_iters=max(1, steps - 1)),
    )
    found = rates("cosine", n, warmup)
    assert found[:steps] == pytest.approx(ramp, abs=1e-12)
    assert found[steps:] == pytest.approx(rates("cosine", n - steps), abs=1e-12)


def test_by_hand():
    assert rates("constant", 3) == [0.4] * 3
    assert rates("step", 8) == pytest.approx([0.4] * 4 + [0.04] * 2 + [0.004] * 2)
    assert rates("cosine", 4) == pytest.approx([0.4, 0.2 * (1 + math.sqrt(0.5)), 0.2, 0.2 * (1 - math.sqrt(0.5))])
    assert rates("constant", 4, warmup=1.0) == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert rates("constant", 5, warmup=0.4) == pytest.approx([0.2, 0.4, 0.4, 0.4, 0.4])


@given(st.sampled_from(["constant", "step", "cosine"]), st.integers(1, 300), st.floats(0, 1))
def test_every_step_has_a_positive_rate_up_to_the_peak_and_falls_after_the_warm_up(schedule, n, warmup):
    found = rates(schedule, n, warmup)
    assert all(0 < rate <= 0.4 * (1 + 1e-12) for rate in found)
    top = max(range(n), key=found.__getitem__)
    assert found[top] == pytest.approx(0.4)
    assert found[: top + 1] == sorted(found[: top + 1])
    assert found[top:] == sorted(found[top:], reverse=True)


def test_the_factors_that_the_definitions_show_are_those_of_training():
    page = (Path(__file__).parents[2] / "docs" / "definitions.md").read_text(encoding="utf-8")
    shown = re.search(r"S = 10, `warmup: 0\.2` and `step`, the factors are ([\d., ]+\d)\.", page)
    assert shown is not None
    factors = [float(factor) for factor in shown[1].split(", ")]
    assert [rate / 0.4 for rate in rates("step", 10, warmup=0.2)] == pytest.approx(factors)


def test_swe_decays_to_its_lowest_rate_and_stays_there():
    """Lion et al. 2024: 10% warm-up, cosine, no lower than 0.01, then 0.01; written out step by step."""
    swe, n = TrainSpec(lr=0.1, batch_size=1, epochs=1, schedule="cosine", warmup=0.1), 50
    course = Course(epochs=5, then="stay", lowest_lr=0.01)
    expected = []
    for step in range(150):
        if step < 5:
            expected.append(0.1 * (step + 1) / 5)
        elif step < 50:
            expected.append(max(0.01, 0.05 * (1 + math.cos(math.pi * (step - 5) / 45))))
        else:
            expected.append(0.01)
    assert [course_rate(swe, course, step, n) for step in range(150)] == pytest.approx(expected, rel=1e-12)
    assert expected[:2] == pytest.approx([0.02, 0.04]), "the warm-up may be lower"


def test_snapshot_ensembles_begin_their_schedule_again():
    cyclic = TrainSpec(lr=0.1, batch_size=1, epochs=1, schedule="cosine", warmup=0.1)
    once = [learning_rate(cyclic, step, 20) for step in range(20)]
    course = Course(epochs=2, then="restart")
    assert [course_rate(cyclic, course, step, 20) for step in range(60)] == 3 * once
