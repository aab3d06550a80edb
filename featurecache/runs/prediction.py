"""Predict new images: find them, embed them, and pass the embeddings to a classifier."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from featurecache.datasets.dataset import Dataset
from featurecache.datasets.load import load_dataset
from featurecache.datasets.scan import scan_tree
from featurecache.datasets.table_reader import TABLE_SUFFIXES
from featurecache.encoders.encoder import Encoder, decode_and_preprocess
from featurecache.errors import ImageError, UsageError
from featurecache.images.bit_depth import judge_bit_depth, sample_files
from featurecache.images.subprocess_decoder import SubprocessDecoder
from featurecache.progress import Progress
from featurecache.store.cache import Cache
from featurecache.store.concat import concat_embeddings
from featurecache.store.grouped import Grouping, group_images
from featurecache.store.open import open_cache
from featurecache.store.records import NON_FINITE_EMBEDDING, to_float16_checked
from featurecache.units import Units

BATCH_SIZE = 16
CACHE_SUFFIX: Final = ".h5"

_Path = str | os.PathLike[str]

Classify = Callable[[NDArray[np.float16]], NDArray[np.floating]]
"""Function from embeddings of shape (B, D) to probabilities of shape (B, C)."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prediction:
    """The prediction of one image.

    Attributes:
        path: The image file.
        output: What ``classify`` returned for the image, such as probabilities of shape (C,); None
            where the image could not be read.
        reason: Why it could not be read; None where it could.
    """

    path: Path
    output: NDArray[np.floating] | None
    reason: str | None


@dataclass(frozen=True)
class ImageFiles:
    """Images to predict.

    Attributes:
        names: What each is called in the result.
        paths: Their files.
        studies: The study of each, "" if unknown; None if all are.
        views: The view of each, "" if unknown; None if all are.
        folders: Folders whose images they all are.
    """

    names: Sequence[str]
    paths: Sequence[Path]
    studies: Sequence[str] | None = None
    views: Sequence[str] | None = None
    folders: Sequence[Path] = ()

    def group(self, units: Units) -> Grouping:
        """Return which images are used, and the study of each; see ``group_images``."""
        unknown = [""] * len(self.names)
        ids, studies, views = (
            np.array(texts, dtype=np.str_)
            for texts in (self.names, self.studies or unknown, self.views or unknown)
        )
        return group_images(ids, studies, views, units, source="the images to predict")


Images = _Path | Sequence[_Path] | Dataset | Cache | ImageFiles
"""Image files, folders, tables and caches: what ``find_images`` takes."""


def find_images(images: Images, units: Units) -> ImageFiles | Cache:
    """Find the images to predict, before anything is loaded that takes time.

    Args:
        images: A path or several: a folder stands for every image below it, a table for the images
            in its column ``path``, and the files of one cache, or of several caches that belong
            together, for their embeddings. Or a ``Dataset``, a ``Cache``, or what this function
            returned.
        units: What is predicted, by which the files of caches are opened.

    Raises:
        UsageError: There is no image, or caches are given beside other files.
        DatasetError: A table cannot be read.
        CacheError: A cache cannot be read.
    """
    if isinstance(images, ImageFiles | Cache):
        return images
    if isinstance(images, Dataset):
        by_id = images.files()
        studies, views = (images.images[column].tolist() for column in ("study", "view"))
        return ImageFiles(list(by_id), list(by_id.values()), studies, views)
    given = [images] if isinstance(images, str | os.PathLike) else images
    paths = [Path(path).expanduser() for path in given]
    if not paths:
        raise UsageError("give at least one image")
    if not any(path.exists() for path in paths):
        raise UsageError(f"{paths[0]} does not exist: give images, a folder, or a table")
    caches = [path for path in paths if path.suffix == CACHE_SUFFIX]
    if caches and len(caches) < len(paths):
        raise UsageError(f"{caches[0]} is a cache: give it without other files")
    if caches:
        return open_cache(caches, **asdict(units))
    names: list[str] = []
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            tree = scan_tree(path)
            if not tree.images:
                raise UsageError(f"{path} holds no images")
            for note in tree.notes():
                _log.warning(f"{path}: {note}")
            below = [path / name for name in tree.images]
            names += map(str, below)
            files += below
        elif path.name.lower().endswith(TABLE_SUFFIXES):
            of_table = load_dataset(path).files()
            names += of_table
            files += of_table.values()
        else:
            names.append(str(path))
            files.append(path)
    return ImageFiles(names, files, folders=[path for path in paths if path.is_dir()])


