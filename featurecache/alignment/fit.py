"""Fit an alignment on the training images of a cache, choose its strength on validation."""

from dataclasses import asdict
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.alignment.alignment import Alignment
from featurecache.alignment.apply import text_encoder
from featurecache.alignment.captions import Captions, caption_images
from featurecache.alignment.contrastive import (
    LEARNING_RATES,
    ContrastiveSettings,
    train_contrastive,
)
from featurecache.alignment.ridge import STRENGTHS, AffineMap, ridge_maps, squared_error
from featurecache.errors import UnknownNameError, UsageError
from featurecache.metrics.bootstrap import none_if_nan
from featurecache.metrics.calibration import fit_common_slope
from featurecache.metrics.multilabel import compute_metrics
from featurecache.metrics.ranking import macro
from featurecache.metrics.similarity import Directions, Floats, l2_normalize, normalize_rows
from featurecache.store.cache import Cache
from featurecache.store.records import TextSet

METHODS: Final = ("ridge", "contrastive")


def fit_alignment(cache: Cache, *, method: str = "ridge", prompts: str | None = None) -> Alignment:
    """Map a cache's images into the space of its texts; takes embeddings alone.

    The map is fitted to the captions of the training images, as ``captions.Captions`` defines them.
    ``ridge`` regresses images on their captions in closed form; its strength is that with the least
    squared error on validation. ``contrastive`` goes on from there by a contrastive loss; its
    learning rate and epoch are those with the least validation loss. Scale and bias of the scores
    are those of the greatest likelihood on validation. Test rows are never looked at.

    Args:
        cache: embeddings of an unaligned encoder, labels, splits and texts.
        method: ``ridge`` or ``contrastive``.
        prompts: the prompt set; needed only where the cache holds several.

    Raises:
        UnknownNameError: there is no such method or prompt set.
        CacheError: the cache has no texts, or does not say which encoder read them.
        UsageError: the encoder is aligned already, training or validation has no caption, or what
            was fitted says nothing on validation.
    """
    if method not in METHODS:
        raise UnknownNameError("method", method, METHODS)
    text = cache.text(prompts)
    if text.aligned:
        raise UsageError(
            f"images and texts of {cache.header.model} share a space already: run zero-shot or "
            "retrieve as it is"
        )
    read_by = text_encoder(cache, text)
    rows = {split: _captioned(cache, split, text) for split in ("train", "val")}
    embedding = cache.embedding
    train, val = ((normalize_rows(embedding[at]), captions) for at, captions in rows.values())
    try:
        maps = ridge_maps(*train)
    except ValueError as error:
        raise UsageError(f"{cache.path} has nothing to align: {error}") from error
    errors = [squared_error(fitted, *val) for fitted in maps]
    best = int(np.argmin(errors))
    fitted = maps[best]
    settings: dict[str, Any] = {"strength": STRENGTHS[best]}
    figures: dict[str, Any] = {"squared_error": errors[best]}
    labels = cache.labels.values[rows["val"][0]]
    scale, bias, separation = _scores(fitted, val[0], labels, text)
    if method == "contrastive":
        tried = [ContrastiveSettings(learning_rate=rate) for rate in LEARNING_RATES]
        chosen, trained = min(
            (
                (one, train_contrastive(fitted, scale, train=train, val=val, settings=one))
                for one in tried
            ),
            key=lambda pair: pair[1].loss,
        )
        fitted = trained.map
        settings |= {**asdict(chosen), "epoch": trained.epoch}
        figures = {"loss": trained.loss}
        scale, bias, separation = _scores(fitted, val[0], labels, text)
    return Alignment(
        weight=fitted.weight.astype(np.float32),
        offset=fitted.offset.astype(np.float32),
        scale=scale,
        bias=bias,
        spec={
            "image_encoder": dict(cache.header.encoder_spec),
            "text_encoder": dict(read_by),
            "model": cache.header.model,
            "dataset": cache.header.dataset,
            "method": method,
            "settings": settings,
            "prompts": {"name": text.name, "fingerprint": text.fingerprint},
            "labels": list(cache.labels.names),
            "validation": {"n": len(labels), **figures, "auroc": separation},
        },
        trained_on=cache.training_provenance(rows["train"][0]).trained_on,
    )


def _captioned(cache: Cache, split: str, text: TextSet) -> tuple[NDArray[np.intp], Captions]:
    """The rows of a split that have a caption, and their captions."""
    rows = cache.rows(split)
    rows = rows[caption_images(cache.labels.values[rows], text).counts() > 0]
    if len(rows) == 0:
        raise UsageError(
            f"{cache.path} has no images of the split {split!r} of which a prompt is known to be "
            "true: extract a data set with labels and splits"
        )
    return rows, caption_images(cache.labels.values[rows], text)


def _scores(
    fitted: AffineMap, images: Directions, labels: NDArray[np.int8], text: TextSet
) -> tuple[float, float, float | None]:
    """The scale and bias of the greatest likelihood, and the macro AUROC, of validation images.

    One scale and one bias serve all labels. The scale is that of pair scores, where there are
    negatives, within labels; the bias is that with which the mean of the sigmoid scores is the
    share of positives.

    Raises:
        UsageError: no label has both classes, or the scores go down where they should go up.
    """
    from scipy.optimize import brentq
    from scipy.special import expit

    directions = l2_normalize(fitted(images), "aligned image")
    positive = directions @ l2_normalize(text.positive.ensemble, "text").T
    score: Floats = positive
    if text.negative is not None:
        score = positive - directions @ l2_normalize(text.negative.ensemble, "text").T
    known = labels >= 0
    truth = labels[known]
    scale = fit_common_slope(labels, score)
    if not scale > 0:
        raise UsageError(
            f"what was learned from training says nothing of the {len(labels)} validation images "
            f"(the best factor on its scores is {scale:.3g}): take more images, or other prompts"
        )
    # The share is that of Platt's soft targets, which is neither 0 nor 1.
    share = (truth.sum() + 1) / (len(truth) + 2)
    cosines = scale * positive[known]
    odds = float(np.log(share / (1 - share)))
    low, high = odds - float(cosines.max()), odds - float(cosines.min())
    bias = low if low == high else brentq(lambda b: expit(cosines + b).mean() - share, low, high)
    nothing = np.zeros(labels.shape, dtype=np.bool_)
    area = macro(compute_metrics(labels, nothing, score).per_label["auroc"])
    return scale, float(bias), none_if_nan(area)
