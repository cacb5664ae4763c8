"""What a network of the user's own has to keep to: one sentence for everything that would falsify or fail its pairs."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lmc_tune.errors import UserError
from lmc_tune.models.contract import check_apart, check_fits, check_restored, check_same_start, check_state, some_inputs
from lmc_tune.models.dropout import seed_dropouts

DIGITS = (1, 8, 8)


class Net(nn.Module):
    """Keeps to everything; what inherits from it breaks one thing."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 10))

    def forward(self, images: Tensor) -> Tensor:
        outputs: Tensor = self.body(images)
        return outputs


def checked(make: Callable[[], nn.Module]) -> None:
    """As :mod:`lmc_tune.sweeps.factories` does it."""
    made = []
    for _ in range(2):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            made.append(seed_dropouts(make()))
    model, other = made
    check_state(model, DIGITS)
    check_apart(model, other)
    check_same_start(model, other)
    check_fits(model, DIGITS, 10)
    images = some_inputs(2, DIGITS, 10)
    loss = model.train()(images).square().sum()
    loss.backward()
    torch.optim.SGD(model.parameters(), lr=0.01).step()
    check_restored(model, other, images)


class InPlace(Net):
    """F01: what other networks are given changes."""

    def __init__(self, *, training: bool) -> None:
        super().__init__()
        self.when = training

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.relu_() if self.training == self.when else images.relu())


class Auxiliary(Net):
    """F04: a second head that speaks in training alone."""

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        return (logits, logits) if self.training else logits  # type: ignore[return-value]


class Versioned(Net):
    """F05: extra state."""

    def get_extra_state(self) -> dict[str, int]:
        return {"version": 3}

    def set_extra_state(self, state: object) -> None:
        pass


class Counting(Net):
    """Something that training changes and the state does not hold: the second member would begin with it."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0

    def forward(self, images: Tensor) -> Tensor:
        self.steps += self.training
        return super().forward(images) * (1 + self.steps)


class Unregistered(Counting):
    """As Counting, in a buffer that is not kept."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(()), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            self.scale *= 2
        return self.body(images) * self.scale


class Careless(Net):
    """Drops in evaluation as well."""

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.dropout(super().forward(images), 0.5)


class Setting(Net):
    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            torch.use_deterministic_algorithms(mode=not torch.are_deterministic_algorithms_enabled())
        return super().forward(images)


class Renamed(Net):
    def state_dict(self, *given: Any, **named: Any) -> Any:
        state = super().state_dict(*given, **named)
        return {name.replace("body.1", "first"): entry for name, entry in state.items()}


class Stateless(Net):
    def state_dict(self, *_: object, **__: object) -> Any:
        raise NotImplementedError("not yet")


class Complex(Net):
    def __init__(self) -> None:
        super().__init__()
        self.phase = nn.Parameter(torch.ones(2, dtype=torch.complex64))


class Locked(Net):
    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


class Strict(Net):
    def load_state_dict(self, *_: object, **__: object) -> object:
        raise ValueError("give it a strategy\nand more")


def with_shared_buffer() -> nn.Module:
    model = Net()
    model.register_buffer("table", _TABLE[:2])
    return model


def from_elsewhere() -> nn.Module:
    model = Net()
    nn.init.normal_(model.body[1].weight, generator=_OTHER_GENERATOR)
    return model


_TABLE, _ONE, _OTHER_GENERATOR = torch.ones(4), Net(), torch.Generator()


def test_a_network_that_keeps_to_everything_passes() -> None:
    checked(Net)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: InPlace(training=False),
            "changes its inputs in evaluation mode, which other networks are given too; ",
        ),
        (lambda: InPlace(training=True), "changes its inputs in training mode, which other networks are given too; "),
        (lambda: _ONE, "shares 'body.1.weight' with a network from another call; create a new network"),
        (with_shared_buffer, "shares 'table' with a network from another call"),
        (from_elsewhere, "begins with another 'body.1.weight' in every call; draw initial weights from torch's global"),
        (Auxiliary, r"gives tuple for 2 images in training mode; .* one tensor of logits, \(2, 10\)"),
        (lambda: Net().body[:2], r"gives \(2, 8\) for 2 images in evaluation mode; there are 10 classes"),
        (Versioned, "keeps '_extra_state' of type dict in its state dict, which may hold tensors alone; register it"),
        (Complex, "keeps complex numbers in 'phase'; "),
        (Renamed, "has parameters that its state dict lacks: body.1.weight, body.1.bias; "),
        (Stateless, r"cannot give its state dict: NotImplementedError: not yet \(.*test_contract.py:\d+\)$"),
        (Locked, "cannot be copied, which measuring has to do: TypeError: cannot pickle '_thread.lock' object"),
        (Strict, r"cannot load its own state dict: ValueError: give it a strategy \(.*test_contract.py:\d+\)$"),
        (Careless, "gives other outputs in a second pass in evaluation mode"),
        (Counting, "gives other outputs in evaluation mode once its state dict is loaded into a new one: it keeps"),
        (Unregistered, "gives other outputs in evaluation mode once its state dict is loaded into a new one: it keeps"),
        (Setting, "changes deterministic algorithms of torch in a pass in training mode; leave"),
        (lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(10)), "has weights without a size; pass images of 1x8x8"),
        (
            lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.LazyBatchNorm1d(affine=False)),
            "has weights without a size; pass images of 1x8x8",
        ),
        (lambda: nn.Conv2d(3, 4, 3), "cannot take images of 1x8x8 in evaluation mode: RuntimeError: "),
    ],
)
def test_everything_else_is_refused_with_one_sentence(make: Callable[[], nn.Module], said: str) -> None:
    deterministic = torch.are_deterministic_algorithms_enabled()
    with pytest.raises(UserError, match=f"^{said}") as raised:
        checked(make)
    torch.use_deterministic_algorithms(deterministic)
    assert "\n" not in str(raised.value)


def test_a_batch_of_one_is_tried_where_one_is_asked_for() -> None:
    check_fits(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), DIGITS, 10, batch_size=1)
    with pytest.raises(
        UserError, match="cannot take images of 1x8x8 in training mode: ValueError: Expected more than 1"
    ):
        check_fits(Net(), DIGITS, 10, batch_size=1)
