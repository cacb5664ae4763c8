"""Attention: heads change places, and units inside heads; the function stays, and the best permutation is found."""

import math
from dataclasses import replace
from itertools import permutations as all_orders
from itertools import product as all_of

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from lmc_tune.data.examples import Examples
from lmc_tune.measurement.alignment.activations import match_activations
from lmc_tune.measurement.alignment.groups import Group, Place
from lmc_tune.measurement.alignment.links import RESIDUAL
from lmc_tune.measurement.alignment.matching import match_weights
from lmc_tune.measurement.alignment.multi import match_together
from lmc_tune.measurement.alignment.proof import check_unchanged
from lmc_tune.measurement.alignment.specification import (
    Specification,
    check_complete,
    inverse,
    random_permutations,
)
from lmc_tune.measurement.alignment.trace import specification_of
from lmc_tune.measurement.lines import MeasurementError

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


def product(a, b, specification: Specification) -> float:
    counted = {place.entry for group in specification.free.values() for place in group.places if place.counts}
    return float(sum((a[name] * b[name]).sum() for name in counted))


@pytest.mark.parametrize("residual", ["fixed", "free"])
@pytest.mark.parametrize("name", MADE)
def test_heads_and_units_inside_them_change_places_and_the_function_stays(name, residual):
    model = transformer(name)
    specification = specification_of(model, inputs(), residual=residual)
    check_complete(specification, model.state_dict(), [entry for entry, _ in model.named_parameters()])
    free = specification.free.values()
    assert [sorted(group.widths) for group in free if group.heads == HEADS] == [sorted(MADE[name][1])] * 2
    before, start = model(inputs()).detach(), state(model)
    for seed in range(3):
        planted = random_permutations(specification, seed)
        moved = specification.permuted(start, planted)
        model.load_state_dict(moved)
        torch.testing.assert_close(model(inputs()), before, rtol=0, atol=1e-10 * float(before.abs().max()))
        back = specification.permuted(moved, inverse(planted))
        assert all(torch.equal(back[entry], start[entry]) for entry in start)
    assert not all(torch.equal(moved[entry], start[entry]) for entry in start if "att" in entry)


@pytest.mark.parametrize("name", MADE)
def test_the_residual_stream_is_fixed_unless_it_is_asked_for(name):
    model = transformer(name)
    fixed, free = (specification_of(model, inputs(), residual=residual) for residual in ("fixed", "free"))
    stream = next(group for group in fixed.groups if any(place.entry == "embed.weight" for place in group.places))
    assert stream.frozen == RESIDUAL
    assert RESIDUAL in fixed.frozen
    assert len(free.free) >= len(fixed.free) + 1
    assert RESIDUAL not in free.frozen
    assert sum(group.widths == (8,) for group in fixed.free.values()) == 2  # the hidden units of the MLPs


@pytest.mark.parametrize(("name", "reason"), [
    ("rotary", "attention.0: getitem picks some of the units"),
    ("normed", "attention.0.norm_q.weight is the same for all heads"),
    ("summed", "attention.0: sum mixes heads"),
])  # fmt: skip
def test_why_units_keep_their_order_inside_a_head_is_named(name, reason):
    assert any(reason in said for said in specification_of(transformer(name), inputs()).frozen)


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


@pytest.mark.parametrize(("make", "reason"), [
    (Biased, "attention.0: scaled_dot_product_attention joins units with what cannot be permuted"),
    (Shared, "attention.0: scaled_dot_product_attention joins units with what cannot be permuted"),
    (Across, "attention.0: scaled_dot_product_attention attends to positions"),
    (Crossed, "attention.0: matmul joins heads with each other"),
    (Outer, "attention.0: mul joins heads with each other"),
    (Masked, "attention.0.own masks every head differently"),
    (Telling, "attention.0.own returns the weights of every head"),
])  # fmt: skip
def test_heads_that_differ_stay_where_they_are(make, reason):
    model = Transformer(make, depth=1).double().eval()
    specification = specification_of(model, inputs())
    assert reason in specification.frozen
    assert [group.widths for group in specification.free.values()] == [(8,)]
    before, start = model(inputs()).detach(), state(model)
    model.load_state_dict(specification.permuted(start, random_permutations(specification, 1)))
    torch.testing.assert_close(model(inputs()), before, rtol=0, atol=1e-10 * float(before.abs().max()))


