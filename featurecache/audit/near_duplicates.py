"""Near-duplicate images in different splits: found by embedding, confirmed by pixels.

To an encoder, a changed copy may look less similar than another image: for only 116 of 300 shifted
copies of real images, ``tiny`` has the original among the five nearest. Where the image files are
available, candidates are therefore found by the images' spectra as well, and pixels decide.
Without files, unusually similar embeddings are only reported as suspected, and no other pairs are
searched for.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.audit.image_similarity import (
    MIN_SIMILARITY,
    Miniature,
    miniature,
    similarities,
    spectrum,
)
from featurecache.audit.leakage import same_labels
from featurecache.errors import ImageError
from featurecache.extraction.sample import evenly_spaced
from featurecache.images.subprocess_decoder import SubprocessDecoder
from featurecache.metrics.similarity import Directions, nearest_of_other_groups, normalize_rows
from featurecache.progress import DetailedProgress, Progress
from featurecache.store.cache import Cache

NEIGHBORS: Final = 5
"""Nearest images in other splits that are candidates, by embedding and by spectrum."""

MIN_IMAGES: Final = 20
"""Minimum number of images to estimate which distances are unusual."""

SAMPLE: Final = 8192
"""Maximum number of images to estimate it from: the median of the distances to within a seventieth
of their standard deviation.
"""

PairValues = dict[tuple[int, int], float]
"""A cosine or similarity by pair of cache rows, the lower row first."""


@dataclass(frozen=True)
class ImagePair:
    """Two similar images in different splits.

    Attributes:
        images: Their ids.
        splits: Their splits.
        patients: Their patients.
        same_labels: Whether their known labels agree.
        cosine: Cosine of their embeddings.
        similarity: Similarity of their pixels; None where it was not computed.
    """

    images: tuple[str, str]
    splits: tuple[str, str]
    patients: tuple[str, str]
    same_labels: bool
    cosine: float
    similarity: float | None


@dataclass(frozen=True)
class SuspectedPairs:
    """Pairs with an unusually high cosine.

    Attributes:
        sample: Number of images whose nearest ones tell what is usual.
        cosine: Cosine from which on a pair is suspected; None with too few images.
        pairs: The pairs, in descending order of the cosine.
    """

    sample: int
    cosine: float | None
    pairs: tuple[ImagePair, ...]


@dataclass(frozen=True)
class NearDuplicates:
    """Near-duplicates in different splits. Byte-identical files are not included.

    Attributes:
        neighbors: Number of nearest images in other splits that each image was compared with.
        min_similarity: Similarity from which on two images are near-duplicates.
        compared: Number of pairs whose pixels were compared; None without image files.
        pairs: The near-duplicates, in descending order of the similarity; None without image files.
        suspected: Pairs with an unusually high cosine.
        unreadable: Reason why an image could not be compared, by id.
    """

    neighbors: int
    min_similarity: float
    compared: int | None
    pairs: tuple[ImagePair, ...] | None
    suspected: SuspectedPairs
    unreadable: Mapping[str, str]


def near_duplicates(
    cache: Cache,
    files: Mapping[str, Path] | None,
    *,
    neighbors: int = NEIGHBORS,
    progress: DetailedProgress | None = None,
) -> NearDuplicates:
    """Find near-duplicate images in different splits.

    Args:
        cache: The cache.
        files: File of each image of the cache by its id; without it, candidates are not confirmed.
        neighbors: Number of nearest images in other splits that are candidates.
        progress: Called while images are read and compared.

    Returns:
        The near-duplicates.
    """
    embeddings = normalize_rows(cache.embedding)
    rows = np.arange(len(embeddings))
    sample = evenly_spaced(len(rows), SAMPLE)
    _, nearest_cosines = nearest_in_other_splits(
        cache,
        rows,
        embeddings,
        top=neighbors,
        at_least=np.where(np.isin(rows, sample), -np.inf, np.inf),
        progress=_named(progress, "find usual similarities"),
    )
    cutoff = similarity_cutoff(nearest_cosines, n_images=len(rows))
    lowest = np.inf if cutoff is None else cutoff
    candidates, _ = nearest_in_other_splits(
        cache,
        rows,
        embeddings,
        top=neighbors,
        at_least=lowest if files is None else -np.inf,
        progress=_named(progress, "compare embeddings"),
    )
    suspected = [pair for pair, cosine in candidates.items() if cosine >= lowest]
    similarity: PairValues = {}
    unreadable: dict[str, str] = {}
    if files is not None and candidates:
        miniatures, unreadable = _read_miniatures(cache, files, progress)
        similarity = _compare_pixels(cache, miniatures, candidates, neighbors, progress)
    confirmed = [pair for pair, value in similarity.items() if value >= MIN_SIMILARITY]

    def describe(pairs: Sequence[tuple[int, int]], order: PairValues) -> tuple[ImagePair, ...]:
        return tuple(
            ImagePair(
                images=_pair_of(cache.ids, pair),
                splits=_pair_of(cache.splits, pair),
                patients=_pair_of(cache.patients, pair),
                same_labels=same_labels(cache.labels.values[list(pair)]),
                cosine=float(embeddings[pair[0]] @ embeddings[pair[1]]),
                similarity=similarity.get(pair),
            )
            for pair in sorted(pairs, key=lambda pair: (-order[pair], pair))
        )

    return NearDuplicates(
        neighbors=neighbors,
        min_similarity=MIN_SIMILARITY,
        compared=None if files is None else len(similarity),
        pairs=None if files is None else describe(confirmed, similarity),
        suspected=SuspectedPairs(len(nearest_cosines), cutoff, describe(suspected, candidates)),
        unreadable=unreadable,
    )


def _pair_of(values: NDArray[np.str_], pair: tuple[int, int]) -> tuple[str, str]:
    return str(values[pair[0]]), str(values[pair[1]])


def nearest_in_other_splits(
    cache: Cache,
    rows: NDArray[np.intp],
    directions: Directions,
    *,
    top: int,
    at_least: float | NDArray[np.float64] = -np.inf,
    progress: Progress | None = None,
) -> tuple[PairValues, NDArray[np.float32]]:
    """Pair each image with its nearest ones in other splits, except byte-identical ones.

    Args:
        cache: The cache.
        rows: (M,) rows of the cache to consider.
        directions: (M, D), one vector of unit length per row.
        top: Number of nearest images.
        at_least: Minimum cosine of a pair: one for all images, or (M,) for each image whose nearest
            are sought.
        progress: Called while images are compared.

    Returns:
        The cosine of each pair, and (M',) the highest cosine of each image that has a pair.
    """
    near, cosines = nearest_of_other_groups(
        directions, cache.images.split[rows], top=top, at_least=at_least, progress=progress
    )
    files = cache.images.sha256[rows]
    same_file = (files[near] == files[:, np.newaxis]) & (files != b"")[:, np.newaxis]
    differ = (near >= 0) & ~same_file
    first = differ & (np.cumsum(differ, axis=1) == 1)
    query, others = rows[np.nonzero(differ)[0]], rows[near[differ]]
    pairs = zip(np.minimum(query, others).tolist(), np.maximum(query, others).tolist(), strict=True)
    return dict(zip(pairs, cosines[differ].tolist(), strict=True)), cosines[first]


def _named(progress: DetailedProgress | None, task: str) -> Progress | None:
    if progress is None:
        return None
    return lambda done, total: progress(done, total, task)


def similarity_cutoff(nearest: NDArray[np.floating[Any]], *, n_images: int) -> float | None:
    """Return the cosine from which on two images are unusually similar for their data set.

    The logarithms of the distances 1 - cosine between images and their nearest neighbors are
    modeled as normal, with the median and the median absolute deviation as robust estimates that a
    few copies do not change. At the cutoff, half an image is expected to be nearer by chance.

    Args:
        nearest: (M,) cosine of each image of a sample with its nearest neighbor in another split.
        n_images: Number of images of the data set.

    Returns:
        The cosine; None with a sample of fewer than ``MIN_IMAGES`` images.
    """
    from scipy.stats import norm

    if len(nearest) < MIN_IMAGES:
        return None
    # The cosine of a copy is accurate to about 1e-7 in float32.
    logarithms = np.log(np.maximum(1 - nearest.astype(np.float64), 1e-7))
    median = np.median(logarithms)
    spread = np.median(np.abs(logarithms - median)) / norm.ppf(0.75)
    return float(1 - np.exp(median + norm.ppf(1 / (2 * n_images)) * spread))


def _read_miniatures(
    cache: Cache, files: Mapping[str, Path], progress: DetailedProgress | None
) -> tuple[dict[int, Miniature], dict[str, str]]:
    """Read the miniature of each row; return those of readable images and the other reasons."""
    ids = cache.ids.tolist()
    decoder = SubprocessDecoder()

    def read(image_id: str) -> Miniature | ImageError:
        try:
            return decoder.read(files[image_id], [miniature], bit_depth=cache.header.bit_depth)[0]
        except ImageError as error:
            return error

    miniatures: dict[int, Miniature] = {}
    unreadable: dict[str, str] = {}
    # Each thread waits for a subprocess of its own.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for row, result in enumerate(pool.map(read, ids)):
            if isinstance(result, ImageError):
                unreadable[ids[row]] = str(result)
            else:
                miniatures[row] = result
            if progress is not None:
                progress(row + 1, len(ids), "read images")
    return miniatures, unreadable


def _compare_pixels(
    cache: Cache,
    miniatures: Mapping[int, Miniature],
    candidates: PairValues,
    neighbors: int,
    progress: DetailedProgress | None,
) -> PairValues:
    """Compute the similarity of all readable candidates, by embedding and by spectrum."""
    pairs = {pair for pair in candidates if pair[0] in miniatures and pair[1] in miniatures}
    if miniatures:
        spectra = np.stack([spectrum(image) for image in miniatures.values()])
        rows = np.fromiter(miniatures, dtype=np.intp)
        pairs |= nearest_in_other_splits(
            cache, rows, spectra, top=neighbors, progress=_named(progress, "compare spectra")
        )[0].keys()
    result: PairValues = {}
    for row, group in groupby(sorted(pairs), key=lambda pair: pair[0]):
        others = [other for _, other in group]
        values = similarities(miniatures[row], (miniatures[other] for other in others))
        for other, value in zip(others, values, strict=True):
            result[row, other] = value
            if progress is not None:
                progress(len(result), len(pairs), "compare images")
    return result
