"""Decode a DICOM file to 8-bit pixels, and read those attributes of its header that are asked for.

Names in the header are never passed on, nor are messages of pydicom, which may quote them.
Grayscale values are transformed as the standard describes (PS3.4, N.2): rescale or modality LUT,
then the VOI LUT or the first window of the file, then MONOCHROME1 is inverted. A file without any
lookup table or window is scaled from the lowest to the highest value of the bits in use, which may
be fewer than it declares (see ``featurecache.images.gray_range``), and refused if its own values
span less than a sixteenth of that. Presentation states, overlays and the presentation LUT shape are
ignored.
"""

import io
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import ImageError
from featurecache.images.gray_range import DARKEST, MIN_BITS, require_fit
from featurecache.images.read import MAX_BYTES

if TYPE_CHECKING:
    import PIL.Image

_MAGIC: Final = slice(128, 132)
_BARE: Final = re.compile(
    # A tag of group 0002 or 0008, of which files have one of the first elements, then its value
    # representation, or where that is implicit the length of its value: under 1024, and even.
    rb"(?:[\x02\x08]\0[\0-\x18]\0|\0[\x02\x08]\0[\0-\x18])(?:AE|CS|DA|DT|LO|OB|SH|TM|UI|UL)"
    rb"|[\x02\x08]\0[\0-\x18]\0.[\0-\x03]\0\0",
    re.DOTALL,
)
_TRANSFER_SYNTAX: Final = b"\x02\0\x10\0UI"
"""Its tag (0002,0010) and value representation, which are always explicit and little-endian."""
_JPEG_2000: Final = b"\xff\x4f\xff\x51"
"""The markers that its codestream starts with, SOC and SIZ."""
_START_OF_FRAME: Final = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
"""Second bytes of JPEG's SOF markers, and of that of JPEG-LS."""
_GRAYSCALE: Final = ("MONOCHROME1", "MONOCHROME2")
_MAX_HEADER: Final = 16 * 2**20
"""Bytes that a deflated data set may hold beside its pixels."""


def is_dicom(data: bytes) -> bool:
    """Return whether this is a DICOM file (PS3.10), or a bare DICOM data set.

    The former has a preamble of 128 bytes, followed by ``DICM``. The latter, which old devices and
    network tools write, starts with its first element.

    Args:
        data: The first 132 bytes of the file or more, or all of a shorter one.
    """
    return data[_MAGIC] == b"DICM" or _BARE.match(data) is not None


def lacks_header(first_bytes: bytes) -> bool:
    """Return whether this is DICOM without a preamble or without a transfer syntax.

    Args:
        first_bytes: The first 1,024 bytes of the file, which hold what they declare.
    """
    return is_dicom(first_bytes) and not (
        first_bytes[_MAGIC] == b"DICM" and _TRANSFER_SYNTAX in first_bytes
    )


def decode_dicom(
    data: bytes, check_size: Callable[[int, int], None], bit_depth: int | None
) -> "PIL.Image.Image":
    """Decode the bytes of a DICOM file to grayscale (``L``) or ``RGB``.

    Args:
        data: The content of the file.
        check_size: Raises an ``ImageError`` for a width and height that are refused, before pixels
            take memory.
        bit_depth: Number of bits in use where the file does not define the range of its values.

    Raises:
        ImageError: pydicom is not installed; the file has no pixels, several frames, or annotations
            burned into its pixels; its values do not fit ``bit_depth``; or it is damaged.
    """
    from PIL import Image

    with _only_image_errors():
        pixels = _pixels(_image_object(data, check_size), bit_depth)
    return Image.fromarray(pixels)


def dicom_bits(data: bytes, check_size: Callable[[int, int], None]) -> int | None:
    """Return how many bits the stored values of a DICOM file need.

    None if it defines their range: by a window, a lookup table, color, or 8 bits stored.

    Args:
        data: The content of the file.
        check_size: See ``decode_dicom``.

    Raises:
        ImageError: See ``decode_dicom``.
    """
    with _only_image_errors():
        dicom = _image_object(data, check_size)
        return None if _defines_range(dicom) else _used_bits(_stored(dicom), dicom)


