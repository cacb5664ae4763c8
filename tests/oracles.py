"""Slow, obvious references, written from the definitions and independent of the code under test."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import permutations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


def barrier_heights(lambdas: Sequence[float], values: Sequence[float]) -> dict[str, float]:
    """Every definition of a barrier, position by position, in plain Python."""
    first, last, mean = values[0], values[-1], (values[0] + values[-1]) / 2
    points = list(zip(lambdas, values, strict=True))
    heights = {
        "chord": max(v - ((1 - x) * first + x * last) for x, v in points),
        "endpoint_mean": max(v - mean for _, v in points),
        "max_endpoint": max(v - max(first, last) for _, v in points),
        "local_minima": local_minima(values),
    }
    middle = [v for x, v in points if x == 0.5]
    return heights | ({"midpoint": middle[0] - mean} if middle else {})


def local_minima(values: Sequence[float]) -> float:
    """Height of the interior top that rises highest over the mean of the minima on its two sides; 0 without one."""
    return max([0.0, *(top_over_minima(values, at) for at in range(1, len(values) - 1))])


def top_over_minima(values: Sequence[float], at: int) -> float:
    """Height of the top at ``at``, 0 if it is none; a plateau falling off on both sides is one at its first point."""
    v = values[at]
    after = next((other for other in values[at:] if other != v), v)
    if not values[at - 1] < v > after:
        return 0.0
    return v - (min(values[: at + 1]) + min(values[at:])) / 2


def expanded_tail(n: int, confidence: float) -> float:
    """Hesterberg 2015: Φ(−√(n/(n−1)) · t), with the t quantile found by bisection of a numerical integral."""
    t = _bisect(lambda x: _student_cdf(x, n - 1) - (1 + confidence) / 2, 0.0, 1e4)
    return 0.5 * math.erfc(math.sqrt(n / (n - 1)) * t / math.sqrt(2))


def _student_cdf(x: float, df: int) -> float:
    norm = math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2)) / math.sqrt(df * math.pi)
    # Substituting u = √df tan(φ) makes the integrand smooth and the range finite.
    phi = np.linspace(0, math.atan(x / math.sqrt(df)), 20_001)
    integrand = norm * math.sqrt(df) * np.cos(phi) ** (df - 1)
    return 0.5 + float(np.trapezoid(integrand, phi))


def _bisect(function: Any, low: float, high: float) -> float:
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if function(middle) < 0 else (low, middle)
    return low


def energy_coefficient(a: Sequence[Sequence[float]], b: Sequence[Sequence[float]]) -> float:
    """Székely & Rizzo's H, pair by pair."""

    def mean_distance(x: Any, y: Any) -> float:
        return math.fsum(math.dist(p, q) for p in x for q in y) / (len(x) * len(y))

    between = mean_distance(a, b)
    return (2 * between - mean_distance(a, a) - mean_distance(b, b)) / (2 * between)


def stratified_counts(counts: Sequence[int], n: int) -> list[int]:
    """Largest remainders in exact fractions; the earlier class first on ties."""
    quotas = [Fraction(n * count, sum(counts)) for count in counts]
    shares = [math.floor(quota) for quota in quotas]
    by_remainder = sorted(range(len(counts)), key=lambda c: (shares[c] - quotas[c], c))
    for c in by_remainder[: n - sum(shares)]:
        shares[c] += 1
    return shares


def most_label_matches(labels_a: Sequence[int], labels_b: Sequence[int]) -> int:
    """The most positions at which two orderings of these labels can agree."""
    return (Counter(labels_a) & Counter(labels_b)).total()


def lerp(a: Mapping[str, Tensor], b: Mapping[str, Tensor], lambda_: float) -> dict[str, np.ndarray]:
    """(1−λ) a + λ b in float64."""
    return {name: (1 - lambda_) * a[name].double().numpy() + lambda_ * b[name].double().numpy() for name in a}


def cross_entropy(logits: np.ndarray, labels: Sequence[int]) -> list[float]:
    """−log softmax at the true label, example by example."""
    losses = []
    for row, label in zip(logits.tolist(), labels, strict=True):
        top = max(row)
        losses.append(top + math.log(math.fsum(math.exp(z - top) for z in row)) - row[label])
    return losses


