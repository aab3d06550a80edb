"""Shapes of the JSON files of a run folder, as far as anything reads them.

A run may come from a stranger, so code that reads a value relies on these shapes. Further keys are
allowed, since a newer version may write them. ``metrics.json`` is ``metrics.metrics.Metrics``.
"""

from typing import Annotated, Any, NotRequired

from annotated_types import Gt, Le, Len
from typing_extensions import TypedDict

from featurecache.metrics.metrics import Change, Count, Score

Bounds = Annotated[list[Score], Len(2, 2)]
ChangeBounds = Annotated[list[Change], Len(2, 2)]


class CurveScores(TypedDict):
    """Ranking metrics of a learning curve."""

    auroc: Score | None
    auprc: Score | None


class CurveIntervals(TypedDict):
    """Their 95 % intervals."""

    auroc: Bounds | None
    auprc: Bounds | None


class CurveDifference(TypedDict):
    """A paired difference."""

    difference: Change | None
    ci95: ChangeBounds | None


class CurveGain(TypedDict):
    """The paired difference in AUROC to the first head."""

    auroc: CurveDifference


class CurveCell(TypedDict):
    """The metrics of one head at one size."""

    macro: CurveScores
    ci95: CurveIntervals
    gain: CurveGain | None
    labels: Count


class CurveDocument(TypedDict):
    """``curve.json``."""

    n: Count
    n_patients: Count
    sizes: list[Annotated[int, Gt(0), Le(2**53)]]
    cells: Annotated[dict[str, list[CurveCell]], Len(1)]
    warnings: NotRequired[list[str]]


class CacheReference(TypedDict, total=False):
    """The cache that a run was made from."""

    path: str
    dataset: str
    model: str
    fingerprint: str
    joined: Annotated[list["CacheReference"], Len(1)]


class Named(TypedDict, total=False):
    """Something with a name and a fingerprint."""

    name: str
    fingerprint: str


class _Config(TypedDict, total=False):
    cache: CacheReference
    dataset: str
    model: str
    prompts: Named | None
    alignment: Named | None
    versions: dict[str, str]
    settings: dict[str, Any]
    teacher: str | None
    label_map: dict[str, str]
    n_train: Count
    best_epoch: Count | None


class ConfigDocument(_Config, total=False):
    """``config.json`` of a run of any kind but a learning curve."""

    seeds: int


class CurveConfigDocument(_Config, total=False):
    """``config.json`` of a learning curve."""

    heads: list[str]
    seeds: list[int]
