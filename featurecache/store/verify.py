"""Check every byte of a finished cache."""

import os
from pathlib import Path

import numpy as np

from featurecache.prompts import ensemble
from featurecache.store.cache import BLOCK_ROWS, Cache
from featurecache.store.checksums import find_corruption, read_checksums
from featurecache.store.hdf5 import opened
from featurecache.store.layout import FORMAT, chunks_path
from featurecache.store.reader import read_cache
from featurecache.store.records import TextSet, study_conflicts
from featurecache.store.validation import validate_hdf5
from featurecache.store.validity import embedding_problems, text_problems


def verify_cache(path: str | os.PathLike[str]) -> list[str]:
    """Compare a cache with its checksums, and check that its content makes sense.

    Reads all embeddings, so it takes as long as reading the file.

    Args:
        path: The file.

    Returns:
        One sentence per problem; empty if the cache is sound.

    Raises:
        CacheError: The file cannot be read as a cache at all.
    """
    path = Path(path)
    with opened(path, FORMAT) as file:
        if corruption := list(find_corruption(validate_hdf5(file), read_checksums(file))):
            return corruption  # the rest of a corrupt file proves nothing
    cache = read_cache(path)
    problems = [*_embedding_problems(cache), *_split_problems(cache)]
    for text in cache.texts.values():
        unusable = list(text_problems(text))
        problems += unusable or _ensemble_problems(text)
    if contradictory := sorted(set(cache.failures) & set(cache.ids.tolist())):
        problems.append(f"{contradictory[0]!r} is recorded as failed but has an embedding")
    if chunks_path(path).is_dir():
        problems.append(f"{chunks_path(path)} holds rows not yet in the cache: extract again")
    return problems


def _embedding_problems(cache: Cache) -> list[str]:
    problems: list[str] = []
    for start in range(0, len(cache), BLOCK_ROWS):
        block = cache.mapped[start : start + BLOCK_ROWS]
        rows = np.arange(start, start + len(block))
        problems += embedding_problems(block, cache.images.id, rows)
    return problems


def _split_problems(cache: Cache) -> list[str]:
    patients = cache.mixed_patients[:5]
    studies = study_conflicts(cache.images)[:5].tolist()
    return [
        *(f"patient {patient!r} is in more than one split" for patient in patients),
        *(f"study {study.decode()!r} has more than one patient" for study in studies),
    ]


def _ensemble_problems(text: TextSet) -> list[str]:
    problems = []
    for kind, texts in (("positive", text.positive), ("negative", text.negative)):
        if texts is None:
            continue
        try:
            expected = ensemble(texts.embedding)
        except ValueError as error:
            problems.append(f"prompt set {text.name!r}: {kind} prompts: {error}")
            continue
        if not np.allclose(texts.ensemble, expected, atol=1e-4):
            problems.append(
                f"prompt set {text.name!r}: a {kind} ensemble is not the mean of its prompts on "
                "the unit sphere"
            )
    return problems
