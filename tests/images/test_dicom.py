"""DICOM files: their gray values against pydicom's own windows and hand-computed ones."""

import io
import logging
import tracemalloc
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_windowing
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from featurecache.errors import ImageError
from featurecache.extraction.decode import ImageTask, decode
from featurecache.images.decode import decode_image, read_image, used_bits
from featurecache.images.formats import SNIFFED_BYTES, looks_like_image
from featurecache.images.limits import MAX_PIXELS
from featurecache.images.subprocess_decoder import SubprocessDecoder

NAME = "SECRET^PATIENT"


def data_set(
    stored: np.ndarray, *, kind: str = "MONOCHROME2", bits: int = 12, **attributes: Any
) -> Dataset:
    """A DICOM image of these stored values; an attribute of None is left out."""
    found = Dataset()
    found.PatientName, found.PatientID = NAME, NAME
    found.Rows, found.Columns = stored.shape[:2]
    found.SamplesPerPixel = 3 if stored.ndim == 3 else 1
    if stored.ndim == 3:
        found.PlanarConfiguration = 0
    found.PhotometricInterpretation = kind
    found.BitsAllocated = 8 * stored.dtype.itemsize
    found.BitsStored, found.HighBit = bits, bits - 1
    found.PixelRepresentation = int(stored.dtype.kind == "i")
    found.PixelData = stored.tobytes()
    for name, value in attributes.items():
        if value is None:
            delattr(found, name)
        else:
            setattr(found, name, value)
    return found


def dicom_file(stored: np.ndarray, **attributes: Any) -> bytes:
    """The file of such an image."""
    found = data_set(stored, **attributes)
    found.file_meta = FileMetaDataset()
    found.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    found.file_meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    found.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    file = io.BytesIO()
    found.save_as(file, enforce_file_format=True)
    return file.getvalue()


@pytest.fixture
def stored() -> np.ndarray:
    """20 x 24 values of 12 bits, with both ends among them."""
    values = np.random.default_rng(0).integers(4096, size=(20, 24)).astype(np.uint16)
    values[0, :2] = 0, 4095
    return values


def gray(data: bytes) -> np.ndarray:
    image = decode_image(data, bit_depth=16)
    assert image.mode == "L"
    assert not image.info
    return np.asarray(image)


def test_stored_bits_are_the_range_without_a_window(stored):
    np.testing.assert_array_equal(gray(dicom_file(stored)), np.rint(stored / 4095 * 255))


def test_monochrome1_is_inverted(stored):
    expected = np.rint((4095 - stored) / 4095 * 255)
    np.testing.assert_array_equal(gray(dicom_file(stored, kind="MONOCHROME1")), expected)


