"""Zero-shot scores of images against label prompts, from embeddings alone.

The text side is one embedding per label: the prompt ensemble t_c = norm(mean_k norm(e_ck)), and
for the pair score a negative ensemble beside it. Images and texts are brought to unit length here.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, cast, get_args

import numpy as np

from featurecache.errors import UnknownNameError, UsageError
from featurecache.metrics.similarity import Embeddings, Floats, l2_normalize

Scoring: TypeAlias = Literal["pair", "sigmoid", "softmax"]

_ROWS_AT_ONCE: Final = 2048  # of float16 images made float64: 16 MiB at 1024 dimensions


@dataclass(frozen=True)
class Scores:
    """What an encoder says of N images and C labels, both (N, C) float64.

    Attributes:
        logits: log-odds, for ranking: probabilities saturate at 0 and 1 and then tie.
        probabilities: sigmoid of the logits, in 0 to 1.
    """

    logits: Floats
    probabilities: Floats


def sigmoid_scores(
    images: Embeddings, texts: Embeddings, *, scale: float, bias: float | None
) -> Scores:
    """Each label on its own: sigmoid(scale * cos + bias), as SigLIP is trained (Zhai et al. 2023).

    Args:
        images: (N, D) image embeddings, of any length.
        texts: (C, D) prompt ensembles, of any length.
        scale: exp(logit_scale) of the model.
        bias: logit_bias of the model; None, as for CLIP, adds nothing.

    Raises:
        ValueError: dimensions differ, or an embedding has no direction (zero, NaN or infinite).
    """
    return _from_logits(scale * _cosines(images, texts) + (0.0 if bias is None else bias))


def softmax_scores(
    images: Embeddings,
    texts: Embeddings,
    *,
    scale: float,
    negatives: Embeddings | None = None,
) -> Scores:
    """Labels that exclude each other: softmax of scale * cos across them, as CLIP is trained.

    One label alone is set against its negative prompt, softmax over [label, negative]: this is
    `pair_scores`. The logits are the log-odds of each label against all the others.

    Args:
        images: (N, D) image embeddings, of any length.
        texts: (C, D) prompt ensembles, of any length.
        scale: exp(logit_scale) of the model; a logit bias would cancel.
        negatives: (1, D) for one label; None for several.

    Raises:
        ValueError: one label without negatives, several labels with them, dimensions differ, or
            an embedding has no direction (zero, NaN or infinite).
    """
    if (len(texts) == 1) != (negatives is not None):
        raise ValueError(
            f"softmax over {len(texts)} label(s) with negatives"
            f" {'absent' if negatives is None else 'given'}: one label needs a negative, several"
            " labels stand against each other"
        )
    if negatives is not None:
        return pair_scores(images, texts, negatives, scale=scale)
    joint = scale * _cosines(images, texts)
    # log p_c - log(1 - p_c) would lose every digit as p_c nears 1; the others' sum does not.
    others = [np.logaddexp.reduce(np.delete(joint, c, axis=1), axis=1) for c in range(len(texts))]
    return _from_logits(joint - np.stack(others, axis=1))


def pair_scores(
    images: Embeddings, texts: Embeddings, negatives: Embeddings, *, scale: float
) -> Scores:
    """Each label against its own negative: sigmoid(scale * (<x, t+> - <x, t->)).

    The softmax over "pneumonia" and "no pneumonia" (CheXzero, Tiu et al. 2022). A logit bias
    cancels.

    Args:
        images: (N, D) image embeddings, of any length.
        texts: (C, D) prompt ensembles, of any length.
        negatives: (C, D) ensembles of the negative prompts, of any length.
        scale: exp(logit_scale) of the model.

    Raises:
        ValueError: shapes differ, or an embedding has no direction (zero, NaN or infinite).
    """
    if texts.shape != negatives.shape:
        raise ValueError(f"texts have shape {texts.shape}, but negatives {negatives.shape}")
    # <x, t+> - <x, t-> is <x, t+ - t->.
    towards = l2_normalize(texts, "text") - l2_normalize(negatives, "negative text")
    return _from_logits(scale * _project(images, towards))


def choose_scoring(
    requested: str,
    *,
    aligned: bool,
    bias: float | None,
    has_negatives: bool,
    n_labels: int,
    exclusive: bool,
) -> Scoring:
    """The scoring to use: the requested one where it can be done, or the one that "auto" picks.

    "auto" takes "pair" where negative prompts are there, since the difference takes out what all
    prompts share; else "sigmoid" for a model with a logit bias, which was trained that way; else
    "softmax" for labels of which exactly one holds; else "sigmoid", whose probabilities are then
    uncalibrated and whose ranking still counts.

    Args:
        requested: "auto", "pair", "sigmoid" or "softmax".
        aligned: whether the model's images and texts share one space.
        bias: logit_bias of the model, None where it has none.
        has_negatives: whether each label has negative prompts.
        n_labels: number of labels.
        exclusive: whether exactly one of the labels holds for each image.

    Raises:
        UnknownNameError: no such scoring.
        UsageError: the encoders are unaligned, or what the requested scoring needs is missing.
    """
    known = get_args(Scoring)
    if requested not in ("auto", *known):
        raise UnknownNameError("scoring", requested, ("auto", *known))
    if not aligned:
        raise UsageError(
            "zero-shot needs images and texts in one space, but this model's two encoders were"
            " never trained together: fit an `alignment` and give it, train a head, or use an"
            " aligned model such as xraysiglip"
        )
    if requested == "pair" and not has_negatives:
        raise UsageError(
            "pair scoring sets each label against its negative, but the prompts have none:"
            " add negative templates, or use --scoring sigmoid"
        )
    if requested == "softmax" and n_labels == 1 and not has_negatives:
        raise UsageError(
            "softmax over a single label needs its negative, but the prompts have none:"
            " add negative templates, or use --scoring sigmoid"
        )
    if requested != "auto":
        return cast(Scoring, requested)
    if has_negatives:
        return "pair"
    return "softmax" if bias is None and exclusive and n_labels > 1 else "sigmoid"


def _cosines(images: Embeddings, texts: Embeddings) -> Floats:
    """(N, C) cosines of N images and C texts."""
    return _project(images, l2_normalize(texts, "text"))


def _project(images: Embeddings, vectors: Floats) -> Floats:
    """(N, C) products of N images at unit length and C vectors."""
    if images.ndim != 2 or vectors.ndim != 2 or images.shape[1] != vectors.shape[1]:
        raise ValueError(
            f"images {images.shape} and texts {vectors.shape} are not (N, D) and (C, D) of one D"
        )
    products = np.empty((len(images), len(vectors)))

    def fill(start: int) -> None:
        rows = slice(start, start + _ROWS_AT_ONCE)
        products[rows] = l2_normalize(images[rows], "image", first=start) @ vectors.T

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        # Asked for, so that an error comes out.
        list(pool.map(fill, range(0, len(images), _ROWS_AT_ONCE)))
    return products


def _from_logits(logits: Floats) -> Scores:
    # 1 / (1 + exp(-z)) overflows at z < -709; this form does not.
    return Scores(logits=logits, probabilities=np.exp(-np.logaddexp(0, -logits)))
