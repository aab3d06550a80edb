"""A trained head on new images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import ImageError, RunError
from featurecache.fingerprint import first_difference
from featurecache.heads.saving import SavedHead
from featurecache.heads.training import predict_probabilities
from featurecache.images import read_image

if TYPE_CHECKING:
    from featurecache.encoders.encoder import Encoder

BATCH_SIZE = 16


@dataclass(frozen=True)
class Prediction:
    """One image's probabilities, (C,), or the reason why there are none."""

    path: Path
    probability: NDArray[np.float64] | None
    reason: str | None


def library_difference(head: SavedHead, encoder: "Encoder") -> str | None:
    """Where the encoder differs from the one the head was trained on by library versions alone.

    Other versions of the libraries may decode or resize a pixel differently; that is worth a
    warning. Anything else that differs makes the head's inputs mean something else.

    Raises:
        RunError: the weights, the preprocessing or the precision differ; the message names the
            field.
    """
    trained, present = dict(head.description), dict(encoder.image_description)
    libraries = first_difference(trained.pop("libraries", {}), present.pop("libraries", {}))
    if difference := first_difference(trained, present):
        raise RunError(
            f"the head in {head.path} was trained on embeddings of another encoder "
            f"({difference}): give the one it was trained on with --model or --weights"
        )
    return libraries


def predict_images(head: SavedHead, encoder: "Encoder", paths: Sequence[Path]) -> list[Prediction]:
    """Probabilities of each label for each image, in the order given.

    Raises:
        RunError: the encoder is not the one that the head was trained on.
    """
    library_difference(head, encoder)
    predictions: dict[Path, Prediction] = {}
    different = list(dict.fromkeys(paths))
    for start in range(0, len(different), BATCH_SIZE):
        for prediction in _predict_batch(head, encoder, different[start : start + BATCH_SIZE]):
            predictions[prediction.path] = prediction
    return [predictions[path] for path in paths]


def _predict_batch(
    head: SavedHead, encoder: "Encoder", paths: Sequence[Path]
) -> Iterator[Prediction]:
    pixels: dict[Path, NDArray[np.float32]] = {}
    for path in paths:
        try:
            pixels[path] = encoder.preprocess(read_image(path))
        except ImageError as error:
            yield Prediction(path, None, str(error))
    if not pixels:
        return
    embedding = encoder.encode_images(np.stack(list(pixels.values())))
    # Through float16 as a cache would store it, so that a cached image predicts the same; what a
    # cache would refuse is refused here.
    with np.errstate(over="ignore"):
        half = embedding.astype(np.float16)
    usable = np.logical_and(np.isfinite(half).all(axis=1), half.any(axis=1))
    probability = predict_probabilities(head.module, half)
    for path, row, is_usable in zip(pixels, probability, usable, strict=True):
        if is_usable:
            yield Prediction(path, row, None)
        else:
            reason = f"{path}: its embedding is not finite in float16, or is all zero"
            yield Prediction(path, None, reason)
