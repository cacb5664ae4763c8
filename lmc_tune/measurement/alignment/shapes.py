"""How operations that change a tensor's shape let units pass, or do not."""

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

from lmc_tune.measurement.alignment.links import Call, Links, Ref, Value


def reshaped(links: Links, call: Call) -> Value:
    """Dimensions that are merged or split: units pass where they come first of what is merged."""
    given, made, name = call.args[0], call.made, call.name
    old, new = list(given.tensor.shape), list(made.shape)
    dims: list[Ref | None] = []
    at = to = 0
    while at < len(old) or to < len(new):
        some, others = old[at : at + 1], new[to : to + 1]
        while prod(some) != prod(others):
            if prod(some) < prod(others):
                some = old[at : at + len(some) + 1]
            else:
                others = new[to : to + len(others) + 1]
        dims += _segment(links, name, given.dims[at : at + len(some)], some, others)
        at, to = at + len(some), to + len(others)
    return Value(made, tuple(dims))


def _segment(links: Links, name: str, dims: tuple[Ref | None, ...], old: list[int], new: list[int]) -> list[Ref | None]:
    refs = [ref for ref in dims if ref is not None]
    wide_old, wide_new = ([size for size in sizes if size > 1] for sizes in (old, new))
    made: list[Ref] | None = None
    if not refs:
        return [None] * len(new)
    if wide_old == wide_new:
        return _spread([ref for ref, size in zip(dims, old, strict=True) if size > 1], new)
    if len(refs) == 1 and refs[0].level == "units":
        made = _of_units(links, refs[0], dims.index(refs[0]), old, new)
    elif len(wide_new) == 1:
        made = _of_heads(links, [ref for ref, size in zip(dims, old, strict=True) if size > 1], wide_new[0])
    if made is None:
        for ref in refs:
            links.freeze(replace(ref, level="units"), f"{name} of {_by(old)} to {_by(new)} mixes units")
        return [None] * len(new)
    return _spread(made, new)


