import pytest

from lmc_tune.core.noise import noise_scale


@pytest.mark.parametrize(("batch_size", "expected"), [(32, 0.7802), (128, 0.1943), (512, 0.0478), (2048, 0.0112)])
def test_the_check_values_of_half_of_cifar_10(batch_size, expected):
    assert round(noise_scale(1e-3, batch_size, 25_000), 4) == expected


def test_full_batches_have_no_noise():
    assert noise_scale(0.3, 700, 700) == 0.0


def test_it_is_proportional_to_the_learning_rate():
    assert noise_scale(0.3, 10, 100) == pytest.approx(3 * noise_scale(0.1, 10, 100))
