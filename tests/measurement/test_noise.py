"""Noise at points of the path: where it lies, how long it is, against least squares."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from lmc_tune.experiment import DirectionsSpec, MeasureSpec, NoiseSpec
from lmc_tune.measurement.directions import Directions
from lmc_tune.measurement.lines import MeasurementError
from lmc_tune.measurement.members import Members
from lmc_tune.measurement.noise import noise_directions
from lmc_tune.models.state import State, lerp_state
from tests.cases import network
from tests.measurement.around import pair, plain_score

SPEC = NoiseSpec(positions=(0.0, 0.5), fractions=(0.1, 0.5), draws=3)


def remembered() -> Members:
    """A pair whose members were seen at the start and on two bends of the way from there."""
    members = pair()
    generator = torch.Generator().manual_seed(0)
    snapshots: dict[str, dict[int, State]] = {}
    for name, final in members.states.items():
        snapshots[name] = {0: members.start}
        for epoch, share in ((1, 0.3), (2, 0.8)):
            straight = lerp_state(members.start, final, share)
            snapshots[name][epoch] = {
                key: entry + 0.1 * torch.randn(entry.shape, generator=generator, dtype=entry.dtype)
                for key, entry in straight.items()
            }
    return replace(members, snapshots=snapshots)


def flat(state: State) -> np.ndarray:
    return np.concatenate([entry.double().numpy().ravel() for entry in state.values()])


def ways(members: Members) -> np.ndarray:
    """(weights, snapshots) differences to the start: the same span as those to the final weights, since the start and
    the final weights are among them.
    """
    states = [state for own in members.snapshots.values() for state in own.values()]
    return np.stack([flat(state) - flat(members.start) for state in (*states, *members.pair)], axis=1)


def test_noise_lies_where_it_is_said_to_lie():
    members = remembered()
    columns = ways(members)
    assert np.linalg.matrix_rank(columns) == 6
    a, b = members.pair
    way = flat(b) - flat(a)
    kinds: Counter[str] = Counter()
    for directions in noise_directions(members, SPEC):
        for direction in directions:
            step = flat(direction.step)
            outside = step - columns @ np.linalg.lstsq(columns, step, rcond=None)[0]
            part = np.linalg.norm(outside) / np.linalg.norm(step)
            cosine = step @ way / np.linalg.norm(step) / np.linalg.norm(way)
            kinds[direction.kind] += 1
            assert np.linalg.norm(step) == pytest.approx(np.linalg.norm(way), rel=1e-12)
            assert flat(direction.origin) == pytest.approx(flat(lerp_state(a, b, direction.position)))
            if direction.kind == "span":
                assert part < 1e-6
                assert abs(cosine) < 0.98
            elif direction.kind == "complement":
                assert part == pytest.approx(1, abs=1e-12)
                assert abs(cosine) < 1e-12
            else:
                assert cosine == pytest.approx({"towards a": -1, "towards b": 1}[direction.kind])
    assert kinds == {"towards a": 2, "towards b": 2, "span": 6, "complement": 6}


def test_draws_differ_and_do_not_depend_on_what_else_is_asked():
    members = remembered()

    def drawn(spec: NoiseSpec) -> dict[tuple, np.ndarray]:
        found = [direction for some in noise_directions(members, spec) for direction in some]
        return {(one.kind, one.position, one.draw): flat(one.step) for one in found}

    all_of_them, few = (
        drawn(SPEC),
        drawn(NoiseSpec(positions=(0.5, 1.0), fractions=(0.3,), draws=1, kinds=("complement",))),
    )
    assert np.array_equal(few["complement", 0.5, 0], all_of_them["complement", 0.5, 0])
    noise = [step for name, step in all_of_them.items() if name[0] in ("span", "complement")]
    assert len({round(float(step[0]), 12) for step in noise}) == len(noise) == 12


def test_rows_are_scores_by_the_book():
    members = remembered()
    asked = MeasureSpec(directions=DirectionsSpec(random=None, noise=SPEC), conditions=("naive",), snapshots=(0, 1, 2))
    rows = Directions().measure(members, asked).tables["directions"]
    steps = {(one.kind, one.position, one.draw): one.step for some in noise_directions(members, SPEC) for one in some}
    assert len(rows) == 2 * (3 + 2 * 2 * (2 + 2 * 3))
    a, b = members.pair
    for row in rows:
        weights = lerp_state(a, b, row["lambda"])
        for name, step in steps.get((row["kind"], row["lambda"], row["draw"]), {}).items():
            weights[name] = weights[name] + row["alpha"] * step
        loss, correct = plain_score(network(0).double(), weights, members.data[row["split"]])
        assert row["loss_sum"] == pytest.approx(loss, rel=1e-10)
        assert row["correct"] == correct
        assert row["norm"] == pytest.approx(row["alpha"] * np.linalg.norm(flat(b) - flat(a)))
    assert {row["lambda"] for row in rows if row["kind"] == "unmoved"} == {0.0, 0.5, 1.0}


def test_noise_that_is_isotropic_lies_anywhere_and_needs_no_snapshots():
    """The mean square of a uniform direction's cosine to any fixed one is 1/n."""
    spec = NoiseSpec(positions=(0.5,), fractions=(1.0,), draws=2000, kinds=("path", "isotropic"))
    members = pair()
    found = [one for some in noise_directions(members, spec) for one in some]
    way = flat(members.pair[1]) - flat(members.pair[0])
    steps = np.stack([flat(one.step) for one in found if one.kind == "isotropic"])
    lengths = np.linalg.norm(steps, axis=1)
    np.testing.assert_allclose(lengths, np.linalg.norm(way), rtol=1e-12)
    cosines = steps @ way / np.linalg.norm(way) / lengths
    assert np.mean(cosines**2) == pytest.approx(1 / len(way), rel=0.1)
    assert Counter(one.kind for one in found) == {"towards a": 1, "towards b": 1, "isotropic": 2000}


def test_what_is_missing_is_asked_for():
    members = remembered()
    one_sided = replace(members, snapshots={"a": members.snapshots["a"]})
    with pytest.raises(MeasurementError, match=r"no snapshots of b are known; ask for measure\.snapshots"):
        list(noise_directions(one_sided, SPEC))
    generator = torch.Generator().manual_seed(1)
    many = {
        epoch: {key: torch.randn(entry.shape, generator=generator).double() for key, entry in members.start.items()}
        for epoch in range(60)
    }
    with pytest.raises(MeasurementError, match="span all 51 weights, so nothing is orthogonal to training"):
        list(noise_directions(replace(members, snapshots={"a": many, "b": many}), SPEC))


def test_the_path_needs_no_snapshots_and_a_member_that_never_moved_has_no_span():
    kinds = {one.kind for some in noise_directions(pair(), NoiseSpec(kinds=("path",))) for one in some}
    assert kinds == {"towards a", "towards b"}
    members = pair()
    still = replace(members, snapshots={name: {0: state} for name, state in members.states.items()})
    kinds = {one.kind for some in noise_directions(still, SPEC) for one in some}
    assert kinds == {"towards a", "towards b", "complement"}
