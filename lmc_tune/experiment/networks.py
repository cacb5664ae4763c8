"""Networks: one spec for each kind."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from lmc_tune.experiment.sources import Code
from lmc_tune.experiment.spec import Chance, Count, Positive, Spec

ConvNorm = Literal["none", "batch", "layer", "group"]


Init = Literal["torch", "kaiming", "xavier", "orthogonal"]


class NetworkSpec(Spec):
    """A network. Each kind has a ``label`` that describes it in a few words."""

    @property
    def may_have_batch_norm(self) -> bool:
        """Whether it may have BatchNorm; always true for a user's own network, whose layers are not known here."""
        return getattr(self, "norm", "batch") == "batch"

    @property
    def may_be_aligned(self) -> bool:
        """Whether some hidden units may be permutable; GroupNorm's groups hold those of whole networks in place."""
        return getattr(self, "norm", "none") != "group"

    def needs(self, shape: tuple[int, ...]) -> str:
        """What the network needs and inputs of this shape do not have, as ``needs ...``; empty if nothing."""
        return "" if len(shape) == 3 else "needs images"


class MlpSpec(NetworkSpec):
    """A multilayer perceptron.

    hidden: widths of the hidden layers; ``norm`` comes between each linear layer and its activation.
    dropout: chance that a hidden activation is dropped in a training step.
    init: how weights are drawn (:func:`lmc_tune.models.adapt.initialise`).
    """

    name: Literal["mlp"] = "mlp"
    hidden: Annotated[tuple[Count, ...], Field(min_length=1)] = (64,)
    activation: Literal["relu", "tanh", "gelu"] = "relu"
    norm: Literal["none", "batch", "layer"] = "none"
    init: Init = "torch"
    dropout: Chance = 0.0

    @property
    def label(self) -> str:
        return f"mlp {'-'.join(map(str, self.hidden))}{_normalised(self.norm)}"


class VggSpec(NetworkSpec):
    """A VGG with one linear layer as its head (Simonyan and Zisserman 2015, as used on CIFAR).

    width: multiplier of the channels, 64 in the first block.
    dropout: chance that a feature before the head is dropped in a training step.
    """

    name: Literal["vgg"] = "vgg"
    depth: Literal[11, 13, 16] = 11
    width: Positive = 1.0
    norm: ConvNorm = "none"
    init: Init = "kaiming"
    dropout: Chance = 0.0

    @property
    def label(self) -> str:
        return f"vgg-{self.depth}{_times(self.width)}{_normalised(self.norm)}"

    def needs(self, shape: tuple[int, ...]) -> str:
        small = "halves its input five times and needs images of 32x32" if min(shape[1:], default=0) < 32 else ""
        return super().needs(shape) or small


class ResnetSpec(NetworkSpec):
    """A residual network of basic blocks (He et al. 2016).

    depth: 8, 20, 32, 56: the CIFAR type, three stages of 16, 32, 64 channels; 18: the ImageNet type, four stages of 64
        to 512, with a 3×3 stem and no pooling before them.
    width: multiplier of the channels.
    shortcut: where the shape changes, a strided convolution of 1×1 or of 3×3.
    """

    name: Literal["resnet"] = "resnet"
    depth: Literal[8, 18, 20, 32, 56] = 20
    width: Positive = 1.0
    norm: ConvNorm = "batch"
    init: Init = "kaiming"
    shortcut: Literal["1x1", "3x3"] = "1x1"

    @property
    def label(self) -> str:
        return f"resnet-{self.depth}{_times(self.width)}{_normalised(self.norm)}"


