"""Small transformers, with attention of many kinds."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

HEADS, WIDTH, TOKENS = 2, 3, 5
DIM = HEADS * WIDTH


class Packed(nn.Module):
    """torch's attention, which reads one input, or keys and values of other widths from another."""

    def __init__(self, **how) -> None:
        super().__init__()
        self.own = nn.MultiheadAttention(DIM, HEADS, batch_first=True, **how)
        self.other = nn.Linear(DIM, how["kdim"]) if "kdim" in how else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        other = self.other(x)
        return self.own(x, key=other, value=other, need_weights=False)[0]


class Learnt(nn.Module):
    """What all heads add to their scores is learnt."""

    def __init__(self) -> None:
        super().__init__()
        self.own = nn.MultiheadAttention(DIM, HEADS, batch_first=True)
        self.bias = nn.Parameter(torch.randn(TOKENS, TOKENS))

    def forward(self, x: Tensor) -> Tensor:
        return self.own(x, x, x, need_weights=False, attn_mask=self.bias)[0]


class ByHand(nn.Module):
    """Queries, keys and values of layers of their own, and what a subclass makes of them."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(DIM, DIM) for _ in range(4))

    def split(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], HEADS, WIDTH).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        attended = self.attend(q, k, v)
        return self.out(attended.transpose(1, 2).reshape(x.shape[0], x.shape[1], DIM))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v)


class Products(ByHand):
    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = (q @ k.transpose(-2, -1)) / math.sqrt(WIDTH)
        return scores.softmax(dim=-1) @ v


class Rotary(ByHand):
    """Its queries and keys are turned by angles that depend on where a unit stands in its head."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("angles", torch.rand(TOKENS, WIDTH))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(self.turned(q), self.turned(k), v)

    def turned(self, x: Tensor) -> Tensor:
        other = torch.cat([-x[..., 1:], x[..., :1]], dim=-1)
        return x * self.angles.cos() + other * self.angles.sin()


class Stacked(Rotary):
    """Neighbouring units are turned together."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("angles", torch.rand(TOKENS, 4))
        self.query, self.key = nn.Linear(DIM, 8), nn.Linear(DIM, 8)

    def split(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], x.shape[1], HEADS, -1).transpose(1, 2)

    def turned(self, x: Tensor) -> Tensor:
        other = torch.stack([-x[..., 1::2], x[..., ::2]], -1).reshape(x.shape)
        return (x * self.angles.cos() + other * self.angles.sin()).type_as(x)


class Normed(ByHand):
    """Its queries and keys are normalised inside each head, with scales that all heads share."""

    def __init__(self) -> None:
        super().__init__()
        self.norm_q, self.norm_k = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(self.norm_q(q), self.norm_k(k), v)


class Summed(ByHand):
    """It adds all heads' values, where a unit meets that of another head."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v) + v.sum(1, keepdim=True)


class OneLayer(nn.Module):
    """Queries, keys and values of one layer, cut apart as timm does or in chunks."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.all, self.out = nn.Linear(DIM, 3 * DIM), nn.Linear(DIM, DIM)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        if self.how == "chunk":
            q, k, v = self.all(x).chunk(3, dim=-1)
            q, k, v = (one.view(b, n, HEADS, WIDTH).transpose(1, 2) for one in (q, k, v))
        else:
            parts = self.all(x).reshape(b, n, 3, HEADS, WIDTH).permute(2, 0, 3, 1, 4)
            q, k, v = parts.unbind(0) if self.how == "unbind" else (parts[0], parts[1], parts[2])
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, DIM))


class Encoder(nn.Module):
    """torch's own encoder of two layers."""

    def __init__(self, **how) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(DIM, HEADS, dim_feedforward=8, batch_first=True, **how)
        self.embed, self.head = nn.Linear(4, DIM), nn.Linear(DIM, 3)
        self.encoder = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(DIM), enable_nested_tensor=False)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(TOKENS, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(x), mask=self.mask, is_causal=True).mean(1))


