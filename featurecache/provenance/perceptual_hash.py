"""A hash of an image's content that survives re-encoding and resizing.

The image becomes a gray square of 64 x 64 pixels. 256 low frequencies of its discrete cosine
transform are compared with their median: one bit each. The method is that of pHash (Zauner,
"Implementation and Benchmarking of Perceptual Image Hash Functions", 2010), with 256 bits in place
of 64 and without the 129 lowest frequencies, in which all chest X-rays are alike. How far copies
and other images are apart is measured in the documentation of the audit.
"""

from collections.abc import Iterator
from itertools import combinations
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

PerceptualHash: TypeAlias = NDArray[np.uint8]

HASH_BYTES: Final = 32

NO_HASH: Final[PerceptualHash] = np.zeros(HASH_BYTES, dtype=np.uint8)
"""In place of the hash of an image without content; no other image has it."""
NO_HASH.flags.writeable = False

MAX_DISTANCE: Final = 32
"""Bits, of 256, that differ at the most between an image and its re-encoded or resized copy."""

_BAND_BITS: Final = 16
_FLIPS: Final[NDArray[np.uint16]] = np.array(
    [
        sum(1 << bit for bit in bits)
        for n_bits in range(3)
        for bits in combinations(range(_BAND_BITS), n_bits)
    ],
    dtype=np.uint16,
)
"""Changes of a band in at most 2 of its bits, those of fewer bits first."""
_CANDIDATES: Final = 2**17
"""Pairs of hashes to compare at a time, about: as many as the processor's cache holds."""

_SIDE: Final = 64
_HIGHEST: Final = 24
"""Frequencies per direction, from 0; enough for the 385 nearest to 0."""
_SKIPPED: Final = 129
_FLAT: Final = 1.0
"""Root mean square of the content, in gray levels, below which there is only rounding and noise."""

_frequency = np.arange(_HIGHEST)
_COSINES: Final[NDArray[np.float32]] = np.cos(
    np.pi * (2 * np.arange(_SIDE) + 1) * _frequency[:, np.newaxis] / (2 * _SIDE)
).astype(np.float32)
_ORDER = np.argsort(np.add.outer(_frequency**2, _frequency**2).ravel(), kind="stable")
_CHOSEN: Final = _ORDER[_SKIPPED : _SKIPPED + 8 * HASH_BYTES]


def perceptual_hash(image: "Image") -> PerceptualHash:
    """Return the hash of an image, (32,) uint8.

    Args:
        image: An 8-bit image in mode ``L`` or ``RGB``. Its size and aspect ratio do not matter.

    Returns:
        The hash; ``NO_HASH`` for an image of one gray level, which any other could be mistaken for.
    """
    from PIL import Image

    gray = image.convert("L").resize(
        # The gap makes a large image several times faster, by averaging before the filter.
        (_SIDE, _SIDE),
        Image.Resampling.LANCZOS,
        reducing_gap=3.0,
    )
    pixels = np.asarray(gray, dtype=np.float32)
    if pixels.std() < _FLAT:
        return NO_HASH
    frequencies = (_COSINES @ pixels @ _COSINES.T).ravel()[_CHOSEN]
    return np.packbits(frequencies > np.median(frequencies))


def is_copy(hashes: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which images are copies of any of other images.

    The search is exact: multi-index hashing (Norouzi, Punjani and Fleet, "Fast Search in Hamming
    Space with Multi-Index Hashing", CVPR 2012). Of the 16 bands of 16 bits of two hashes that
    differ in at most 32 bits, either the first differs in at most 2 bits or one of the others in at
    most 1; else at least 3 + 15 * 2 bits would differ. Only such pairs are compared in full.

    Args:
        hashes: (N, 32).
        others: (M, 32).

    Returns:
        (N,): whether at most ``MAX_DISTANCE`` bits differ from those of one of the others.
    """
    is_found = np.zeros(len(hashes), dtype=np.bool_)
    rows = np.flatnonzero(hashes.any(axis=1))
    words, other_words = _words(hashes[rows]), _words(_unique(others[others.any(axis=1)]))
    if not other_words.size:
        return is_found
    for band in range(8 * HASH_BYTES // _BAND_BITS):
        if len(rows) <= other_words.shape[1]:
            for near, _ in _iter_near(words, other_words, band):
                is_found[rows[near]] = True
        else:
            for _, near in _iter_near(other_words, words, band):
                is_found[rows[near]] = True
        if (is_open := ~is_found[rows]).sum() < len(rows):
            rows, words = rows[is_open], words[:, is_open]
    return is_found


def _unique(hashes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return each hash once, so that many equal images are not compared with many others."""
    as_bytes = np.ascontiguousarray(hashes).view(f"V{HASH_BYTES}")
    return np.unique(as_bytes).view(np.uint8).reshape(-1, HASH_BYTES)


def _words(hashes: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return the hashes as 64-bit numbers, (4, N)."""
    return np.ascontiguousarray(np.ascontiguousarray(hashes).view(np.uint64).T)


def _iter_near(
    queries: NDArray[np.uint64], indexed: NDArray[np.uint64], band: int
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Yield pairs that differ in at most ``MAX_DISTANCE`` bits and are nearly equal in a band.

    Args:
        queries: Words of the hashes of the smaller set, (4, Q).
        indexed: Words of the hashes of the larger set, (4, M).
        band: Number of the band, from 0; in the first, two bits may differ, in others only one.

    Yields:
        Indices of queries and of indexed hashes, each with as many elements as there are pairs.
    """
    word, place = divmod(band * _BAND_BITS, 64)
    query_keys, keys = (
        (words[word] >> np.uint64(place)).astype(np.uint16) for words in (queries, indexed)
    )
    flips = _FLIPS if band == 0 else _FLIPS[: 1 + _BAND_BITS]
    order = np.argsort(keys, kind="stable")  # a radix sort
    start = np.concatenate([[0], np.cumsum(np.bincount(keys, minlength=2**_BAND_BITS))])
    expected = len(flips) * max(1, len(keys) >> _BAND_BITS)
    step = max(1, _CANDIDATES // expected)
    for first in range(0, len(query_keys), step):
        buckets = (query_keys[first : first + step, np.newaxis] ^ flips).astype(np.intp).ravel()
        begin = start.take(buckets)
        size = start.take(buckets + 1) - begin
        end = np.cumsum(size)
        cuts = np.searchsorted(end, np.arange(_CANDIDATES, end[-1], _CANDIDATES))
        for chunk in np.split(np.arange(len(size)), cuts):
            sizes = size[chunk]
            query = np.repeat(first + chunk // len(flips), sizes)
            position = np.repeat(begin[chunk] - np.cumsum(sizes) + sizes, sizes)
            candidate = order.take(position + np.arange(len(position)))
            # Half of the bits rule out nearly all pairs.
            distance = np.zeros(len(query), dtype=np.uint8)
            for a, b in zip(queries[:2], indexed[:2], strict=True):
                distance += np.bitwise_count(a.take(query) ^ b.take(candidate))
            near = np.flatnonzero(distance <= MAX_DISTANCE)
            query, candidate, distance = query[near], candidate[near], distance[near]
            for a, b in zip(queries[2:], indexed[2:], strict=True):
                distance += np.bitwise_count(a.take(query) ^ b.take(candidate))
            is_near = distance <= MAX_DISTANCE
            yield query[is_near], candidate[is_near]
