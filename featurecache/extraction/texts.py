"""Encode a prompt set for the labels of a data set."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from featurecache.io.fingerprint import fingerprint
from featurecache.prompts import PromptSet, ensemble
from featurecache.store.records import TextEmbeddings, TextSet

if TYPE_CHECKING:
    from featurecache.encoders.encoder import Encoder


def encode_prompts(
    encoder: "Encoder", prompts: PromptSet, labels: Sequence[str], *, cached: TextSet | None = None
) -> TextSet:
    """Encode every prompt of every label, and their ensembles.

    Args:
        encoder: An encoder that has a text tower.
        prompts: The prompt set.
        labels: The C labels.
        cached: An earlier result for a prompt set of this name, which is returned if it was made by
            the same encoder from the same prompts and labels.

    Returns:
        The encoded prompt set.

    Raises:
        UsageError: The encoder has no text tower.
    """
    positive, negative = prompts.positive_texts(labels), prompts.negative_texts(labels)
    description = dict(encoder.text_spec)
    text_fingerprint = fingerprint(
        {"encoder": description, "labels": list(labels), "positive": positive, "negative": negative}
    )
    if cached is not None and cached.fingerprint == text_fingerprint:
        return cached
    return TextSet(
        name=prompts.name,
        fingerprint=text_fingerprint,
        templates=(*prompts.templates, *prompts.negatives),
        labels=tuple(labels),
        positive=_encode(encoder, positive),
        negative=_encode(encoder, negative) if negative else None,
        aligned=encoder.aligned,
        scale=encoder.scale,
        bias=encoder.bias,
        encoder_spec=description,
    )


def _encode(encoder: "Encoder", prompts: list[list[str]]) -> TextEmbeddings:
    """Encode C labels of K prompts each into (C, K, D) embeddings."""
    embedding = encoder.encode_texts([text for texts in prompts for text in texts])
    embedding = embedding.reshape(len(prompts), len(prompts[0]), -1).astype(np.float32)
    return TextEmbeddings(tuple(map(tuple, prompts)), embedding, ensemble(embedding))
