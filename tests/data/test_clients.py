"""The parts of clients: laws of every split, and what each kind promises."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmc_tune.data.clients import client_parts
from lmc_tune.experiment import FederationSpec

LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 97))
SPLITS = st.one_of(
    st.just("iid"),
    st.builds(lambda alpha: {"dirichlet": alpha}, st.floats(0.001, 1000)),
    st.builds(lambda k: {"classes": k}, st.integers(2, 10)),
)


def federation(clients: int = 6, split: object = "iid") -> FederationSpec:
    return FederationSpec.model_validate({"clients": clients, "rounds": 1, "split": split})


def classes_of(part: np.ndarray) -> set[int]:
    return set(LABELS[part].tolist())


@settings(max_examples=60, deadline=None)
@given(split=SPLITS, clients=st.integers(5, 12), seed=st.integers(0, 2**32 - 1))
def test_the_parts_of_every_split_are_disjoint_and_together_all_of_the_training_set(split, clients, seed):
    parts = client_parts(LABELS, federation(clients, split), seed)
    assert len(parts) == clients
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(LABELS)))
    assert all(part.dtype == np.int64 for part in parts)


@settings(max_examples=30, deadline=None)
@given(split=SPLITS, seed=st.integers(0, 2**32 - 1))
def test_a_seed_gives_one_split(split, seed):
    one, same, other = (client_parts(LABELS, federation(6, split), s) for s in (seed, seed, seed + 1))
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("split", ["iid", {"dirichlet": 0.01}, {"dirichlet": 10.0}])
@pytest.mark.parametrize("clients", [2, 7, 20])
def test_parts_are_equally_large_and_no_client_is_empty(split, clients):
    sizes = {len(part) for part in client_parts(LABELS, federation(clients, split), 3)}
    assert sizes <= {len(LABELS) // clients, len(LABELS) // clients + 1}


@pytest.mark.parametrize(("clients", "each"), [(5, 2), (10, 1), (10, 2), (7, 3), (12, 9), (3, 10)])
def test_every_client_has_exactly_so_many_classes_and_every_class_about_as_many_clients(clients, each):
    parts = client_parts(LABELS, federation(clients, {"classes": each}), 1)
    assert [len(classes_of(part)) for part in parts] == [each] * clients
    shared = [sum(c in classes_of(part) for part in parts) for c in range(10)]
    assert max(shared) - min(shared) <= 1


def test_unlike_classes_leave_parts_of_unlike_size():
    sizes = {len(part) for part in client_parts(LABELS, federation(7, {"classes": 2}), 0)}
    assert max(sizes) > min(sizes) + 10  # a class of two clients is cut in two, a class of one is not


@pytest.mark.parametrize(("clients", "each"), [(4, 2), (3, 11)])
def test_classes_that_cannot_be_shared_out_are_refused(clients, each):
    with pytest.raises(ValueError, match=f"{clients} clients with {each} classes each do not share out 10 classes"):
        client_parts(LABELS, federation(clients, {"classes": each}), 0)


def mean_largest_share(alpha: float) -> float:
    """Of a client's examples, those of its most frequent class; mean over the first clients of many splits."""
    first = [client_parts(LABELS, federation(10, {"dirichlet": alpha}), seed)[0] for seed in range(300)]
    return float(np.mean([np.bincount(LABELS[part]).max() / len(part) for part in first]))


def test_the_shares_of_the_first_client_are_those_of_a_dirichlet_distribution():
    """It finds every class whole. Oracle: shares drawn from Gamma variables; 97 examples to draw by them."""
    rng = np.random.default_rng(7)
    for alpha in (0.05, 1.0, 100.0):
        gamma = rng.gamma(alpha, size=(4000, 10))
        shares = gamma / gamma.sum(axis=1, keepdims=True)
        expected = np.mean([rng.multinomial(97, q).max() / 97 for q in shares])
        assert mean_largest_share(alpha) == pytest.approx(expected, abs=0.035)


def test_a_small_concentration_leaves_clients_a_class_and_a_large_one_all_of_them():
    few, many = (
        [len(classes_of(p)) for p in client_parts(LABELS, federation(10, {"dirichlet": a}), 5)] for a in (0.01, 100)
    )
    assert np.median(few) <= 2
    assert np.median(many) == 10  # the last client has what the others left
