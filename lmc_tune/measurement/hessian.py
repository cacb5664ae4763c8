"""The Hessian of a network's loss: products with vectors, and its largest eigenvalue."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lmc_tune.core.barrier import Array
from lmc_tune.data.decisions import decisions
from lmc_tune.data.examples import Examples, ExampleSet, are_text, at_once
from lmc_tune.measurement.evaluate import losses_of
from lmc_tune.measurement.network import Network
from lmc_tune.models.inference import is_convolutional
from lmc_tune.models.state import State

# Examples whose graph of second derivatives is in memory at once. Sums are exact whatever it is.
_CHUNK = 128
# Lanczos vectors, a restart of them, and how exact the eigenpair is: ‖Hv − cv‖ relative to c.
_VECTORS, _RESTARTS, _TOLERANCE = 20, 50, 1e-5

# What a network loses on some examples: one number for each of them, or for each of their decisions.
Losses = Callable[[nn.Module, Examples], Tensor]


def cross_entropies(model: nn.Module, some: Examples) -> Tensor:
    """Of every decision, nats."""
    logits, truth = decisions(model(some.inputs), some.labels)
    return losses_of(logits, truth)


@dataclass(frozen=True, kw_only=True)
class TopEigenvalue:
    """The largest eigenvalue c of a Hessian, NaN if Lanczos did not converge.

    residual: ‖Hv − cv‖ / |c| of its unit eigenvector v. products: Hessian-vector products that it took.
    """

    value: float
    residual: float
    products: int


def top_eigenvalue(
    network: Network, state: State, examples: ExampleSet, seed: int, losses: Losses = cross_entropies
) -> TopEigenvalue:
    """The largest (not the largest absolute) eigenvalue of the Hessian of the mean loss in all parameters.

    By implicitly restarted Lanczos (ARPACK) on exact Hessian-vector products, summed over chunks. They are float64, but
    float32 where there are convolutions, which no library has fast in float64: on a CPU those take five times as long.
    Norms and dropout are in evaluation mode, so the running statistics are constants.

    Args:
        network: of the architecture.
        state: where.
        examples: whose mean loss it is.
        seed: of the vector that Lanczos starts from.
        losses: what the mean is taken of; differentiable twice.
    """
    hessian = Hessian(network.copy().loaded(state), examples, precision_for(network.module), losses)
    n = hessian.size
    operator = LinearOperator((n, n), matvec=hessian.times, dtype=np.float64)
    start = np.random.default_rng(seed).standard_normal(n)
    if not hessian.times(start).any():  # ARPACK wants a vector that does not vanish
        return TopEigenvalue(value=0.0, residual=0.0, products=hessian.products)
    try:
        values, vectors = eigsh(
            operator, k=1, which="LA", v0=start, ncv=min(n, _VECTORS), maxiter=_RESTARTS, tol=_TOLERANCE
        )
    except ArpackNoConvergence:
        return TopEigenvalue(value=np.nan, residual=np.nan, products=hessian.products)
    value, vector = float(values[0]), vectors[:, 0]
    residual = float(np.linalg.norm(hessian.times(vector) - value * vector))
    return TopEigenvalue(value=value, residual=residual / abs(value) if value else residual, products=hessian.products)


def precision_for(model: nn.Module) -> torch.dtype:
    """Of the products of a network's Hessian."""
    return torch.float32 if is_convolutional(model) else torch.float64


class Hessian:
    """The Hessian of a network's mean loss over some examples, as what it does to vectors.

    Args:
        model: the network; it is converted to the precision.
        examples: on its device.
        precision: of all products, which are summed in float64.
        losses: what the mean is taken of.

    Attributes:
        size: of its rows. products: so many vectors were multiplied.
    """

    def __init__(
        self, model: nn.Module, examples: ExampleSet, precision: torch.dtype, losses: Losses = cross_entropies
    ) -> None:
        self._precision, self._losses = precision, losses
        self._model = model.to(precision).eval().requires_grad_()
        self._parameters = list(self._model.parameters())
        self._examples = examples
        self.size = sum(parameter.numel() for parameter in self._parameters)
        self.products = 0

    def times(self, vector: Array) -> Array:
        """(size,) the product with a vector (size,)."""
        self.products += 1
        sizes = [parameter.numel() for parameter in self._parameters]
        flat = torch.from_numpy(np.ascontiguousarray(vector, dtype=np.float64).reshape(-1)).to(
            self._parameters[0].device
        )
        parts = [part.view_as(own).to(own) for part, own in zip(flat.split(sizes), self._parameters, strict=True)]
        total, n = torch.zeros_like(flat), 0
        for some in self._examples.chunks(at_once(self._examples, _CHUNK)):
            own, product = self._product_of(some, parts)
            total += torch.cat([part.flatten() for part in product])
            n += own
        mean: Array = (total / n).cpu().numpy()
        return mean

    def _product_of(self, some: Examples, vector: list[Tensor]) -> tuple[int, tuple[Tensor, ...]]:
        """How many losses some examples have, and the product of their sum's Hessian, by the gradient of
        (gradient · vector) (Pearlmutter 1994).
        """
        inputs = some.inputs if are_text(some.inputs) else some.inputs.to(self._precision)
        with sdpa_kernel(SDPBackend.MATH):  # fused kernels of attention have no second derivative
            losses = self._losses(self._model, Examples(inputs=inputs, labels=some.labels))
            gradient = torch.autograd.grad(losses.sum(), self._parameters, create_graph=True, materialize_grads=True)
            along = torch.stack([(own * part).sum() for own, part in zip(gradient, vector, strict=True)]).sum()
            return losses.numel(), torch.autograd.grad(along, self._parameters, materialize_grads=True)


@dataclass(frozen=True)
class First:
    """The first ``most`` of some examples."""

    examples: ExampleSet
    most: int

    def __len__(self) -> int:
        return min(self.most, len(self.examples))

    @property
    def labels(self) -> Tensor:
        return self.examples.labels[: len(self)]

    def chunks(self, size: int) -> Iterator[Examples]:
        """At most ``size`` at a time."""
        left = len(self)
        for some in self.examples.chunks(size):
            yield Examples(inputs=some.inputs[:left], labels=some.labels[:left])
            left -= len(some)
            if left <= 0:
                return
