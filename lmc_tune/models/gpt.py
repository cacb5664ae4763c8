"""Language models that predict the next token."""

import math
from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional

from lmc_tune.experiment import GptSpec

# Standard deviation of initial weights (Radford et al. 2019, whose code has it).
_SPREAD = 0.02


def gpt(spec: GptSpec, input_shape: tuple[int, ...], n_classes: int) -> nn.Sequential:
    """A decoder as GPT-2's (Radford et al. 2019), for tokens (n, context) int64; logits (n, context, tokens).

    Token and position embeddings, blocks with the norm first, causal attention, a perceptron of four times the width
    with GELU, and a linear head. Unlike GPT-2's, the head has weights of its own, and queries, keys and values have no
    bias: the softmax cancels that of keys, and that of values is a bias of what they are projected to.
    """
    (context,) = input_shape
    blocks = OrderedDict((f"block{number}", Block(spec)) for number in range(1, spec.depth + 1))
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        tokens=nn.Embedding(n_classes, spec.dim),
        positions=Positions(context, spec.dim),
        dropout=nn.Dropout(spec.dropout),
        **blocks,
        norm=_norm(spec),
        head=nn.Linear(spec.dim, n_classes, bias=False),
    )
    model = nn.Sequential(layers)
    if spec.init == "gpt2":
        _initialise(model, spec.depth)
    return model


class Positions(nn.Module):
    """Adds a learnt vector to every token, by its place in the window."""

    def __init__(self, context: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.normal_(torch.empty(context, dim), std=_SPREAD))

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens + self.weight


class Block(nn.Module):
    """x + attention(norm(x)), then x + perceptron(norm(x))."""

    def __init__(self, spec: GptSpec) -> None:
        super().__init__()
        self.norm1 = _norm(spec)
        self.attention = Attention(spec)
        self.norm2 = _norm(spec)
        self.perceptron = nn.Sequential(
            OrderedDict(
                wide=nn.Linear(spec.dim, 4 * spec.dim),
                activation=nn.GELU(),
                narrow=nn.Linear(4 * spec.dim, spec.dim),
                dropout=nn.Dropout(spec.dropout),
            )
        )

    def forward(self, inputs: Tensor) -> Tensor:
        attended = inputs + self.attention(self.norm1(inputs))
        outputs: Tensor = attended + self.perceptron(self.norm2(attended))
        return outputs


class Attention(nn.Module):
    """Every token attends to itself and to those before it."""

    def __init__(self, spec: GptSpec) -> None:
        super().__init__()
        self.heads = spec.heads
        self.query, self.key, self.value = (nn.Linear(spec.dim, spec.dim, bias=False) for _ in range(3))
        self.out = nn.Linear(spec.dim, spec.dim)
        self.dropout = nn.Dropout(spec.dropout)

    def forward(self, inputs: Tensor) -> Tensor:
        query, key, value = (
            projected(inputs).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projected in (self.query, self.key, self.value)
        )
        attended = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        outputs: Tensor = self.dropout(self.out(attended.transpose(1, 2).flatten(2)))
        return outputs


def _norm(spec: GptSpec) -> nn.Module:
    return nn.LayerNorm(spec.dim) if spec.norm == "layer" else nn.Identity()


def _initialise(model: nn.Module, depth: int) -> None:
    """As GPT-2: normal, those that write into the residual stream smaller by the root of their number; biases 0."""
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear | nn.Embedding):
            writes = name.endswith(("attention.out", "perceptron.narrow"))
            nn.init.normal_(layer.weight, std=_SPREAD / math.sqrt(2 * depth) if writes else _SPREAD)
        if isinstance(layer, nn.Linear) and layer.bias is not None:
            nn.init.zeros_(layer.bias)
