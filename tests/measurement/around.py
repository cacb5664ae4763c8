"""Pairs for measurements of what lies around their path, and scores by the book."""

import torch
from torch import nn
from torch.nn import functional

from lmc_tune.data.examples import Examples
from lmc_tune.measurement.members import Members
from lmc_tune.measurement.network import Network
from tests.cases import blobs, network, state

DATA = {"train": blobs(60), "test": blobs(30, seed=1)}


def pair(*, norm: bool = False, seed: int = 5) -> Members:
    """Two members of one start, in double precision so that steps can be read off their weights."""
    models = {name: network(at, norm=norm).double() for at, name in enumerate(("start", "a", "b"))}
    data = {
        split: Examples(inputs=examples.inputs.double(), labels=examples.labels) for split, examples in DATA.items()
    }
    if norm:
        for model in models.values():
            model.train()(data["train"].inputs)
    return Members(
        network=Network(network(9, norm=norm).double()),
        states={name: state(models[name]) for name in ("a", "b")},
        data=data,
        statistics=data["train"],
        start=state(models["start"]),
        seed=seed,
    )


def plain_score(model: nn.Module, weights: dict[str, torch.Tensor], examples: Examples) -> tuple[float, int]:
    """The sum of the losses and the number of right predictions of a network with these weights."""
    model.load_state_dict(weights)
    with torch.no_grad():
        logits = model.eval()(examples.inputs)
    loss = functional.cross_entropy(logits, examples.labels, reduction="sum")
    return float(loss), int(logits.argmax(1).eq(examples.labels).sum())
