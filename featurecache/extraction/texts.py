"""Encode a prompt set for a data set's labels."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from featurecache.io.fingerprint import fingerprint
from featurecache.prompts import PromptSet, ensemble
from featurecache.store.records import TextEmbeddings, TextSet

if TYPE_CHECKING:
    from featurecache.encoders.encoder import Encoder


def text_fingerprint(encoder: "Encoder", prompts: PromptSet, labels: Sequence[str]) -> str:
    """The fingerprint of a prompt set encoded by an encoder, without encoding it."""
    return fingerprint(
        {
            "encoder": encoder.text_spec,
            "labels": list(labels),
            "positive": prompts.positive_prompts(labels),
            "negative": prompts.negative_prompts_of(labels),
        }
    )


def encode_prompts(encoder: "Encoder", prompts: PromptSet, labels: Sequence[str]) -> TextSet:
    """Encode every prompt of every label, and their ensembles.

    Raises:
        UsageError: the encoder reads no text.
    """
    negative = prompts.negative_prompts_of(labels)
    return TextSet(
        name=prompts.name,
        fingerprint=text_fingerprint(encoder, prompts, labels),
        templates=(*prompts.templates, *prompts.negatives),
        labels=tuple(labels),
        positive=_encode(encoder, prompts.positive_prompts(labels)),
        negative=_encode(encoder, negative) if negative else None,
        aligned=encoder.aligned,
        scale=encoder.scale,
        bias=encoder.bias,
        encoder=dict(encoder.text_spec),
    )


def _encode(encoder: "Encoder", prompts: list[list[str]]) -> TextEmbeddings:
    flat = encoder.encode_texts([text for texts in prompts for text in texts])
    embedding = flat.reshape(len(prompts), len(prompts[0]), -1).astype(np.float32)
    return TextEmbeddings(tuple(map(tuple, prompts)), embedding, ensemble(embedding))
