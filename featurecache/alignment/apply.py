"""Use an alignment on a cache of two separately trained encoders."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurecache.alignment.alignment import Alignment
from featurecache.encoders.compatibility import library_difference
from featurecache.errors import AlignmentError, CacheError, UsageError
from featurecache.metrics.similarity import Embeddings, l2_normalize, row_chunks
from featurecache.prompts import PromptSet
from featurecache.provenance.leaks import require_unseen
from featurecache.store.cache import Cache
from featurecache.store.records import TextSet


def align_texts(
    alignment: Alignment, cache: Cache, prompts: str | PromptSet | None = None
) -> tuple[TextSet, list[str]]:
    """Return a prompt set as if its encoder were aligned, with the alignment's scale and bias.

    Args:
        alignment: Fitted to this cache or another one.
        cache: Made with the encoders, and their settings, that the alignment was fitted to.
        prompts: Prompt set, or its name; may be None if the cache holds only one.

    Returns:
        The prompt set, and the warnings of ``alignment_warnings``.

    Raises:
        CacheError: There is no text, or the cache does not record which encoder embedded it.
        UnknownNameError: There is no prompt set of that name.
        UsageError: The encoder is aligned already.
        RunError: An encoder or its settings differ; the message names the field.
    """
    text = cache.text(prompts)
    if text.aligned:
        raise UsageError(
            f"leave out `alignment`: {cache.header.model} embeds images and texts in one space"
        )
    warnings = alignment_warnings(alignment, cache.header.encoder_spec, text_encoder(cache, text))
    return replace(text, aligned=True, scale=alignment.scale, bias=alignment.bias), warnings


def text_encoder(cache: Cache, text: TextSet) -> Mapping[str, Any]:
    """Return the spec of the encoder that embedded a prompt set of a cache.

    Raises:
        CacheError: The cache does not record it.
    """
    if text.encoder_spec is None:
        raise CacheError(
            f"{cache.path} does not record which encoder embedded its prompt set {text.name}: "
            "use a cache of a single encoder, or extract again with the same prompts"
        )
    return text.encoder_spec


def alignment_warnings(
    alignment: Alignment, image_spec: Mapping[str, Any], text_spec: Mapping[str, Any]
) -> list[str]:
    """Check the encoders of an alignment; return warnings about other library versions.

    Args:
        alignment: The alignment.
        image_spec: Spec of the present image encoder.
        text_spec: Spec of the present text encoder.

    Returns:
        One warning for each encoder that differs only in library versions.

    Raises:
        RunError: An encoder or its settings differ; the message names the field.
    """
    warnings = []
    for side, spec in (("image", image_spec), ("text", text_spec)):
        name = f"the {side} encoder of `alignment`"
        fitted_spec = alignment.spec[f"{side}_encoder"]
        if difference := library_difference(fitted_spec, spec, source=name):
            warnings.append(f"{name} was used with other library versions ({difference})")
    return warnings


def align_images(alignment: Alignment, embedding: Embeddings) -> NDArray[np.float32]:
    """Map image embeddings into the space of the text encoder.

    Args:
        alignment: The alignment.
        embedding: (N, D), normalized or not.

    Returns:
        (N, T) float32, not normalized.

    Raises:
        AlignmentError: The alignment was fitted to embeddings of another length.
        ValueError: An embedding has norm 0, NaN or infinity.
    """
    if embedding.shape[1] != len(alignment.weight):
        raise AlignmentError(
            f"`alignment` takes embeddings of {len(alignment.weight)} values, but these have "
            f"{embedding.shape[1]}: give the alignment that was fitted to this encoder"
        )
    mapped = np.empty((len(embedding), len(alignment.offset)), dtype=np.float32)
    for rows in row_chunks(len(embedding)):
        directions = l2_normalize(embedding[rows], "image", first=rows.start)
        mapped[rows] = directions @ alignment.weight + alignment.offset
    return mapped


def check_alignment(alignment: Alignment, cache: Cache, rows: NDArray[np.intp]) -> list[str]:
    """Check that an alignment was not fitted to the images that it is used on.

    Args:
        alignment: The alignment.
        cache: The cache.
        rows: Indices of the rows that it is used on.

    Returns:
        Warnings about what may be a leak.

    Raises:
        UsageError: It was fitted to some of them or to their patients; or to images whose ids
            cannot be compared with the cache's.
    """
    return [
        warning
        for records in cache.records(rows)
        for warning in require_unseen(
            records,
            alignment.trained_on,
            by="`alignment`",
            by_patient=not cache.header.image_level_split,
        )
    ]