def test_an_order_that_takes_heads_apart_is_refused():
    model = transformer("torch's")
    specification = specification_of(model, inputs())
    number, group = next(one for one in specification.free.items() if one[1].heads == HEADS)
    keys, values = np.arange(DIM), np.arange(DIM, 2 * DIM)
    split, one_kind = keys[[0, 1, 3, 2, 4, 5]], keys[[3, 4, 5, 0, 1, 2]]
    for wrong in (np.concatenate([split, values]), np.concatenate([one_kind, values]), np.concatenate([values, keys])):
        assert not group.allows(wrong)
        with pytest.raises(
            ValueError, match="has 12 units; give a permutation of them that keeps its 2 heads together"
        ):
            specification.permuted(model.state_dict(), {number: wrong})
    assert group.allows(np.concatenate([one_kind, values[[3, 5, 4, 0, 1, 2]]]))


def every_order(group: Group):
    """All that keep heads together, spelt out."""
    for heads in all_orders(range(group.heads)):
        slots = [
            list(range(*group.head(kind, head).indices(group.size)))
            for kind in range(len(group.widths))
            for head in heads
        ]
        for inside in all_of(*(all_orders(slot) for slot in slots)):
            yield np.array([unit for slot in inside for unit in slot])


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([(1, (4,)), (2, (3, 2)), (3, (2, 1)), (2, (1, 1, 2)), (4, (1, 1))]), st.integers(0, 10_000))
def test_the_best_permutation_is_the_best_of_all_that_keep_heads_together(shape, seed):
    heads, widths = shape
    group = Group(heads=heads, widths=widths, places=())
    rng = np.random.default_rng(seed)
    gains = rng.normal(size=(group.size, group.size))
    orders = {tuple(order) for order in every_order(group)}
    assert len(orders) == math.factorial(heads) * math.prod(math.factorial(width) ** heads for width in widths)
    best = group.best(gains)
    units = np.arange(group.size)
    assert tuple(best) in orders
    assert gains[units, best].sum() == pytest.approx(max(gains[units, order].sum() for order in map(list, orders)))
    assert tuple(group.random(rng)) in orders
    everything = all_orders(range(group.size)) if group.size <= 5 else (rng.permutation(group.size) for _ in range(200))
    assert all(group.allows(np.array(order)) == (tuple(order) in orders) for order in everything)


@pytest.mark.parametrize("name", ["torch's", "by hand", "unbind"])
def test_one_layer_of_attention_has_the_best_of_all_2592_permutations(name):
    model, other = transformer(name, depth=1), transformer(name, 1, depth=1)
    specification = specification_of(model, inputs())
    number, group = next(one for one in specification.free.items() if one[1].heads == HEADS)
    alone = Specification(groups=(group,), fixed=specification.fixed)
    a, b = model.state_dict(), other.state_dict()
    reached = [product(a, alone.permuted(b, {0: order}), alone) for order in every_order(group)]
    assert len(reached) == 2592
    found = match_weights(alone, a, b)
    assert found.objective == pytest.approx(max(reached), rel=1e-12)
    assert found.identity == pytest.approx(product(a, b, alone), rel=1e-12)
    assert found.objective > found.identity
    whole = match_weights(specification, a, b)  # the MLP's units share no weight with attention's
    np.testing.assert_array_equal(whole.permutations[number], found.permutations[0])


@pytest.mark.parametrize("name", MADE)
def test_planted_heads_and_units_inside_them_are_found_again(name):
    model = transformer(name)
    specification = specification_of(model, inputs())
    start, planted = state(model), random_permutations(specification, 5)
    found = match_weights(specification, start, specification.permuted(start, planted))
    for number, permutation in inverse(planted).items():
        np.testing.assert_array_equal(found.permutations[number], permutation)


