"""Fit an alignment to the training images of a cache, and select it on validation images."""

from dataclasses import asdict
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.alignment.alignment import Alignment
from featurecache.alignment.apply import text_encoder
from featurecache.alignment.captions import CaptionTargets, caption_targets
from featurecache.alignment.contrastive import (
    LEARNING_RATES,
    ContrastiveSettings,
    train_contrastive,
)
from featurecache.alignment.ridge import STRENGTHS, AffineMap, ridge_maps, squared_error
from featurecache.errors import UnknownNameError, UsageError
from featurecache.metrics.bootstrap import none_if_nan
from featurecache.metrics.multilabel import compute_metrics
from featurecache.metrics.platt_scaling import fit_common_slope
from featurecache.metrics.ranking import macro
from featurecache.metrics.similarity import Directions, Floats, l2_normalize, normalize_rows
from featurecache.prompts import PromptSet
from featurecache.store.cache import Cache
from featurecache.store.layout import alignment_path
from featurecache.store.open import CacheLike, open_cache
from featurecache.store.records import TextSet

METHODS: Final = ("ridge", "contrastive")


def align(
    cache: CacheLike, *, method: str = "ridge", prompts: str | PromptSet | None = None
) -> Alignment:
    """Map the images of a cache into the embedding space of its texts.

    This makes zero-shot classification and text-to-image retrieval possible for an image and a
    text encoder that were trained separately. It needs only the embeddings in the cache. Each
    training image is mapped to the prompt ensembles of its known labels:

    - "ridge" is a ridge regression in closed form, with the strength that has the lowest squared
      error on validation images.
    - "contrastive" continues from there with a contrastive loss; learning rate and epoch are those
      with the lowest validation loss.

    Scale and bias of the scores maximize the likelihood on validation images. Test images are
    never used.

    Args:
        cache: A cache of an encoder whose images and texts do not share a space, or its path.
        method: "ridge" or "contrastive".
        prompts: Prompt set, or its name; may be None if the cache holds only one.

    Returns:
        The alignment, not yet saved.

    Raises:
        UnknownNameError: There is no such method or prompt set.
        CacheError: The cache has no texts, or does not record which encoder embedded them.
        UsageError: The encoder is aligned already, no training or validation image has a caption,
            no label varies among the validation images, or the fitted map is uninformative on
            them.

    Example:
        >>> import featurecache as fc
        >>> alignment = fc.align("cache/phantom/dinov2-minilm.h5")  # doctest: +SKIP
        >>> alignment.save()  # doctest: +SKIP
        PosixPath('cache/phantom/dinov2-minilm.signs-ridge.alignment.safetensors')
    """
    if method not in METHODS:
        raise UnknownNameError("method", method, METHODS)
    cache = open_cache(cache)
    cache.require_labels()
    cache.require_vectors()
    text = cache.text(prompts)
    if text.aligned:
        raise UsageError(
            f"{cache.header.model} embeds images and texts in one space already: use it without "
            "an alignment"
        )
    text_spec = text_encoder(cache, text)
    train_rows, train_captions = _rows_with_captions(cache, "train", text)
    val_rows, val_captions = _rows_with_captions(cache, "val", text)
    train = normalize_rows(cache.embedding[train_rows]), train_captions
    val = normalize_rows(cache.embedding[val_rows]), val_captions
    try:
        maps = ridge_maps(*train)
    except ValueError as error:
        raise UsageError(f"{cache.path} cannot be aligned: {error}") from error
    errors = [squared_error(candidate, *val) for candidate in maps]
    best = int(np.argmin(errors))
    affine_map = maps[best]
    settings: dict[str, Any] = {"strength": STRENGTHS[best]}
    selection = {"squared_error": errors[best]}
    labels = cache.labels.values[val_rows]
    scale, bias, auroc = _fit_scores(affine_map, val[0], labels, text)
    if method == "contrastive":
        candidates = [ContrastiveSettings(learning_rate=rate) for rate in LEARNING_RATES]
        trained = min(
            (
                train_contrastive(affine_map, scale, train=train, val=val, settings=candidate)
                for candidate in candidates
            ),
            key=lambda candidate: candidate.loss,
        )
        affine_map = trained.map
        settings |= {**asdict(trained.settings), "epoch": trained.epoch}
        selection = {"loss": trained.loss}
        scale, bias, auroc = _fit_scores(affine_map, val[0], labels, text)
    return Alignment(
        weight=affine_map.weight.astype(np.float32),
        offset=affine_map.offset.astype(np.float32),
        scale=scale,
        bias=bias,
        spec={
            "image_encoder": dict(cache.header.encoder_spec),
            "text_encoder": dict(text_spec),
            "model": cache.header.model,
            "dataset": cache.header.dataset,
            "method": method,
            "settings": settings,
            "prompts": {"name": text.name, "fingerprint": text.fingerprint},
            "labels": list(cache.labels.names),
            "units": cache.units.to_config(),
            "validation": {"n": len(labels), **selection, "auroc": auroc},
        },
        trained_on=cache.training_provenance(train_rows).trained_on,
        path=alignment_path(cache.path, text.name, method),
    )


