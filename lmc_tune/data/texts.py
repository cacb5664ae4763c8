"""A text as windows of tokens, on the CPU."""

import numpy as np
import torch
from numpy.typing import NDArray

from lmc_tune.data.examples import Examples
from lmc_tune.data.files import DataError
from lmc_tune.experiment import TextSpec
from lmc_tune.experiment.text import read_texts


def read_windows(spec: TextSpec) -> tuple[Examples, Examples]:
    """All windows of the training text and of the held-out text, in their order.

    Inputs are tokens (n, context) int64; labels are the tokens that follow each of them. Windows do not overlap, and
    no label of the training text is held out. A token is the number of its symbol in the order of Unicode, or its byte;
    characters that the training text lacks share the last number.

    Raises:
        DataError: if the files are no longer what they were when the spec was made.
        TextError: if they cannot be read.
    """
    texts = read_texts(spec)
    if texts.hash != spec.known.hash:
        raise DataError(
            f"{spec.path} is not what it was when its space was read; run the same command again, and keep the text as "
            f"it is while a sweep runs, alike on all machines"
        )
    text = texts.texts[spec.part]
    train, test = (windows_of(_tokens(part, texts.symbols), spec.context) for part in (text.train, text.test))
    return train, test


def windows_of(tokens: NDArray[np.int64], context: int) -> Examples:
    """Windows that do not overlap, (n, context) each, of the tokens and of those behind them; the rest is dropped."""
    n = max(0, len(tokens) - 1) // context
    inputs, labels = (torch.from_numpy(tokens[at : at + n * context]).view(n, context) for at in (0, 1))
    return Examples(inputs=inputs, labels=labels)


def _tokens(text: str, symbols: str) -> NDArray[np.int64]:
    """(n,) numbers of its characters; those that are no symbol have the number behind the last."""
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    known = np.frombuffer(symbols.encode("utf-32-le"), np.uint32)
    at = np.minimum(np.searchsorted(known, points), len(known) - 1)
    return np.where(known[at] == points, at, len(known)).astype(np.int64)
