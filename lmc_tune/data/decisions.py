"""Several labels per example, as one decision between two classes for each label."""

import torch
from torch import Tensor


def decisions(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The logits of a network's decisions, and the truth: one class per example, or yes or no for each of its labels.

    For a label with logit z, the two classes have logits 0 and z. Their softmax is 1 − σ(z) and σ(z), so that
    cross-entropy is binary cross-entropy, and the more probable class is yes where z > 0. All that is known of
    classes holds of these.

    Args:
        logits: (..., n, classes) for one label per example, (..., n, L) for several.
        labels: (..., n) int64 in [0, classes), or (..., n, L) int64, 1 for yes and 0 for no.

    Returns:
        Logits (..., n, classes) and labels (..., n) as they are, or (..., n L, 2) and (..., n L), example by example.
    """
    if labels.ndim < logits.ndim:
        return logits, labels
    return torch.stack([torch.zeros_like(logits), logits], dim=-1).flatten(-3, -2), labels.flatten(-2)
