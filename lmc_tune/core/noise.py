"""The SGD noise scale."""


def noise_scale(lr: float, batch_size: int, n_train: int) -> float:
    """SGD noise scale g = ε (N/B − 1), Smith & Le 2018.

    Args:
        lr: learning rate ε.
        batch_size: B.
        n_train: N, the number of training examples that *one member* sees.
    """
    return lr * (n_train / batch_size - 1)
