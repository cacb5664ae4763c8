from hypothesis import given
from hypothesis import strategies as st

from lmc_tune.training.order import epoch_batches

sizes = st.integers(1, 80).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n)))
seeds = st.integers(0, 2**63 - 1)


@given(sizes, seeds, st.integers(0, 1000))
def test_an_epoch_sees_every_position_at_most_once_and_leaves_less_than_a_batch_out(size, seed, epoch):
    n, batch_size = size
    batches = epoch_batches(n, batch_size, seed, epoch)
    seen = batches.flatten().tolist()
    assert batches.shape == (n // batch_size, batch_size)
    assert len(set(seen)) == len(seen)
    assert set(seen) <= set(range(n))
    assert n - len(seen) < batch_size


@given(sizes, seeds, st.integers(0, 1000))
def test_the_same_seed_and_epoch_give_the_same_batches(size, seed, epoch):
    assert epoch_batches(*size, seed, epoch).tolist() == epoch_batches(*size, seed, epoch).tolist()


def test_every_epoch_and_every_seed_has_its_own_order():
    orders = {tuple(epoch_batches(50, 50, seed, epoch)[0].tolist()) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25
    assert tuple(range(50)) not in orders


def test_over_many_epochs_every_position_is_left_out_equally_often():
    seen = [0] * 10
    for epoch in range(1000):
        for position in epoch_batches(10, 4, 0, epoch).flatten().tolist():
            seen[position] += 1
    assert sum(seen) == 8000
    assert all(abs(count - 800) < 5 * (1000 * 0.8 * 0.2) ** 0.5 for count in seen)  # five standard deviations