class Transformer(nn.Module):
    """Blocks of attention and an MLP along a residual stream, for inputs of (n, tokens, 4)."""

    def __init__(self, make, depth: int = 2) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(4, DIM), nn.Linear(DIM, 3)
        self.attention = nn.ModuleList([make() for _ in range(depth)])
        self.norm = nn.ModuleList([nn.LayerNorm(DIM) for _ in range(depth)])
        self.mlp = nn.ModuleList([nn.Sequential(nn.Linear(DIM, 8), nn.GELU(), nn.Linear(8, DIM)) for _ in range(depth)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for attention, norm, mlp in zip(self.attention, self.norm, self.mlp, strict=True):
            x = x + attention(norm(x))
            x = x + mlp(x)
        return self.head(x.mean(1))


# How many units a head has: of queries and keys (or of each), and of values; one unit where they keep their order.
MADE = {
    "torch's": (Packed, (3, 3)),
    "torch's, without a bias": (lambda: Packed(bias=False), (3, 3)),
    "torch's, with one more key": (lambda: Packed(add_bias_kv=True, add_zero_attn=True), (3, 3)),
    "torch's, of two inputs": (lambda: Packed(kdim=5, vdim=5), (3, 3)),
    "by hand": (ByHand, (3, 3)),
    "products": (Products, (3, 3)),
    "rotary": (Rotary, (1, 1, 3)),
    "rotary, stacked": (Stacked, (1, 1, 3)),
    "normed": (Normed, (1, 3)),
    "summed": (Summed, (3, 1)),
    "unbind": (lambda: OneLayer("unbind"), (3, 3)),
    "index": (lambda: OneLayer("index"), (3, 3)),
    "torch's, with learnt biases": (Learnt, (3, 3)),
    "chunk": (lambda: OneLayer("chunk"), (3, 3)),
    "torch's encoder": (None, (3, 3)),
    "torch's encoder, norm first": (None, (3, 3)),
}


def inputs(n: int = 4) -> Tensor:
    return torch.randn(n, TOKENS, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def transformer(name: str, seed: int = 0, depth: int = 2) -> nn.Module:
    """With biases and scales that differ from unit to unit."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        make = MADE[name][0]
        model = Transformer(make, depth) if make else Encoder(norm_first="first" in name, activation=F.gelu)
        with torch.no_grad():
            for entry in model.parameters():
                if entry.dim() == 1:
                    entry.add_(0.3 * torch.randn(entry.shape))
    return model.double().eval()


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: entry.clone() for name, entry in model.state_dict().items()}


# Attention whose heads have to stay.


class Biased(ByHand):
    """Every head has biases of its own for pairs of positions."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.randn(HEADS, TOKENS, TOKENS))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=self.bias)


class Shared(ByHand):
    """Two heads of queries read the keys and values of one."""

    def __init__(self) -> None:
        super().__init__()
        self.key, self.value = nn.Linear(DIM, WIDTH), nn.Linear(DIM, WIDTH)

    def split(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], -1, WIDTH).transpose(1, 2)


class Across(ByHand):
    """At every position, heads attend to heads."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


class Crossed(Across):
    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        return ((q @ k.transpose(-2, -1)).softmax(-1) @ v).transpose(1, 2)


class Outer(ByHand):
    """Every head's values meet those of every other."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v) + (v[:, :, None] * v[:, None]).mean(2)


class Masked(nn.Module):
    """Every head has a mask of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.own = nn.MultiheadAttention(DIM, HEADS, batch_first=True)
        self.register_buffer("mask", torch.randn(4 * HEADS, TOKENS, TOKENS, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.own(x, x, x, need_weights=False, attn_mask=self.mask)[0]


class Telling(nn.Module):
    """The weights of every head are used."""

    def __init__(self) -> None:
        super().__init__()
        self.own = nn.MultiheadAttention(DIM, HEADS, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        attended, weights = self.own(x, x, x, average_attn_weights=False)
        return attended * weights[:, 0, 0, 0][:, None, None]
