"""The embeddings of the images that were scored, in the plane that holds most of their variance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import CacheError, FeaturecacheError
from featurecache.evaluation.comparison import ScoredImages
from featurecache.metrics.ranking import Floats
from featurecache.metrics.similarity import l2_normalize
from featurecache.store.cache import Cache
from featurecache.store.concat import concat_caches
from featurecache.store.reader import read_cache
from featurecache.store.records import positions, to_utf8

MOST_POINTS: Final = 2000
_FEWEST: Final = 3


@dataclass(frozen=True, eq=False)
class EmbeddingMap:
    """Images in the plane.

    Attributes:
        points: (P, 2).
        rows: (P,) the scored rows that they are of.
        explained: (2,) shares of the variance of these P embeddings along both axes.
        images: how many images there were to choose the P from.
    """

    points: Floats
    rows: NDArray[np.intp]
    explained: Floats
    images: int


def find_cache(reference: Mapping[str, Any], given: Sequence[Path] = ()) -> Cache:
    """The cache that a run was made from.

    Args:
        reference: what the run's config says of it.
        given: files to look in before the path that the run remembers.

    Raises:
        CacheError: it is not there, or is another; the message says what to do.
    """
    return concat_caches([_find_one(one, given) for one in reference.get("joined", [reference])])


def _find_one(reference: Mapping[str, Any], given: Sequence[Path]) -> Cache:
    try:
        path, expected = Path(reference["path"]), str(reference["fingerprint"])
    except (KeyError, TypeError) as error:
        raise CacheError(f"the run does not say which cache it was made from ({error})") from error
    found = None
    for place in (*given, path):
        if not place.is_file():
            continue
        found = place
        cache = read_cache(place)
        if cache.fingerprint == expected and cache.header.dataset == reference.get("dataset"):
            return cache
    if found is None:
        raise CacheError(
            f"the run's cache is not at {path}: run this where it is, or give --cache FILE"
        )
    raise CacheError(
        f"{found} is another cache than the run was made from: its fingerprint differs. Give the "
        "right one by --cache FILE, or make the run again"
    )


def embedding_map(cache: Cache, scored: ScoredImages, *, seed: int = 0) -> EmbeddingMap:
    """Lay the scored images of a cache out by the two main components of their unit embeddings.

    Args:
        cache: that holds them.
        scored: whose images are shown.
        seed: chooses 2,000 of more images.

    Raises:
        CacheError: the cache holds fewer than three of them.
    """
    places = positions(cache.images.id, to_utf8(scored.ids))
    held = np.flatnonzero(places >= 0)
    if len(held) < _FEWEST:
        raise CacheError(
            f"{cache.path} holds {len(held)} of the {len(scored.ids)} images that were scored: a "
            f"map needs {_FEWEST}"
        )
    rows = held
    if len(held) > MOST_POINTS:
        rows = np.sort(np.random.default_rng(seed).choice(held, MOST_POINTS, replace=False))
    embedding = l2_normalize(cache.embedding[places[rows]], "image")
    embedding -= embedding.mean(axis=0)
    components, strengths, directions = np.linalg.svd(embedding, full_matrices=False)
    # Which way a component points is chance: here its longest entry is positive, so that a map
    # looks the same on every machine.
    longest = np.abs(directions).argmax(axis=1)
    signs = np.sign(directions[np.arange(len(directions)), longest])
    points, shares = np.zeros((len(rows), 2)), np.zeros(2)
    shown = min(2, len(strengths))
    points[:, :shown] = (components * strengths * signs)[:, :shown]
    variance = np.square(strengths)
    if variance.sum() > 0:
        shares[:shown] = variance[:shown] / variance.sum()
    return EmbeddingMap(points, rows, shares, len(held))


def most_separating_label(scored: ScoredImages) -> int:
    """The label to colour by: the one whose two classes are both as large as can be."""
    sizes = np.minimum((scored.truth == 1).sum(axis=0), (scored.truth == 0).sum(axis=0))
    return int(sizes.argmax())


MapOrReason = EmbeddingMap | str


def embedding_map_or_reason(
    config: Mapping[str, Any], scored: ScoredImages, *, given: Sequence[Path] = ()
) -> MapOrReason:
    """The map of a run, or why there is none and what to do."""
    if "cache" not in config:
        return (
            "This run trained the encoder itself, past any cache. For a map, extract with it "
            "(featurecache extract --model RUN) and train a head or score zero-shot."
        )
    try:
        return embedding_map(find_cache(config["cache"], given), scored)
    except FeaturecacheError as error:
        return f"There is no map: {error}."
