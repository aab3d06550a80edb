"""New images through an encoder and whatever classifies its embeddings."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import ImageError
from featurecache.images import read_image
from featurecache.store.contents import UNSTORABLE, to_storable

if TYPE_CHECKING:
    from featurecache.encoders.encoder import Encoder

BATCH_SIZE = 16

Classify = Callable[[NDArray[np.float16]], NDArray[np.float64]]
"""(B, D) embeddings to (B, C) probabilities."""


@dataclass(frozen=True)
class Prediction:
    """One image's probabilities, (C,), or the reason why there are none."""

    path: Path
    probability: NDArray[np.float64] | None
    reason: str | None


def classify_images(
    encoder: "Encoder", classify: Classify, paths: Sequence[Path]
) -> list[Prediction]:
    """Probabilities of each label for each image, in the order given; each image is read once."""
    predictions: dict[Path, Prediction] = {}
    different = list(dict.fromkeys(paths))
    for start in range(0, len(different), BATCH_SIZE):
        for prediction in _classify_batch(encoder, classify, different[start : start + BATCH_SIZE]):
            predictions[prediction.path] = prediction
    return [predictions[path] for path in paths]


def _classify_batch(
    encoder: "Encoder", classify: Classify, paths: Sequence[Path]
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
    # As a cache would store it, so that a cached image predicts the same; what a cache would refuse
    # is refused here.
    half, usable = to_storable(embedding)
    probability = classify(half)
    for path, row, is_usable in zip(pixels, probability, usable, strict=True):
        if is_usable:
            yield Prediction(path, row, None)
        else:
            yield Prediction(path, None, f"{path}: {UNSTORABLE}")
