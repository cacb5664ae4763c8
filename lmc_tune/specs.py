"""What an experiment is: frozen data, from one pair of trainings up. No torch, no files.

A :class:`PairSpec` names everything that decides a pair's result. Its :attr:`~PairSpec.key` is a hash over *all* its
fields, defaults included, plus :data:`SCHEMA_VERSION`: two experiments never share a key, and the same experiment
always finds its result again.
"""

import hashlib
import json
import re
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationInfo, field_validator, model_validator

from lmc_tune.core.barrier import Definition
from lmc_tune.core.seeding import child_seed

# Raise it whenever the same PairSpec would give another result by more than rounding.
SCHEMA_VERSION = 4

# Strict: YAML's `true` and `"0.1"` are no numbers.
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(strict=True, ge=0, le=1)]
Chance = Annotated[float, Field(strict=True, ge=0, lt=1)]
Count = Annotated[int, Field(strict=True, ge=1)]
Number = Annotated[int, Field(strict=True, ge=0)]
Seed = Annotated[int, Field(strict=True)]
Split = Literal["train", "test", "validation"]
Condition = Literal["naive", "endpoint", "recalibrated", "repaired"]
# What images can suffer under domain shift; lmc_tune.data.corruptions says how.
CORRUPTIONS = ("gaussian_noise", "blur", "contrast", "rotation", "colour", "jpeg")
_BANDS = re.compile(r"bands (\d+(?:,\d+)*)\|(\d+(?:,\d+)*)")
# What these do to a network without BatchNorm is nothing.
BATCH_NORM_CONDITIONS: tuple[Condition, ...] = ("endpoint", "recalibrated")
ConvNorm = Literal["none", "batch", "layer", "group"]
Init = Literal["torch", "kaiming", "xavier", "orthogonal"]


class Spec(BaseModel):
    """Frozen, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DatasetSpec(Spec):
    """A data set, how much of it, and how its inputs are scaled.

    train: size of a label-stratified subset of the training set, shared by both members; all of it by default.
    test: size of a label-stratified subset of the test set; all of it by default.
    validation: examples held out from the training set, label-stratified. Where an example may have several labels,
        subsets are random.
    normalise: subtract the training set's mean and divide by its standard deviation, per channel.
    """

    name: str = "digits"
    train: Count | None = None
    test: Count | None = None
    validation: Number = 0
    normalise: bool = True


class NetworkSpec(Spec):
    """A network. Each kind has a ``label`` that says it in a few words."""

    @property
    def may_have_batch_norm(self) -> bool:
        """Only a network of the user's own knows what it has."""
        return getattr(self, "norm", "batch") == "batch"

    def needs(self, height: int, width: int) -> str:  # noqa: ARG002 - most take any
        """What images of this size lack for the network, as ``needs ...``; empty if nothing."""
        return ""


