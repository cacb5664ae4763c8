"""Learning from another network's predictions (Hinton et al. 2015)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from lmc_tune.data.decisions import decisions
from lmc_tune.measurement.network import Network
from lmc_tune.models.state import State

# Of inputs, logits and labels.
Lesson = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """Who teaches a member, and how much. state: of the member's architecture. beta, temperature: β and τ."""

    state: State
    beta: float
    temperature: float

    def lesson(self, model: nn.Module) -> Lesson:
        """The loss of a student (:func:`distillation_loss`), from its inputs, the logits of its decisions,
        and the labels.

        Args:
            model: of the teacher's architecture. A copy of it teaches: in evaluation mode, and never trained.
        """
        teacher = Network(model).copy().loaded(self.state).eval().requires_grad_(requires_grad=False)

        def loss(inputs: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
            taught, truth = decisions(teacher(inputs), labels)
            return distillation_loss(logits, taught, truth, self.beta, self.temperature)

        return loss


def distillation_loss(logits: Tensor, taught: Tensor, labels: Tensor, beta: float, temperature: float) -> Tensor:
    """(1 − β) τ² KL(p_T ‖ p_S) + β CE, nats, mean over decisions; p = softmax(z / τ).

    τ² keeps the gradient of the divergence as large as that of the cross-entropy, whatever τ is (Hinton et al. 2015,
    Sec. 2.1).

    Args:
        logits: the student's, (n, classes).
        taught: the teacher's, (n, classes).
        labels: (n,) int64.
        beta: weight of the labels, in [0, 1].
        temperature: τ, above 0.
    """
    divergence = functional.kl_div(
        torch.log_softmax(logits / temperature, 1),
        torch.log_softmax(taught / temperature, 1),
        reduction="batchmean",
        log_target=True,
    )
    return (1 - beta) * temperature**2 * divergence + beta * functional.cross_entropy(logits, labels)