def _rows_with_captions(
    cache: Cache, split: str, text: TextSet
) -> tuple[NDArray[np.intp], CaptionTargets]:
    """Return the rows of a split that have a caption, and their captions."""
    rows = cache.learning_rows(split)
    rows = rows[caption_targets(cache.labels.values[rows], text).counts() > 0]
    if len(rows) == 0:
        raise UsageError(
            f"{cache.path} has no images in the split {split!r} with a label that gives a caption: "
            "extract a data set with labels and splits"
        )
    return rows, caption_targets(cache.labels.values[rows], text)


def _fit_scores(
    affine_map: AffineMap, images: Directions, labels: NDArray[np.int8], text: TextSet
) -> tuple[float, float, float | None]:
    """Fit scale and bias to validation images, and return them with the macro AUROC.

    One scale and one bias serve all labels. The scale is the maximum-likelihood slope within
    labels of the pair score (of the positive cosine where there are no negative prompts). With the
    bias, the mean of the sigmoid scores equals the fraction of positives.

    Raises:
        UsageError: No label has both classes, or the scores are not higher for positives.
    """
    from scipy.optimize import brentq
    from scipy.special import expit

    directions = l2_normalize(affine_map(images), "aligned image")
    positive = directions @ l2_normalize(text.positive.ensemble, "text").T
    score: Floats = positive
    if text.negative is not None:
        score = positive - directions @ l2_normalize(text.negative.ensemble, "text").T
    valid = labels >= 0
    truth = labels[valid]
    if not ((labels == 1).any(axis=0) & (labels == 0).any(axis=0)).any():
        raise UsageError(
            f"no label has both positives and negatives among the {len(labels)} validation images, "
            "so the scale of the alignment is undefined: use more images"
        )
    scale = fit_common_slope(labels, score)
    if not scale > 0:
        best = "are all equal" if np.isnan(scale) else f"have the best factor {scale:.3g}"
        raise UsageError(
            f"the alignment is uninformative on the {len(labels)} validation images (its scores "
            f"{best}): use more images, or other prompts"
        )
    # The fraction of Platt's soft targets, which is never 0 or 1.
    fraction = (truth.sum() + 1) / (len(truth) + 2)
    logits = scale * positive[valid]
    odds = float(np.log(fraction / (1 - fraction)))
    low, high = odds - float(logits.max()), odds - float(logits.min())
    bias = low if low == high else brentq(lambda b: expit(logits + b).mean() - fraction, low, high)
    decisions = np.zeros(labels.shape, dtype=np.bool_)  # only the ranking matters
    auroc = macro(compute_metrics(labels, decisions, score).per_label["auroc"])
    return scale, float(bias), none_if_nan(auroc)
