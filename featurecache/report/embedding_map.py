"""Map of the scored images: the first two principal components of their embeddings."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import CacheError
from featurecache.evaluation.comparison import ScoredImages
from featurecache.evaluation.from_cache import cached_rows
from featurecache.metrics.ranking import Floats
from featurecache.metrics.similarity import l2_normalize
from featurecache.store.cache import Cache

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

    cache_rows = cached_rows(cache, scored)
    rows = np.flatnonzero(cache_rows >= 0)
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
