"""Open, check and decode one image: the only place that touches image files.

Whatever the file holds, what comes out is 8-bit grey (mode ``L``) or colour (mode ``RGB``), upright
by its EXIF orientation, with black at 0, and without metadata. Grey stays grey, and colour in which
all three channels are equal becomes grey, because resizing one channel is a third of the work.

    1, L, LA                 grey; an alpha channel is dropped
    RGB, RGBA, P, CMYK ...   RGB; an alpha channel is dropped
    16-bit grey              the container's full range, 0 to 65535, scaled to 0 to 255
    16-bit colour or alpha   RGB, the high byte of each channel
    32-bit integer           the same when no value leaves 0 to 65535, refused otherwise
    floating point           refused: its range is not defined
    DICOM                    as featurecache.images.dicom has it

Where this says RGB, pixels that are grey throughout come as L.
"""

import io
import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from featurecache.errors import ImageError
from featurecache.images.dicom import decode_dicom, is_dicom

if TYPE_CHECKING:
    import PIL.Image

MAX_BYTES = 512 * 2**20
MAX_PIXELS = 80_000_000
"""Five times the largest chest film in common use (4,280 x 3,520)."""
MIN_SIDE = 16
MAX_ASPECT = 20
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "PPM")

_DAMAGE = (
    *(OSError, SyntaxError, ValueError, EOFError, struct.error),
    *(TypeError, LookupError),
    Warning,
)
"""What Pillow raises for damaged files. The first line is by its documentation and its plug-ins;
the second is what their Python trips over in fields that contradict each other; the third is what
it says of damaged metadata to a caller who has made warnings errors."""


@dataclass(frozen=True)
class FileState:
    """What tells that a file has changed: its size in bytes, and its time of change."""

    size: int
    mtime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> "FileState":
        """The state that a file's status tells."""
        # File systems know times after 2262, which 64 bits of nanoseconds do not hold.
        return cls(status.st_size, max(-(2**63), min(status.st_mtime_ns, 2**63 - 1)))


def read_file(path: Path) -> tuple[bytes, FileState]:
    """The bytes of an image file, and the state of the file that had them.

    Never waits for a FIFO, and never reads more than the file had when it was opened.

    Raises:
        ImageError: the file is missing, empty, not a regular file, unreadable, over ``MAX_BYTES``,
            or changed while it was read.
    """
    try:
        # By name first, for a device may do something when it is opened; then what was opened,
        # which may be something else by then.
        _check_file(path.stat())
        with open(path, "rb", opener=_open_at_once) as file:
            before = os.fstat(file.fileno())
            _check_file(before)
            data = file.read(before.st_size + 1)
            after = os.fstat(file.fileno())
    except FileNotFoundError:
        raise ImageError("missing: no such file") from None
    except ImageError:
        raise
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}") from error
    except ValueError:
        raise ImageError("cannot be read: no file can have this name") from None
    state = FileState.of(before)
    if len(data) != before.st_size or state != FileState.of(after):
        raise ImageError("changed while it was read")
    return data, state


def read_bytes(path: Path) -> bytes:
    """The bytes of an image file; see ``read_file``.

    Raises:
        ImageError: see ``read_file``.
    """
    return read_file(path)[0]


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _check_file(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("not a regular file")
    if status.st_size == 0:
        raise ImageError("the file is empty")
    if status.st_size > MAX_BYTES:
        raise ImageError(f"the file has {status.st_size:,} bytes, over the limit {MAX_BYTES:,}")


def decode_image(data: bytes) -> "PIL.Image.Image":
    """Decode the bytes of one image to 8-bit grey (``L``) or ``RGB``, upright.

    Pillow warns of damaged metadata beside whole pixels; such an image is used, and the warning
    goes where the caller sends warnings, for a filter set here would hold for every thread.

    Raises:
        ImageError: the bytes are no image of a known format, are cut short, fail a checksum or
            hold several frames, the picture's size or pixel type is outside what a radiograph can
            be, or memory does not suffice for it.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        if is_dicom(data):
            return _without_colour(decode_dicom(data, _check_sides))
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        _check_size(image)
        if image.format == "PNG":
            # Loading ignores the checksums: in NIH films, 4 of 300 random bit flips changed pixels
            # unnoticed. Checking them takes a fiftieth of the time of decoding.
            Image.open(io.BytesIO(data), formats=("PNG",)).verify()
        image.load()
        picture = _without_colour(_to_8_bit(_upright(image)))
    except UnidentifiedImageError:
        raise ImageError(f"not an image of a known format ({', '.join(FORMATS)}, DICOM)") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(f"more than {MAX_PIXELS:,} pixels") from None
    except ImageError:
        raise
    except MemoryError:
        raise ImageError("needs more memory than there is") from None
    except _DAMAGE as error:
        raise ImageError(f"damaged: {error}") from error
    # Left in place, the orientation would turn the picture a second time further on.
    picture.info.clear()
    return picture


def read_image(path: Path, called: str | None = None) -> "PIL.Image.Image":
    """Read and decode one image file; see ``decode_image``.

    Args:
        path: the file.
        called: what messages call the image, such as its id; the path without it.

    Raises:
        ImageError: the file or what it holds cannot be used; the message names the image.
    """
    try:
        return decode_image(read_bytes(path))
    except ImageError as error:
        raise ImageError(f"{path if called is None else called}: {error}") from error


def _check_size(image: "PIL.Image.Image") -> None:
    _check_sides(*image.size)
    if getattr(image, "n_frames", 1) > 1:
        raise ImageError("holds several frames: export the frame you mean as an image of its own")


def _check_sides(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ImageError(f"{width} x {height} is more than {MAX_PIXELS:,} pixels")
    if min(width, height) < MIN_SIDE:
        raise ImageError(f"{width} x {height} is too small: a side is under {MIN_SIDE} pixels")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(f"{width} x {height}: one side is over {MAX_ASPECT} times the other")


def _upright(image: "PIL.Image.Image") -> "PIL.Image.Image":
    # Not ImageOps.exif_transpose: it writes the remaining EXIF anew, and fails on a tag of the
    # wrong type in an otherwise good file. A TIFF is upright already when it is loaded.
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


def _without_colour(image: "PIL.Image.Image") -> "PIL.Image.Image":
    """Grey for a colour image whose channels are equal, as many films are stored."""
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
        # 12-bit data in a 16-bit file would come out nearly black; its range is the user's to say.
        raise ImageError(
            f"16-bit file whose brightest pixel is {high}: it seems to hold 12 bits or fewer; "
            "rescale it to 0..65535, or save it as 8 bits"
        )
    # Pillow turns a TIFF that counts from white (0) round at 1 to 8 bits, but not at 16.
    if getattr(image, "tag_v2", {}).get(ExifTags.Base.PhotometricInterpretation) == 0:
        pixels = 65535 - pixels
    return Image.fromarray(((pixels * 255 + 32767) // 65535).astype(np.uint8))
