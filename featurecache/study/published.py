"""Published results, to be shown beside those of a study where they are of the same test images."""

import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class PublishedResult:
    """A result as its authors report it.

    Attributes:
        method: What was trained, and how.
        metric: The metric, a key of ``evaluation.table.COLUMNS``.
        value: Its value.
        protocol: Splits, and how it was trained.
        source: Where it was published.
    """

    method: str
    metric: str
    value: float
    protocol: str
    source: str


@dataclass(frozen=True)
class PublishedTestSet:
    """A published test set, and results on it.

    Attributes:
        collection: The published images.
        level: What was scored: "image" or "study".
        n: Number of scored images or studies.
        labels: The labels behind the average.
        results: The results.
    """

    collection: str
    level: str
    n: int
    labels: frozenset[str]
    results: tuple[PublishedResult, ...]


@cache
def published_test_sets() -> Sequence[PublishedTestSet]:
    """Return all published test sets that the package knows, with their results."""
    content = Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")
    return tuple(
        PublishedTestSet(
            collection=stated["collection"],
            level=stated["level"],
            n=stated["n"],
            labels=frozenset(stated["labels"]),
            results=tuple(
                PublishedResult(**one, protocol=stated["protocol"], source=stated["source"])
                for one in stated["result"]
            ),
        )
        for stated in tomllib.loads(content)["test_set"]
    )


def comparable_results(
    collection: str, level: str, n: int, labels: Iterable[str], metrics: Sequence[str]
) -> list[PublishedResult]:
    """Return the published results with the same test images, labels and metric.

    Args:
        collection: Name of the image collection, see ``Dataset``.
        level: What was scored: "image" or "study".
        n: Number of scored images or studies.
        labels: The labels behind the average.
        metrics: The metrics.
    """
    scored = (collection, level, n, frozenset(labels))
    return [
        result
        for test_set in published_test_sets()
        if (test_set.collection, test_set.level, test_set.n, test_set.labels) == scored
        for result in test_set.results
        if result.metric in metrics
    ]