def classify_images(
    encoders: Sequence[Encoder],
    classify: Classify,
    paths: Sequence[Path],
    *,
    names: Sequence[str] | None = None,
    progress: Progress | None = None,
    bit_depth: int | None = None,
) -> list[Prediction]:
    """Predict images in the order given; an image that is given twice is read once.

    Args:
        encoders: One encoder, or several whose embeddings are concatenated as in a ``ConcatCache``.
        classify: Function from embeddings to probabilities.
        paths: Image files.
        names: What each is called in messages; None for its path.
        bit_depth: Bit depth of the training images, with which these are read; None where they
            needed none: it is judged from these.
        progress: Called with the number of finished images and of all.

    Returns:
        One prediction per path.
    """
    predictions: dict[Path, Prediction] = {}
    decoder = SubprocessDecoder()
    unique = dict(zip(paths, map(str, paths) if names is None else names, strict=True))
    bit_depth = bit_depth or judge_bit_depth(sample_files(list(unique)))
    items = list(unique.items())
    for start in range(0, len(items), BATCH_SIZE):
        batch = dict(items[start : start + BATCH_SIZE])
        for prediction in _classify_batch(encoders, classify, batch, decoder, bit_depth):
            predictions[prediction.path] = prediction
        if progress is not None:
            progress(len(predictions), len(unique))
    return [predictions[path] for path in paths]


def _classify_batch(
    encoders: Sequence[Encoder],
    classify: Classify,
    names: Mapping[Path, str],
    decoder: SubprocessDecoder,
    bit_depth: int | None,
) -> Iterator[Prediction]:
    pixels: dict[Path, list[NDArray[np.float32]]] = {}
    for path, name in names.items():
        try:
            pixels[path] = decode_and_preprocess(
                decoder, path, encoders, bit_depth=bit_depth, name=name
            )
        except ImageError as error:
            yield Prediction(path, None, str(error))
    if not pixels:
        return
    batches = [np.stack(arrays) for arrays in zip(*pixels.values(), strict=True)]
    embedding, usable = embed_pixels(encoders, batches)
    probabilities = iter(classify(embedding) if usable.any() else ())
    for path, is_usable in zip(pixels, usable, strict=True):
        if is_usable:
            yield Prediction(path, next(probabilities), None)
        else:
            yield Prediction(path, None, f"{names[path]}: {NON_FINITE_EMBEDDING}")


def embed_pixels(
    encoders: Sequence[Encoder], batches: Sequence[NDArray[np.float32]]
) -> tuple[NDArray[np.float16], NDArray[np.bool_]]:
    """Embed images as a cache stores them, so that a cached image gets the same prediction.

    Args:
        encoders: One encoder, or several whose embeddings are concatenated as in a ``ConcatCache``.
        batches: For each encoder the preprocessed pixels of N images, (N, 3, H, W).

    Returns:
        Embeddings of the M images that a cache would not refuse, (M, D) or (M, T, D), and which
        these are, (N,).
    """
    checked = [
        to_float16_checked(encoder.embed_pixels(batch))
        for encoder, batch in zip(encoders, batches, strict=True)
    ]
    usable = np.logical_and.reduce([is_usable for _, is_usable in checked])
    embeddings = [embedding[usable] for embedding, _ in checked]
    return embeddings[0] if len(embeddings) == 1 else concat_embeddings(embeddings), usable
