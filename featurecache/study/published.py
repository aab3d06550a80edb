"""Published results, to be shown beside those of a study where they are of the same test images."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class PublishedResult:
    """A result as its authors report it.

    Attributes:
        method: What was trained, and how.
        collection: The published images.
        n: Number of scored images.
        n_labels: Number of labels of the average.
        metric: The metric, a key of ``evaluation.table.COLUMNS``.
        value: Its value.
        protocol: Splits, and what the encoder had been trained on.
        source: Where it was published.
    """

    method: str
    collection: str
    n: int
    n_labels: int
    metric: str
    value: float
    protocol: str
    source: str


@cache
def published_results() -> Sequence[PublishedResult]:
    """Return all published results that the package knows."""
    content = Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")
    return tuple(PublishedResult(**result) for result in tomllib.loads(content)["result"])


def comparable_results(
    collection: str, n: int, n_labels: int, metrics: Sequence[str]
) -> list[PublishedResult]:
    """Return the published results with the same test images, labels and metric.

    Args:
        collection: Name of the image collection, see ``Dataset``.
        n: Number of scored images.
        n_labels: Number of labels of the average.
        metrics: The metrics.
    """
    return [
        result
        for result in published_results()
        if (result.collection, result.n, result.n_labels) == (collection, n, n_labels)
        and result.metric in metrics
    ]
