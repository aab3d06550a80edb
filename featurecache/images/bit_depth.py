"""Judge the bit depth of a set of images whose files do not define the range of their values."""

import random
import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median_low
from typing import Final

from featurecache.errors import FeaturecacheWarning, ImageError, UsageError
from featurecache.images.dicom import lacks_header
from featurecache.images.formats import may_lack_range
from featurecache.images.read import read_start
from featurecache.images.subprocess_decoder import IMAGE_TIMEOUT, SubprocessDecoder

MAX_OPENED: Final = 1000
"""Files whose first bytes are read."""
MAX_MEASURED: Final = 200
"""Files whose pixels are read."""
_STRAY_BITS: Final = 3
"""An image that needs this many bits more than the median is not taken for the others' range."""
_HEADER_BYTES: Final = 1024
_THREADS: Final = 2


@dataclass(frozen=True)
class FileSample:
    """What the first bytes of a sample of files say.

    Attributes:
        n_files: Number of files that could be opened.
        undefined: Those that may leave the range of their gray values undefined, in random order.
        bare_dicom: Number of DICOM files without a preamble or a transfer syntax.
    """

    n_files: int
    undefined: tuple[Path, ...]
    bare_dicom: int

    def notes(self) -> list[str]:
        """Return a sentence for each assumption that the files need."""
        if not self.bare_dicom:
            return []
        return [
            f"{self.bare_dicom} of {self.n_files} files that were looked at are DICOM without a "
            "preamble or a transfer syntax: the encoding is inferred from their content."
        ]


def sample_files(files: Sequence[Path]) -> FileSample:
    """Read the first bytes of a random sample of image files, the same at each call.

    Args:
        files: The files; those that cannot be read are left out.
    """
    chosen = random.Random(0).sample(files, min(len(files), MAX_OPENED))
    starts = [(path, start) for path in chosen if (start := read_start(path, _HEADER_BYTES))]
    return FileSample(
        n_files=len(starts),
        undefined=tuple(path for path, start in starts if may_lack_range(start)),
        bare_dicom=sum(lacks_header(start) for _, start in starts),
    )


def judge_bit_depth(sample: FileSample, *, timeout: float = IMAGE_TIMEOUT) -> int | None:
    """Return the fewest bits that hold the values of all images of a sample.

    A ``FeaturecacheWarning`` says what was assumed.

    Args:
        sample: The sample, of which at most ``MAX_MEASURED`` images are read.
        timeout: Maximum time to read one image, in seconds.

    Returns:
        The bit depth, 8 to 16; None if no file that can be read leaves its range undefined.

    Raises:
        UsageError: A few images need far more bits than most.
    """
    decoder = SubprocessDecoder(timeout=timeout)
    with ThreadPoolExecutor(_THREADS) as pool:
        needed = list(pool.map(partial(_bits, decoder), sample.undefined[:MAX_MEASURED]))
    counts = Counter(bits for bits in needed if bits is not None)
    if not counts:
        return None
    bit_depth = max(counts)
    uses = ", ".join(f"{number} use {bits}" for bits, number in sorted(counts.items()))
    if median_low(counts.elements()) <= bit_depth - _STRAY_BITS:
        # A single pixel, such as a burned-in marker, can be that bright; all else would be black.
        raise UsageError(
            "the bit depth of gray values whose range a file does not define is not clear: of "
            f"{counts.total()} files that were measured, {uses} bits. Give `bit_depth`, such as "
            f"{counts.most_common(1)[0][0]}; images that do not fit it are recorded as failed"
        )
    warnings.warn(
        f"{_assumption(bit_depth)}: of {counts.total()} that were measured, {uses}; give "
        "`bit_depth` if this is wrong",
        FeaturecacheWarning,
        stacklevel=3,
    )
    return bit_depth


def bit_depth_of(decoder: SubprocessDecoder, content: bytes) -> int | None:
    """Return the bit depth that ``judge_bit_depth`` finds for one image alone.

    Args:
        decoder: Reads the image.
        content: Content of the image file.

    Returns:
        The bit depth, 8 to 16; None if the file defines the range of its values or cannot be read.
    """
    return _bits(decoder, content) if may_lack_range(content[:_HEADER_BYTES]) else None


def bit_depth_note(bit_depth: int) -> str:
    """Return the sentence for readers about the bit depth of a set of images."""
    assumption = _assumption(bit_depth)
    return f"{assumption[0].upper()}{assumption[1:]}."


def _assumption(bit_depth: int) -> str:
    return (
        "gray values whose range a file does not define (16-bit PNG and TIFF, DICOM without a "
        f"window) are read as {bit_depth} bits, 0 to {2**bit_depth - 1:,}"
    )


def _bits(decoder: SubprocessDecoder, source: Path | bytes) -> int | None:
    try:
        return decoder.used_bits(source)
    except ImageError:
        return None  # reported where the image is used