class VitSpec(NetworkSpec):
    """A vision transformer (Dosovitskiy et al. 2021); its norm is LayerNorm.

    patch: side of a patch in pixels. dim: width of a token; mlp_dim: width inside a block's perceptron.
    dropout: chance that an entry of a token is dropped, where torchvision drops some, in a training step.
    """

    name: Literal["vit"] = "vit"
    patch: Count = 4
    depth: Count = 6
    heads: Count = 8
    dim: Count = 256
    mlp_dim: Count = 512
    norm: Literal["layer"] = "layer"
    init: Init = "torch"
    dropout: Chance = 0.0

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        _check_heads(self.dim, self.heads)
        return self

    @property
    def label(self) -> str:
        return f"vit {self.depth}x{self.dim} patch {self.patch}"

    def needs(self, shape: tuple[int, ...]) -> str:
        fits = len({*shape[1:]}) == 1 and shape[-1] % self.patch == 0
        return super().needs(shape) or ("" if fits else f"needs square images that patches of {self.patch} divide")


class GptSpec(NetworkSpec):
    """A language model as GPT-2 (Radford et al. 2019): it predicts every next token of a window of text.

    depth: number of blocks. dim: width of a token; a block's perceptron is four times as wide.
    norm: LayerNorm before attention, before the perceptron and before the head, or none.
    init: ``gpt2`` is normal with standard deviation 0.02, and less for what writes into the residual stream.
    dropout: chance that an entry of a token is dropped behind the embedding, attention and the perceptron, in a
        training step.
    """

    name: Literal["gpt"] = "gpt"
    depth: Count = 4
    heads: Count = 4
    dim: Count = 128
    norm: Literal["none", "layer"] = "layer"
    init: Literal["gpt2"] | Init = "gpt2"
    dropout: Chance = 0.0

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        _check_heads(self.dim, self.heads)
        return self

    @property
    def label(self) -> str:
        return f"gpt {self.depth}x{self.dim}{'' if self.norm == 'layer' else ' no norm'}"

    def needs(self, shape: tuple[int, ...]) -> str:
        return "" if len(shape) == 1 else "needs text"


class FactorySpec(NetworkSpec):
    """A user's own network.

    factory: ``package.module:function``, called with ``arguments``; returns a ``torch.nn.Module`` with its initial
        weights, drawn from torch's global random state.
    code: its code when its space was read (:func:`lmc_tune.experiment.sources.code_of`); empty if that is not
        known.
    """

    name: Literal["factory"] = "factory"
    factory: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    code: Code = Field(default_factory=dict)

    @field_validator("factory")
    @classmethod
    def _dotted(cls, factory: str) -> str:
        if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", factory):
            raise ValueError(f"write it as package.module:function, got {factory!r}")
        return factory

    @property
    def label(self) -> str:
        return self.factory

    def needs(self, shape: tuple[int, ...]) -> str:  # noqa: ARG002 - only its code knows
        return ""


def inputs_in_words(shape: tuple[int, ...]) -> str:
    """The inputs of a shape, ``28x28`` of images or ``windows of 128 tokens`` of text."""
    return f"windows of {shape[0]} tokens" if len(shape) == 1 else f"{shape[1]}x{shape[2]}"


def _check_heads(dim: int, heads: int) -> None:
    """Raise ValueError unless heads of one width make up the whole."""
    if dim % heads:
        raise ValueError(f"dim {dim} is not a multiple of heads {heads}")


def _normalised(norm: str) -> str:
    return "" if norm == "none" else f" {norm} norm"


def _times(width: float) -> str:
    return "" if width == 1 else f" x{width:g}"


MODELS: dict[str, type[NetworkSpec]] = {
    "mlp": MlpSpec,
    "vgg": VggSpec,
    "resnet": ResnetSpec,
    "vit": VitSpec,
    "gpt": GptSpec,
    "factory": FactorySpec,
}


def model_name(given: Any) -> str:
    """The name of the model that a section describes; ``mlp`` is the default, ``factory: ...`` names itself."""
    if not isinstance(given, dict):
        return str(given.name)
    return str(given.get("name", "factory" if "factory" in given else "mlp"))


ModelSpec = Annotated[
    Annotated[MlpSpec, Tag("mlp")]
    | Annotated[VggSpec, Tag("vgg")]
    | Annotated[ResnetSpec, Tag("resnet")]
    | Annotated[VitSpec, Tag("vit")]
    | Annotated[GptSpec, Tag("gpt")]
    | Annotated[FactorySpec, Tag("factory")],
    Discriminator(model_name),
]
