"""The graph of a network, by :mod:`torch.fx`, which also looks into torch's own encoder of transformers."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, fx, nn


def graph_of(model: nn.Module) -> fx.GraphModule:
    """The layers and operations that a network runs; whatever its code raises when it meets a proxy is raised."""
    tracer = _Tracer()
    graph = tracer.trace(model)
    return fx.GraphModule(tracer.root, graph)


class _Tracer(fx.Tracer):
    """Their own ``forward`` chooses a fused kernel by what the inputs are, which cannot be traced."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return _opened(m) is None and super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        opened = _opened(m)
        return super().call_module(m, partial(opened, m) if opened else forward, args, kwargs)


def _opened(module: nn.Module) -> Callable[..., Any] | None:
    """What a module does, without fused kernels; None if it is of another kind, or a subclass does something else."""
    for kind, opened in ((nn.TransformerEncoder, _encoder), (nn.TransformerEncoderLayer, _encoder_layer)):
        if isinstance(module, kind) and type(module).forward is kind.forward:
            return opened
    return None


def _encoder(
    encoder: Any,
    src: Tensor,
    mask: Tensor | None = None,
    src_key_padding_mask: Tensor | None = None,
    is_causal: bool | None = None,  # noqa: FBT001 - torch's signature; attention gets the mask, of which it is a hint
) -> Any:
    for layer in encoder.layers:
        src = layer(src, src_mask=mask, src_key_padding_mask=src_key_padding_mask, is_causal=bool(is_causal))
    return src if encoder.norm is None else encoder.norm(src)


def _encoder_layer(
    layer: Any,
    src: Tensor,
    src_mask: Tensor | None = None,
    src_key_padding_mask: Tensor | None = None,
    is_causal: bool = False,  # noqa: FBT001, FBT002
) -> Any:
    how = {"attn_mask": src_mask, "key_padding_mask": src_key_padding_mask, "is_causal": is_causal}
    attend, feed = partial(layer._sa_block, **how), layer._ff_block  # noqa: SLF001 - forward's own parts
    if layer.norm_first:
        src = src + attend(layer.norm1(src))
        return src + feed(layer.norm2(src))
    src = layer.norm1(src + attend(src))
    return layer.norm2(src + feed(src))
