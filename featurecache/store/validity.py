"""What the content of a cache has to satisfy: the same rules for reading it and for ``verify``.

What is in memory is checked when a cache is opened, and embeddings and texts when they are used.
``validation`` checks the structure of the file before that.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import CacheError
from featurecache.store.layout import EMBEDDING
from featurecache.store.records import ImageTable, TextEmbeddings, TextSet, Utf8, usable_rows

_NORMS: Final = (1e-10, 1e10)
"""Norms of text embeddings whose squares float32 can represent."""


def require_valid(path: Path | str, problems: Iterable[str]) -> None:
    """Check that there is no problem.

    Args:
        path: The cache file.
        problems: One sentence per problem.

    Raises:
        CacheError: There is one; the message has the first.
    """
    if first := next(iter(problems), None):
        raise CacheError(
            f"{path} is damaged: {first}; restore it from a copy, or delete it and extract again"
        )


def image_problems(images: ImageTable) -> Iterator[str]:
    """Yield one sentence per row of ``/images`` whose patient or age is not valid."""
    for row in np.flatnonzero(images.patient == b""):
        yield f"/images/patient {_in_row(images.id, int(row))} is empty"
    no_ages = [age for age in np.unique(images.age).tolist() if not _is_age(age)]
    for row in np.flatnonzero(np.isin(images.age, no_ages)) if no_ages else ():
        age = images.age[row].decode()
        yield f"/images/age {_in_row(images.id, int(row))} is {age!r}, not a number of years"


def label_problems(names: Sequence[str], where: str) -> Iterator[str]:
    """Yield one sentence per label without a name."""
    for column, name in enumerate(names):
        if not name.strip():
            yield f"{where} has no name for label {column}"


def embedding_problems(
    embedding: NDArray[np.float16], ids: Utf8, rows: NDArray[np.intp]
) -> Iterator[str]:
    """Yield one sentence per embedding without a direction.

    Args:
        embedding: Embeddings (n, D).
        ids: Ids of all images of the cache, (N,).
        rows: Their rows in the cache, (n,).
    """
    for index in np.flatnonzero(~usable_rows(embedding)):
        what = "is all zero" if np.isfinite(embedding[index]).all() else "is not finite"
        yield f"{EMBEDDING} {_in_row(ids, int(rows[index]))} {what}"


def text_problems(text: TextSet) -> Iterator[str]:
    """Yield one sentence per value of a prompt set that cannot be used."""
    where = f"/text/{text.name}"
    yield from label_problems(text.labels, f"{where}/labels")
    if text.scale is not None and text.scale <= 0:
        yield f"the scale of {where} is {text.scale}, not a number above 0"
    yield from _vector_problems(text.positive, where, text.labels)
    if text.negative is not None:
        yield from _vector_problems(text.negative, f"{where}/negatives", text.labels)


def _vector_problems(texts: TextEmbeddings, where: str, labels: Sequence[str]) -> Iterator[str]:
    low, high = _NORMS
    for name, vectors in (("embedding", texts.embedding), ("ensemble", texts.ensemble)):
        norms = np.linalg.norm(vectors.astype(np.float64), axis=-1)
        for label, *prompt in np.argwhere(~((norms > low) & (norms < high))):
            which = f"label {labels[label]!r}" + "".join(f", prompt {number}" for number in prompt)
            yield f"{where}/{name} of {which} has norm {norms[label, *prompt]:g}"


def _is_age(text: bytes) -> bool:
    try:
        return not text or 0 <= float(text) < np.inf
    except ValueError:
        return False


def _in_row(ids: Utf8, row: int) -> str:
    return f"in row {row} ({ids[row].decode()!r})"
