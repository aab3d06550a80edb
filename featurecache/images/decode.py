"""Decode one image.

Whatever the file format, the result is 8-bit grayscale (mode ``L``) or color (mode ``RGB``),
upright according to its EXIF orientation, with black at 0, and without metadata. Color whose three
channels are equal becomes grayscale, because resizing one channel is a third of the work.

    1, L, LA                 grayscale; an alpha channel is dropped
    RGB, RGBA, P, CMYK ...   RGB; an alpha channel is dropped
    16-bit grayscale         the full range of the file's type, 0 to 65535, scaled to 0 to 255
    16-bit color or alpha    RGB, the high byte of each channel
    32-bit integer           like 16-bit if all values lie in 0 to 65535, refused otherwise
    floating point           refused: its range is not defined
    DICOM                    see featurecache.images.dicom
"""

import io
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from featurecache.errors import ImageError
from featurecache.images.dicom import decode_dicom, is_dicom
from featurecache.images.read import read_bytes

if TYPE_CHECKING:
    import PIL.Image

MAX_PIXELS = 80_000_000
"""Five times the largest chest radiograph in common use (4,280 x 3,520)."""
MIN_SIDE = 16
MAX_ASPECT = 20
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "PPM")

_PILLOW_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, struct.error),
    *(TypeError, LookupError),
    Warning,
)
"""What Pillow raises for damaged files: first, what its documentation and plug-ins raise; second,
what its Python code runs into when fields contradict each other; third, its warnings about damaged
metadata, for a caller who turns warnings into errors."""


def decode_image(data: bytes) -> "PIL.Image.Image":
    """Decode the bytes of an image file to 8-bit grayscale (``L``) or ``RGB``, upright.

    Pillow warns about damaged metadata of images whose pixels are intact. Such an image is used,
    and the warning is left to the caller, because a filter set here would affect every thread.

    Args:
        data: The content of the file.

    Raises:
        ImageError: The format is unknown; the file is truncated, fails a checksum or holds several
            frames; its size or pixel type is not that of a radiograph; or memory does not suffice.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        if is_dicom(data):
            return _drop_equal_channels(decode_dicom(data, _check_sides))
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        _check_size(image)
        if image.format == "PNG":
            # Loading ignores the checksums: in NIH images, 4 of 300 random bit flips changed pixels
            # unnoticed. Checking them takes 2 % of the time of decoding.
            Image.open(io.BytesIO(data), formats=("PNG",)).verify()
        image.load()
        decoded = _drop_equal_channels(_to_8_bit(_upright(image)))
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(f"not an image of a known format ({', '.join(FORMATS)}, DICOM)") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(f"more than {MAX_PIXELS:,} pixels") from None
    except MemoryError:
        raise ImageError("needs more memory than is available") from None
    except _PILLOW_ERRORS as error:
        raise ImageError(f"damaged: {error}") from error
    # Otherwise the orientation would be applied a second time later on.
    decoded.info.clear()
    return decoded


def read_image(path: Path, name: str | None = None) -> "PIL.Image.Image":
    """Read and decode one image file; see ``decode_image``.

    Args:
        path: The file.
        name: Name of the image in messages; the path if None.

    Raises:
        ImageError: The file or its content cannot be used; the message names the image.
    """
    try:
        return decode_image(read_bytes(path))
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
    if mode == "I" or mode.startswith("I;16"):
        return _from_16_bit(image)
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


def _from_16_bit(image: "PIL.Image.Image") -> "PIL.Image.Image":
    import numpy as np
    from PIL import ExifTags, Image

    pixels = np.asarray(image).astype(np.int64)
    low, high = int(pixels.min()), int(pixels.max())
    if low < 0 or high > 65535:
        raise ImageError(f"pixel values from {low} to {high} do not fit 16 bits")
    if 0 < high < 4096:
        # 12-bit data in a 16-bit file would be nearly black; only the user knows its range.
        raise ImageError(
            f"16-bit file whose brightest pixel is {high}: it seems to hold 12 bits or fewer; "
            "rescale it to 0..65535, or save it as 8 bits"
        )
    # Pillow inverts a TIFF with WhiteIsZero (0) at 1 to 8 bits, but not at 16.
    if getattr(image, "tag_v2", {}).get(ExifTags.Base.PhotometricInterpretation) == 0:
        pixels = 65535 - pixels
    return Image.fromarray(((pixels * 255 + 32767) // 65535).astype(np.uint8))