class MlpSpec(NetworkSpec):
    """A multilayer perceptron.

    hidden: widths of the hidden layers; ``norm`` stands between each linear layer and its activation.
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

    def needs(self, height: int, width: int) -> str:
        return "halves its input five times and needs images of 32x32" if min(height, width) < 32 else ""


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
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is not a multiple of heads {self.heads}")
        return self

    @property
    def label(self) -> str:
        return f"vit {self.depth}x{self.dim} patch {self.patch}"

    def needs(self, height: int, width: int) -> str:
        fits = height == width and height % self.patch == 0
        return "" if fits else f"needs square images that patches of {self.patch} divide"


class FactorySpec(NetworkSpec):
    """A network of the user's own.

    factory: ``package.module:function``, called with ``arguments`` and giving a ``torch.nn.Module`` with its initial
        weights, drawn from torch's global random state.
    """

    name: Literal["factory"] = "factory"
    factory: str
    arguments: dict[str, Any] = {}

    @field_validator("factory")
    @classmethod
    def _dotted(cls, factory: str) -> str:
        if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", factory):
            raise ValueError(f"write it as package.module:function, got {factory!r}")
        return factory

    @property
    def label(self) -> str:
        return self.factory


def _normalised(norm: str) -> str:
    return "" if norm == "none" else f" {norm} norm"


def _times(width: float) -> str:
    return "" if width == 1 else f" x{width:g}"


MODELS: dict[str, type[NetworkSpec]] = {
    "mlp": MlpSpec,
    "vgg": VggSpec,
    "resnet": ResnetSpec,
    "vit": VitSpec,
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
    | Annotated[FactorySpec, Tag("factory")],
    Discriminator(model_name),
]


# Settings in which members that are trained as one stack may differ.
PER_MEMBER = {"lr", "momentum", "weight_decay", "schedule", "warmup", "noise"}


class TrainSpec(Spec):
    """How each member is trained. Exactly one of ``epochs`` and ``steps`` is set.

    schedule: ``constant``; ``step`` divides the rate by 10 after 1/2 and 3/4 of the steps; ``cosine`` goes to 0.
    warmup: fraction of the steps over which the rate rises linearly from 0, before the schedule.
    crop, flip, jitter: augmentation (:class:`lmc_tune.data.augment.Augmentation`): shifts by up to ``crop`` pixels,
        mirrors half of the images, changes brightness, contrast and saturation by up to the fraction ``jitter``.
    precision: of the forward and backward pass; ``bfloat16`` is automatic mixed precision. Weights, updates and all
        measuring are float32.
    target_loss: training stops after the first epoch whose mean training loss is at most this, nats; epochs or steps
        are then the most it may take, and a member that does not get there leaves its pair undertrained.
    spawn_epoch: epochs of joint training, on both parts together, after which the members go on apart, each on its own
        part, for the rest of the epochs (instability analysis, Frankle et al. 2020). Schedules run on, and the
        optimizer keeps what it remembers.
    noise: ``fixed``: in every step both members see the same positions of their parts, augmented alike, and drop the
        same activations; ``varied``: each its own.
    engine: ``loop`` trains one member after the other, ``stacked`` all of a cohort at once; ``auto`` chooses by device
        and model. It changes results by rounding alone and is not part of a pair's key.
    """

    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: Positive
    batch_size: Count
    momentum: Chance = 0.0
    nesterov: bool = False
    weight_decay: NonNegative = 0.0
    epochs: Count | None = None
    steps: Count | None = None
    target_loss: Positive | None = None
    spawn_epoch: Number = 0
    schedule: Literal["constant", "step", "cosine"] = "constant"
    warmup: Fraction = 0.0
    crop: Number = 0
    flip: bool = False
    jitter: Fraction = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"
    noise: Literal["fixed", "varied"] = "fixed"
    engine: Literal["auto", "loop", "stacked"] = "auto"

    def steps_for(self, n_train: int) -> int:
        """Steps of one member whose part has ``n_train`` examples; incomplete batches are dropped."""
        return self.steps if self.steps is not None else (n_train // self.batch_size) * (self.epochs or 0)

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("set exactly one of epochs and steps, and leave the other out (or null)")
        if self.spawn_epoch and self.epochs is None:
            raise ValueError("spawn_epoch counts epochs; set epochs instead of steps")
        if self.epochs is not None and self.spawn_epoch >= self.epochs:
            raise ValueError(
                f"spawn_epoch {self.spawn_epoch} leaves none of {self.epochs} epochs to train apart; lower it or raise "
                f"epochs"
            )
        if self.nesterov and (self.optimizer != "sgd" or self.momentum == 0):
            raise ValueError("nesterov needs optimizer: sgd and a momentum above 0")
        if self.optimizer != "sgd" and self.momentum > 0:
            raise ValueError(f"momentum belongs to sgd; {self.optimizer} has its own moments: remove momentum")
        return self


class ShiftSpec(Spec):
    """How the two members' data differ (docs/definitions.md, "Shifts"). Severity 0 is no shift, 1 the strongest.

    Where an example may have several labels, halves are random instead of label-stratified.

    none: both members see the same half of the training set.
    covariate: disjoint label-stratified halves; a severity below 1 lets them share 1 − severity of their examples.
    label: disjoint parts with skewed labels. ``skew: ratio`` gives part A the fraction r = (1 + severity)/2 of half
        of the classes and 1 − r of the others, part B the mirror image; ``skew: dirichlet`` draws the fractions from
        Dirichlet(α, α) with α = (1 − severity)/severity. ``ratio: 0.8`` and ``alpha: 0.5`` may be written instead of
        the severity they stand for.
    domain: disjoint label-stratified halves from two domains, which ``domain`` names: a corruption, which B's images
        suffer; another data set of the same labels, from which B has the fraction severity of its examples; or, short
        for its text, ``bands: [[0], [1, 2]]``: A sees the first bands, B the second, all others fade by the severity.
    """

    kind: Literal["none", "covariate", "label", "domain"] = "covariate"
    severity: Fraction = 1.0
    skew: Literal["ratio", "dirichlet"] | None = None
    domain: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _canonical(cls, given: Any) -> Any:
        """Rewrite the short forms, so that one shift has one spec and one key."""
        if not isinstance(given, dict):
            return given
        given = dict(given)
        for short, skew in (("ratio", "ratio"), ("alpha", "dirichlet")):
            if short not in given:
                continue
            if "severity" in given or given.get("skew", skew) != skew:
                raise ValueError(f"{short} already says skew and severity; keep one of them")
            given["skew"], given["severity"] = skew, _severity(short, given.pop(short))
        if "bands" in given:
            if "domain" in given:
                raise ValueError("bands already say the domain; keep one of them")
            given["domain"] = _bands_text(given.pop("bands"))
        if given.get("kind") == "label":
            given["skew"] = given.get("skew") or "ratio"
        if given.get("kind") == "none":
            given.setdefault("severity", 0.0)
        return given

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.skew is not None and self.kind != "label":
            raise ValueError(f"skew, ratio and alpha belong to kind: label, not {self.kind}")
        if (self.kind == "domain") != (self.domain is not None):
            raise ValueError(
                "kind: domain needs a domain: the name of a corruption or of another data set, or bands: [[0], [1, 2]]"
                if self.kind == "domain"
                else f"domain and bands belong to kind: domain, not {self.kind}"
            )
        if self.kind == "none" and self.severity != 0:
            raise ValueError(f"kind: none has no severity, got {self.severity}; use kind: covariate or label")
        return self

    @property
    def label(self) -> str:
        """The shift in a few words, e.g. ``label 80/20``; unique within the kinds of shift."""
        if self.kind == "none":
            return "none"
        if self.kind == "covariate":
            return "covariate" if self.severity == 1 else f"covariate {self.severity:g}"
        if self.kind == "domain":
            return str(self.domain) if self.severity == 1 else f"{self.domain} at {self.severity:g}"
        if self.skew == "ratio":
            percent = 50 * (1 + self.severity)
            return f"label {percent:.3g}/{100 - percent:.3g}"
        return f"label dirichlet {self.severity:g}"

    @property
    def corruption(self) -> str | None:
        """What B's images suffer."""
        return self.domain if self.domain in CORRUPTIONS else None

    @property
    def bands(self) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """The bands that A sees, and those that B sees."""
        if self.domain is None or not (found := _BANDS.fullmatch(self.domain)):
            return None
        a, b = (tuple(map(int, group.split(","))) for group in found.groups())
        return a, b

    @property
    def other(self) -> str | None:
        """The data set that B's examples come from."""
        return None if self.corruption or self.bands else self.domain

    def other_dataset(self, first: DatasetSpec) -> DatasetSpec | None:
        """All of the other data set, not normalised yet: by the first's moments, not its own; None if there is none."""
        if self.other is None:
            return None
        return DatasetSpec(name=self.other, validation=first.validation, normalise=False)