def test_16_bits_and_8_bits(stored):
    deep = (stored * 16).astype(np.uint16)
    np.testing.assert_array_equal(gray(dicom_file(deep, bits=16)), np.rint(deep / 65535 * 255))
    flat = (stored // 16).astype(np.uint8)
    np.testing.assert_array_equal(gray(dicom_file(flat, bits=8)), flat)


@pytest.mark.parametrize("bits", [12, 13, 14, 15, 16])
def test_values_of_fewer_bits_than_declared_fill_the_range(stored, bits):
    values = (stored.astype(np.int64) * (2**bits - 1) // 4095).astype(np.uint16)
    data = dicom_file(values, bits=16)
    assert used_bits(data) == bits
    expected = np.rint(values / (2**bits - 1) * 255)
    np.testing.assert_array_equal(np.asarray(decode_image(data, bit_depth=bits)), expected)


def test_declared_bits_limit_the_range(stored):
    dark = dicom_file(stored // 2)
    assert used_bits(dark) == 11
    np.testing.assert_array_equal(gray(dark), np.rint(stored // 2 / 4095 * 255))


def test_bit_depth_must_be_given_where_the_file_leaves_it_open(stored):
    with pytest.raises(ImageError, match="does not define the range of its gray values"):
        decode_image(dicom_file(stored))
    with pytest.raises(ImageError, match="use 12 bits, more than the 11 bits"):
        decode_image(dicom_file(stored), bit_depth=11)


def test_a_window_or_8_bits_define_the_range(stored):
    for data in (
        dicom_file(stored, WindowCenter=1500, WindowWidth=900),
        dicom_file((stored // 16).astype(np.uint8), bits=8),
    ):
        assert used_bits(data) is None
        np.testing.assert_array_equal(np.asarray(decode_image(data)), gray(data))


@pytest.mark.parametrize("bits", [12, 13, 16])
def test_bits_of_signed_values(bits):
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    values = np.linspace(low, high, 480).round().reshape(20, 24).astype(np.int16)
    data = dicom_file(values, bits=16)
    assert used_bits(data) == bits
    expected = np.rint((values.astype(float) - low) / (high - low) * 255)
    np.testing.assert_array_equal(np.asarray(decode_image(data, bit_depth=bits)), expected)


def test_signed_values_use_their_full_range(stored):
    signed = (stored.astype(np.int32) - 2048).astype(np.int16)
    np.testing.assert_array_equal(gray(dicom_file(signed)), np.rint(stored / 4095 * 255))


@pytest.mark.parametrize("kind", ["MONOCHROME2", "MONOCHROME1"])
@pytest.mark.parametrize("rescale", [{}, {"RescaleSlope": 1, "RescaleIntercept": -1024}])
@pytest.mark.parametrize("undershoot", [0, -40])
def test_signed_values_without_negative_ones_are_read_as_unsigned(
    stored, kind, rescale, undershoot
):
    values = stored.astype(np.int16)
    values[1, 0] = undershoot
    data = dicom_file(values, bits=16, kind=kind, **rescale)
    assert used_bits(data) == 12
    bright = np.rint(np.maximum(values, 0) / 4095 * 255)
    expected = bright if kind == "MONOCHROME2" else 255 - bright
    actual = np.asarray(decode_image(data, bit_depth=12))
    np.testing.assert_allclose(actual, expected, atol=1 if kind == "MONOCHROME1" else 0)


@pytest.mark.parametrize("rescale", [{}, {"RescaleSlope": 2, "RescaleIntercept": 100}])
def test_negative_values_of_a_tomograph_use_both_signs(stored, rescale):
    values = (stored.astype(np.int32) - 1024).astype(np.int16)  # -1024 to 3071
    data = dicom_file(values, bits=16, **rescale)
    assert used_bits(data) == 13
    expected = np.rint((values + 4096.0) / 8191 * 255)
    np.testing.assert_array_equal(np.asarray(decode_image(data, bit_depth=13)), expected)


@pytest.mark.parametrize("shape", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("rescale", [None, (2.0, -1024.0)])
def test_window_equals_pydicom(stored, shape, rescale):
    attributes: dict[str, Any] = {"WindowCenter": 1500, "WindowWidth": 900}
    if shape:
        attributes["VOILUTFunction"] = shape
    values = stored.astype(np.float64)
    if rescale:
        attributes |= {"RescaleSlope": rescale[0], "RescaleIntercept": rescale[1]}
        values = values * rescale[0] + rescale[1]
    data = dicom_file(stored, **attributes)
    described = pydicom.dcmread(io.BytesIO(data))
    reference = apply_windowing(values, described)
    low, high = (0, 4095) if not rescale else (rescale[1], 4095 * rescale[0] + rescale[1])
    expected = (reference - low) / (high - low) * 255
    np.testing.assert_allclose(gray(data), expected, atol=0.51)


def test_first_of_several_windows_is_used(stored):
    one = dicom_file(stored, WindowCenter=1500, WindowWidth=900)
    several = dicom_file(stored, WindowCenter=[1500, 40], WindowWidth=[900, 400])
    np.testing.assert_array_equal(gray(one), gray(several))


def test_window_with_monochrome1(stored):
    plain = dicom_file(stored, WindowCenter=1500, WindowWidth=900)
    turned = dicom_file(stored, kind="MONOCHROME1", WindowCenter=1500, WindowWidth=900)
    np.testing.assert_allclose(gray(turned), 255 - gray(plain).astype(int), atol=1)


def test_voi_lut_takes_precedence_over_a_window(stored):
    table = Dataset()
    # From 1000 on, 256 entries of 8 bits, falling.
    table.add_new("LUTDescriptor", "US", [256, 1000, 8])
    table.add_new("LUTData", "OW", np.arange(255, -1, -1).astype(np.uint16).tobytes())
    data = dicom_file(stored, WindowCenter=1500, WindowWidth=900, VOILUTSequence=[table])
    expected = 255 - np.clip(stored.astype(int) - 1000, 0, 255)
    np.testing.assert_array_equal(gray(data), expected)


def test_window_of_width_1_is_a_step(stored):
    data = dicom_file(stored, WindowCenter=1500, WindowWidth=1)
    np.testing.assert_array_equal(gray(data), np.where(stored > 1499, 255, 0))


def test_color_stays_color():
    pixels = np.random.default_rng(1).integers(256, size=(20, 24, 3)).astype(np.uint8)
    image = decode_image(dicom_file(pixels, kind="RGB", bits=8))
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), pixels)


@pytest.mark.parametrize(
    "name",
    ["MR_small_RLE", "MR_small_jp2klossless", "MR_small_jpeg_ls_lossless", "MR_small_bigendian"],
)
def test_lossless_compression_keeps_pixels(name):
    plain = read_image(Path(get_testdata_file("MR_small.dcm")), bit_depth=16)
    other = read_image(Path(get_testdata_file(f"{name}.dcm")), bit_depth=16)
    np.testing.assert_array_equal(np.asarray(plain), np.asarray(other))


@pytest.mark.parametrize(
    ("name", "mode", "size"),
    [
        ("SC_rgb_jpeg_gdcm.dcm", "RGB", (100, 100)),  # lossless JPEG
        ("SC_rgb_dcmtk_+eb+cy+np.dcm", "RGB", (100, 100)),  # baseline JPEG, subsampled
        ("693_J2KI.dcm", "L", (512, 512)),  # lossy JPEG 2000
        ("SC_rgb_jls_lossy_line.dcm", "RGB", (100, 100)),
        ("examples_palette.dcm", "RGB", (800, 350)),
        ("image_dfl.dcm", "L", (512, 512)),
    ],
)
def test_other_transfer_syntaxes_are_read(name, mode, size):
    image = read_image(Path(get_testdata_file(name)), bit_depth=16)
    assert (image.mode, image.size) == (mode, size)
    assert len(np.unique(np.asarray(image))) > 1


@pytest.mark.parametrize(
    ("implicit", "little_endian"), [(True, True), (False, True), (False, False)]
)
def test_file_without_preamble_is_read(stored, implicit, little_endian):
    window = {"WindowCenter": 1500, "WindowWidth": 900}
    bare = data_set(stored if little_endian else stored.byteswap(), **window)
    bare.SOPClassUID = DigitalXRayImageStorageForPresentation
    file = io.BytesIO()
    bare.save_as(file, implicit_vr=implicit, little_endian=little_endian)
    assert b"DICM" not in file.getvalue()
    assert looks_like_image(file.getvalue()[:SNIFFED_BYTES])
    np.testing.assert_array_equal(gray(file.getvalue()), gray(dicom_file(stored, **window)))


def test_file_without_transfer_syntax_is_read(stored):
    data = dicom_file(stored, WindowCenter=1500, WindowWidth=900)
    syntax = b"\x02\0\x10\0UI\x14\x001.2.840.10008.1.2.1\0"
    assert data.count(syntax) == 1
    undeclared = data.replace(syntax, b"")
    # The length of the group 0002 that follows the preamble.
    length = int.from_bytes(undeclared[140:144], "little") - len(syntax)
    undeclared = undeclared[:140] + length.to_bytes(4, "little") + undeclared[144:]
    np.testing.assert_array_equal(gray(undeclared), gray(data))


def test_compressed_pixels_without_transfer_syntax_are_refused():
    dicom = Path(get_testdata_file("MR_small_RLE.dcm")).read_bytes()
    # The data set follows the preamble, "DICM" and group 0002, whose length is its first value.
    bare = dicom[144 + int.from_bytes(dicom[140:144], "little") :]
    with pytest.raises(ImageError, match="compressed, but it has no TransferSyntaxUID"):
        decode_image(bare)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("SC_rgb_rle_2frame.dcm", "several frames"),
        ("rtplan.dcm", r"without an image \(RT Plan Storage\)"),
        ("reportsi.dcm", r"without an image \(Basic Text SR Storage\)"),
        ("MR_truncated.dcm", r"damaged or of an unsupported kind \(ValueError\)"),
        ("SC_rgb_small_odd.dcm", "too small"),
        ("JPGExtended.dcm", r"cannot be decompressed \(JPEG Extended"),
        ("JPEG2000.dcm", "no window, and its values span less than a sixteenth of 16 bits"),
    ],
)
def test_other_objects_are_refused(name, message):
    with pytest.raises(ImageError, match=message):
        read_image(Path(get_testdata_file(name)), bit_depth=16)


def test_burned_in_annotations_are_refused(stored):
    with pytest.raises(ImageError, match="annotations burned into its pixels"):
        decode_image(dicom_file(stored, BurnedInAnnotation="YES"))
    assert decode_image(dicom_file(stored, BurnedInAnnotation="NO"), bit_depth=12)


def test_huge_size_is_refused_before_it_takes_memory(stored):
    with pytest.raises(ImageError, match=f"more than {MAX_PIXELS:,}"):
        decode_image(dicom_file(stored, Rows=65535, Columns=65535))


def deflated(data: bytes, tail: bytes = b"") -> bytes:
    """The same file with its data set deflated, and ``tail`` behind it."""
    end = 144 + int.from_bytes(data[140:144], "little")
    meta = pydicom.dcmread(io.BytesIO(data)).file_meta
    meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    file = io.BytesIO()
    pydicom.filewriter.write_file_meta_info(file, meta)
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    body = compressor.compress(data[end:] + tail) + compressor.flush()
    return bytes(128) + b"DICM" + file.getvalue() + body


@pytest.mark.parametrize("max_header", [2**24, 1000])
def test_deflated_file_is_the_same_image(stored, monkeypatch, max_header):
    monkeypatch.setattr("featurecache.images.dicom._MAX_HEADER", max_header)
    data = dicom_file(stored, WindowCenter=1500, WindowWidth=900)
    np.testing.assert_array_equal(gray(deflated(data)), gray(data))
    with pytest.raises(ImageError, match=r"truncated|damaged"):
        gray(deflated(data)[:-40])


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({}, "holds more bytes than its header says"),
        ({"BitsAllocated": 0}, "holds more bytes than its header says"),
        ({"Rows": 65535, "Columns": 65535}, f"more than {MAX_PIXELS:,}"),
        ({"Rows": None}, "damaged"),
    ],
)
def test_deflate_bomb_is_refused_before_it_takes_memory(stored, monkeypatch, attributes, message):
    monkeypatch.setattr("featurecache.images.dicom._MAX_HEADER", 2**16)
    bomb = deflated(dicom_file(stored, **attributes), bytes(2**25))
    assert len(bomb) < 2**17
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match=message):
            decode_image(bomb)
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


def run_length_bomb() -> bytes:
    """16 x 16 pixels, with 2 MiB in the first segment."""
    segment = b"\x81\0" * 2**14
    header = np.array([2, 64, 64 + len(segment), *(0,) * 13], dtype="<u4").tobytes()
    return header + segment + segment


def jpeg_2000_bomb() -> bytes:
    """4,000 x 4,000 pixels in 200 bytes."""
    file = io.BytesIO()
    Image.new("L", (4000, 4000)).save(file, "JPEG2000", no_jp2=True)
    return file.getvalue()


def jpeg_bomb() -> bytes:
    """2,000 x 2,000 pixels, behind a comment that looks like JPEG 2000 of 16 x 16."""
    file = io.BytesIO()
    Image.new("L", (2000, 2000)).save(file, "JPEG", comment=jpeg_2000_bomb()[:60])
    return file.getvalue()


def jpeg_ls_that_aborts() -> bytes:
    """60,000 x 60,000 pixels according to JPEG-LS, where CharLS ends the process."""
    path = get_testdata_file("MR_small_jpeg_ls_lossless.dcm")
    frame = bytearray(pydicom.encaps.get_frame(pydicom.dcmread(path).PixelData, 0))
    start = frame.index(b"\xff\xf7")
    frame[start + 5 : start + 9] = (60_000).to_bytes(2) * 2
    return bytes(frame)


@pytest.mark.parametrize(
    ("make", "syntax", "message"),
    [
        (run_length_bomb, RLELossless, "holds more pixels than its header says"),
        (jpeg_2000_bomb, JPEG2000Lossless, r"\(4000, 4000, 1\), but its header says \(16, 16, 1\)"),
        (jpeg_bomb, JPEGBaseline8Bit, r"\(2000, 2000, 1\), but"),
        (jpeg_ls_that_aborts, JPEGLSLossless, r"\(60000, 60000, 1\), but"),
    ],
)
def test_compressed_bomb_is_refused_before_it_takes_memory(make, syntax, message):
    """Was gigabytes for 600 bytes of JPEG 2000, and the end of the process for JPEG-LS."""
    compressed = pydicom.dcmread(io.BytesIO(dicom_file(np.zeros((16, 16), np.uint16))))
    compressed.file_meta.TransferSyntaxUID = syntax
    compressed.PixelData = pydicom.encaps.encapsulate([make()])
    compressed["PixelData"].is_undefined_length = True
    file = io.BytesIO()
    compressed.save_as(file)
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match=message):
            decode_image(file.getvalue(), bit_depth=12)
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("width", [0, -3])
def test_window_without_width_is_refused(stored, width):
    with pytest.raises(ImageError, match="its WindowWidth is"):
        decode_image(dicom_file(stored, WindowCenter=100, WindowWidth=width))


