"""Images in every format that is read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from featurecache.errors import ImageError
from featurecache.images.decode import read_image
from tests.fuzz.changes import Changed, changed_bytes, changed_dicom, changed_png
from tests.fuzz.readers import Reader


def _grayscale(bits: int = 8) -> "np.ndarray[Any, Any]":
    shades = np.random.default_rng(0).integers(2**bits, size=(24, 20))
    return shades.astype(np.uint8 if bits == 8 else np.uint16)


def _image(mode: str) -> Image.Image:
    return Image.fromarray(_grayscale(16 if mode == "I;16" else 8)).convert(mode)


def _saved(name: str, mode: str, **options: Any) -> Callable[[Path], Path]:
    def save(folder: Path) -> Path:
        exif = Image.Exif()
        exif[0x0112] = 6
        if not name.endswith((".bmp", ".pgm")):
            options.setdefault("exif", exif.tobytes())
        _image(mode).save(folder / name, **options)
        return folder / name

    return save


def _dicom(folder: Path) -> Path:
    from tests.images.test_dicom import dicom_file

    data = dicom_file(_grayscale(16) % 4096, WindowCenter=2000, WindowWidth=3000, RescaleSlope=1)
    (folder / "image.dcm").write_bytes(data)
    return folder / "image.dcm"


def _read(file: Path) -> object:
    image = read_image(file, bit_depth=16)
    assert image.mode in ("L", "RGB")
    assert min(image.size) >= 16
    return image.tobytes()


def _reader(
    prepare: Callable[[Path], Path], changed: Callable[[bytes], Changed] = changed_bytes
) -> Reader:
    return Reader(prepare, _read, (ImageError,), changed)


READERS = {
    "image-png": _reader(_saved("image.png", "L"), changed_png),
    "image-png-palette": _reader(_saved("image.png", "P", transparency=3), changed_png),
    "image-png-16": _reader(_saved("image.png", "I;16"), changed_png),
    "image-jpeg": _reader(_saved("image.jpg", "L")),
    "image-jpeg-progressive": _reader(_saved("image.jpg", "RGB", progressive=True)),
    "image-jpeg-cmyk": _reader(_saved("image.jpg", "CMYK")),
    "image-tiff": _reader(_saved("image.tif", "I;16")),
    "image-tiff-lzw": _reader(_saved("image.tif", "RGB", compression="tiff_lzw")),
    "image-webp": _reader(_saved("image.webp", "RGB")),
    "image-bmp": _reader(_saved("image.bmp", "L")),
    "image-pgm": _reader(_saved("image.pgm", "L")),
    "image-dicom": _reader(_dicom, changed_dicom),
}
