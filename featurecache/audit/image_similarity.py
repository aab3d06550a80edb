"""Similarity of two images by their pixels, which survives re-encoding, resizing and cropping.

Each image is reduced to a miniature, and the miniature to its detail: the difference from its
blurred version, which keeps edges of ribs, vessels, tubes and letters. (All chest X-rays are alike
in the blurred part.) The similarity is the highest correlation of the center of one image with any
window of the other, over small zooms of height and width::

    max over zooms z and shifts s of  corr(center of one under z, window of the other at s)

Correlation is invariant to brightness and contrast; a miniature of fixed size is nearly invariant
to encoding, and fully to the size of the image. Shifts reach one eighth of a side and zooms 9 %,
so crops of a few percent are found. Rotated, mirrored or inverted images are not found, nor images
whose center is painted over. The similarity depends slightly on the order of the two images.

Comparing all images with all others would take too long. The amplitudes of an image's frequencies,
without their phases, are invariant to shifts and nearly so to crops: copies are neighbors by
``spectrum``, and only neighbors need to be compared.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

Miniature: TypeAlias = NDArray[np.uint8]
Detail: TypeAlias = NDArray[np.float32]

SIDE: Final = 64
"""Side of a miniature in pixels: 4 kB per image, with noise and encoding averaged out."""

MIN_SIMILARITY: Final = 0.9
"""Similarity from which on two images are near-duplicates.

