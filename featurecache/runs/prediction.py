"""New images through an encoder and whatever classifies its embeddings."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featurecache.encoders.encoder import decode_and_preprocess
from featurecache.errors import ImageError
from featurecache.images.subprocess_decoder import SubprocessDecoder
from featurecache.store.concat import concat_embeddings
from featurecache.store.records import NON_FINITE_EMBEDDING, to_float16_checked

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
    encoders: "Sequence[Encoder]", classify: Classify, paths: Sequence[Path]
) -> list[Prediction]:
    """Probabilities of each label for each image, in the order given; each image is read once.

    Args:
        encoders: one, or several whose embeddings are classified side by side, as those of a
            ``ConcatCache``.
        classify: what turns embeddings into probabilities.
        paths: image files.
    """
    predictions: dict[Path, Prediction] = {}
    reader = SubprocessDecoder()
    different = list(dict.fromkeys(paths))
    for start in range(0, len(different), BATCH_SIZE):
        for prediction in _classify_batch(
            encoders, classify, different[start : start + BATCH_SIZE], reader
        ):
            predictions[prediction.path] = prediction
    return [predictions[path] for path in paths]


def _classify_batch(
    encoders: "Sequence[Encoder]",
    classify: Classify,
    paths: Sequence[Path],
    reader: SubprocessDecoder,
) -> Iterator[Prediction]:
    pixels: dict[Path, list[NDArray[np.float32]]] = {}
    for path in paths:
        try:
            pixels[path] = decode_and_preprocess(reader, path, encoders, called=str(path))
        except ImageError as error:
            yield Prediction(path, None, str(error))
    if not pixels:
        return
    batches = [np.stack(of_encoder) for of_encoder in zip(*pixels.values(), strict=True)]
    # As a cache would store it, so that a cached image predicts the same; what a cache would refuse
    # is refused here.
    stored = [
        to_float16_checked(encoder.embed_pixels(batch))
        for encoder, batch in zip(encoders, batches, strict=True)
    ]
    usable = np.logical_and.reduce([of_encoder for _, of_encoder in stored])
    shares = [half[usable] for half, _ in stored]
    joined = shares[0] if len(shares) == 1 else concat_embeddings(shares)
    found = iter(classify(joined) if usable.any() else ())
    for path, is_usable in zip(pixels, usable, strict=True):
        if is_usable:
            yield Prediction(path, next(found), None)
        else:
            yield Prediction(path, None, f"{path}: {NON_FINITE_EMBEDDING}")
