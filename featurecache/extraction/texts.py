"""Encode a prompt set for the labels of a data set."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from textwrap import shorten
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from featurecache.errors import PromptError
from featurecache.io.fingerprint import fingerprint
from featurecache.prompts import PLACEHOLDER, PromptSet, ensemble
from featurecache.store.records import TextEmbeddings, TextSet

if TYPE_CHECKING:
    from featurecache.encoders.encoder import Encoder

_IDENTICAL: Final = 1 - 1e-9
"""Cosine from which on two embeddings are the same."""


def encode_prompts(
    encoder: "Encoder",
    prompts: PromptSet,
    labels: Sequence[str],
    *,
    cached: Sequence[TextSet] = (),
) -> TextSet:
    """Encode every prompt of every label, and their ensembles.

    Args:
        encoder: An encoder that has a text tower.
        prompts: The prompt set.
        labels: The C labels.
        cached: Earlier results, of which the first is taken that ``is_encoded``.

    Returns:
        The encoded prompt set.

    Raises:
        UsageError: The encoder has no text tower.
        PromptError: Two labels get the same embedding, because the end of a long text is cut.
    """
    aligned: dict[str, Any] = {
        "aligned": encoder.aligned,
        "scale": encoder.scale,
        "bias": encoder.bias,
    }
    for text in cached:
        if is_encoded(text, encoder, prompts, labels):
            # Whether the images are comparable with the texts depends on their features.
            return replace(text, **aligned)
    positive, negative = prompts.positive_texts(labels), prompts.negative_texts(labels)
    description = dict(encoder.text_spec)
    cut = encoder.too_long([text for texts in (*positive, *negative) for text in texts])
    embeddings = _encode(encoder, positive)
    _require_different(prompts, labels, embeddings, encoder)
    return TextSet(
        name=prompts.name,
        fingerprint=_fingerprint(description, prompts, labels),
        templates=(*prompts.templates, *prompts.negatives),
        labels=tuple(labels),
        positive=embeddings,
        negative=_encode(encoder, negative) if negative else None,
        **aligned,
        encoder_spec=description,
        n_cut=len(cut),
        max_tokens=encoder.max_tokens,
    )


def is_encoded(
    cached: TextSet | None, encoder: "Encoder", prompts: PromptSet, labels: Sequence[str]
) -> bool:
    """Return whether a text set was made by this encoder from these prompts and labels.

    The versions of its libraries may have been others.
    """
    if cached is None:
        return False
    description = dict(encoder.text_spec)
    before = cached.encoder_spec or {}
    if "libraries" in description and "libraries" in before:
        description["libraries"] = before["libraries"]
    return cached.fingerprint == _fingerprint(description, prompts, labels)


def _fingerprint(description: Mapping[str, Any], prompts: PromptSet, labels: Sequence[str]) -> str:
    return fingerprint(
        {
            "encoder": description,
            "labels": list(labels),
            "positive": prompts.positive_texts(labels),
            "negative": prompts.negative_texts(labels),
        }
    )


def _require_different(
    prompts: PromptSet, labels: Sequence[str], texts: TextEmbeddings, encoder: "Encoder"
) -> None:
    """Require that no two labels have the same embedding, unless their texts are the same too."""
    for k in range(texts.embedding.shape[1]):
        unit = texts.embedding[:, k].astype(np.float64)
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        column = [row[k] for row in texts.prompts]
        for c, text in enumerate(column):
            same = [
                labels[d]
                for d in np.flatnonzero(unit @ unit[c] > _IDENTICAL).tolist()
                if d == c or column[d] != text
            ]
            if len(same) > 1:
                reason = (
                    f"reads only {encoder.max_tokens} tokens of it: shorten it, or put "
                    f"{PLACEHOLDER} first"
                    if encoder.too_long([text])
                    else "does not distinguish them: give the labels different `phrases`"
                )
                raise PromptError(
                    f"prompt set {prompts.name!r}: {', '.join(same)} have the same embedding for "
                    f"the template {shorten(prompts.templates[k], 80)!r}, because {encoder.name} "
                    f"{reason}"
                )


def _encode(encoder: "Encoder", prompts: list[list[str]]) -> TextEmbeddings:
    """Encode C labels of K prompts each into (C, K, D) embeddings."""
    embedding = encoder.encode_texts([text for texts in prompts for text in texts])
    embedding = embedding.reshape(len(prompts), len(prompts[0]), -1).astype(np.float32)
    return TextEmbeddings(tuple(map(tuple, prompts)), embedding, ensemble(embedding))
