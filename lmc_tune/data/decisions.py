"""Several labels per example as decisions between classes, one for each label."""

import torch
from torch import Tensor


def decisions(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The logits of a network's decisions, and the truth: one class per example, or per token of its text, or yes or no
    for each of its labels.

    For a label with logit z, the two classes have logits 0 and z. Their softmax is 1 − σ(z) and σ(z), so that
    cross-entropy is binary cross-entropy, and the more probable class is yes where z > 0. All that is known of
    classes holds of these.

    Args:
        logits: (n, classes) for one label per example, (n, context, classes) for one per token, (n, L) for several.
        labels: (n,) or (n, context) int64 in [0, classes), or (n, L) int64, 1 for yes and 0 for no.

    Returns:
        Logits (decisions, classes) and labels (decisions,), example by example.
    """
    return _by_decision(logits, labels, 0)


def stacked_decisions(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The :func:`decisions` of several networks: both tensors, and both that are returned, have the networks first."""
    return _by_decision(logits, labels, 1)


def has_yes_and_no(logits: Tensor, labels: Tensor) -> bool:
    """Whether labels are 0 or 1 for each of an example's logits, and not the number of a logit."""
    return labels.ndim == logits.ndim


def _by_decision(logits: Tensor, labels: Tensor, examples: int) -> tuple[Tensor, Tensor]:
    """examples: the dimension along which they are."""
    if has_yes_and_no(logits, labels):
        logits = torch.stack([torch.zeros_like(logits), logits], dim=-1)
    return logits.flatten(examples, -2), labels.flatten(examples)
