"""What averaging test-time views changed in the embeddings of a cache."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from featurecache.metrics.familiarity import sample_patients
from featurecache.metrics.similarity import normalize_rows
from featurecache.store.cache import Cache
from featurecache.store.open import open_cache
from featurecache.store.records import positions

_SAMPLE_SIZE: Final = 2000
"""Patients with one image each that are compared."""


@dataclass(frozen=True)
class ViewChange:
    """Embeddings averaged over views, compared with those of the same images alone.

    Attributes:
        views: Number of views that are averaged.
        plain: File of the cache of the images alone.
        n: Number of images that are compared, one each of as many patients; None, like the rest,
            if there is no such file, or fewer than two such images.
        cosine: Mean cosine of an image's two embeddings.
        nearest_cosine: Mean cosine of an image with the nearest image of another patient, both
            alone: what ``cosine`` is to be compared with.
        same_nearest: Share of images whose nearest image of another patient stays the same.
    """

    views: int
    plain: str
    n: int | None = None
    cosine: float | None = None
    nearest_cosine: float | None = None
    same_nearest: float | None = None


def view_change(cache: Cache, *, seed: int = 0) -> ViewChange | None:
    """Compare a cache of averaged views with the one of the images alone, which lies beside it.

    Args:
        cache: The cache.
        seed: Seed of the choice of images, at most 2,000.

    Returns:
        The comparison; None for a cache without views, and for several caches in one.

    Raises:
        CacheError: The cache of the images alone cannot be read.
    """
    spec = cache.header.encoder_spec
    views = spec.get("views", 1)
    if views == 1 or len(cache.members) > 1 or len(cache.sources) > 1:
        return None
    path = cache.path.with_name(cache.path.name.replace(f".views-{views}", ""))
    change = ViewChange(views, str(path))
    if not path.is_file():
        return change
    plain = open_cache(path)
    if _without_views(plain.header.encoder_spec) != _without_views(spec):
        return change
    rows_in_plain = positions(plain.images.id, cache.images.id)
    same_file = plain.images.sha256[rows_in_plain] == cache.images.sha256
    shared = np.flatnonzero((rows_in_plain >= 0) & same_file)
    rows = shared[sample_patients(cache.patients[shared], size=_SAMPLE_SIZE, seed=seed)]
    if len(rows) < 2:
        return change
    averaged = normalize_rows(cache.embedding[rows])
    alone = normalize_rows(plain.embedding[rows_in_plain[rows]])
    nearest = []
    for directions in (averaged, alone):
        cosines = directions @ directions.T
        np.fill_diagonal(cosines, -np.inf)
        nearest.append(cosines.argmax(axis=1))
    return ViewChange(
        views,
        str(path),
        n=len(rows),
        cosine=float(np.vecdot(averaged, alone).mean()),
        nearest_cosine=float(cosines.max(axis=1).mean()),
        same_nearest=float((nearest[0] == nearest[1]).mean()),
    )


def _without_views(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a spec decides an embedding, but for views and rounding."""
    other = ("views", "view_changes", "backend", "precision", "libraries")
    return {name: value for name, value in spec.items() if name not in other}
