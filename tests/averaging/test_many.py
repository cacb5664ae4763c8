"""Several checkpoints: every pair once, basins, soups, windows; and what is in memory meanwhile."""

import gc
import weakref
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

import lmc_tune
from lmc_tune.averaging.basins import chains, groups, widest_window
from lmc_tune.averaging.measurement import ManyMeasurement
from lmc_tune.averaging.paths import Condition
from lmc_tune.averaging.soups import halves
from lmc_tune.errors import UserError
from tests.averaging.cases import digits, network, trained

N = 7
EDGES = st.sets(st.sampled_from(list(combinations(range(N), 2))))


def is_clique(members, connected) -> bool:
    return all(pair in connected for pair in combinations(sorted(members), 2))


@given(EDGES)
def test_groups_are_the_largest_cliques_one_after_the_other(connected):
    found = groups(N, connected)
    assert sorted(member for group in found for member in group) == list(range(N))
    left = set(range(N))
    for group in found:
        assert is_clique(group, connected)
        largest = max(
            len(some)
            for n in range(len(left) + 1)
            for some in combinations(sorted(left), n)
            if is_clique(some, connected)
        )
        assert len(group) == largest
        left -= set(group)


@given(EDGES)
def test_chains_join_whatever_a_connected_pair_joins(connected):
    found = chains(N, connected)
    assert sorted(member for chain in found for member in chain) == list(range(N))
    of = {member: chain for chain in found for member in chain}
    assert all(of[i] == of[j] for i, j in connected)
    reached = {member: {member} for member in range(N)}
    for _ in range(N):
        for i, j in connected:
            for member in reached[i] | reached[j]:
                reached[member] = reached[member] | reached[i] | reached[j]
    assert all(reached[member] == set(of[member]) for member in range(N))


@given(EDGES)
def test_the_widest_window_is_the_longest_run_of_neighbours(connected):
    runs = [tuple(range(a, b)) for a in range(N) for b in range(a + 1, N + 1)]
    longest = max(len(run) for run in runs if is_clique(run, connected))
    found = widest_window(N, connected)
    assert len(found) == longest
    assert is_clique(found, connected)
    assert found == max(run for run in runs if len(run) == longest and is_clique(run, connected))


def test_a_chain_is_no_basin():
    connected = {(0, 1), (1, 2)}
    assert groups(3, connected) == ((0, 1), (2,))
    assert chains(3, connected) == ((0, 1, 2),)


def measure(states, **more):
    return lmc_tune.measure(network(norm=False), states, digits().test, **more)


STATES = {f"{start}{branch}": trained(start, branch, norm=False) for start in (0, 1) for branch in (1, 2, 3)}


@pytest.fixture(scope="module")
def measured() -> ManyMeasurement:
    return measure(STATES, train=digits().train)


def test_planted_basins_are_found_and_no_pair_is_measured_twice():
    said = []
    found = measure(STATES, say=said.append)
    assert [sorted(found.findings.names[member] for member in group) for group in found.findings.basins[0].groups] == [
        ["01", "02", "03"],
        ["11", "12", "13"],
    ]
    assert set(map(frozenset, found.basins)) == {frozenset({"01", "02", "03"}), frozenset({"11", "12", "13"})}
    assert found.answer.in_short == "Not all of them: they lie in 2 basins: 01, 02 and 03; 11, 12 and 13."
    phases = [text for text in said if text.startswith("measuring pair")]
    assert phases == [f"measuring pair {number} of 15" for number in range(1, 16)]
    assert list(found.findings.basins[0].judged) == list(combinations(range(6), 2))


def test_a_pair_of_many_is_judged_as_a_pair_alone(measured):
    alone = lmc_tune.measure(network(norm=False), [STATES["01"], STATES["12"]], digits().test, train=digits().train)
    judged, on_train = (
        table[measured.findings.names.index("01"), measured.findings.names.index("12")]
        for table in (measured.findings.basins[0].judged, measured.findings.basins[0].on_train)
    )
    known = alone.findings.path(Condition()).judged
    assert (judged.barrier, judged.low, judged.high) == (known["test"].barrier, known["test"].low, known["test"].high)
    assert on_train.barrier == known["train"].barrier


def test_soups_are_the_averages_that_they_say(measured):
    """One half of the test examples chooses, the other measures."""
    test, findings = digits().test, measured.findings
    chosen, others = halves(360, test.labels.numpy())

    def wrong(names) -> np.ndarray:
        mean = {entry: sum(STATES[name][entry] for name in names) / len(names) for entry in STATES["01"]}
        model = network(norm=False)
        model.load_state_dict(mean)
        with torch.no_grad():
            return model.eval()(test.inputs).argmax(1).ne(test.labels).double().numpy()

    assert findings.uniform.value == pytest.approx(wrong(list(STATES))[others].mean())
    order = sorted(STATES, key=lambda name: wrong([name])[chosen].mean())
    assert [findings.names[member] for member in findings.greedy.order] == order
    kept = [order[0]]
    for name in order[1:]:
        if wrong([*kept, name])[chosen].mean() <= wrong(kept)[chosen].mean():
            kept.append(name)
    assert [findings.names[member] for member in findings.greedy.members] == kept
    assert findings.greedy.value == pytest.approx(wrong(kept)[others].mean())
    assert (findings.chosen_on, findings.measured_on) == (180, 180)


def test_halves_are_disjoint_and_have_as_many_of_every_class():
    labels = np.tile([0, 1], 50)
    one, other = halves(100, labels)
    assert sorted([*one, *other]) == list(range(100))
    assert (labels[one].sum(), labels[other].sum()) == (25, 25)
    assert sorted(map(len, halves(7, None))) == [3, 4]


