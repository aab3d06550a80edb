"""Check a finished cache more thoroughly than reading it does."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featurecache.store.cache import Cache
from featurecache.store.checksums import find_corruption, read_checksums
from featurecache.store.hdf5 import opened
from featurecache.store.layout import FORMAT, chunks_path
from featurecache.store.reader import read_cache
from featurecache.store.records import TextSet
from featurecache.store.validation import validate_hdf5
from featurecache.store.writer import BLOCK_ROWS


def verify_cache(path: Path) -> list[str]:
    """Look for what is wrong in a cache.

    Reads every embedding, so it takes as long as reading the file does. What was changed since it
    was written, a flipped bit in any row, shows only where the file has checksums: see
    ``has_checksums``.

    Returns:
        One sentence per problem; empty when the cache is sound.

    Raises:
        CacheError: the file cannot be read as a cache at all.
    """
    with opened(path, FORMAT) as file:
        objects, checksums = validate_hdf5(file), read_checksums(file)
        if checksums is not None and (damaged := list(find_corruption(objects, checksums))):
            return damaged  # what else it holds is not to be believed
    cache = read_cache(path)
    problems = [*_embedding_problems(cache), *_split_problems(cache)]
    for text in cache.texts.values():
        problems += _text_problems(text)
    if both := sorted(set(cache.failures) & set(cache.ids.tolist())):
        problems.append(f"{both[0]!r} is recorded as failed and has an embedding all the same")
    if chunks_path(path).is_dir():
        problems.append(f"{chunks_path(path)} holds rows not yet in the cache: run extract again")
    return problems


def has_checksums(path: Path) -> bool:
    """Whether a cache has checksums: files of before have none, until extract writes them anew.

    Raises:
        CacheError: the file cannot be read as a cache at all.
    """
    with opened(path, FORMAT) as file:
        validate_hdf5(file)
        return read_checksums(file) is not None


def _embedding_problems(cache: Cache) -> list[str]:
    problems = []
    for start in range(0, len(cache.images), BLOCK_ROWS):
        block = cache.read_rows(start, min(start + BLOCK_ROWS, len(cache.images)))
        broken = ~np.isfinite(block).all(axis=1)
        empty = ~block.any(axis=1)
        for what, rows in (("is not finite", broken), ("is all zero", empty)):
            if rows.any():
                first = str(cache.ids[start + int(np.flatnonzero(rows)[0])])
                problems.append(f"the embedding of {first!r} {what} ({int(rows.sum())} such rows)")
    return problems


def _split_problems(cache: Cache) -> list[str]:
    if cache.header.image_level_split:
        return []
    pairs = np.unique(np.stack([cache.patients, cache.splits]), axis=1)
    patients, counts = np.unique(pairs[0], return_counts=True)
    several = patients[counts > 1].tolist()
    return [f"patient {name!r} is in more than one split" for name in several[:5]]


def _text_problems(text: TextSet) -> list[str]:
    problems = []
    for kind, texts in (("positive", text.positive), ("negative", text.negative)):
        if texts is None:
            continue
        usable = np.isfinite(texts.embedding).all(axis=2) & texts.embedding.any(axis=2)
        if not usable.all():
            wrong = "embedding is not finite, or is all zero"
        elif not np.allclose(texts.ensemble, _ensemble(texts.embedding), atol=1e-4):
            wrong = "ensemble is not the mean of its prompts on the unit sphere"
        else:
            continue
        problems.append(f"prompt set {text.name!r}: a {kind} {wrong}")
    return problems


def _ensemble(embedding: NDArray[np.float32]) -> NDArray[np.float64]:
    """What (C, K, D) embeddings average to: ``t_c = norm(mean_k norm(e_ck))``, (C, D)."""
    unit = embedding / np.linalg.norm(embedding.astype(np.float64), axis=2, keepdims=True)
    mean = unit.mean(axis=1)
    result: NDArray[np.float64] = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    return result