def _bands_text(given: Any) -> str:
    sets = [sorted(bands) for bands in given] if isinstance(given, list | tuple) and all(given) else []
    whole = all(isinstance(band, int) and not isinstance(band, bool) and band >= 0 for bands in sets for band in bands)
    if len(sets) != 2 or not whole:
        raise ValueError(f"bands are two lists of whole numbers from 0, e.g. [[0], [1, 2]]; got {given!r}")
    if both := sorted(set(sets[0]) & set(sets[1])):
        raise ValueError(f"band {both[0]} is given to both members; the two sets must be disjoint")
    return "bands " + "|".join(",".join(map(str, dict.fromkeys(bands))) for bands in sets)


def _severity(short: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{short} must be a number, got {value!r}")  # noqa: TRY004 - pydantic collects ValueError
    if short == "ratio":
        if not 0.5 <= value <= 1:
            raise ValueError(f"ratio must be between 0.5 (no skew) and 1 (disjoint classes), got {value}")
        return round(2 * value - 1, 12)
    if not value > 0:
        raise ValueError(f"alpha must be above 0, got {value}")
    return round(1 / (1 + value), 12)


class MeasureSpec(Spec):
    """What is measured along the path and how finely.

    lambdas: points of the first, equally spaced grid; odd, so that λ = ½ is on it.
    refinements: at most this many times, every barrier's top is bracketed by two more points; 0 keeps the grid...
    tolerance_error, tolerance_loss: ...until no barrier of error (fraction) or loss (nats) moved by more than this. An
        error cannot be told more finely than one example of its split, which is the least tolerance there is.
        A pair whose barriers still move after the last refinement is flagged ``under_resolved``; on a grid that is not
        refined, one whose loss is seen to rise higher between its points.
    splits: ``train`` and ``test``, and ``validation`` where the data set holds examples out.
    conditions: how interpolated networks are prepared, ``naive`` among them. ``naive``: BatchNorm's running statistics
        are interpolated with the weights; ``endpoint``: they are A's; ``recalibrated``: they are estimated anew on the
        training data at every λ; ``repaired``: besides, every channel that no BatchNorm rescales gets the mean and
        standard deviation that lie between the members' (REPAIR, Jordan et al. 2023). Left out, they are naive and,
        where there is BatchNorm, recalibrated. Of a network without BatchNorm the first three are one.
    """

    lambdas: Annotated[int, Field(strict=True, ge=3)] = 25
    splits: Annotated[tuple[Split, ...], Field(min_length=1)] = ("train", "test")
    conditions: tuple[Condition, ...] | None = None
    refinements: Number = 6
    tolerance_error: Positive = 0.002
    tolerance_loss: Positive = 0.01

    @field_validator("splits")
    @classmethod
    def _splits_in_order(cls, splits: tuple[Split, ...]) -> tuple[Split, ...]:
        """One set of splits, one spec."""
        return tuple(split for split in get_args(Split) if split in splits)

    @field_validator("conditions")
    @classmethod
    def _conditions_in_order(cls, conditions: tuple[Condition, ...] | None) -> tuple[Condition, ...] | None:
        if conditions is None:
            return None
        if "naive" not in conditions:
            raise ValueError("conditions must name naive, beside which the others are read")
        return tuple(condition for condition in get_args(Condition) if condition in conditions)

    @model_validator(mode="after")
    def _has_midpoint(self) -> Self:
        if self.lambdas % 2 == 0:
            raise ValueError(f"lambdas must be odd so that λ = ½ is on the grid; use {self.lambdas + 1}")
        if "test" not in self.splits or "train" not in self.splits:
            raise ValueError("splits must name both train and test: the verdict reads test, the gate reads train")
        return self


def condition_column(condition: Condition, column: str) -> str:
    """The name of a column of the results under a condition; ``naive`` is left out."""
    return column if condition == "naive" else f"{condition}_{column}"


class VerdictSpec(Spec):
    """How a cell's pairs become one of five verdicts. Not part of a pair's key: it can change without retraining.

    condition: whose barrier is judged; ``recalibrated`` is ``naive`` where a network has no BatchNorm.
    threshold: in the unit of the barrier's curve (fraction for errors, nats for losses).
    confidence: of the interval of the mean barrier.
    min_train_accuracy: a pair with a member below it is ``undertrained``; a flat path then means nothing.
    """

    barrier: Definition = "chord"
    of: Literal["test_error", "test_loss", "train_error", "train_loss"] = "test_error"
    condition: Condition = "recalibrated"
    threshold: Positive = 0.02
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    min_train_accuracy: Fraction = 0.5

    @property
    def column(self) -> str:
        """The column of the results table that is judged, but for its condition."""
        return f"{self.of}_barrier_{self.barrier}"


class PairSpec(Spec):
    """One pair: two members trained from one initialisation on two parts of the data, then measured.

    Seeds derive from ``seed`` and ``replicate`` alone, not from the cell: replicate k of every cell starts from the
    same initial weights (of its model), the same split (of its shift) and the same orders, so that cells are compared
    with common random numbers.
    """

    dataset: DatasetSpec
    model: ModelSpec
    train: TrainSpec
    shift: ShiftSpec
    measure: MeasureSpec
    replicate: Number
    seed: Seed = 0

    @field_validator("measure")
    @classmethod
    def _conditions_of_the_network(cls, measure: MeasureSpec, known: ValidationInfo) -> MeasureSpec:
        """Conditions that are left open; those that would only repeat another are dropped."""
        if "model" not in known.data:
            return measure
        asked: tuple[Condition, ...] = ("naive", "recalibrated") if measure.conditions is None else measure.conditions
        if not known.data["model"].may_have_batch_norm:
            asked = tuple(condition for condition in asked if condition not in BATCH_NORM_CONDITIONS)
        return measure.model_copy(update={"conditions": asked})

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if "validation" in self.measure.splits and self.dataset.validation == 0:
            raise ValueError("measure.splits names validation, but dataset.validation holds no example out")
        if getattr(self.model, "norm", None) == "batch" and self.train.batch_size == 1:
            raise ValueError("norm: batch has no statistics in a batch of 1; use a batch_size of at least 2")
        return self

    @property
    def key(self) -> str:
        """Content hash, 24 hexadecimal digits."""
        text = f"{SCHEMA_VERSION} {self.content()}"
        return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()

    @property
    def datasets(self) -> tuple[DatasetSpec, ...]:
        """What has to be there: the pair's data set, and another if its shift names one."""
        other = self.shift.other_dataset(self.dataset)
        return (self.dataset,) if other is None else (self.dataset, other)

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """What is measured of the pair's network."""
        assert self.measure.conditions is not None  # noqa: S101 - filled in when the pair was made
        return self.measure.conditions

    @property
    def cell(self) -> str:
        """Key of the pair's cell: that of its replicate 0."""
        return self.model_copy(update={"replicate": 0}).key

    def content(self) -> str:
        """Everything that decides the result, as canonical JSON."""
        fields = self.model_dump(mode="json", exclude={"train": {"engine"}})
        return json.dumps(fields, sort_keys=True, separators=(",", ":"))

    def seed_for(self, *labels: str | int) -> int:
        """The pair's own seed for one purpose: ``init``, ``split``, ``order``..."""
        return child_seed(self.seed, "replicate", self.replicate, *labels)


class Cohort(Spec):
    """Pairs of one program, run by one worker; at least one."""

    pairs: Annotated[tuple[PairSpec, ...], Field(min_length=1)]
