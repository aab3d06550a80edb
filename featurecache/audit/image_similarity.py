"""How alike two films are, pixel by pixel, whatever was done to the one to make the other.

Of each film a miniature is kept, and of the miniature what lies above its blur: edges of ribs,
vessels, tubes and letters. All chests are alike in the rest. The likeness is the greatest
correlation of the one's middle with any place of the other, over small zooms of height and width:

    max over zooms z and shifts s of  corr(middle of one under z, window of the other at s)

Correlation knows no brightness and no contrast; a miniature of fixed size knows little of
encoding, and nothing of a change of size. Shifts reach an eighth of a side, zooms 9 %, so crops
of a few per cent are met. Turned, mirrored or inverted films are not; nor is one whose middle is
painted over. The measure of two films depends a little on which comes first.

To compare all films with all others would take too long. The strengths of the frequencies of a
film, without their phases, stay the same when it is shifted and nearly so when it is cropped:
copies are neighbours by ``spectrum``, and only neighbours need be compared.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL.Image import Image

Miniature: TypeAlias = npt.NDArray[np.uint8]
Detail: TypeAlias = npt.NDArray[np.float32]

SIDE: Final = 64
"""Pixels of a miniature's sides: 4 kB a film, and a film's noise and encoding averaged away."""

IDENTICAL: Final = 0.9
"""From this likeness on, two films are called near-identical; docs/audit.md says what was measured.

Changed copies of real films lie above it, two films of one patient, even of one day, below.
"""

_FREQUENCIES: Final = 16
"""Waves a side that a spectrum goes up to: a period of four pixels of a miniature."""
_WINDOW: Final = 48
_BLUR: Final = 2.0
_FLAT: Final = 1e-3
"""A norm of detail, in grey levels, that only rounding leaves."""
_COARSE: Final = [(down, across) for down in (0.94, 1.0, 1.06) for across in (0.94, 1.0, 1.06)]
_FINE: Final = [(down, across) for down in (-0.03, 0.0, 0.03) for across in (-0.03, 0.0, 0.03)]
"""Zooms of height and width: tried on all films, and around the best of them on likely copies."""
_WORTH_A_CLOSER_LOOK: Final = 0.6
"""A copy cropped by 5 % on each side, the least alike under coarse zooms, still has some 0.7."""


def miniature(film: "Image") -> Miniature:
    """A film as a small grey square; what is not square is squeezed into it."""
    from PIL import Image

    small = film.convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    return np.asarray(small, dtype=np.uint8)


def spectrum(film: Miniature) -> npt.NDArray[np.float32]:
    """What is strong in a film and how much so, wherever it lies: a direction for exact search.

    Square roots of the amplitudes of the low frequencies, about their mean and at unit length;
    zeros of a film without detail. The film fades out towards its edges, where a shift or a crop
    brings in something else.
    """
    from scipy.fft import rfft2

    fade = np.hanning(SIDE + 2)[1:-1].astype(np.float32)
    amplitudes = np.abs(rfft2(_detail(film) * np.outer(fade, fade)))
    low = np.concatenate([amplitudes[:_FREQUENCIES], amplitudes[1 - _FREQUENCIES :]])
    strengths = np.sqrt(low[:, :_FREQUENCIES]).ravel()
    strengths -= strengths.mean()
    direction: npt.NDArray[np.float32] = strengths / max(float(np.linalg.norm(strengths)), _FLAT)
    return direction


def likeness(one: Miniature, others: Iterable[Miniature]) -> Iterator[float]:
    """How alike a film is to others, -1 to 1 each; 1 is a perfect copy.

    A film without any detail, all of one grey, is like no other: 0.
    """
    detail = _detail(one)
    coarse = _middles(detail, _COARSE)
    for other in others:
        there = _detail(other)
        found, best = _greatest_correlation(coarse, there, between=1)
        if found >= _WORTH_A_CLOSER_LOOK:
            down, across = _COARSE[best]
            fine = _middles(detail, [(down + more, across + wider) for more, wider in _FINE])
            found = max(found, _greatest_correlation(fine, there, between=2)[0])
        yield found


def _detail(film: Miniature) -> Detail:
    from scipy.ndimage import gaussian_filter

    pixels = film.astype(np.float32)
    detail: Detail = pixels - gaussian_filter(pixels, _BLUR, mode="nearest")
    return detail


def _middles(detail: Detail, zooms: Sequence[tuple[float, float]]) -> npt.NDArray[np.complex64]:
    """The middle under every zoom, at mean 0 and length 1, as conjugate spectra."""
    from PIL import Image
    from scipy.fft import rfft2

    image = Image.fromarray(detail)
    middles = []
    for down, across in zooms:
        x, y = _WINDOW / across / 2, _WINDOW / down / 2
        box = (SIDE / 2 - x, SIDE / 2 - y, SIDE / 2 + x, SIDE / 2 + y)
        middle = np.asarray(image.resize((_WINDOW, _WINDOW), Image.Resampling.BICUBIC, box=box))
        middle = middle - middle.mean()
        middles.append(middle / max(float(np.linalg.norm(middle)), _FLAT))
    spectra: npt.NDArray[np.complex64] = rfft2(np.stack(middles), s=(SIDE, SIDE)).conj()
    return spectra


def _greatest_correlation(
    middles: npt.NDArray[np.complex64], detail: Detail, *, between: int
) -> tuple[float, int]:
    """The greatest over all middles and shifts, ``between`` of them a pixel, and its middle."""
    from scipy.fft import irfft2, rfft2

    spectra = rfft2(detail)[np.newaxis] * middles
    side = between * SIDE
    if between > 1:
        # Zeros beyond the highest frequency: the same correlation, looked up between the pixels.
        padded = np.zeros((len(spectra), side, side // 2 + 1), dtype=spectra.dtype)
        half = SIDE // 2
        padded[:, :half, : half + 1] = spectra[:, :half]
        padded[:, -half:, : half + 1] = spectra[:, half:]
        spectra = padded * between**2
    shifts = between * (SIDE - _WINDOW) + 1
    products = irfft2(spectra, s=(side, side))[:, :shifts, :shifts]
    # Norms between the pixels are interpolated, so that a perfect copy may come out above 1.
    greatest = (products / _norms(detail, between)).max(axis=(1, 2))
    best = int(np.argmax(greatest))
    return min(float(greatest[best]), 1.0), best


def _norms(detail: Detail, between: int) -> npt.NDArray[np.float64]:
    """The norm of every window about its mean, (shifts, shifts)."""
    from scipy.ndimage import zoom

    pixels = detail.astype(np.float64)
    squares = _window_sums(pixels**2) - _window_sums(pixels) ** 2 / _WINDOW**2
    norms = np.sqrt(np.maximum(squares, _FLAT**2))
    if between == 1:
        return norms
    shifts = between * (len(norms) - 1) + 1
    finer: npt.NDArray[np.float64] = zoom(norms, shifts / len(norms), order=1)
    return finer


def _window_sums(pixels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    sums = np.pad(pixels, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    whole: npt.NDArray[np.float64] = (
        sums[_WINDOW:, _WINDOW:]
        - sums[:-_WINDOW, _WINDOW:]
        - sums[_WINDOW:, :-_WINDOW]
        + sums[:-_WINDOW, :-_WINDOW]
    )
    return whole
