"""Predict new images: find them, embed them, and pass the embeddings to a classifier."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featurecache.datasets.scan import IMAGE_SUFFIXES
from featurecache.encoders.encoder import decode_and_preprocess
from featurecache.errors import ImageError, UsageError
from featurecache.images.bit_depth import judge_bit_depth, sample_files
from featurecache.images.subprocess_decoder import SubprocessDecoder
from featurecache.store.concat import concat_embeddings
from featurecache.store.records import NON_FINITE_EMBEDDING, to_float16_checked

if TYPE_CHECKING:
    from featurecache.encoders.encoder import Encoder

BATCH_SIZE = 16

Classify = Callable[[NDArray[np.float16]], NDArray[np.float64]]
"""Function from embeddings of shape (B, D) to probabilities of shape (B, C)."""


@dataclass(frozen=True)
class Prediction:
    """The prediction of one image.

    Attributes:
        path: The image file.
        probability: Probabilities of shape (C,); None where the image could not be read.
        reason: Why it could not be read; None where it could.
    """

    path: Path
    probability: NDArray[np.float64] | None
    reason: str | None


def find_images(images: "str | os.PathLike[str] | Sequence[str | os.PathLike[str]]") -> list[Path]:
    """Return image files, where a folder stands for every image below it, sorted by path.

    Raises:
        UsageError: There is no image.
    """
    given = [images] if isinstance(images, str | os.PathLike) else images
    files: list[Path] = []
    for path in map(Path, given):
        if not path.is_dir():
            files.append(path)
            continue
        below = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        if not below:
            raise UsageError(f"{path} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
        files += below
    if not files:
        raise UsageError("give at least one image")
    return files


def classify_images(
    encoders: "Sequence[Encoder]",
    classify: Classify,
    paths: Sequence[Path],
    *,
    bit_depth: int | None = None,
) -> list[Prediction]:
    """Predict images in the order given; an image that is given twice is read once.

    Args:
        encoders: One encoder, or several whose embeddings are concatenated as in a ``ConcatCache``.
        classify: Function from embeddings to probabilities.
        paths: Image files.
        bit_depth: Bit depth of the training images, with which these are read; None where they
            needed none: it is judged from these.

    Returns:
        One prediction per path.
    """
    predictions: dict[Path, Prediction] = {}
    decoder = SubprocessDecoder()
    unique = list(dict.fromkeys(paths))
    bit_depth = bit_depth or judge_bit_depth(sample_files(unique))
    for start in range(0, len(unique), BATCH_SIZE):
        batch = unique[start : start + BATCH_SIZE]
        for prediction in _classify_batch(encoders, classify, batch, decoder, bit_depth):
            predictions[prediction.path] = prediction
    return [predictions[path] for path in paths]


def _classify_batch(
    encoders: "Sequence[Encoder]",
    classify: Classify,
    paths: Sequence[Path],
    decoder: SubprocessDecoder,
    bit_depth: int | None,
) -> Iterator[Prediction]:
    pixels: dict[Path, list[NDArray[np.float32]]] = {}
    for path in paths:
        try:
            pixels[path] = decode_and_preprocess(
                decoder, path, encoders, bit_depth=bit_depth, name=str(path)
            )
        except ImageError as error:
            yield Prediction(path, None, str(error))
    if not pixels:
        return
    batches = [np.stack(arrays) for arrays in zip(*pixels.values(), strict=True)]
    # Rounded as a cache stores it, so that a cached image gets the same prediction; what a cache
    # would refuse is refused here.
    checked = [
        to_float16_checked(encoder.embed_pixels(batch))
        for encoder, batch in zip(encoders, batches, strict=True)
    ]
    usable = np.logical_and.reduce([is_usable for _, is_usable in checked])
    embeddings = [embedding[usable] for embedding, _ in checked]
    joined = embeddings[0] if len(embeddings) == 1 else concat_embeddings(embeddings)
    probabilities = iter(classify(joined) if usable.any() else ())
    for path, is_usable in zip(pixels, usable, strict=True):
        if is_usable:
            yield Prediction(path, next(probabilities), None)
        else:
            yield Prediction(path, None, f"{path}: {NON_FINITE_EMBEDDING}")
