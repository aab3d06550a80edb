"""Near-identical films in different splits: looked for by embedding, confirmed on pixels.

What an encoder sees of a copy may differ more than what it sees of another film: of 300 shifted
copies of real films, ``tiny`` has the original among the five nearest for 116. So where the films
can be looked at, candidates are also sought by the films' own spectra, and the decision is that of
the pixels. Without films, embeddings that are out of the ordinary are all that can be told.
"""

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from featurecache.audit.image_similarity import IDENTICAL, Miniature, likeness, miniature, spectrum
from featurecache.audit.leakage import same_labels
from featurecache.errors import ImageError, UsageError
from featurecache.images.subprocess_decoder import SubprocessDecoder
from featurecache.metrics.similarity import Directions, batch_nearest, normalize_rows
from featurecache.store.cache import Cache

NEIGHBOURS: Final = 5
"""How many of each image's nearest in other splits are candidates, by embedding and by spectrum."""

FEWEST: Final = 20
"""Images from which on it can be said which distances are out of the ordinary."""

Progress = Callable[[str, int, int], None]
"""Called with what is done, how much of it is, and of how much."""

Pairs = dict[tuple[int, int], float]
"""Two rows of a cache, the lower first, and a cosine."""


def near_duplicates(
    cache: Cache,
    films: Mapping[str, Path] | None,
    *,
    neighbours: int = NEIGHBOURS,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Near-identical films in different splits; byte-identical ones are not among them.

    Args:
        cache: where candidates are looked for.
        films: file of each image by its id; None where there are none to look at, and candidates
            stay unconfirmed.
        neighbours: how many of each image's nearest in other splits are candidates.
        progress: called while films are read and compared.

    Returns:
        ``compared``, the number of pairs whose pixels were compared. ``pairs``, those that are
        near-identical, the most alike first. Both are None where no film was looked at.
        ``outstanding``: the ``cosine`` from which on two embeddings are out of the ordinary
        (``similarity_cutoff``), and the ``pairs`` above it, the nearest first, with their
        ``likeness`` where it was measured. ``unreadable``: films that could not be compared, by
        id, with the reason.

    Raises:
        UsageError: ``films`` lacks an image of the cache.
    """
    gallery = normalize_rows(cache.embedding)
    rows = np.arange(len(gallery))
    candidates, nearest = nearest_in_other_splits(cache, rows, gallery, top=neighbours)
    cosine = similarity_cutoff(nearest)
    outstanding = (
        [] if cosine is None else [p for p, found in candidates.items() if found >= cosine]
    )
    alike: Pairs = {}
    unreadable: dict[str, str] = {}
    if films is not None and candidates:
        miniatures, unreadable = _miniatures(cache, films, progress)
        alike = _likenesses(cache, miniatures, candidates, neighbours, progress)
    confirmed = [pair for pair, value in alike.items() if value >= IDENTICAL]

    def listed(pairs: list[tuple[int, int]], by: Pairs) -> list[dict[str, Any]]:
        return [
            {
                "images": cache.ids[list(pair)].tolist(),
                "splits": cache.splits[list(pair)].tolist(),
                "patients": cache.patients[list(pair)].tolist(),
                "same_labels": same_labels(cache.labels.values[list(pair)]),
                "cosine": float(gallery[pair[0]] @ gallery[pair[1]]),
                "likeness": alike.get(pair),
            }
            for pair in sorted(pairs, key=lambda pair: (-by[pair], pair))
        ]

    return {
        "neighbours": neighbours,
        "least_likeness": IDENTICAL,
        "compared": None if films is None else len(alike),
        "pairs": None if films is None else listed(confirmed, alike),
        "outstanding": {"cosine": cosine, "pairs": listed(outstanding, candidates)},
        "unreadable": unreadable,
    }


def nearest_in_other_splits(
    cache: Cache, rows: npt.NDArray[np.intp], gallery: Directions, *, top: int
) -> tuple[Pairs, npt.NDArray[np.float32]]:
    """Each image with its nearest in other splits, but for those whose files are the same.

    Args:
        cache: of which images are looked at.
        rows: (M,) its rows that are looked at.
        gallery: (M, D) of these rows, at unit length.
        top: how many.

    Returns:
        The pairs, and (M',) the cosine of each image to its nearest, where it has one.
    """
    pairs: Pairs = {}
    nearest = [np.empty(0, dtype=np.float32)]
    for split in np.unique(cache.splits[rows]):
        mine = cache.splits[rows] == split
        queries, others = rows[mine], rows[~mine]
        if not len(others):
            continue
        places, cosines = batch_nearest(gallery[mine], gallery[~mine], top=top)
        for query, near, values in zip(queries.tolist(), others[places], cosines, strict=True):
            differ = cache.images.sha256[near] != cache.images.sha256[query]
            nearest.append(values[differ][:1])
            for row, cosine in zip(near[differ].tolist(), values[differ].tolist(), strict=True):
                pairs[min(query, row), max(query, row)] = cosine
    return pairs, np.concatenate(nearest)


def similarity_cutoff(nearest: npt.NDArray[np.floating[Any]]) -> float | None:
    """The cosine from which on two images are nearer than those of a data set ever are by chance.

    The logarithms of the distances 1 - cosine from images to their nearest are taken for normal.
    Their median and median absolute deviation, which some copies among them do not move, give the
    distance beneath which half an image of as many would lie: nothing is tuned on copies.

    Args:
        nearest: (N,) cosine of each image to its nearest in another split.

    Returns:
        The cosine; None with fewer than ``FEWEST`` images.
    """
    from scipy.stats import norm

    if len(nearest) < FEWEST:
        return None
    # float32 knows the cosine of a copy to some 1e-7.
    logarithms = np.log(np.maximum(1 - nearest.astype(np.float64), 1e-7))
    middle = np.median(logarithms)
    spread = np.median(np.abs(logarithms - middle)) / norm.ppf(0.75)
    return float(1 - np.exp(middle + norm.ppf(1 / (2 * len(nearest))) * spread))


def _miniatures(
    cache: Cache, films: Mapping[str, Path], progress: Progress | None
) -> tuple[dict[int, Miniature], dict[str, str]]:
    """The miniature of each row whose film can be read; and why others cannot, by id."""
    ids = cache.ids.tolist()
    if lacking := [image for image in ids if image not in films]:
        raise UsageError(
            f"the data set has no image {lacking[0]!r} that the cache holds: give the --data-root "
            "and the options that it was extracted with"
        )

    reader = SubprocessDecoder()

    def read(image: str) -> Miniature | ImageError:
        try:
            return reader.read(films[image], [miniature])[0]
        except ImageError as error:
            return error

    miniatures: dict[int, Miniature] = {}
    unreadable: dict[str, str] = {}
    # Each thread waits for a child process of its own.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for row, made in enumerate(pool.map(read, ids)):
            if isinstance(made, ImageError):
                unreadable[ids[row]] = str(made)
            else:
                miniatures[row] = made
            if progress is not None:
                progress("read films", row + 1, len(ids))
    return miniatures, unreadable


def _likenesses(
    cache: Cache,
    miniatures: Mapping[int, Miniature],
    candidates: Pairs,
    neighbours: int,
    progress: Progress | None,
) -> Pairs:
    """The likeness of every pair of candidates, those by spectrum among them, that can be read."""
    pairs = {pair for pair in candidates if pair[0] in miniatures and pair[1] in miniatures}
    if miniatures:
        spectra = np.stack([spectrum(film) for film in miniatures.values()])
        rows = np.fromiter(miniatures, dtype=np.intp)
        pairs |= nearest_in_other_splits(cache, rows, spectra, top=neighbours)[0].keys()
    alike: Pairs = {}
    for one, group in groupby(sorted(pairs), key=lambda pair: pair[0]):
        others = [two for _, two in group]
        values = likeness(miniatures[one], (miniatures[two] for two in others))
        for two, value in zip(others, values, strict=True):
            alike[one, two] = value
            if progress is not None:
                progress("compare films", len(alike), len(pairs))
    return alike
