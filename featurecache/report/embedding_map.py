"""Map of the scored images: the first two principal components of their embeddings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import CacheError
from featurecache.evaluation.comparison import ScoredImages
from featurecache.metrics.ranking import Floats
from featurecache.metrics.similarity import l2_normalize
from featurecache.store.cache import Cache
from featurecache.store.concat import concat_caches
from featurecache.store.join_rows import join_rows
from featurecache.store.reader import read_cache
from featurecache.store.records import from_utf8, positions, to_utf8

MAX_POINTS: Final = 2000
_MIN_IMAGES: Final = 3


@dataclass(frozen=True, eq=False)
class EmbeddingMap:
    """Images in the plane of the first two principal components.

    Attributes:
        points: (P, 2) coordinates.
        rows: (P,) rows of the images among the scored images.
        explained_variance: (2,) explained variance ratios, over these P embeddings.
        n_images: number of images that the P were sampled from.
    """

    points: Floats
    rows: NDArray[np.intp]
    explained_variance: Floats
    n_images: int


def find_cache(reference: Mapping[str, Any], caches: Sequence[Path] = ()) -> Cache:
    """Open the cache that a run was made from.

    Args:
        reference: the run's reference to its cache, from its config.
        caches: files to try before the path in the reference.

    Raises:
        CacheError: the cache is missing, or its fingerprint differs.
    """
    if "rows_of" in reference:
        return join_rows([_find_single_cache(single, caches) for single in reference["rows_of"]])
    references = reference.get("joined", [reference])
    return concat_caches([_find_single_cache(single, caches) for single in references])


def _find_single_cache(reference: Mapping[str, Any], caches: Sequence[Path]) -> Cache:
    try:
        path, fingerprint = Path(reference["path"]), str(reference["fingerprint"])
    except (KeyError, TypeError) as error:
        raise CacheError(f"the run's config does not name its cache ({error})") from error
    other = None
    for candidate in (*caches, path):
        if not candidate.is_file():
            continue
        other = candidate
        cache = read_cache(candidate)
        if cache.fingerprint == fingerprint and cache.header.dataset == reference.get("dataset"):
            return cache
    if other is None:
        raise CacheError(f"the run's cache is not at {path}: give its current path as `caches`")
    raise CacheError(
        f"{other} is not the cache that the run was made from, the fingerprint differs: give the "
        "right file as `caches`, or make the run again"
    )


def embedding_map(cache: Cache, scored: ScoredImages, *, seed: int = 0) -> EmbeddingMap:
    """Project the embeddings of scored images on their first two principal components.

    Embeddings are L2-normalized first.

    Args:
        cache: cache of the images.
        scored: predictions of a run.
        seed: seed of the sample, where there are more than 2,000 images.

    Raises:
        CacheError: the cache holds fewer than three of the scored images, or other files under
            their ids.
    """
    from sklearn.decomposition import PCA

    cache_rows = positions(cache.images.id, to_utf8(scored.ids))
    rows = np.flatnonzero(cache_rows >= 0)
    files = from_utf8(cache.images.sha256[cache_rows[rows]])
    if (changed := (files != scored.sha256[rows])).any():
        raise CacheError(
            f"{cache.path} holds other files than those that the run scored, "
            f"{str(scored.ids[rows][changed][0])!r} the first: make the run again"
        )
    n_images = len(rows)
    if n_images < _MIN_IMAGES:
        raise CacheError(
            f"{cache.path} holds {n_images} of the {len(scored.ids)} images that were scored: a "
            f"map needs {_MIN_IMAGES}"
        )
    if n_images > MAX_POINTS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MAX_POINTS, replace=False))
    embedding = l2_normalize(cache.embedding[cache_rows[rows]], "image")
    # The full solver is deterministic, signs included, so a map looks the same on every machine.
    pca = PCA(min(2, *embedding.shape), svd_solver="full")
    with np.errstate(invalid="ignore"):  # equal embeddings have no variance to explain
        projected = pca.fit_transform(embedding)
    points, explained_variance = np.zeros((len(rows), 2)), np.zeros(2)
    points[:, : projected.shape[1]] = projected
    explained_variance[: projected.shape[1]] = np.nan_to_num(pca.explained_variance_ratio_)
    return EmbeddingMap(points, rows, explained_variance, n_images)


def most_balanced_label(scored: ScoredImages) -> int:
    """Return the column of the label whose smaller class is largest."""
    smaller_class = np.minimum((scored.truth == 1).sum(axis=0), (scored.truth == 0).sum(axis=0))
    return int(smaller_class.argmax())
