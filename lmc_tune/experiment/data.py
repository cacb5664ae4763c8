"""The data of an experiment: which, how much, and how the two members' parts differ."""

import re
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Discriminator, PlainSerializer, PlainValidator, Tag, model_validator
from pydantic_core import PydanticKnownError

from lmc_tune.experiment.spec import Count, Fraction, Natural, Spec
from lmc_tune.experiment.text import TextSpec
from lmc_tune.experiment.yaml_lines import as_written

CorruptionName = Literal["gaussian_noise", "blur", "contrast", "rotation", "colour", "jpeg"]
# How images can be corrupted under domain shift; lmc_tune.data.corruptions has the formulas.
CORRUPTIONS: tuple[CorruptionName, ...] = get_args(CorruptionName)


class DatasetSpec(Spec):
    """A data set of images, how much of it, and how its inputs are scaled.

    train: size of a label-stratified subset of the training set, shared by both members; all of it by default.
    test: size of a label-stratified subset of the test set; all of it by default.
    validation: examples held out from the training set, label-stratified. Where an example may have several labels,
        subsets are random.
    normalise: subtract the training set's mean and divide by its standard deviation, per channel.
    """

    name: str = "digits"
    train: Count | None = None
    test: Count | None = None
    validation: Natural = 0
    normalise: bool = True


def data_kind(given: Any) -> str:
    """``text`` or ``images``, by the name that a section gives; the default is ``digits``."""
    name = given.get("name") if isinstance(given, dict) else given.name
    return "text" if name == "text" else "images"


DataSpec = Annotated[Annotated[DatasetSpec, Tag("images")] | Annotated[TextSpec, Tag("text")], Discriminator(data_kind)]
DATA: dict[str, type[Spec]] = {"images": DatasetSpec, "text": TextSpec}


class Corruption(Spec):
    """B's images are A's, corrupted."""

    name: CorruptionName

    def __str__(self) -> str:
        return self.name


class OtherDataset(Spec):
    """B gets the fraction ``severity`` of its examples from another data set with the same labels."""

    name: str

    def __str__(self) -> str:
        return self.name


class SecondText(Spec):
    """B gets the fraction ``severity`` of its windows from the text's second one."""

    def __str__(self) -> str:
        return "second"


class Bands(Spec):
    """A sees the bands ``a``, B sees the bands ``b``; all others fade by the severity."""

    a: tuple[Natural, ...]
    b: tuple[Natural, ...]

    def __str__(self) -> str:
        return "bands " + "|".join(",".join(map(str, bands)) for bands in (self.a, self.b))


Domain = Corruption | OtherDataset | SecondText | Bands


def _domain(given: Any) -> Domain:
    """The domain that a text names, as ``str`` writes it: its form in YAML, in finished specs and in tables."""
    if isinstance(given, Domain):
        return given
    if not isinstance(given, str):
        raise PydanticKnownError("string_type")
    if given in CORRUPTIONS:
        return Corruption(name=given)
    if given == str(SecondText()):
        return SecondText()
    if found := re.fullmatch(r"bands (\d+(?:,\d+)*)\|(\d+(?:,\d+)*)", given):
        a, b = (tuple(map(int, group.split(","))) for group in found.groups())
        return Bands(a=a, b=b)
    return OtherDataset(name=given)


class ShiftSpec(Spec):
    """How the two members' data differ (docs/definitions.md, "Shifts"). Severity 0 is no shift, 1 the strongest.

    Where an example may have several labels, and of text, halves are random instead of label-stratified.

    none: both members see the same half of the training set.
    covariate: disjoint label-stratified halves; a severity below 1 lets them share 1 − severity of their examples.
    label: disjoint parts with skewed labels. ``skew: ratio`` gives part A the fraction r = (1 + severity)/2 of half
        of the classes and 1 − r of the others, part B the mirror image; ``skew: dirichlet`` draws the fractions from
        Dirichlet(α, α) with α = (1 − severity)/severity. ``ratio: 0.8`` and ``alpha: 0.5`` may be written instead of
        the severity they stand for.
    domain: disjoint label-stratified halves from two domains. ``domain`` is the name of a corruption or of another data
        set, or ``second`` for a text's second one; ``bands: [[0], [1, 2]]`` may be written instead. A spec is written
        with the domain as text.
    """

    kind: Literal["none", "covariate", "label", "domain"] = "covariate"
    severity: Fraction = 1.0
    skew: Literal["ratio", "dirichlet"] | None = None
    domain: Annotated[Domain, PlainValidator(_domain), PlainSerializer(str)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _canonical(cls, given: Any) -> Any:
        """Rewrite the short forms, so that one shift has one spec and one key."""
        if not isinstance(given, dict):
            return given
        given = dict(given)
        for short in (short for short in SHORT_FORMS if short in given):
            said = written_out(short, given.pop(short))
            if "severity" in said and ("severity" in given or given.get("skew", said["skew"]) != said["skew"]):
                raise ValueError(f"{short} already sets skew and severity; keep one of them")
            if "domain" in said and "domain" in given:
                raise ValueError("bands already set the domain; keep one of them")
            given |= said
        if given.get("kind") == "label":
            given["skew"] = given.get("skew") or "ratio"
        if given.get("kind") == "none":
            given.setdefault("severity", 0.0)
        return given

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.skew is not None and self.kind != "label":
            raise ValueError(
                f"skew, ratio and alpha belong to kind: label, not {self.kind}; write shift: {{kind: label}}"
            )
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

    def other_dataset(self, first: DataSpec) -> DataSpec | None:
        """All of the other data set, not yet normalised (by the first one's moments); None if there is no other."""
        if isinstance(self.domain, SecondText) and isinstance(first, TextSpec):
            return first.model_copy(update={"part": "second", "train": None, "test": None})
        if not isinstance(self.domain, OtherDataset):
            return None
        return DatasetSpec(name=self.domain.name, validation=first.validation, normalise=False)


# Other ways to write a shift, and the fields that each of them sets.
SHORT_FORMS: dict[str, tuple[str, ...]] = {
    "ratio": ("severity", "skew"),
    "alpha": ("severity", "skew"),
    "bands": ("domain",),
}


def written_out(short: str, value: Any) -> dict[str, Any]:
    """The fields of a shift that a short form sets, by name, as plain values.

    Raises:
        ValueError: if the value is impossible; what it may be.
    """
    if short == "bands":
        return {"domain": _bands(value)}
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{short} must be a number, got {as_written(value)}")  # noqa: TRY004 - pydantic collects ValueError
    if short == "ratio":
        if not 0.5 <= value <= 1:
            raise ValueError(f"ratio must be between 0.5 (no skew) and 1 (disjoint classes), got {value}")
        return {"severity": round(2 * value - 1, 12), "skew": "ratio"}
    if not value > 0:
        raise ValueError(f"alpha must be above 0, got {value}")
    return {"severity": round(1 / (1 + value), 12), "skew": "dirichlet"}


def _bands(given: Any) -> str:
    sets = [sorted(bands) for bands in given] if isinstance(given, list | tuple) and all(given) else []
    whole = all(isinstance(band, int) and not isinstance(band, bool) and band >= 0 for bands in sets for band in bands)
    if len(sets) != 2 or not whole:
        raise ValueError(f"bands are two lists of whole numbers from 0, e.g. [[0], [1, 2]]; got {as_written(given)}")
    if both := sorted(set(sets[0]) & set(sets[1])):
        raise ValueError(f"band {both[0]} is given to both members; the two sets must be disjoint")
    a, b = (tuple(dict.fromkeys(bands)) for bands in sets)
    return str(Bands(a=a, b=b))
