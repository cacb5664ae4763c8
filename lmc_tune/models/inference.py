"""Networks made ready for many evaluations with the same weights."""

import copy
from collections.abc import Iterator
from itertools import pairwise, product

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lmc_tune.models.plain import is_plain
from lmc_tune.vision import import_torchvision

# How many float32 numbers the widest vector of a CPU holds.
VECTOR = 16
# Weights of a linear layer from which oneDNN saves more than calling it costs.
_LARGE = 2**12
# Weights that take longer to lay out than some chunks gain by it are smaller.
_WORTH_LAYING_OUT = 2**16


def is_convolutional(model: nn.Module) -> bool:
    return any(isinstance(module, nn.Conv2d) for module in model.modules())


def for_inference(model: nn.Module) -> nn.Module:
    """A copy of a network in evaluation mode, with fixed weights, that a CPU evaluates faster.

    Outputs are the same up to rounding. Convolutions keep their channels last: one with 3 or 16 channels fills a
    vector by them, and poolings and norms read their inputs in order. In plain networks a BatchNorm behind a
    convolution, whose outputs nothing else reads, becomes part of its weights, which saves a pass over them; and oneDNN
    does what it does faster (:class:`OneDnnLinear`, :class:`OneDnnConv2d`).
    """
    network = copy.deepcopy(model).eval()
    if is_plain(model):
        for parent, conv, norm in list(_normed_convolutions(network)):
            setattr(parent, conv, fuse_conv_bn_eval(getattr(parent, conv), getattr(parent, norm)))
            setattr(parent, norm, nn.Identity())
        _use_onednn(network)
        for module in network.modules():
            if type(module) is nn.Conv2d and _has_onednn(module.weight) and _pads_with_zeros(module):
                module.__class__ = OneDnnConv2d
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and not isinstance(module, OneDnnConv2d):
            nn.utils.convert_conv2d_weight_memory_format(module, torch.channels_last)
    return network


class OneDnnLinear(nn.Linear):
    """A linear layer for evaluation on a CPU.

    torch multiplies with MKL, which reaches only half the speed of processors not made by Intel; oneDNN, which is also
    part of torch, reaches all of it. Large weights are laid out as oneDNN reads them, once for as long as they stay.
    """

    _packed: Tensor

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = torch.ops.mkldnn._linear_pointwise(  # noqa: SLF001
            inputs, self._laid_out(inputs.shape), self.bias, "none", [], ""
        )
        return outputs

    def _laid_out(self, shape: torch.Size) -> Tensor:
        if self.weight.numel() < _WORTH_LAYING_OUT:
            return self.weight
        weight, version = getattr(self, "_of", (None, None))
        if weight is not self.weight or version != self.weight._version:  # noqa: SLF001
            self._of = (self.weight, self.weight._version)  # noqa: SLF001
            self._packed = torch.ops.mkldnn._reorder_linear_weight(self.weight.detach(), shape[:-1].numel())  # noqa: SLF001
        return self._packed


class OneDnnConv2d(nn.Conv2d):
    """A convolution for evaluation on a CPU with weights that stay as they are, laid out once as oneDNN reads them.

    One of 3×3 on images of 2×2, as in the last stage of a VGG, is done as a linear layer: five of its nine weights lie
    on the border, and oneDNN multiplies by those as well.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        if inputs.shape[2:] == (2, 2) and self._keeps_size_3x3():
            return self._as_linear(inputs)
        if not hasattr(self, "_packed"):
            self._shape = (list(self.padding), list(self.stride), list(self.dilation), self.groups)
            self._packed = torch.ops.mkldnn._reorder_convolution_weight(self.weight.detach(), *self._shape, None)  # noqa: SLF001
        outputs: Tensor = torch.ops.mkldnn._convolution_pointwise(  # noqa: SLF001
            inputs, self._packed, self.bias, *self._shape, "none", [], ""
        )
        return outputs

    def _keeps_size_3x3(self) -> bool:
        shape = (self.kernel_size, self.padding, self.stride, self.dilation, self.groups)
        return shape == ((3, 3), (1, 1), (1, 1), (1, 1), 1)

    def _as_linear(self, inputs: Tensor) -> Tensor:
        """For inputs (n, channels, 2, 2); numbers of a position lie side by side, as in memory."""
        if not hasattr(self, "_dense"):
            taps = self.weight.detach().permute(2, 3, 0, 1).contiguous()
            dense = taps.new_empty(2, 2, self.out_channels, 2, 2, self.in_channels)
            for row, column in product(range(2), range(2)):  # of the output
                seen = taps[1 - row : 3 - row, 1 - column : 3 - column]
                dense[row, column] = seen.permute(2, 0, 1, 3)
            self._dense = torch.ops.mkldnn._reorder_linear_weight(dense.flatten(3).flatten(0, 2), len(inputs))  # noqa: SLF001
            self._offsets = None if self.bias is None else self.bias.detach().repeat(4)
        outputs: Tensor = torch.ops.mkldnn._linear_pointwise(  # noqa: SLF001
            inputs.permute(0, 2, 3, 1).flatten(1), self._dense, self._offsets, "none", [], ""
        )
        return outputs.view(-1, 2, 2, self.out_channels).permute(0, 3, 1, 2)


def multiplied_by_onednn(network: nn.Module) -> nn.Module:
    """A copy of a plain network with :class:`OneDnnLinear` for its large linear layers."""
    return _use_onednn(copy.deepcopy(network))


def _use_onednn(network: nn.Module) -> nn.Module:
    for module in network.modules():
        if _is_large(module):
            module.__class__ = OneDnnLinear
    for parent in network.modules():
        if isinstance(parent, nn.Sequential):
            for layer, after in pairwise(parent):
                if isinstance(layer, OneDnnLinear) and type(after) is nn.ReLU:
                    after.inplace = True  # nothing else reads what the layer gives
    return network


def has_large_layers(network: nn.Module) -> bool:
    """Whether a network has linear layers that oneDNN multiplies faster."""
    return any(map(_is_large, network.modules()))


def _is_large(module: nn.Module) -> bool:
    return type(module) is nn.Linear and gains_by_onednn(module.weight)


def gains_by_onednn(weight: Tensor) -> bool:
    """Whether oneDNN multiplies by a linear layer's weight faster than MKL, on a CPU."""
    return weight.numel() >= _LARGE and weight.device.type == "cpu" and _has_onednn(weight)


def _pads_with_zeros(convolution: nn.Conv2d) -> bool:
    return convolution.padding_mode == "zeros" and not isinstance(convolution.padding, str)


def _has_onednn(weight: Tensor) -> bool:
    built = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return built and weight.dtype == torch.float32


def _normed_convolutions(network: nn.Module) -> Iterator[tuple[nn.Module, str, str]]:
    """Parents with the names of a convolution and of the BatchNorm that alone reads its outputs."""
    if not is_convolutional(network):  # torchvision is not needed
        return
    for parent in network.modules():
        if isinstance(parent, nn.Sequential):
            names = list(pairwise(name for name, _ in parent.named_children()))
        elif isinstance(parent, import_torchvision().models.resnet.BasicBlock):
            names = [("conv1", "bn1"), ("conv2", "bn2")]
        else:
            continue
        for conv, norm in names:
            layer = getattr(parent, norm)
            # Only exactly these types: a parametrised weight cannot be assigned.
            if type(getattr(parent, conv)) is nn.Conv2d and type(layer) is nn.BatchNorm2d and layer.track_running_stats:
                yield parent, conv, norm
