"""Base of the typed parts of ``metrics.json``, and the types of their values."""

from typing import Annotated, Any

from annotated_types import Ge, Le
from pydantic import BaseModel, BeforeValidator, ConfigDict

Count = Annotated[int, Ge(0), Le(2**53)]
"""A number of images or patients, up to what a float64 counts exactly."""
Score = Annotated[float, Ge(0), Le(1)]
Change = Annotated[float, Ge(-1), Le(1)]


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value  # JSON has no tuples


Interval = Annotated[tuple[Score, Score], BeforeValidator(_as_tuple)]
"""A 95 % confidence interval over patients: (low, high)."""
ChangeInterval = Annotated[tuple[Change, Change], BeforeValidator(_as_tuple)]
FloatInterval = Annotated[tuple[float, float], BeforeValidator(_as_tuple)]


class Document(BaseModel):
    """A part of a JSON document; unknown keys are ignored, since a newer version may write them."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    def to_json(self) -> dict[str, Any]:
        """Return the JSON document: plain dicts, lists, numbers and None."""
        return self.model_dump(mode="json")


class Difference(Document):
    """A paired difference of two scores."""

    difference: Change | None
    ci95: ChangeInterval | None
