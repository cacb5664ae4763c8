"""What is asked of the loss around members: along directions other than the path's, and on planes."""

from typing import Annotated, Literal, Self, get_args

from pydantic import AfterValidator, Field, field_validator, model_validator

from lmc_tune.experiment.spec import Count, Fraction, NonNegative, Positive, Spec

Noise = Literal["path", "span", "complement", "isotropic"]

# Where sharpness is measured: at A, at the midpoint, at B.
SHARPNESS_AT = (0.0, 0.5, 1.0)
# The state that all members began with, among the points of a plane.
START = "start"


def _in_order(values: tuple[float, ...]) -> tuple[float, ...]:
    """One set of values, one spec."""
    return tuple(sorted(set(values)))


Steps = Annotated[tuple[Positive, ...], Field(min_length=1), AfterValidator(_in_order)]
Positions = Annotated[tuple[Fraction, ...], Field(min_length=1), AfterValidator(_in_order)]
# What networks are scored on.
Scored = Annotated[
    tuple[Literal["test", "train"], ...],
    Field(min_length=1),
    AfterValidator(lambda splits: tuple(sorted(set(splits), reverse=True))),
]


class RandomSpec(Spec):
    """Random directions of every layer, next to the way to the other member.

    draws: directions per layer and member. alphas: lengths of the steps, in distances of the layer between the members.
    """

    draws: Count = 5
    alphas: Steps = (0.5, 1.0)


class NoiseSpec(Spec):
    """Noise at points of the path.

    positions: the points. fractions: norms of the noise, in distances between the members. draws: per kind, point and
        norm; the path has one direction and two signs.
    kinds: ``path``: towards A and towards B. ``span``: in the span of both members' training, which needs snapshots.
        ``complement``: orthogonal to that span. ``isotropic``: anywhere.
    """

    positions: Positions = (0.0, 0.5, 1.0)
    fractions: Steps = (0.1, 0.25, 0.5)
    draws: Count = 5
    kinds: Annotated[tuple[Noise, ...], Field(min_length=1)] = ("path", "span", "complement")

    @field_validator("kinds")
    @classmethod
    def _kinds_in_order(cls, kinds: tuple[Noise, ...]) -> tuple[Noise, ...]:
        return tuple(kind for kind in get_args(Noise) if kind in kinds)

    @property
    def needs_snapshots(self) -> bool:
        return "span" in self.kinds or "complement" in self.kinds


class SharpnessSpec(Spec):
    """Sharpness at both members and at the midpoint.

    examples: training examples for the Hessian; None for all. radii: steps along filter-normalised directions, as
    fractions of every filter's norm. draws: directions per point.
    """

    examples: Count | None = 1000
    radii: Steps = (0.1, 0.25, 0.5)
    draws: Count = 5


class DirectionsSpec(Spec):
    """Whether the direction from one member to the other is special; a part that is None is not measured.

    splits: what networks are scored on.
    """

    random: RandomSpec | None = RandomSpec()
    noise: NoiseSpec | None = None
    sharpness: SharpnessSpec | None = None
    splits: Scored = ("train", "test")

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        if self.random is None and self.noise is None and self.sharpness is None:
            raise ValueError("asks nothing: give random, noise or sharpness, e.g. noise: {}")
        return self


class PlanesSpec(Spec):
    """The plane through three weight vectors.

    through: names of members, ``start`` among them for the state that they began with. points: of the grid, along each
    side. margin: how far the grid extends beyond the three, as a fraction of their extent. splits: what networks are
    scored on.
    """

    through: tuple[str, str, str] = ("a", "b", START)
    points: Annotated[int, Field(strict=True, ge=3, le=101)] = 15
    margin: NonNegative = 0.2
    splits: Scored = ("train", "test")

    @field_validator("through")
    @classmethod
    def _three_different(cls, through: tuple[str, str, str]) -> tuple[str, str, str]:
        if len(set(through)) < 3:
            raise ValueError(f"names one point twice, and a plane needs three: {', '.join(through)}")
        return through
