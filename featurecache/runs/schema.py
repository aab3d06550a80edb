"""Shapes of the JSON files of a run folder, as far as anything reads them.

A run folder may be untrusted, so code that reads a value relies on these shapes. Further keys are
allowed, since a newer version may write them. ``metrics.json`` is
``metrics.metrics.Metrics``, and ``curve.json`` is ``metrics.metrics.CurveMetrics``.
"""

from typing import Annotated, Any, Literal

from annotated_types import Len
from typing_extensions import TypedDict

from featurecache.metrics.cohort import Cohort
from featurecache.metrics.document import Count
from featurecache.metrics.metrics import LabelMatch
from featurecache.provenance.provenance import Source
from featurecache.store.records import Counts, Extraction


class CacheReference(TypedDict, total=False):
    """The cache that a run was made from."""

    path: str
    dataset: str
    collection: str
    model: str
    fingerprint: str
    excluded: Counts
    bit_depth: int | None
    extraction: Extraction
    joined: Annotated[list["CacheReference"], Len(1)]
    rows_of: Annotated[list["CacheReference"], Len(1)]
    label_policy: dict[str, str]
    labels: dict[str, list[str]]


class UnitsReference(TypedDict, total=False):
    """What was scored; see ``units.Units``."""

    level: Literal["image", "study"]
    views: Literal["all", "frontal", "lateral"]
    study_scores: Literal["mean", "max"]
    study_features: Literal["mean", "frontal+lateral"]


class Named(TypedDict, total=False):
    """Something with a name and a fingerprint."""

    name: str
    fingerprint: str


class AlignmentReference(TypedDict):
    """The alignment that a zero-shot run was made with."""

    fingerprint: str
    path: str | None
    model: str
    dataset: str
    method: str
    prompts: Named


class FinetuneArguments(TypedDict):
    """Arguments of ``finetune`` beside its settings; None for an object that was made in Python."""

    data: Source | None
    model: str | None
    teacher: str | None
    weights: str | None
    device: str
    bit_depth: int | None
    cache_dir: str
    n_bootstrap: Count
    operating_point: str


class _Config(TypedDict, total=False):
    cache: CacheReference
    dataset: str
    model: str
    prompts: Named | None
    alignment: AlignmentReference | None
    arguments: FinetuneArguments
    run: str
    n_bootstrap: Count
    operating_point: str
    prevalence: float | dict[str, float] | None
    coverage: float
    by: list[str]
    groups: str | None
    negatives: str
    versions: dict[str, str]
    teacher: str | None
    label_map: dict[str, LabelMatch]
    label_policy: dict[str, str]
    units: UnitsReference
    n_train: Count
    learning_caveats: list[str]
    best_epoch: Count | None
    excluded: Counts
    cohort: Cohort
    bit_depth: int | None


class ConfigDocument(_Config, total=False):
    """``config.json`` of a run of any kind but a learning curve."""

    seeds: int
    controls: bool
    settings: dict[str, Any]


class CurveConfigDocument(_Config, total=False):
    """``config.json`` of a learning curve."""

    heads: list[str]
    seeds: list[int]
    sizes: list[int]
    settings: dict[str, dict[str, Any]]