def header_attributes(first_bytes: bytes, keywords: Sequence[str]) -> dict[str, str]:
    """Return attributes of a DICOM header as text, "" where one is missing.

    Args:
        first_bytes: The first bytes of the file; what does not fit into them is missing.
        keywords: Names of the attributes, such as ``ViewPosition``.

    Raises:
        ImageError: pydicom is not installed, or the header is damaged.
    """
    with _only_image_errors():
        deflated = _deflated_part(first_bytes)
        if deflated is not None:
            inflater = zlib.decompressobj(-zlib.MAX_WBITS)
            first_bytes = inflater.decompress(deflated, len(first_bytes))
        dicom = _read(first_bytes, stop_before_pixels=True, keywords=keywords)
        values = {keyword: dicom.get(keyword) for keyword in keywords}
    return {
        keyword: "" if value is None else str(value).replace("\0", "").strip()
        for keyword, value in values.items()
    }


@contextmanager
def _only_image_errors() -> Iterator[None]:
    if find_spec("pydicom") is None:
        raise ImageError("a DICOM file, which needs pydicom: pip install 'featurecache[dicom]'")
    try:
        yield
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001
        # pydicom and its decoders raise all kinds of exceptions, whose messages may quote the
        # header: only their type is passed on.
        raise ImageError(
            f"a DICOM file that is damaged or of an unsupported kind ({type(error).__name__})"
        ) from None


def _image_object(data: bytes, check_size: Callable[[int, int], None]) -> Any:
    dicom = _read(_inflated(data, check_size))
    _check_object(dicom)
    check_size(int(dicom.Columns), int(dicom.Rows))
    return dicom