def mlp_logits(weights: Mapping[str, np.ndarray], inputs: np.ndarray) -> np.ndarray:
    """The network of cases.network, without normalisation, in float64."""
    x = inputs.reshape(len(inputs), -1).astype(np.float64)
    hidden = np.maximum(x @ weights["1.weight"].T + weights["1.bias"], 0)
    return hidden @ weights["3.weight"].T + weights["3.bias"]


class Updates:
    """Textbook update rules on a list of parameters, one step at a time."""

    def __init__(self, rule: str, *, momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0) -> None:
        if rule not in ("sgd", "adam", "adamw"):
            raise ValueError(f"no textbook rule is known for {rule}; write it here")
        self.rule, self.momentum, self.nesterov, self.weight_decay = rule, momentum, nesterov, weight_decay
        self.steps = 0
        self.first: dict[int, Tensor] = {}
        self.second: dict[int, Tensor] = {}

    def step(self, parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor], lr: float) -> None:
        self.steps += 1
        with torch.no_grad():
            for index, (w, g) in enumerate(zip(parameters, gradients, strict=True)):
                w.sub_(self._change(index, w, g, lr))

    def _change(self, index: int, w: Tensor, g: Tensor, lr: float) -> Tensor:
        zero = torch.zeros_like(w)
        if self.rule == "sgd":
            g = g + self.weight_decay * w
            velocity = self.momentum * self.first.get(index, zero) + g
            self.first[index] = velocity
            return lr * (g + self.momentum * velocity if self.nesterov else velocity)
        decoupled = lr * self.weight_decay * w if self.rule == "adamw" else zero
        if self.rule == "adam":
            g = g + self.weight_decay * w
        m = self.first[index] = 0.9 * self.first.get(index, zero) + 0.1 * g
        v = self.second[index] = 0.999 * self.second.get(index, zero) + 0.001 * g * g
        m_hat, v_hat = m / (1 - 0.9**self.steps), v / (1 - 0.999**self.steps)
        return decoupled + lr * m_hat / (v_hat.sqrt() + 1e-8)


def debiased_cka(x: np.ndarray, y: np.ndarray) -> float:
    """By the U-statistic of HSIC: its kernel averaged over all quadruples of different examples."""
    k, m = (x @ x.T).tolist(), (y @ y.T).tolist()

    def hsic(k: Any, m: Any) -> float:
        quadruples = list(permutations(range(len(k)), 4))
        return math.fsum(k[i][j] * (m[i][j] + m[q][r] - 2 * m[i][q]) for i, j, q, r in quadruples) / len(quadruples)

    return hsic(k, m) / math.sqrt(hsic(k, k) * hsic(m, m))


def biased_cka(x: np.ndarray, y: np.ndarray) -> float:
    """By covariances: ‖cov(X, Y)‖² / (‖cov(X, X)‖ ‖cov(Y, Y)‖), feature by feature."""

    def squared_norm(a: Any, b: Any) -> float:
        return math.fsum(float(np.cov(p, q, bias=True)[0, 1]) ** 2 for p in a.T for q in b.T)

    return squared_norm(x, y) / math.sqrt(squared_norm(x, x) * squared_norm(y, y))


def calibration_error(confidences: Sequence[float], hits: Sequence[bool], bins: int) -> float:
    """Guo et al. 2017, bin by bin; the first bin takes 0 as well."""
    total = 0.0
    for b in range(bins):
        inside = [i for i, c in enumerate(confidences) if b / bins < c <= (b + 1) / bins or (b == 0 and c == 0)]
        if inside:
            accuracy = sum(hits[i] for i in inside) / len(inside)
            confidence = math.fsum(confidences[i] for i in inside) / len(inside)
            total += len(inside) / len(confidences) * abs(accuracy - confidence)
    return total


def enlarged(image: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """A square image of ``size`` pixels a side: at every pixel's centre, the old image read between its own centres."""
    old = len(image)
    at = np.clip((np.arange(size) + 0.5) * old / size - 0.5, 0, old - 1)
    rows = np.array([np.interp(at, np.arange(old), row) for row in image])
    return np.array([np.interp(at, np.arange(old), column) for column in rows.T]).T


def average_precision(scores: Sequence[float], labels: Sequence[int]) -> float:
    """Σ (gain of recall) · precision over the thresholds, from the highest down."""
    total, recall_before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        above = [label for score, label in zip(scores, labels, strict=True) if score >= threshold]
        recall = sum(above) / sum(labels)
        total += (recall - recall_before) * sum(above) / len(above)
        recall_before = recall
    return total
