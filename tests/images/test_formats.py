"""Recognizing image files by their first bytes."""

import io
from pathlib import Path

import pytest
from PIL import Image
from pydicom.data import get_testdata_file

from featurecache.images.formats import SNIFFED_BYTES, looks_like_image


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "WEBP", "PPM"])
def test_what_pillow_writes_is_recognized(kind):
    file = io.BytesIO()
    Image.new("L", (20, 16)).save(file, kind)
    assert looks_like_image(file.getvalue()[:SNIFFED_BYTES])


@pytest.mark.parametrize(
    "name",
    [
        "CT_small.dcm",
        "MR_small_bigendian.dcm",
        # Without preamble.
        "ExplVR_LitEndNoMeta.dcm",
        "ExplVR_BigEndNoMeta.dcm",
    ],
)
def test_dicom_is_recognized_with_and_without_a_preamble(name):
    path = get_testdata_file(name, download=False)
    assert path is not None
    with Path(path).open("rb") as file:
        assert looks_like_image(file.read(SNIFFED_BYTES))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 200,
        b"id,Effusion\na.png,1\n",
        b"BM stands for bitmap, but this is text",
        b"P1 is the first patient",
        b"PK\x03\x04" + b"\0" * 40,
        b"%PDF-1.7\n",
        b"\x89HDF\r\n\x1a\n" + b"\0" * 140,
        b"\xff\xfeP\0a\0t\0i\0e\0n\0t\0",
        b"RIFF\0\0\0\0WAVE",
    ],
)
def test_other_files_are_not(content):
    assert not looks_like_image(content)
