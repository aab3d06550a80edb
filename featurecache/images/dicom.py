"""Decode one DICOM object to 8 bits; nothing but its pixels comes out.

The names in its header never leave this module, nor does a message of pydicom, which may quote
them. The grey values go the way that the standard draws (PS3.4, N.2): rescale or modality LUT, then
the VOI LUT or the first window of the file, then MONOCHROME1 is turned round. A file without a
window is scaled from the least to the greatest value that its stored bits can have, and refused
where its own values fill less than a sixteenth of that. Presentation states, overlays and a
presentation LUT shape are ignored.
"""

import io
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import ImageError

if TYPE_CHECKING:
    import PIL.Image

_MAGIC: Final = slice(128, 132)
_GREY: Final = ("MONOCHROME1", "MONOCHROME2")


def is_dicom(data: bytes) -> bool:
    """Whether the bytes are those of a DICOM file (PS3.10): DICM behind a preamble."""
    return data[_MAGIC] == b"DICM"


def decode_dicom(data: bytes, check_size: Callable[[int, int], None]) -> "PIL.Image.Image":
    """Decode the bytes of one DICOM file to grey (``L``) or ``RGB``.

    Args:
        data: the file.
        check_size: refuses a width and height by an ``ImageError``, before pixels take memory.

    Raises:
        ImageError: pydicom is not installed; the object holds no pixels, several frames, or
            writing burnt into its pixels; or it is damaged.
    """
    from PIL import Image

    if find_spec("pydicom") is None:
        raise ImageError("a DICOM file, which needs pydicom: pip install 'featurecache[dicom]'")
    try:
        found = _read(data)
        _check(found)
        check_size(int(found.Columns), int(found.Rows))
        pixels = _pixels(found)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001
        # pydicom and its decoders raise whatever their Python trips over, with the header's values
        # in the message: only the kind is told.
        raise ImageError(
            f"a DICOM file that is damaged or of an unsupported kind ({type(error).__name__})"
        ) from None
    return Image.fromarray(pixels)


def _read(data: bytes) -> Any:
    import logging
    import warnings

    import pydicom

    # Both would quote the header. Not undone: a filter that is lifted again holds for all threads.
    warnings.filterwarnings("ignore", module="pydicom")
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    return pydicom.dcmread(io.BytesIO(data))


def _check(found: Any) -> None:
    if "PixelData" not in found:
        kind = _named(found.file_meta.MediaStorageSOPClassUID)
        raise ImageError(f"a DICOM object without an image ({kind})")
    if int(found.get("NumberOfFrames") or 1) > 1:
        raise ImageError("holds several frames: export the frame you mean as an image of its own")
    if str(found.get("BurnedInAnnotation", "")).strip().upper() == "YES":
        raise ImageError(
            "says that writing is burnt into its pixels (BurnedInAnnotation), which may be a "
            "patient's name: take the writing out and set the attribute to NO"
        )


def _named(uid: Any) -> str:
    """A UID of the standard by name; of others nothing is told, for they may be anything."""
    name = str(uid.name)
    return "unknown" if name == str(uid) else name


def _pixels(found: Any) -> NDArray[np.uint8]:
    """(H, W) or (H, W, 3)."""
    from pydicom.pixels import apply_color_lut

    try:
        stored = found.pixel_array
    except RuntimeError:  # of all decoders that there are, with their messages
        syntax = _named(found.file_meta.TransferSyntaxUID)
        raise ImageError(f"its pixels cannot be decompressed ({syntax}): save it plain") from None
    kind = str(found.PhotometricInterpretation)
    if kind in _GREY:
        return _grey(found, stored, inverted=kind == "MONOCHROME1")
    bits = int(found.BitsStored)
    if kind == "PALETTE COLOR":
        stored = apply_color_lut(stored, found)
        bits = 8 * stored.dtype.itemsize
    if stored.ndim != 3 or stored.shape[2] != 3:
        raise ImageError(
            "pixels of this PhotometricInterpretation are not supported: save it as grey"
        )
    return _to_8_bit(stored.astype(np.float64), 0, 2**bits - 1)


def _grey(found: Any, stored: NDArray[Any], *, inverted: bool) -> NDArray[np.uint8]:
    from pydicom.pixels import apply_modality_lut

    bits, signed = int(found.BitsStored), bool(found.PixelRepresentation)
    ends = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if signed else [0, 2**bits - 1])
    values = apply_modality_lut(stored, found).astype(np.float64)
    if "ModalityLUTSequence" in found:
        table = found.ModalityLUTSequence[0]
        ends = np.array([0, 2 ** int(table.LUTDescriptor[2]) - 1])
    else:
        ends = ends * float(found.get("RescaleSlope", 1)) + float(found.get("RescaleIntercept", 0))
    if "VOILUTSequence" in found:
        values, ends = _looked_up(found, values)
    elif found.get("WindowWidth") is not None:
        values, ends = _windowed(found, values)
    elif np.ptp(values) < np.ptp(ends) / 16:
        # As with 12 bits in a 16-bit PNG: it would come out nearly flat.
        raise ImageError(
            f"has no window, and its values fill less than a sixteenth of their {bits} bits: put "
            "a WindowCenter and a WindowWidth into it"
        )
    low, high = sorted(ends.tolist())
    return _to_8_bit(values, high, low) if inverted else _to_8_bit(values, low, high)


def _looked_up(
    found: Any, values: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Values through the first VOI LUT, and the ends of its range (PS3.3, C.11.2.1.1).

    Not by pydicom, which looks up values beyond a table of 8 bits modulo 256.
    """
    item = found.VOILUTSequence[0]
    entries, first, bits = (int(number) for number in item.LUTDescriptor)
    entries = entries or 2**16
    table = item.LUTData
    if isinstance(table, bytes):
        order = "<" if found.file_meta.TransferSyntaxUID.is_little_endian else ">"
        wide = len(table) >= 2 * entries
        table = np.frombuffer(table, dtype=f"{order}u2" if wide else "u1")
    places = np.clip(values - first, 0, entries - 1).astype(np.intp)
    return np.asarray(table, dtype=np.float64)[places], np.array([0, 2**bits - 1])


def _windowed(
    found: Any, values: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values through the first window, in 0 to 1 (PS3.3, C.11.2.1)."""
    center, width = (
        float(np.atleast_1d(value)[0]) for value in (found.WindowCenter, found.WindowWidth)
    )
    shape = str(found.get("VOILUTFunction") or "LINEAR").upper()
    if width <= 0 or (shape == "LINEAR" and width < 1):
        raise ImageError(f"its window is {width} wide: mend WindowWidth, or take it out")
    if shape == "SIGMOID":
        # Written so that no value overflows.
        windowed = 0.5 * (1 + np.tanh(2 * (values - center) / width))
    elif shape == "LINEAR_EXACT":
        windowed = (values - center) / width + 0.5
    elif shape == "LINEAR":
        # A width of 1 is a step.
        windowed = (values - (center - 0.5)) / max(width - 1, 1e-9) + 0.5
    else:
        raise ImageError("its VOILUTFunction is none of the standard's: mend it, or take it out")
    return windowed, np.array([0.0, 1.0])


def _to_8_bit(values: NDArray[np.float64], black: float, white: float) -> NDArray[np.uint8]:
    """Values from black to white as 0 to 255; what lies beyond is cut off."""
    share = (values - black) / (white - black)
    return np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)
