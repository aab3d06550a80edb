"""Shapes of the JSON files of a run folder, as far as anything reads them.

A run folder may be untrusted, so code that reads a value relies on these shapes. Further keys are
allowed, since a newer version may write them. ``metrics.json`` is
``metrics.metrics.Metrics``, and ``curve.json`` is ``metrics.metrics.CurveMetrics``.
"""

from typing import Annotated, Any

from annotated_types import Len
from typing_extensions import TypedDict

from featurecache.metrics.metrics import Count


class CacheReference(TypedDict, total=False):
    """The cache that a run was made from."""

    path: str
    dataset: str
    model: str
    fingerprint: str
    excluded: dict[str, Count]
    extraction: dict[str, Any]
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
    excluded: dict[str, Count]


class ConfigDocument(_Config, total=False):
    """``config.json`` of a run of any kind but a learning curve."""

    seeds: int


class CurveConfigDocument(_Config, total=False):
    """``config.json`` of a learning curve."""

    heads: list[str]
    seeds: list[int]