def _inflated(data: bytes, check_size: Callable[[int, int], None]) -> bytes:
    """Return a deflated file as the bare data set that it holds, and others as they are.

    A thousand bytes deflate to one, and pydicom would inflate any number of them.

    Raises:
        ImageError: It holds more than its header says.
    """
    deflated = _deflated_part(data)
    if deflated is None:
        return data
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = inflater.decompress(deflated, _MAX_HEADER)
    if not inflater.eof:
        header = _read(inflated, stop_before_pixels=True)
        rows, columns = int(header.Rows), int(header.Columns)
        check_size(columns, rows)
        bits = int(header.BitsAllocated) * int(header.get("SamplesPerPixel", 1))
        limit = 1 + min(rows * columns * bits // 8, MAX_BYTES)  # 0 would be no limit
        pixels = inflater.decompress(inflater.unconsumed_tail, limit)
        if len(pixels) == limit:
            raise ImageError("is deflated, and holds more bytes than its header says")
        if not inflater.eof:
            raise ImageError("truncated")
        inflated += pixels
    return inflated


def _deflated_part(data: bytes) -> bytes | None:
    """Return what follows the file meta information of a deflated file; None for other files."""
    from pydicom.filereader import read_dataset, read_preamble
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    file = io.BytesIO(data)
    read_preamble(file, force=True)
    meta = read_dataset(
        file,
        is_implicit_VR=False,
        is_little_endian=True,
        stop_when=lambda tag, *_: tag.group != 2,
    )
    is_deflated = meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian
    return data[file.tell() :] if is_deflated else None


def _read(
    data: bytes, *, stop_before_pixels: bool = False, keywords: Sequence[str] | None = None
) -> Any:
    import logging
    import warnings

    import pydicom
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    # Both may quote the header. Not restored, because filters are shared by all threads.
    warnings.filterwarnings("ignore", module="pydicom")
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    # Forced: also without a preamble, or without a transfer syntax, which pydicom then infers.
    dicom = pydicom.dcmread(
        io.BytesIO(data),
        force=True,
        stop_before_pixels=stop_before_pixels,
        specific_tags=None if keywords is None else list(keywords),
    )
    if "TransferSyntaxUID" not in dicom.file_meta:
        if "PixelData" in dicom and dicom["PixelData"].is_undefined_length:
            raise ImageError(
                "its pixels are compressed, but it has no TransferSyntaxUID: save it uncompressed"
            )
        implicit, little_endian = dicom.original_encoding
        explicit = ExplicitVRLittleEndian if little_endian else ExplicitVRBigEndian
        dicom.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return dicom


def _check_object(dicom: Any) -> None:
    if "PixelData" not in dicom:
        kind = _uid_name(dicom.SOPClassUID) if "SOPClassUID" in dicom else "unknown"
        raise ImageError(f"a DICOM object without an image ({kind})")
    if int(dicom.get("NumberOfFrames") or 1) > 1:
        raise ImageError("holds several frames: export the one you need as a separate image")
    if str(dicom.get("BurnedInAnnotation", "")).strip().upper() == "YES":
        raise ImageError(
            "has annotations burned into its pixels (BurnedInAnnotation), which may be a patient's "
            "name: remove them and set the attribute to NO"
        )


def _uid_name(uid: Any) -> str:
    """Return the name of a standard UID; others may contain anything and are not passed on."""
    name = str(uid.name)
    return "unknown" if name == str(uid) else name


def _stored(dicom: Any) -> NDArray[Any]:
    """Return the stored values, of shape (H, W) or (H, W, 3)."""
    _check_compressed_size(dicom)
    try:
        stored: NDArray[Any] = dicom.pixel_array
    except RuntimeError:  # no decoder could read them
        syntax = _uid_name(dicom.file_meta.TransferSyntaxUID)
        raise ImageError(
            f"its pixels cannot be decompressed ({syntax}): save it uncompressed"
        ) from None
    return stored


def _check_compressed_size(dicom: Any) -> None:
    """Check that compressed pixels are as many as the header says, before they take memory.

    Decoders believe the compressed data: 600 bytes of JPEG 2000 can take gigabytes, and where
    JPEG-LS differs from the header, one of them ends the process.

    Raises:
        ImageError: There are more.
    """
    from pydicom.encaps import get_frame
    from pydicom.uid import RLELossless

    syntax = dicom.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated:
        return
    frame = get_frame(dicom.PixelData, 0, number_of_frames=1)
    columns, rows = int(dicom.Columns), int(dicom.Rows)
    if syntax == RLELossless:
        # Padding is common, so there may be some more.
        if _longest_segment(frame, limit=2 * rows * columns) > 2 * rows * columns:
            raise ImageError("is run-length encoded, and holds more pixels than its header says")
        return
    expected = columns, rows, int(dicom.SamplesPerPixel)
    for size in _sizes_in_codestream(frame):
        if size != expected:
            raise ImageError(
                f"its compressed pixels have width, height and samples {size}, but its header says "
                f"{expected}"
            )


def _longest_segment(frame: bytes, *, limit: int) -> int:
    """Return the decoded length of the longest run-length encoded segment (PS3.5, G.3 to G.5).

    Args:
        frame: A header of 64 bytes and the segments.
        limit: Count no further than to the first length above it.
    """
    n_segments, *starts = np.frombuffer(frame[:64], dtype="<u4").tolist()
    longest = 0
    for start, end in zip(starts[:n_segments], [*starts[1:n_segments], len(frame)], strict=True):
        position, length = start, 0
        while position < min(end, len(frame)) and length <= limit:
            code = frame[position]
            if code < 128:  # the next bytes as they are
                length += code + 1
                position += code + 2
            elif code > 128:  # the next byte, repeated
                length += 257 - code
                position += 2
            else:
                position += 1
        longest = max(longest, length)
    return longest


def _sizes_in_codestream(frame: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield width, height and number of samples in JPEG, JPEG-LS or JPEG 2000.

    There is one, or none if it cannot be decoded either. What does not start as it should may hold
    any number of JPEG 2000 codestreams, one of which a decoder may find.
    """
    if not frame.startswith(b"\xff\xd8"):
        for start in re.finditer(re.escape(_JPEG_2000), frame):
            right, bottom, left, top = struct.unpack_from(">4I", frame, start.start() + 8)
            (samples,) = struct.unpack_from(">H", frame, start.start() + 40)
            yield right - left, bottom - top, samples
        return
    position = 2
    while position + 10 <= len(frame) and frame[position] == 0xFF:
        marker = frame[position + 1]
        if marker in _START_OF_FRAME:
            height, width, samples = struct.unpack_from(">HHB", frame, position + 5)
            yield width, height, samples
            return
        # 0xFF may be repeated before a marker.
        position += 1 if marker == 0xFF else 2 + int.from_bytes(frame[position + 2 : position + 4])


def _defines_range(dicom: Any) -> bool:
    return (
        str(dicom.PhotometricInterpretation) not in _GRAYSCALE
        or int(dicom.BitsStored) <= MIN_BITS
        or dicom.get("WindowWidth") is not None
        or "VOILUTSequence" in dicom
        or "ModalityLUTSequence" in dicom
    )


def _used_bits(stored: NDArray[Any], dicom: Any) -> int:
    """Return the number of bits that values need, with the sign where it is used."""
    low, high = int(stored.min()), int(stored.max())
    if _uses_sign(stored, dicom):
        return max(high.bit_length(), (~low).bit_length()) + 1
    return max(high, 0).bit_length()


def _uses_sign(stored: NDArray[Any], dicom: Any) -> bool:
    """Return whether the range of values extends as far below zero as above.

    Many devices declare signed values but write none below zero, or few that an edge filter has
    left there: read as signed, black would become gray. The latter are clipped.
    """
    low, high = int(stored.min()), int(stored.max())
    return bool(dicom.PixelRepresentation) and low < -max(high, 0) / DARKEST


def _pixels(dicom: Any, bit_depth: int | None) -> NDArray[np.uint8]:
    """Return pixels of shape (H, W) or (H, W, 3)."""
    from pydicom.pixels import apply_color_lut

    stored = _stored(dicom)
    kind = str(dicom.PhotometricInterpretation)
    bits = int(dicom.BitsStored)
    if kind in _GRAYSCALE:
        if not _defines_range(dicom):
            bits = min(bits, require_fit(_used_bits(stored, dicom), bit_depth))
        return _grayscale(dicom, stored, bits, inverted=kind == "MONOCHROME1")
    if kind == "PALETTE COLOR":
        stored = apply_color_lut(stored, dicom)
        bits = 8 * stored.dtype.itemsize
    if stored.ndim != 3 or stored.shape[2] != 3:
        raise ImageError(
            "pixels of this PhotometricInterpretation are not supported: save it as grayscale"
        )
    return _to_8_bit(stored.astype(np.float64), 0, 2**bits - 1)


def _grayscale(dicom: Any, stored: NDArray[Any], bits: int, *, inverted: bool) -> NDArray[np.uint8]:
    from pydicom.pixels import apply_modality_lut

    signed = _uses_sign(stored, dicom)
    ends = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if signed else [0, 2**bits - 1])
    values = apply_modality_lut(stored, dicom).astype(np.float64)
    if "ModalityLUTSequence" in dicom:
        table = dicom.ModalityLUTSequence[0]
        ends = np.array([0, 2 ** int(table.LUTDescriptor[2]) - 1])
    else:
        ends = ends * float(dicom.get("RescaleSlope", 1)) + float(dicom.get("RescaleIntercept", 0))
    if "VOILUTSequence" in dicom:
        values, ends = _apply_voi_lut(dicom, values)
    elif dicom.get("WindowWidth") is not None:
        values, ends = _apply_window(dicom, values)
    elif np.ptp(values) < np.ptp(ends) / DARKEST:
        # As with 12 bits in a 16-bit PNG, the result would be nearly uniform.
        raise ImageError(
            f"has no window, and its values span less than a sixteenth of {bits} bits: set its "
            "WindowCenter and WindowWidth"
        )
    low, high = sorted(ends.tolist())
    return _to_8_bit(values, high, low) if inverted else _to_8_bit(values, low, high)


def _apply_voi_lut(
    dicom: Any, values: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Apply the first VOI LUT; return values and the ends of its range (PS3.3, C.11.2.1.1).

    Not with pydicom, which takes values beyond an 8-bit table modulo 256.
    """
    item = dicom.VOILUTSequence[0]
    entries, first, bits = (int(number) for number in item.LUTDescriptor)
    entries = entries or 2**16
    table = item.LUTData
    if isinstance(table, bytes):
        order = "<" if dicom.file_meta.TransferSyntaxUID.is_little_endian else ">"
        two_bytes = len(table) >= 2 * entries
        table = np.frombuffer(table, dtype=f"{order}u2" if two_bytes else "u1")
    indices = np.clip(values - first, 0, entries - 1).astype(np.intp)
    return np.asarray(table, dtype=np.float64)[indices], np.array([0, 2**bits - 1])


def _apply_window(
    dicom: Any, values: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Apply the first window; return values with the range 0 to 1 (PS3.3, C.11.2.1)."""
    center, width = (
        float(np.atleast_1d(value)[0]) for value in (dicom.WindowCenter, dicom.WindowWidth)
    )
    shape = str(dicom.get("VOILUTFunction") or "LINEAR").upper()
    if width <= 0 or (shape == "LINEAR" and width < 1):
        raise ImageError(f"its WindowWidth is {width}, which is not valid: correct or remove it")
    if shape == "SIGMOID":
        # The logistic function, written so that no value overflows.
        windowed = 0.5 * (1 + np.tanh(2 * (values - center) / width))
    elif shape == "LINEAR_EXACT":
        windowed = (values - center) / width + 0.5
    elif shape == "LINEAR":
        # A width of 1 is a step.
        windowed = (values - (center - 0.5)) / max(width - 1, 1e-9) + 0.5
    else:
        raise ImageError("its VOILUTFunction is not in the standard: correct or remove it")
    return windowed, np.array([0.0, 1.0])


def _to_8_bit(values: NDArray[np.float64], black: float, white: float) -> NDArray[np.uint8]:
    """Scale values from black to white to 0 to 255, clipping values outside."""
    scaled = (values - black) / (white - black)
    return np.rint(np.clip(scaled, 0, 1) * 255).astype(np.uint8)
