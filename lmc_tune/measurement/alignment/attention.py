"""How attention lets units pass: heads may change places, and inside a head so may its queries' and keys' units alike,
and its values' units.

An attention's score is a sum over the units of a query and a key, and its output is linear in the values.
"""

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any

from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - its usual name

from lmc_tune.measurement.alignment.groups import Site
from lmc_tune.measurement.alignment.links import Call, Links, Ref, Value, unlabelled

READS_FIXED = "it reads what cannot be permuted"
_PROJECTIONS = ("query", "key", "value")


def attention_module(links: Links, call: Call) -> Any:
    """:class:`torch.nn.MultiheadAttention`, whose projections are packed in one weight or not."""
    module = call.module
    d = module.embed_dim
    given = signature(module.forward).bind(*call.args, **call.kwargs).arguments
    scores, values = (links.new(d, heads=module.num_heads) for _ in range(2))
    links.tie(scores, values)
    links.attention |= {scores.group, values.group}
    _project(links, call, given, (scores, scores, values))
    _hold(links, call, given, scores)
    out = links.new(d)
    links.attach(values, f"{call.name}.out_proj.weight", 1, d, "")
    links.attach(out, f"{call.name}.out_proj.weight", 0, d, "")
    if module.out_proj.bias is not None:
        links.attach(out, f"{call.name}.out_proj.bias", 0, d, "")
    attended, weights = call.made
    return Value(attended, (*given["query"].dims[:-1], out)), unlabelled(weights)


def _project(links: Links, call: Call, given: Mapping[str, Any], made: Sequence[Ref]) -> None:
    """What it reads becomes queries, keys and values, with the weights' rows in three sections or in three weights."""
    module, d = call.module, call.module.embed_dim
    read = [given[name].dims[-1] for name in _PROJECTIONS]
    if module.in_proj_weight is not None:
        joint = f"{call.name} reads units and what cannot be permuted with one weight"
        one = links.link(links.link(read[0], read[1], joint), read[2], joint)
        links.attach(one, f"{call.name}.in_proj_weight", 1, d, READS_FIXED)
    for at, (name, ref) in enumerate(zip(_PROJECTIONS, made, strict=True)):
        if module.in_proj_weight is not None:
            links.attach(ref, f"{call.name}.in_proj_weight", 0, d, "", start=at * d)
        else:
            own = f"{call.name}.{name[0]}_proj_weight"
            links.attach(ref, own, 0, d, "")
            links.attach(read[at], own, 1, links.state[own].shape[1], READS_FIXED)
        if module.in_proj_bias is not None:
            links.attach(ref, f"{call.name}.in_proj_bias", 0, d, "", start=at * d)
        links.made.append((Site(node=f"{call.name}.{name}", dim=-1), ref.group, False))
    for own, ref in (("bias_k", made[1]), ("bias_v", made[2])):
        if getattr(module, own) is not None:
            links.attach(ref, f"{call.name}.{own}", 2, d, "")
            links.fixed[f"{call.name}.{own}", 0] = links.fixed[f"{call.name}.{own}", 1] = "it has one unit"


def _hold(links: Links, call: Call, given: Mapping[str, Any], heads: Ref) -> None:
    """Positions stay; so do heads that the network treats differently."""
    for name in _PROJECTIONS:
        links.freeze_all(Value(given[name].tensor, given[name].dims[:-1]), f"{call.name} attends to positions")
    mask = given.get("attn_mask")
    links.freeze_all((mask, given.get("key_padding_mask")), f"{call.name} reads it as a mask")
    if mask is not None and mask.tensor.dim() > 2:
        links.freeze(heads, f"{call.name} masks every head differently")
    if call.made[1] is not None and not given.get("average_attn_weights", True):
        links.freeze(heads, f"{call.name} returns the weights of every head")


def projections(module: Any, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
    """(…, embed_dim): the queries, keys and values that a :class:`torch.nn.MultiheadAttention` makes of its inputs."""
    called = signature(module.forward).bind(*args, **kwargs).arguments
    if module.in_proj_weight is not None:
        weights = module.in_proj_weight.chunk(3)
    else:
        weights = (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)
    biases = (None, None, None) if module.in_proj_bias is None else module.in_proj_bias.chunk(3)
    return {
        name: F.linear(called[name], weight, bias)
        for name, weight, bias in zip(_PROJECTIONS, weights, biases, strict=True)
    }


def scaled_dot_product(links: Links, call: Call) -> Any:
    """softmax(q kᵀ) v over the last two dimensions, for every head."""
    query, key, value, mask = call.named("query", "key", "value", "attn_mask")
    mixed = f"{call.name} joins units with what cannot be permuted"
    dims: list[Ref | None] = []
    for back in range(value.tensor.dim(), 2, -1):
        at = [one.dims[-back] for one in (query, key, value)]
        ref = links.link(links.link(at[2], at[0], mixed), at[1], mixed)
        if isinstance(mask, Value) and mask.tensor.dim() >= back and mask.tensor.shape[-back] > 1:
            ref = links.link(ref, mask.dims[-back], mixed)
        dims.append(ref)
    links.link(query.dims[-1], key.dims[-1], mixed)
    for ref in (query.dims[-2], key.dims[-2], value.dims[-2], *(mask.dims[-2:] if isinstance(mask, Value) else ())):
        links.freeze(ref, f"{call.name} attends to positions")
    _mark(links, query, key, value)
    return Value(call.made, (*dims, query.dims[-2], value.dims[-1]))


def product(links: Links, call: Call) -> Any:
    """Of matrices along the last two dimensions; of two tensors with more of them, as attention has."""
    one, other = call.args
    mixed = f"{call.name} joins units with what cannot be permuted"
    if min(one.tensor.dim(), other.tensor.dim()) < 2:
        return links.opaque(call.args, call.made, f"{call.name} lets no permutation pass")
    links.link(one.dims[-1], other.dims[-2], mixed)
    dims: list[Ref | None] = []
    for back in range(call.made.dim(), 2, -1):
        at = [each.dims[-back] for each in (one, other) if each.tensor.dim() >= back and each.tensor.shape[-back] > 1]
        dims.append(at[0] if len(at) == 1 else links.link(at[0], at[1], mixed) if at else None)
    if min(one.tensor.dim(), other.tensor.dim()) > 2:
        _mark(links, one, other)
    return Value(call.made, (*dims, one.dims[-2], other.dims[-1]))


def _mark(links: Links, *values: Value) -> None:
    """Their units are attention's."""
    links.attention |= {ref.group for value in values for ref in value.dims[-1:] + value.dims[:-2] if ref is not None}