def _of_units(links: Links, ref: Ref, at: int, old: list[int], new: list[int]) -> list[Ref] | None:
    """Where units run after other dimensions were merged into theirs, or theirs was split; None if they are mixed."""
    wide = [size for size in new if size > 1]
    rest = prod(old[at + 1 :])
    if prod(old[:at]) > 1:
        return None
    if len(wide) == 1:
        return [replace(ref, block=ref.block * rest)]
    if rest > 1:
        return None
    if wide[0] % links.size[links.root(ref.group)] == 0:
        return [replace(ref, block=wide[0] // links.size[links.root(ref.group)])]
    sections, heads = (1, *wide)[-3:-1]
    return links.split(ref, sections, heads) if len(wide) < 4 else None


def _of_heads(links: Links, refs: Sequence[Ref | None], size: int) -> list[Ref] | None:
    """All units, where heads and what is in a head were merged; None if other dimensions were."""
    heads, *rest = refs
    if heads is None or heads.level != "heads" or len(rest) != 1:
        return None
    (inside,) = rest
    if inside is None:
        whole = replace(heads, level="units")
        return [whole] if links.keeps_order(heads) and links.extent(whole) == size else None
    return [replace(inside, level="units")] if inside.level == "inside" and links.same_heads(heads, inside) else None


def _spread(refs: Sequence[Ref | None], sizes: list[int]) -> list[Ref | None]:
    """Along the dimensions that have more than one index; none along the last ones if there are fewer."""
    left = iter(refs)
    return [next(left, None) if size > 1 else None for size in sizes]


def _by(sizes: list[int]) -> str:
    return "×".join(map(str, sizes))


def permuted(_: Links, call: Call) -> Value:
    given, rest = call.args[0], call.args[1:]
    n = given.tensor.dim()
    if call.name == "permute":
        order = list(rest[0] if len(rest) == 1 and not isinstance(rest[0], int) else rest)
        return Value(call.made, tuple(given.dims[dim] for dim in order))
    one, other = (dim % n for dim in rest)
    dims = list(given.dims)
    dims[one], dims[other] = dims[other], dims[one]
    return Value(call.made, tuple(dims))


def joined(links: Links, call: Call) -> Value:
    values, along = _several(call)
    for value in values:
        links.freeze(value.dims[along], f"{call.name} concatenates units with others")
    dims = [None if dim == along else _met(links, call, values, dim) for dim in range(call.made.dim())]
    return Value(call.made, tuple(dims))


def stacked(links: Links, call: Call) -> Value:
    values, along = _several(call)
    dims = [_met(links, call, values, dim) for dim in range(call.made.dim() - 1)]
    return Value(call.made, (*dims[:along], None, *dims[along:]))


def _several(call: Call) -> tuple[Sequence[Value], int]:
    """What is put together, and along which dimension."""
    values, dim = call.named("tensors", "dim")
    return values, (dim or 0) % call.made.dim()


def _met(links: Links, call: Call, values: Sequence[Value], dim: int) -> Ref | None:
    ref = values[0].dims[dim]
    for other in values[1:]:
        ref = links.link(ref, other.dims[dim], f"{call.name} joins units with what cannot be permuted")
    return ref


def expanded(_: Links, call: Call) -> Value:
    given = call.args[0]
    new = (None,) * (call.made.dim() - given.tensor.dim())
    return Value(call.made, (*new, *given.dims))


def item(links: Links, call: Call) -> Any:
    given, key = call.args
    if not isinstance(given, Value):  # of a tuple
        return given[key]
    keys = key if isinstance(key, tuple) else (key,)
    if any(not (one is Ellipsis or one is None or isinstance(one, int | slice)) for one in keys):
        return links.opaque(call.args, call.made, f"{call.name} picks by tensors")
    missing = given.tensor.dim() - sum(one is not None and one is not Ellipsis for one in keys)
    full = [slice(None)] * missing
    if Ellipsis in keys:
        at = keys.index(Ellipsis)
        keys = (*keys[:at], *full, *keys[at + 1 :])
    else:
        keys = (*keys, *full)
    dims: list[Ref | None] = []
    left = iter(given.dims)
    sections: dict[int, int] = {}
    for one in keys:
        if one is None:
            dims.append(None)
            continue
        ref = next(left)
        if one == slice(None):
            dims.append(ref)
            continue
        if ref is not None and ref.level == "sections" and isinstance(one, int):
            sections[ref.group] = links.sections[links.root(ref.group)][one]
            continue
        links.freeze(ref, f"{call.name} picks some of the units")
        if isinstance(one, slice):
            dims.append(None)
    own = [replace(ref, group=sections.get(ref.group, ref.group)) if ref is not None else None for ref in dims]
    return Value(call.made, tuple(own))


def unbound(links: Links, call: Call) -> tuple[Value, ...]:
    """Every index of a dimension apart."""
    given, rest = call.args[0], call.args[1:]
    dim = call.kwargs.get("dim", rest[0] if rest else 0) % given.tensor.dim()
    before = (slice(None),) * dim
    return tuple(
        item(links, replace(call, args=(given, (*before, at)), made=made)) for at, made in enumerate(call.made)
    )


def parted(links: Links, call: Call) -> tuple[Value, ...]:
    """Sections of equal size, each of which has units that only it has."""
    given, rest = call.args[0], call.args[2:]
    dim = call.kwargs.get("dim", rest[0] if rest else 0) % given.tensor.dim()
    ref, n = given.dims[dim], len(call.made)
    refs: list[Ref | None] = [None] * n
    if ref is not None:
        equal = len({made.shape[dim] for made in call.made}) == 1
        refs = [replace(ref, group=section) for section in links.cut(ref, n)] if equal else []
    if len(refs) < n:
        links.freeze(ref, f"{call.name} sets units apart")
        refs = [None] * n
    return tuple(
        Value(made, (*given.dims[:dim], own, *given.dims[dim + 1 :])) for made, own in zip(call.made, refs, strict=True)
    )