def test_missing_pydicom_error_has_the_install_command(stored, monkeypatch):
    monkeypatch.setattr("featurecache.images.dicom.find_spec", lambda name: None)
    with pytest.raises(ImageError, match=r"pip install 'featurecache\[dicom\]'"):
        decode_image(dicom_file(stored))


class IdentityEncoder:
    """An encoder without preprocessing, with only the attributes that decoding needs."""

    preprocess = picklable_preprocess = staticmethod(np.asarray)


def test_patient_names_are_never_passed_on(stored, tmp_path, caplog, capfd):
    intact = dicom_file(stored)
    rng = np.random.default_rng(2)
    caplog.set_level(logging.DEBUG)
    reasons = []
    reader = SubprocessDecoder()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for number in range(300):
            damaged = bytearray(intact)
            for at in rng.integers(132, min(len(intact), 600), size=3):
                damaged[at] = rng.integers(256)
            path = tmp_path / f"{number}.dcm"
            path.write_bytes(bytes(damaged))
            for isolated in (False, True):
                task = ImageTask(0, "a", path, (0,), isolated, bit_depth=16)
                reasons.append(str(decode(task, {0: IdentityEncoder()}, reader).reason))
    out = capfd.readouterr()
    everything = " ".join([*reasons, *map(str, warned), caplog.text, out.out, out.err])
    assert len(set(reasons)) > 3
    assert "SECRET" not in everything


def test_damage_raises_only_image_errors(stored):
    intact = dicom_file(stored, WindowCenter=1500, WindowWidth=900)
    rng = np.random.default_rng(3)
    outcomes = set()
    for _ in range(500):
        damaged = bytearray(intact)
        for at in rng.integers(132, len(intact), size=rng.integers(1, 6)):
            damaged[at] = rng.integers(256)
        try:
            outcomes.add(type(decode_image(bytes(damaged[: rng.integers(200, len(intact) + 1)]))))
        except ImageError:
            outcomes.add(ImageError)
    assert outcomes == {ImageError, Image.Image}