Changed copies of real images lie above it; two images of one patient, even of one day, below. The
measurements are in the documentation of the audit.
"""

_FREQUENCIES: Final = 16
"""Highest frequency of a spectrum in waves per side: a period of four pixels."""
_WINDOW: Final = 48
_BLUR: Final = 2.0
_FLAT: Final = 1e-3
"""Norm of detail, in gray levels, below which there is only rounding error."""
_COARSE: Final = [(height, width) for height in (0.94, 1.0, 1.06) for width in (0.94, 1.0, 1.06)]
_FINE: Final = [(height, width) for height in (-0.03, 0.0, 0.03) for width in (-0.03, 0.0, 0.03)]
"""Zooms of height and width: tried for all pairs, and around the best one for likely copies."""
_FINE_SEARCH_FROM: Final = 0.6
"""Copies cropped by 5 % on each side, the least similar under coarse zooms, still have 0.7."""


def miniature(image: "Image") -> Miniature:
    """Return an image as a small gray square, (64, 64) uint8; its aspect ratio is not kept."""
    from PIL import Image

    small = image.convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    return np.asarray(small, dtype=np.uint8)


def spectrum(image: Miniature) -> NDArray[np.float32]:
    """Return a shift-invariant vector of unit length for nearest-neighbor search.

    It holds the square roots of the amplitudes of low frequencies, minus their mean. The image
    fades out towards its edges, where a shift or a crop brings in other content.

    Args:
        image: The miniature of an image.

    Returns:
        A vector of unit length; zeros for an image without detail.
    """
    from scipy.fft import rfft2

    fade = np.hanning(SIDE + 2)[1:-1].astype(np.float32)
    amplitudes = np.abs(rfft2(_detail(image) * np.outer(fade, fade)))
    low = np.concatenate([amplitudes[:_FREQUENCIES], amplitudes[1 - _FREQUENCIES :]])
    strengths = np.sqrt(low[:, :_FREQUENCIES]).ravel()
    strengths -= strengths.mean()
    direction: NDArray[np.float32] = strengths / max(float(np.linalg.norm(strengths)), _FLAT)
    return direction


def similarities(image: Miniature, others: Iterable[Miniature]) -> Iterator[float]:
    """Compute the similarity of an image to others.

    Args:
        image: The miniature of an image.
        others: Miniatures of other images.

    Yields:
        The similarity to each, -1 to 1; 1 for a perfect copy, and 0 for an image without detail.
    """
    detail = _detail(image)
    coarse = _center_spectra(detail, _COARSE)
    for other in others:
        other_detail = _detail(other)
        similarity, best = _max_correlation(coarse, other_detail, oversampling=1)
        if similarity >= _FINE_SEARCH_FROM:
            height, width = _COARSE[best]
            fine = _center_spectra(detail, [(height + dh, width + dw) for dh, dw in _FINE])
            similarity = max(similarity, _max_correlation(fine, other_detail, oversampling=2)[0])
        yield similarity


def _detail(image: Miniature) -> Detail:
    from scipy.ndimage import gaussian_filter

    pixels = image.astype(np.float32)
    detail: Detail = pixels - gaussian_filter(pixels, _BLUR, mode="nearest")
    return detail


def _center_spectra(detail: Detail, zooms: Sequence[tuple[float, float]]) -> NDArray[np.complex64]:
    """Return the conjugate spectra of the center under each zoom, with mean 0 and norm 1."""
    from PIL import Image
    from scipy.fft import rfft2

    image = Image.fromarray(detail)
    centers = []
    for height, width in zooms:
        x, y = _WINDOW / width / 2, _WINDOW / height / 2
        box = (SIDE / 2 - x, SIDE / 2 - y, SIDE / 2 + x, SIDE / 2 + y)
        center = np.asarray(image.resize((_WINDOW, _WINDOW), Image.Resampling.BICUBIC, box=box))
        center = center - center.mean()
        centers.append(center / max(float(np.linalg.norm(center)), _FLAT))
    spectra: NDArray[np.complex64] = rfft2(np.stack(centers), s=(SIDE, SIDE)).conj()
    return spectra


def _max_correlation(
    centers: NDArray[np.complex64], detail: Detail, *, oversampling: int
) -> tuple[float, int]:
    """Find the maximum over all centers and shifts.

    Args:
        centers: Conjugate spectra of centers.
        detail: Detail of the other image.
        oversampling: Number of shifts per pixel.

    Returns:
        The correlation, and the index of the center.
    """
    from scipy.fft import irfft2, rfft2

    spectra = rfft2(detail)[np.newaxis] * centers
    side = oversampling * SIDE
    if oversampling > 1:
        # Zero padding beyond the highest frequency interpolates between the pixels.
        padded = np.zeros((len(spectra), side, side // 2 + 1), dtype=spectra.dtype)
        half = SIDE // 2
        padded[:, :half, : half + 1] = spectra[:, :half]
        padded[:, -half:, : half + 1] = spectra[:, half:]
        spectra = padded * oversampling**2
    n_shifts = oversampling * (SIDE - _WINDOW) + 1
    products = irfft2(spectra, s=(side, side))[:, :n_shifts, :n_shifts]
    # Norms between pixels are interpolated, so that a perfect copy may come out above 1.
    correlations = (products / _window_norms(detail, oversampling)).max(axis=(1, 2))
    best = int(np.argmax(correlations))
    return min(float(correlations[best]), 1.0), best


def _window_norms(detail: Detail, oversampling: int) -> NDArray[np.float64]:
    """Return the norm of every window about its mean, (n_shifts, n_shifts)."""
    from scipy.ndimage import zoom

    pixels = detail.astype(np.float64)
    squares = _window_sums(pixels**2) - _window_sums(pixels) ** 2 / _WINDOW**2
    norms = np.sqrt(np.maximum(squares, _FLAT**2))
    if oversampling == 1:
        return norms
    n_shifts = oversampling * (len(norms) - 1) + 1
    interpolated: NDArray[np.float64] = zoom(norms, n_shifts / len(norms), order=1)
    return interpolated


def _window_sums(pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    integral = np.pad(pixels, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    sums: NDArray[np.float64] = (
        integral[_WINDOW:, _WINDOW:]
        - integral[:-_WINDOW, _WINDOW:]
        - integral[_WINDOW:, :-_WINDOW]
        + integral[:-_WINDOW, :-_WINDOW]
    )
    return sums
