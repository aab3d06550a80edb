"""Decode one image.

Whatever the file format, the result is 8-bit grayscale (mode ``L``) or color (mode ``RGB``),
upright according to its EXIF orientation, with black at 0, and without metadata. Color whose three
channels are equal becomes grayscale, because resizing one channel is a third of the work.

    1, L, LA                 grayscale; an alpha channel is dropped
    RGB, RGBA, P, CMYK ...   RGB; an alpha channel is dropped
    16-bit grayscale         scaled to 0 to 255 from as many bits as the caller says are in use
    16-bit color or alpha    RGB, the high byte of each channel, if all 16 bits are in use
    32-bit integer           like 16-bit if all values lie in 0 to 65535, refused otherwise
    floating point           refused: its range is not defined
    DICOM                    see featurecache.images.dicom
"""

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import ImageError
from featurecache.images.dicom import decode_dicom, dicom_bits, is_dicom
from featurecache.images.gray_range import DARKEST, MAX_BITS, MIN_BITS, require_fit
from featurecache.images.limits import MAX_ASPECT, MAX_PIXELS, MIN_SIDE
from featurecache.images.read import read_bytes

if TYPE_CHECKING:
    import PIL.Image

OUT_OF_MEMORY = "needs more memory than is available"
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "PPM")

_PILLOW_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, struct.error),
    *(TypeError, LookupError),
    Warning,
)
"""What Pillow raises for damaged files: first, what its documentation and plug-ins raise; second,
what its Python code runs into when fields contradict each other; third, its warnings about damaged
metadata, for a caller who turns warnings into errors."""


def decode_image(data: bytes, *, bit_depth: int | None = None) -> "PIL.Image.Image":
    """Decode the bytes of an image file to 8-bit grayscale (``L``) or ``RGB``, upright.

    Pillow warns about damaged metadata of images whose pixels are intact. Such an image is used,
    and the warning is left to the caller, because a filter set here would affect every thread.

    Args:
        data: The content of the file.
        bit_depth: Number of bits in use, 8 to 16, where the file does not define the range of its
            values: the highest becomes 255. See ``featurecache.images.bit_depth``. None refuses
            such a file.

    Raises:
        ImageError: The format is unknown; the file is truncated, fails a checksum or holds several
            frames; its size or pixel type is not that of a radiograph; its values do not fit
            ``bit_depth``; or memory does not suffice.
    """
    with _only_image_errors():
        if is_dicom(data):
            return _drop_equal_channels(decode_dicom(data, _check_sides, bit_depth))
        image = _open(data)
        is_16_bit = _is_16_bit(image)  # not visible after loading
        if image.format == "PNG":
            from PIL import Image

            # Loading ignores the checksums: in NIH images, 4 of 300 random bit flips changed pixels
            # unnoticed. Checking them takes 2 % of the time of decoding.
            Image.open(io.BytesIO(data), formats=("PNG",)).verify()
        image.load()
        image = _upright(image)
        if is_16_bit:
            image = _from_16_bit(image, bit_depth)
        decoded = _drop_equal_channels(_to_8_bit(image))
    # Otherwise the orientation would be applied a second time later on.
    decoded.info.clear()
    return decoded


def used_bits(data: bytes) -> int | None:
    """Return how many bits, 8 to 16, the values of an image need.

    None if its file defines their range.

    It does for 8 bits per channel, and for DICOM with a window or a lookup table.

    Args:
        data: The content of the file.

    Raises:
        ImageError: As in ``decode_image``.
    """
    with _only_image_errors():
        if is_dicom(data):
            bits = dicom_bits(data, _check_sides)
        else:
            image = _open(data)
            if not _is_16_bit(image):
                return None
            image.load()
            bits = _highest(image).bit_length()
    return None if bits is None else min(max(bits, MIN_BITS), MAX_BITS)


@contextmanager
def _only_image_errors() -> Iterator[None]:
    from PIL import Image, UnidentifiedImageError

    try:
        yield
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(f"not an image of a known format ({', '.join(FORMATS)}, DICOM)") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(f"more than {MAX_PIXELS:,} pixels") from None
    except MemoryError:
        raise ImageError(OUT_OF_MEMORY) from None
    except _PILLOW_ERRORS as error:
        raise ImageError(f"damaged: {error}") from error


def _open(data: bytes) -> "PIL.Image.Image":
    from PIL import Image

    image = Image.open(io.BytesIO(data), formats=FORMATS)
    _check_size(image)
    return image


def _is_gray(image: "PIL.Image.Image") -> bool:
    return image.mode == "I" or image.mode.startswith("I;16")