def test_soups_have_statistics_of_their_own():
    """With BatchNorm they are recalibrated, and the saved one is the one that was measured."""
    states = [trained(0, branch) for branch in (1, 2, 3)]
    data = digits()
    found = lmc_tune.measure(
        network(), states, data.test, train=data.train, conditions=[Condition(None, "recalibrated")]
    )
    assert found.answer.condition == Condition(None, "recalibrated")
    model = network()
    model.load_state_dict(found.average())
    with torch.no_grad():
        wrong = model.eval()(data.test.inputs).argmax(1).ne(data.test.labels).double().numpy()
    _, others = halves(360, data.test.labels.numpy())
    assert found.findings.uniform.value == pytest.approx(wrong[others].mean(), abs=1e-12)
    mean = sum(state["2.running_mean"] for state in states) / 3
    assert not torch.allclose(model.state_dict()["2.running_mean"], mean, atol=1e-3)


def test_what_is_saved_is_the_greedy_soup_where_not_all_lie_in_one_basin(measured):
    assert measured.answer.kind in {"neither", "undecided"}
    with pytest.raises(UserError, match="was not written"):
        measured.save("nowhere.safetensors")
    names = [measured.findings.names[member] for member in measured.findings.greedy.members]
    for entry, tensor in measured.average().items():
        torch.testing.assert_close(tensor, sum(STATES[name][entry] for name in names) / len(names))


def test_basins_are_asked_for_where_the_path_was_measured_as_it_is():
    found = measure(dict(list(STATES.items())[:3]), conditions=[Condition("weights")])
    with pytest.raises(UserError, match="basins are those of the condition naive, which was not measured"):
        _ = found.basins


def test_one_basin_is_averaged_as_a_whole():
    states = {name: state for name, state in STATES.items() if name.startswith("0")}
    found = measure(states)
    assert (found.answer.kind, found.answer.exit_code) == ("average", 0)
    for entry, tensor in found.average().items():
        torch.testing.assert_close(tensor, sum(state[entry] for state in states.values()) / 3)


def test_a_network_that_has_not_learned_is_left_out():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        fresh = network(norm=False).state_dict()
    found = measure({"fresh": fresh, "01": STATES["01"], "02": STATES["02"]}, trajectory=True)
    judged = found.findings.basins[0].judged
    assert (judged[0, 1].verdict, judged[0, 2].verdict, judged[1, 2].verdict) == (
        *("undertrained", "undertrained", "connected"),
    )
    assert found.findings.basins[0].window == (1, 2)
    assert found.answer.in_short == (
        "Not all of them: the widest window that may be averaged runs from 01 to 02, 2 checkpoints."
    )
    assert any(reason.startswith("fresh: no better") for reason in found.reasons)


def test_two_states_are_in_memory_at_most(tmp_path, monkeypatch):
    """Besides the network, whatever is measured."""
    for name, state in STATES.items():
        save_file(dict(state), tmp_path / f"{name}.safetensors")
    alive, most = [], []
    from lmc_tune.averaging import members

    read = members.read_member

    def counted(*args):
        state, took = read(*args)
        gc.collect()
        most.append(1 + sum(one() is not None for one in alive))
        alive.append(weakref.ref(state["1.weight"]))
        return state, took

    monkeypatch.setattr(members, "read_member", counted)
    found = measure([tmp_path / f"{name}.safetensors" for name in STATES])
    assert found.findings.names == tuple(STATES)
    assert max(most) == 2


def test_files_of_one_name_in_several_folders_are_named_by_their_paths(tmp_path):
    files = [tmp_path / run / "last.pt" for run in "xyz"]
    for file, state in zip(files, STATES.values(), strict=False):
        file.parent.mkdir()
        torch.save(dict(state), file)
    assert list(measure(files).findings.names) == list(map(str, files))


def test_aligned_matrices_are_measured_where_that_is_asked():
    some = {name: STATES[name] for name in ("01", "02", "11")}
    found = measure(some, align="weights")
    assert [basins.condition.label for basins in found.findings.basins] == ["naive", "aligned by weights"]
    aligned = found.findings.basins[1].judged
    assert aligned[0, 2].barrier < found.findings.basins[0].judged[0, 2].barrier


def test_files_of_a_pattern_come_in_the_order_of_their_numbers(tmp_path):
    for step, name in ((9, "01"), (10, "02"), (11, "03")):
        save_file(dict(STATES[name]), tmp_path / f"step_{step}.safetensors")
    found = measure(str(tmp_path / "step_*.safetensors"), trajectory=True)
    assert found.findings.names == ("step_9", "step_10", "step_11")
    assert found.findings.trajectory


def test_conditions_that_no_soup_has_are_refused():
    some = {name: STATES[name] for name in ("01", "02", "11")}
    with pytest.raises(UserError, match="repaired: of more than two checkpoints, networks can be naive, recalibrated"):
        measure(some, conditions=[Condition(None, "repaired")])


def test_the_text_shows_a_matrix_and_the_page_a_map(measured):
    lines = measured.text().splitlines()
    at = lines.index("naive")
    assert lines[at + 1].split() == list("123456")
    assert lines[at + 2].split()[:4] == ["1", "·", "C", "C"]
    assert "map-0" in measured.to_html()
    assert "greedy soup" in measured._repr_html_()


def test_plain_values_name_every_pair(measured):
    plain = measured.plain()
    assert len(plain["conditions"][0]["pairs"]) == 15
    assert set(plain["conditions"][0]["pairs"][0]) == {"a", "b", "test", "train"}
    assert plain["conditions"][0]["basins"][0] == ["01", "02", "03"]
    assert set(plain["soups"]) == {"uniform", "greedy"}