@pytest.mark.parametrize("name", MADE)
def test_with_a_free_residual_stream_the_planted_objective_is_reached_within_five_starts(name):
    model = transformer(name)
    specification = specification_of(model, inputs(), residual="free")
    start = state(model)
    found = match_weights(
        specification, start, specification.permuted(start, random_permutations(specification, 5)), restarts=5
    )
    assert found.objective == pytest.approx(product(start, start, specification), rel=1e-9)


@pytest.mark.parametrize("name", MADE)
def test_the_objective_of_two_networks_is_never_below_the_identitys_and_no_swap_is_better(name):
    model, other = transformer(name), transformer(name, 1)
    specification = specification_of(model, inputs())
    a, b = model.state_dict(), other.state_dict()
    found = match_weights(specification, a, b)
    moved = specification.permuted(b, found.permutations)
    assert found.objective == pytest.approx(product(a, moved, specification), rel=1e-9)
    assert found.objective >= found.identity
    for seed in range(20):
        again = specification.permuted(moved, random_permutations(specification, seed))
        assert product(a, again, specification) <= found.objective + 1e-9


@pytest.mark.parametrize("name", MADE)
def test_attention_is_recognised_by_its_queries_keys_and_values(name):
    model = transformer(name)
    specification = specification_of(model, inputs())
    start, planted = state(model), random_permutations(specification, 5)
    examples = Examples(inputs=inputs(300), labels=torch.zeros(300, dtype=torch.int64))
    found = match_activations(model, specification, start, specification.permuted(start, planted), examples)
    for number, permutation in inverse(planted).items():
        np.testing.assert_array_equal(found[number], permutation)


def test_several_transformers_are_brought_together():
    models = [transformer("torch's", seed) for seed in range(3)]
    specification = specification_of(models[0], inputs())
    found = match_together(specification, [model.state_dict() for model in models])
    assert found.converged
    assert found.objectives[-1] > found.objectives[0]
    assert all(later >= earlier - 1e-9 for earlier, later in zip(found.objectives, found.objectives[1:], strict=False))
    for model, permutations in zip(models, found.permutations, strict=True):
        check_unchanged(model, specification, model.state_dict(), permutations, inputs())


def test_a_projection_that_was_left_out_is_named():
    model = transformer("torch's", depth=1)
    specification = specification_of(model, inputs())
    number, group = next(one for one in specification.free.items() if one[1].heads == HEADS)
    kept = tuple(
        place for place in group.places if not (place.entry.endswith("in_proj_bias") and place.start == 2 * DIM)
    )
    wrong = tuple(replace(one, places=kept) if at == number else one for at, one in enumerate(specification.groups))
    planted = random_permutations(specification, 3)
    check_unchanged(model, specification, model.state_dict(), planted, inputs())
    with pytest.raises(MeasurementError, match=r"attention\.0\.own\.value differs by"):
        check_unchanged(model, replace(specification, groups=wrong), model.state_dict(), planted, inputs())


def test_the_parts_of_an_axis_have_to_be_all_of_it():
    weight = {"weight": torch.zeros(6)}
    places = [Place(entry="weight", dim=0, start=start) for start in (0, 3)]

    def check(*own: Place, **fixed) -> None:
        groups = tuple(Group(widths=(3,), places=(place,)) for place in own)
        check_complete(Specification(groups=groups, **fixed), weight, ["weight"])

    check(*places)
    for wrong in (places[:1], places[1:], [*places, places[0]], [places[0], replace(places[1], start=2)]):
        with pytest.raises(AssertionError, match="axis 0 of weight has 6 indices; these are in groups"):
            check(*wrong)
    with pytest.raises(AssertionError, match="axis 0 of weight is neither in a group nor fixed"):
        check()
    with pytest.raises(AssertionError, match="axis 0 of weight is also fixed"):
        check(*places, fixed={("weight", 0): "it is"})