def _is_16_bit(image: "PIL.Image.Image") -> bool:
    """Return whether an image that is not loaded yet has 16 bits per channel, or 32."""
    # Pillow reads 16-bit color as 8-bit: only the name of the stored mode, "RGB;16B", tells.
    tiles = getattr(image, "tile", ())
    return _is_gray(image) or any(";16" in str(tile[3]) for tile in tiles)


def _highest(image: "PIL.Image.Image") -> int:
    """Return the highest value of a 16-bit image that is loaded.

    Raises:
        ImageError: Values do not fit 16 bits.
    """
    if _is_gray(image):
        return int(_values(image).max())
    # Of color, Pillow keeps the high byte.
    colors = [image.getchannel(band) for band in image.getbands() if band != "A"]
    return 256 * max(int(np.asarray(color).max()) for color in colors) + 255


def read_image(
    path: Path, name: str | None = None, *, bit_depth: int | None = None
) -> "PIL.Image.Image":
    """Read and decode one image file; see ``decode_image``.

    Args:
        path: The file.
        name: Name of the image in messages; the path if None.
        bit_depth: See ``decode_image``.

    Raises:
        ImageError: The file or its content cannot be used; the message names the image.
    """
    try:
        return decode_image(read_bytes(path), bit_depth=bit_depth)
    except ImageError as error:
        raise ImageError(f"{path if name is None else name}: {error}") from error


def _check_size(image: "PIL.Image.Image") -> None:
    _check_sides(*image.size)
    if getattr(image, "n_frames", 1) > 1:
        raise ImageError("holds several frames: export the one you need as a separate image")


def _check_sides(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ImageError(f"{width} x {height} is more than {MAX_PIXELS:,} pixels")
    if min(width, height) < MIN_SIDE:
        raise ImageError(f"{width} x {height} is too small: a side is under {MIN_SIDE} pixels")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(f"{width} x {height}: one side is over {MAX_ASPECT} times the other")


def _upright(image: "PIL.Image.Image") -> "PIL.Image.Image":
    # Not ImageOps.exif_transpose: it rewrites the remaining EXIF, and fails if a tag of a good file
    # has the wrong type. A TIFF is upright already after loading.
    from PIL import ExifTags, Image

    method = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    return image if method is None else image.transpose(method)


def _to_8_bit(image: "PIL.Image.Image") -> "PIL.Image.Image":
    mode = image.mode
    if mode in ("L", "RGB"):
        return image
    if mode in ("1", "LA", "La"):
        return image.convert("L")
    if mode == "F":
        raise ImageError("floating-point pixels have no defined range: save it as 8 or 16 bits")
    if mode in ("P", "PA"):
        # By way of RGBA: Pillow warns when a palette's transparency is dropped directly.
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")


def _drop_equal_channels(image: "PIL.Image.Image") -> "PIL.Image.Image":
    """Return one channel of a color image whose channels are equal, as in many radiographs."""
    from PIL import ImageChops

    if image.mode != "RGB":
        return image
    red, green, blue = image.split()
    if ImageChops.difference(red, green).getbbox() or ImageChops.difference(red, blue).getbbox():
        return image
    return red


def _values(image: "PIL.Image.Image") -> NDArray[np.int64]:
    """Return the values of a 16-bit or 32-bit grayscale image.

    Raises:
        ImageError: They do not fit 16 bits.
    """
    values = np.asarray(image).astype(np.int64)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise ImageError(f"pixel values from {low} to {high} do not fit 16 bits")
    return values


def _from_16_bit(image: "PIL.Image.Image", bit_depth: int | None) -> "PIL.Image.Image":
    """Scale grayscale to 8 bits; check color, of which Pillow keeps the high byte."""
    from PIL import ExifTags, Image

    highest = _highest(image)
    bit_depth = require_fit(highest.bit_length(), bit_depth)
    white = 2**bit_depth - 1
    if 0 < highest < white / DARKEST:
        raise ImageError(
            f"its brightest pixel is {highest} of {white}: it is nearly black, or uses fewer bits "
            "than the other images; rescale it, or save it as 8 bits"
        )
    if not _is_gray(image):
        if bit_depth < MAX_BITS:
            raise ImageError(
                f"16-bit color that uses {bit_depth} bits: save it as 8 bits, or as 16-bit "
                "grayscale"
            )
        return image
    values = _values(image)
    # Pillow inverts a TIFF with WhiteIsZero (0) at 1 to 8 bits, but not at 16.
    if getattr(image, "tag_v2", {}).get(ExifTags.Base.PhotometricInterpretation) == 0:
        values = white - values
    return Image.fromarray(((values * 255 + white // 2) // white).astype(np.uint8))
