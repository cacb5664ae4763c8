"""What every spec is, and the types of its fields."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

# Strict: YAML's `true` and `"0.1"` are no numbers.
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]


NonNegative = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]


Fraction = Annotated[float, Field(strict=True, ge=0, le=1)]


Chance = Annotated[float, Field(strict=True, ge=0, lt=1)]


Count = Annotated[int, Field(strict=True, ge=1)]


Number = Annotated[int, Field(strict=True, ge=0)]


Seed = Annotated[int, Field(strict=True)]


class Spec(BaseModel):
    """Frozen, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")
