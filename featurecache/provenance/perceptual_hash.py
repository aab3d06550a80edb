"""A hash of an image's content that survives re-encoding and resizing.

The image becomes a gray square of 64 x 64 pixels. 256 low frequencies of its discrete cosine
transform are compared with their median: one bit each. The method is that of pHash (Zauner,
"Implementation and Benchmarking of Perceptual Image Hash Functions", 2010), with 256 bits in place
of 64 and without the 129 lowest frequencies, in which all chest X-rays are alike. How far copies
and other images are apart is measured in the documentation of the audit.
"""

from collections.abc import Iterator
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

    Args:
        hashes: (N, 32).
        others: (M, 32).

    Returns:
        (N,): whether at most ``MAX_DISTANCE`` bits differ from those of one of the others.
    """
    found = np.zeros(len(hashes), dtype=np.bool_)
    rows, others = np.flatnonzero(hashes.any(axis=1)), others[others.any(axis=1)]
    if len(rows) <= len(others):
        for row, near in zip(rows.tolist(), _iter_near(hashes[rows], others), strict=True):
            found[row] = len(near) > 0
    else:
        for near in _iter_near(others, hashes[rows]):
            found[rows[near]] = True
    return found


def _iter_near(hashes: NDArray[np.uint8], others: NDArray[np.uint8]) -> Iterator[NDArray[np.intp]]:
    """Yield, for each hash, the indices of others that differ in at most ``MAX_DISTANCE`` bits.

    Half of the bits are compared first, which rules out nearly all pairs: two hashes differ in at
    least as many bits as their halves do.
    """
    words = np.ascontiguousarray(hashes).view(np.uint64)
    first, second, third, fourth = np.ascontiguousarray(
        np.ascontiguousarray(others).view(np.uint64).T
    )
    bits = np.empty_like(first)
    distance, more = np.empty((2, len(others)), dtype=np.uint8)
    for a, b, c, d in words:
        np.bitwise_count(np.bitwise_xor(first, a, out=bits), out=distance)
        np.bitwise_count(np.bitwise_xor(second, b, out=bits), out=more)
        np.add(distance, more, out=distance)
        near = np.flatnonzero(distance <= MAX_DISTANCE)
        rest = np.bitwise_count(third[near] ^ c) + np.bitwise_count(fourth[near] ^ d)
        yield near[distance[near] + rest <= MAX_DISTANCE]
