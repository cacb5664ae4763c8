"""Ensembles as data: families of networks of one kind, in one basin or in several (Lion et al. 2024)."""

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, model_serializer, model_validator

from lmc_tune.experiment.spec import Fraction, Natural, Positive, Spec

Family = Literal[
    "deep",
    "constrained",
    "swe",
    "permuted",
    "multi_pcd",
    "distilled",
    "distilled_deep",
    "snapshot",
    "mc_dropout",
]
FAMILIES: tuple[Family, ...] = get_args(Family)

# What a family needs besides the number of members, with its usual value; None where there is none.
SETTINGS: dict[Family, dict[str, float | None]] = {
    "deep": {},
    "constrained": {"t": None},
    "swe": {"lowest_lr": 0.01},
    "permuted": {},
    "multi_pcd": {},
    "distilled": {"t": None, "beta": 0.2, "tau": 3.0},
    "distilled_deep": {"beta": 0.2, "tau": 3.0},
    "snapshot": {},
    "mc_dropout": {},
}


class EnsembleSpec(Spec):
    """Members whose predictions are averaged, and how they come about (docs/definitions.md, "Ensembles").

    Every member is trained for the T epochs of ``train`` in all.

    family:
        ``deep``: each from initial weights of its own.
        ``constrained``: one training to epoch ``t``, from which all branch off.
        ``swe``: one training of T epochs, whose rate falls no lower than ``lowest_lr``, and goes on at that; every T
        epochs its weights are a member.
        ``permuted``: the deep ones, each with its units permuted towards the first's.
        ``multi_pcd``: the deep ones, each permuted towards all others.
        ``distilled``: as ``constrained``, but after epoch ``t`` each learns from a deep one as well.
        ``distilled_deep``: as ``deep``, but each learns from another deep one as well.
        ``snapshot``: the schedule runs M times in T epochs, and after each run the weights are a member (Huang et al.
        2017).
        ``mc_dropout``: one training; a member is a pass with dropout left on (Gal & Ghahramani 2016).
    members: M.
    t: epochs that members have in common; 0 for their initial weights alone.
    beta, tau: weight of the labels, and temperature of the teacher: the loss is (1 − β) τ² KL + β CE.
    lowest_lr: of ``swe``.
    """

    family: Family
    members: Annotated[int, Field(strict=True, ge=2)] = 5
    t: Natural | None = None
    beta: Fraction | None = None
    tau: Positive | None = None
    lowest_lr: Positive | None = None

    @model_validator(mode="before")
    @classmethod
    def _filled_in(cls, given: object) -> object:
        """With the family's usual values, so that one ensemble has one spec."""
        if not isinstance(given, dict) or given.get("family") not in FAMILIES:
            return given
        usual = {name: value for name, value in SETTINGS[given["family"]].items() if given.get(name) is None}
        return {**given, **usual}

    @model_validator(mode="after")
    def _what_the_family_needs(self) -> Self:
        needed = SETTINGS[self.family]
        for name in ("t", "beta", "tau", "lowest_lr"):
            value = getattr(self, name)
            if value is None and name in needed:
                raise ValueError(f"{self.family} needs {name}, e.g. {name}: 10")
            if value is not None and name not in needed:
                having = ", ".join(family for family, settings in SETTINGS.items() if name in settings)
                raise ValueError(f"{self.family} has no {name}; leave it out ({name} is for {having})")
        return self

    @model_serializer
    def said(self) -> dict[str, Any]:
        """What is set: settings of other families have no entry."""
        return {name: value for name, value in self if value is not None}

    @property
    def is_distilled(self) -> bool:
        """Whether members learn from others; at β = 1 there is nothing to learn from them."""
        return self.beta is not None and self.beta < 1

    @property
    def is_permuted(self) -> bool:
        """Whether members' units are permuted before they are measured."""
        return self.family in {"permuted", "multi_pcd"}

    @property
    def label(self) -> str:
        """The ensemble in a few words, e.g. ``5 distilled t=10 beta=0.2 tau=3``."""
        settings = [f"{name}={getattr(self, name):g}" for name in SETTINGS[self.family]]
        return " ".join([str(self.members), self.family.replace("_", " "), *settings])
