"""Samples of a data set: for training and scoring, of rows all over it, and their pixels."""

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featurecache.datasets.splits import SPLITS
from featurecache.encoders.encoder import decode_and_preprocess
from featurecache.errors import ImageError
from featurecache.images.subprocess_decoder import SubprocessDecoder

if TYPE_CHECKING:
    from featurecache.datasets.dataset import Dataset
    from featurecache.encoders.encoder import Encoder


def sample_rows(dataset: "Dataset", size: int) -> NDArray[np.intp]:
    """Return rows of a sample, stratified by split and label.

    The images are put in an order of which every beginning is a sample, so a larger sample holds
    every smaller one. First comes one image for each split and label, common labels first; then
    each split and label gets its share. (An image with several findings counts for the rarest.)
    Within a split and label, chance decides, but no patient has a second image before all have one.
    Chance is a hash of the ids: the same images are drawn on every machine, and few others when
    images are added.

    Args:
        dataset: The data set.
        size: Number of images; all images if there are fewer.

    Returns:
        Row numbers, ascending.
    """
    digests = [blake2b(image.encode(), digest_size=8).digest() for image in dataset.images["id"]]
    chance = np.frombuffer(b"".join(digests), dtype=">u8")
    split = dataset.images["split"].map(SPLITS.index).to_numpy()
    stratum = split * (len(dataset.label_names) + 1) + _rarest_label(dataset.label_values)
    patient = np.unique(dataset.images["patient"].to_numpy(dtype=str), return_inverse=True)[1]
    repeat = _number_within(stratum * (patient.max() + 1) + patient, chance)
    number = _number_within(stratum, repeat, chance)
    n_images = np.bincount(stratum)[stratum]
    is_first = number == 0
    rank = np.empty(len(dataset))
    rank[is_first] = _number_within(split[is_first], -n_images[is_first])
    rank[~is_first] = (number[~is_first] + 0.5) / n_images[~is_first]
    order = np.lexsort([chance, np.where(is_first, split, 0), rank, ~is_first])
    return np.sort(order[:size])


def evenly_spaced(n: int, most: int) -> NDArray[np.intp]:
    """Return at most ``most`` of n row numbers, evenly spaced from the first to the last."""
    return np.linspace(0, n - 1, min(n, most)).astype(np.intp)


def read_pixels(
    dataset: "Dataset", rows: Iterable[int], encoder: "Encoder", *, image_timeout: float
) -> tuple[list[int], list[NDArray[np.float32]]]:
    """Read some images in a subprocess, without those that cannot be read.

    Args:
        dataset: The data set.
        rows: Rows of the images.
        encoder: The encoder to preprocess for.
        image_timeout: Maximum time to read one image, in seconds.

    Returns:
        The rows of the images that can be read, and their pixels, each (3, H, W).
    """
    decoder = SubprocessDecoder(timeout=image_timeout)
    read, pixels = [], []
    for row in rows:
        if (of_encoders := read_image(dataset, row, [encoder], decoder)) is not None:
            read.append(row)
            pixels += of_encoders
    return read, pixels


def read_image(
    dataset: "Dataset", row: int, encoders: Sequence["Encoder"], decoder: SubprocessDecoder
) -> list[NDArray[np.float32]] | None:
    """Return the pixels of an image for each encoder, each (3, H, W); None if it cannot be read.

    Args:
        dataset: The data set.
        row: Row of the image.
        encoders: The encoders to preprocess for.
        decoder: Reads the image.
    """
    path = dataset.root / dataset.images["path"].iloc[row]
    try:
        return decode_and_preprocess(decoder, path, encoders, bit_depth=dataset.bit_depth)
    except ImageError:
        return None


def _rarest_label(labels: NDArray[np.int8]) -> NDArray[np.intp]:
    """Return the column of the rarest positive label in each row of (N, C) labels; C for none."""
    positive = np.column_stack([labels == 1, np.ones(len(labels), dtype=np.bool_)])
    by_rarity = np.argsort(positive.sum(axis=0)[:-1], kind="stable")
    columns = np.append(by_rarity, labels.shape[1])
    rarest: NDArray[np.intp] = columns[positive[:, columns].argmax(axis=1)]
    return rarest


def _number_within(group: NDArray[np.intp], *order: NDArray[np.generic]) -> NDArray[np.intp]:
    """Number the rows of each group from 0, in ascending order of the given keys, (N,)."""
    by_group = np.lexsort([*reversed(order), group])
    ordered = group[by_group]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    lengths = np.diff(np.append(starts, len(group)))
    number = np.empty(len(group), dtype=np.intp)
    number[by_group] = np.arange(len(group)) - np.repeat(starts, lengths)
    return number
