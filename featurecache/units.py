"""The units of analysis: whether images or studies are scored, and of which views."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Final

from featurecache.errors import UnknownNameError, UsageError
from featurecache.views import FRONTAL, LATERAL

IMAGE: Final = "image"
STUDY: Final = "study"
BOTH_SIDES: Final = "frontal+lateral"

_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "level": (IMAGE, STUDY),
    "views": ("all", FRONTAL, LATERAL),
    "study_scores": ("mean", "max"),
    "study_features": ("mean", BOTH_SIDES),
}


@dataclass(frozen=True, kw_only=True)
class Units:
    """What is scored: images or studies, and of which views.

    Attributes:
        level: "image" or "study".
        views: "all", or only "frontal" or "lateral" images; see ``views.side_of_view``.
        study_scores: How the scores of a study's images are joined: "mean" or "max"; None at image
            level and where embeddings are pooled. At study level this is the default, "mean".
        study_features: How the embeddings of a study's images are pooled, so that a head is trained
            on studies: "mean", or "frontal+lateral" for one of each side by side; None where scores
            are joined.

    Raises:
        UnknownNameError: There is no such value.
        UsageError: Scores are joined and embeddings pooled, or one of them at image level.

    Example:
        >>> import featurecache as fc
        >>> fc.open_cache("cache/phantom/tiny.h5", level="study").units.study_scores
        'mean'
    """

    level: str = IMAGE
    views: str = "all"
    study_scores: str | None = None
    study_features: str | None = None

    def __post_init__(self) -> None:
        for field, value in asdict(self).items():
            if value not in (*_CHOICES[field], getattr(Units, field)):
                raise UnknownNameError(f"value of `{field}`", str(value), _CHOICES[field])
        joined = [name for name in ("study_scores", "study_features") if getattr(self, name)]
        if self.level == IMAGE and joined:
            raise UsageError(f"`{joined[0]}` is for studies: give `level` study")
        if len(joined) > 1:
            raise UsageError(
                "give `study_scores`, which joins the scores of images, or `study_features`, which "
                "pools their embeddings, not both"
            )
        if self.level == STUDY and not joined:
            object.__setattr__(self, "study_scores", "mean")

    def to_config(self) -> dict[str, str]:
        """Return the fields that are set, as the config of a run holds them."""
        return {field: value for field, value in asdict(self).items() if value is not None}

    @property
    def chosen(self) -> dict[str, str]:
        """The fields that differ from those of a cache as it is opened by default."""
        return {
            field.name: value
            for field in fields(self)
            if (value := getattr(self, field.name)) != field.default
        }

    def override(self, **values: str | None) -> "Units":
        """Return the units with other values; None keeps a value.

        Another level, or another way to make studies, replaces the previous way to make them.

        Raises:
            UnknownNameError, UsageError: See the class.
        """
        given = {field: value for field, value in values.items() if value is not None}
        kept = asdict(self)
        if given.keys() & {"study_scores", "study_features"} or given.get("level") == IMAGE:
            kept |= {"study_scores": None, "study_features": None}
        return Units(**{**kept, **given})

    def describe(self) -> str:
        """Return what is scored as a phrase, such as "studies, mean of scores, frontal views"."""
        parts = ["images" if self.level == IMAGE else "studies"]
        if self.study_scores:
            parts.append(f"{self.study_scores} of the scores of their images")
        if self.study_features == BOTH_SIDES:
            parts.append("frontal and lateral embeddings side by side")
        elif self.study_features:
            parts.append("mean of the embeddings of their images")
        if self.views != "all":
            parts.append(f"{self.views} views")
        return ", ".join(parts)


def require_same_units(first: Units, other: Units, *, names: tuple[str, str]) -> None:
    """Check that what was trained or scored as some units is evaluated as the same ones.

    Args:
        first: The units.
        other: Those that must equal them.
        names: What the two are of, for the message.

    Raises:
        UsageError: They differ; the message names the field.
    """
    for field in fields(Units):
        mine, its = (getattr(units, field.name) for units in (first, other))
        if mine != its:
            raise UsageError(
                f"`{field.name}` is {_text(mine)} for {names[0]} and {_text(its)} for {names[1]}: "
                "thresholds and scores of other units cannot be used"
            )


def require_same_level(first: Units, other: Units, *, names: tuple[str, str]) -> None:
    """Check that two runs scored the same kind of unit: studies, or images of the same views.

    Studies may be scored from other views and in other ways: that is what is compared.

    Args:
        first: The units of one run.
        other: Those of another.
        names: The names of the runs, for the message.

    Raises:
        UsageError: One scored images and the other studies, or images of other views; the message
            names the field.
    """
    field = "level" if first.level != other.level else "views"
    mine, its = getattr(first, field), getattr(other, field)
    if mine != its and (field == "level" or first.level == IMAGE):
        raise UsageError(
            f"`{field}` is {mine!r} for {names[0]} and {its!r} for {names[1]}: compare them as "
            "studies, with `level` study, or make one of them again"
        )


def _text(value: str | None) -> str:
    return "not given" if value is None else repr(value)
