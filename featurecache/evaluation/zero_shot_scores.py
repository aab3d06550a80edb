"""Zero-shot scores of images against label prompts, from embeddings alone.

The text side is one embedding per label: the prompt ensemble t_c = norm(mean_k norm(e_ck)), and for
pair scores also the ensemble of its negative prompts. Images and texts are normalized here.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, cast, get_args

import numpy as np

from featurecache.errors import UnknownNameError, UsageError
from featurecache.metrics.similarity import Embeddings, Floats, l2_normalize, row_chunks

Scoring: TypeAlias = Literal["pair", "sigmoid", "softmax"]

_ROWS_AT_ONCE: Final = 2048  # float16 images as float64: 16 MiB at 1024 dimensions


@dataclass(frozen=True)
class ZeroShotScores:
    """Scores of N images and C labels, both of shape (N, C), float64.

    Attributes:
        logits: Log odds, for ranking: probabilities saturate at 0 and 1 and then tie.
        probabilities: Sigmoid of the logits, in [0, 1].
    """

    logits: Floats
    probabilities: Floats


def sigmoid_scores(
    images: Embeddings, texts: Embeddings, *, scale: float, bias: float | None
) -> ZeroShotScores:
    """Score each label on its own: sigmoid(scale * cos + bias), as SigLIP (Zhai et al. 2023).

    Args:
        images: Image embeddings of shape (N, D), of any norm.
        texts: Prompt ensembles of shape (C, D), of any norm.
        scale: exp(logit_scale) of the model.
        bias: logit_bias of the model; None for models without, such as CLIP.

    Returns:
        Scores of shape (N, C).

    Raises:
        ValueError: Dimensions differ, or an embedding is zero, NaN or infinite.
    """
    return _from_logits(scale * _cosines(images, texts) + (0.0 if bias is None else bias))


def softmax_scores(images: Embeddings, texts: Embeddings, *, scale: float) -> ZeroShotScores:
    """Score mutually exclusive labels: softmax of scale * cos over the labels, as CLIP.

    The logits are the log odds of each label against all others. A single label has only its
    negative to compete with: that softmax is ``pair_scores``.

    Args:
        images: Image embeddings of shape (N, D), of any norm.
        texts: Prompt ensembles of shape (C, D), of any norm, for two labels or more.
        scale: exp(logit_scale) of the model; a logit bias would cancel.

    Returns:
        Scores of shape (N, C).

    Raises:
        ValueError: There is only one label, dimensions differ, or an embedding is zero, NaN or
            infinite.
    """
    if len(texts) < 2:
        raise ValueError("softmax needs several labels: compare one with its negative")
    joint = scale * _cosines(images, texts)
    # log p_c - log(1 - p_c) loses all digits as p_c approaches 1; the sum of the others does not.
    others = [np.logaddexp.reduce(np.delete(joint, c, axis=1), axis=1) for c in range(len(texts))]
    return _from_logits(joint - np.stack(others, axis=1))


def pair_scores(
    images: Embeddings, texts: Embeddings, negatives: Embeddings, *, scale: float
) -> ZeroShotScores:
    """Score each label against its own negative: sigmoid(scale * (<x, t+> - <x, t->)).

    This is the softmax over "pneumonia" and "no pneumonia" (CheXzero, Tiu et al. 2022). A logit
    bias cancels.

    Args:
        images: Image embeddings of shape (N, D), of any norm.
        texts: Prompt ensembles of shape (C, D), of any norm.
        negatives: Ensembles of the negative prompts of shape (C, D), of any norm.
        scale: exp(logit_scale) of the model.

    Returns:
        Scores of shape (N, C).

    Raises:
        ValueError: Shapes differ, or an embedding is zero, NaN or infinite.
    """
    if texts.shape != negatives.shape:
        raise ValueError(f"texts have shape {texts.shape}, but negatives {negatives.shape}")
    # <x, t+> - <x, t-> is <x, t+ - t->.
    difference = l2_normalize(texts, "text") - l2_normalize(negatives, "negative text")
    return _from_logits(scale * _project(images, difference))


def choose_scoring(
    requested: str,
    *,
    aligned: bool,
    bias: float | None,
    has_negatives: bool,
    n_labels: int,
    exclusive: bool,
) -> Scoring:
    """Return the requested scoring if it is possible, or the one that "auto" chooses.

    "auto" chooses "pair" where there are negative prompts, since the difference removes what all
    prompts share; else "sigmoid" for a model with a logit bias, which was trained that way; else
    "softmax" for mutually exclusive labels; else "sigmoid", whose probabilities are then
    uncalibrated but rank well.

    Args:
        requested: "auto", "pair", "sigmoid" or "softmax".
        aligned: Whether the model's images and texts share one space.
        bias: logit_bias of the model; None for models without.
        has_negatives: Whether each label has negative prompts.
        n_labels: Number of labels.
        exclusive: Whether every image has exactly one of the labels.

    Raises:
        UnknownNameError: There is no such scoring.
        UsageError: The encoders are unaligned, or the prompts lack what the scoring needs.
    """
    valid = ("auto", *get_args(Scoring))
    if requested not in valid:
        raise UnknownNameError("scoring", requested, valid)
    if not aligned:
        raise UsageError(
            "zero-shot needs images and texts in one space, but this model's two encoders were"
            " never trained together: fit an `alignment` and give it, train a head, or use an"
            " aligned model such as xraysiglip"
        )
    if not has_negatives and (requested == "pair" or (requested == "softmax" and n_labels == 1)):
        scoring = "pair scoring" if requested == "pair" else "softmax over a single label"
        raise UsageError(
            f"{scoring} compares a label with its negative, but the prompts have none: add "
            "negative templates, or use `scoring` sigmoid"
        )
    if requested != "auto":
        return cast(Scoring, requested)
    if has_negatives:
        return "pair"
    return "softmax" if bias is None and exclusive and n_labels > 1 else "sigmoid"


def _cosines(images: Embeddings, texts: Embeddings) -> Floats:
    """Return cosines of N images and C texts, shape (N, C)."""
    return _project(images, l2_normalize(texts, "text"))


def _project(images: Embeddings, vectors: Floats) -> Floats:
    """Return the products of N normalized images and C vectors, shape (N, C)."""
    if images.ndim != 2 or vectors.ndim != 2 or images.shape[1] != vectors.shape[1]:
        raise ValueError(
            f"images {images.shape} and texts {vectors.shape} are not (N, D) and (C, D) of one D"
        )
    products = np.empty((len(images), len(vectors)))

    def fill(rows: slice) -> None:
        products[rows] = l2_normalize(images[rows], "image", first=rows.start) @ vectors.T

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        # The results are consumed so that an error is raised.
        list(pool.map(fill, row_chunks(len(images), _ROWS_AT_ONCE)))
    return products


def _from_logits(logits: Floats) -> ZeroShotScores:
    # 1 / (1 + exp(-z)) overflows at z < -709; this form does not.
    return ZeroShotScores(logits=logits, probabilities=np.exp(-np.logaddexp(0, -logits)))
