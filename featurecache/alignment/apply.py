"""A cache of two unaligned encoders, seen through an alignment."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.alignment.alignment import Alignment
from featurecache.encoders.compatibility import library_difference
from featurecache.errors import AlignmentError, CacheError, UsageError
from featurecache.metrics.similarity import Embeddings, l2_normalize
from featurecache.provenance import require_same_id_key
from featurecache.store.cache import Cache
from featurecache.store.records import TextSet

_ROWS_AT_ONCE: Final = 8192


def align_texts(
    alignment: Alignment, cache: Cache, prompts: str | None = None
) -> tuple[TextSet, list[str]]:
    """A prompt set of a cache as one of an aligned encoder, with the alignment's scale and bias.

    Args:
        alignment: fitted on this cache or another one.
        cache: made by the encoders that the alignment was fitted to, with the same settings.
        prompts: the set; needed only where the cache holds several.

    Returns:
        The set, and what ``alignment_warnings`` has to say.

    Raises:
        CacheError: there is no text, or the cache does not say which encoder read it.
        UnknownNameError: there is no such prompt set.
        UsageError: the encoder is aligned already.
        RunError: an encoder or its settings are others; the message names the field.
    """
    text = cache.text(prompts)
    if text.aligned:
        raise UsageError(
            f"images and texts of {cache.header.model} share a space already: leave out --alignment"
        )
    warnings = alignment_warnings(alignment, cache.header.encoder_spec, text_encoder(cache, text))
    return replace(text, aligned=True, scale=alignment.scale, bias=alignment.bias), warnings


def text_encoder(cache: Cache, text: TextSet) -> Mapping[str, Any]:
    """The description of the encoder that read a prompt set of a cache.

    Raises:
        CacheError: the cache does not say.
    """
    if text.encoder is None:
        raise CacheError(
            f"{cache.path} does not say which encoder read its texts: run extract again with "
            f"--prompts {text.name}, which embeds nothing anew"
        )
    return text.encoder


def alignment_warnings(
    alignment: Alignment, images: Mapping[str, Any], texts: Mapping[str, Any]
) -> list[str]:
    """Where encoders differ from those of an alignment by library versions alone, as warnings.

    Args:
        alignment: what was fitted.
        images: description of the image encoder.
        texts: description of the text encoder.

    Raises:
        RunError: an encoder or its settings are others; the message names the field.
    """
    warnings = []
    for side, description in (("image", images), ("text", texts)):
        fitted = alignment.spec[f"{side}_encoder"]
        whose = f"the {side} side of --alignment"
        if difference := library_difference(fitted, description, run=whose):
            warnings.append(f"{whose} was made with other library versions ({difference})")
    return warnings


def align_images(alignment: Alignment, embedding: Embeddings) -> NDArray[np.float32]:
    """Images in the space of texts: (N, D) of any length to (N, T) float32.

    Raises:
        AlignmentError: the embeddings have another length than those it was fitted to.
        ValueError: an embedding has no direction.
    """
    if embedding.shape[1] != len(alignment.weight):
        raise AlignmentError(
            f"--alignment takes embeddings of {len(alignment.weight)} values, these have "
            f"{embedding.shape[1]}: give the alignment of this encoder"
        )
    mapped = np.empty((len(embedding), len(alignment.offset)), dtype=np.float32)
    for start in range(0, len(embedding), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        directions = l2_normalize(embedding[rows], "image", first=start)
        mapped[rows] = directions @ alignment.weight + alignment.offset
    return mapped


def require_unseen(alignment: Alignment, cache: Cache, rows: NDArray[np.intp]) -> None:
    """Refuse images that an alignment learned from.

    Raises:
        UsageError: there are some among these rows of the cache; or it learned from the same films
            under ids that cannot be compared with the cache's.
    """
    require_same_id_key(cache.header.collection, alignment.trained_on)
    learned = alignment.trained_on.get(cache.header.collection, frozenset())
    ids = cache.ids[rows].tolist()
    leaked = [image for image in ids if image in learned]
    if leaked:
        raise UsageError(
            f"--alignment learned from {len(leaked)} of these {len(ids)} images of "
            f"{cache.header.collection}, {leaked[0]!r} the first: take the test images of the "
            "split that it was fitted with (retrieve: --split test)"
        )
