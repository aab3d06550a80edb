import fcntl
import io
import os
import signal
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps

from featurecache.errors import ImageError
from featurecache.images import read
from featurecache.images.decode import decode_image, read_image, used_bits
from featurecache.images.limits import MIN_SIDE
from featurecache.images.read import MAX_BYTES, read_bytes

ORIENTATION = 0x0112

# 24 rows of 20: every value differs from its neighbors, and no symmetry hides a wrong turn.
GRAY = (np.arange(480, dtype=np.uint32).reshape(24, 20) * 131 % 251).astype(np.uint8)
COLOR = np.stack([GRAY, 255 - GRAY, GRAY // 2], axis=-1)
GRAY_16 = (np.arange(480, dtype=np.uint32).reshape(24, 20) * 7919 % 65521).astype(np.uint16)
ALPHA = np.linspace(0, 255, 480).astype(np.uint8).reshape(24, 20)


def encode(image: Image.Image | NDArray[np.generic], format: str, **options: object) -> bytes:
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png(width: int, height: int, *, bits: int, color_type: int, rows: bytes) -> bytes:
    """Return a PNG with a header or pixel type that Pillow does not write."""
    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0)
    data = zlib.compress(rows)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", data), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def from_16_bit(pixels: NDArray[np.generic]) -> list[list[int]]:
    """Scale 0..65535 to 0..255; as 65535 / 255 = 257 is odd, no value lies half way."""
    return [[round(int(value) / 257) for value in row] for row in pixels]


def assert_pixels(data: bytes, mode: str, expected: object) -> None:
    image = decode_image(data, bit_depth=16)
    assert image.mode == mode
    np.testing.assert_array_equal(np.asarray(image), np.asarray(expected))


# --- pixel types -------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["PNG", "TIFF", "BMP", "PPM"])
def test_grayscale_stays_grayscale(format: str) -> None:
    assert_pixels(encode(GRAY, format), "L", GRAY)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "BMP", "PPM"])
def test_color_stays_color(format: str) -> None:
    assert_pixels(encode(COLOR, format), "RGB", COLOR)


def test_lossless_webp_is_read() -> None:
    assert_pixels(encode(COLOR, "WEBP", lossless=True), "RGB", COLOR)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "BMP", "PPM"])
def test_one_bit_becomes_black_and_white(format: str) -> None:
    bits = GRAY > 100
    assert_pixels(encode(Image.fromarray(bits), format), "L", np.where(bits, 255, 0))


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_lzw", "packbits"])
def test_fax_compressed_tiff_is_not_inverted(compression: str) -> None:
    bits = GRAY > 100
    data = encode(Image.fromarray(bits), "TIFF", compression=compression)
    assert_pixels(data, "L", np.where(bits, 255, 0))


@pytest.mark.parametrize(("bits", "step"), [(2, 85), (4, 17)])
def test_few_bits_are_scaled_to_the_full_range(bits: int, step: int) -> None:
    levels = np.arange(16 * 16).reshape(16, 16) % 2**bits
    packed = sum(
        levels[:, place :: 8 // bits] << (8 - bits * (place + 1)) for place in range(8 // bits)
    )
    rows = b"".join(b"\0" + bytes(row) for row in np.asarray(packed, dtype=np.uint8))
    assert_pixels(png(16, 16, bits=bits, color_type=0, rows=rows), "L", levels * step)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "BMP", "PPM"])
def test_equal_channels_become_grayscale(format: str) -> None:
    assert_pixels(encode(np.dstack([GRAY] * 3), format), "L", GRAY)


def test_grayscale_palette_becomes_grayscale() -> None:
    image = Image.fromarray(GRAY)
    image.putpalette(np.repeat(np.arange(256, dtype=np.uint8), 3).tobytes())
    assert_pixels(encode(image, "PNG"), "L", GRAY)


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_one_colored_pixel_keeps_the_color(channel: int) -> None:
    image = np.dstack([GRAY] * 3)
    image[-1, -1, channel] ^= 1
    assert_pixels(encode(image, "PNG"), "RGB", image)


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_alpha_of_grayscale_is_dropped(format: str) -> None:
    image = Image.merge("LA", [Image.fromarray(GRAY), Image.fromarray(ALPHA)])
    assert_pixels(encode(image, format), "L", GRAY)


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_alpha_of_color_is_dropped(format: str) -> None:
    assert_pixels(encode(np.dstack([COLOR, ALPHA]), format), "RGB", COLOR)


@pytest.mark.parametrize("transparency", [None, 3, bytes(range(0, 160, 10))])
def test_palette_becomes_rgb(transparency: int | bytes | None) -> None:
    colors = np.asarray([[17 * i, 255 - 17 * i, (40 * i) % 256] for i in range(16)], np.uint8)
    indices = GRAY % 16
    image = Image.fromarray(indices)
    image.putpalette(colors.tobytes())  # which makes it mode P
    options = {} if transparency is None else {"transparency": transparency}
    assert_pixels(encode(image, "PNG", **options), "RGB", colors[indices])


@pytest.mark.parametrize("format", ["TIFF", "BMP"])
def test_palette_of_other_formats_becomes_rgb(format: str) -> None:
    colors = np.asarray([[i, 255 - i, i // 2] for i in range(256)], np.uint8)
    image = Image.fromarray(GRAY)
    image.putpalette(colors.tobytes())
    assert_pixels(encode(image, format), "RGB", colors[GRAY])


def test_transparent_gray_value_is_kept() -> None:
    assert_pixels(encode(GRAY, "PNG", transparency=int(GRAY[0, 0])), "L", GRAY)


def test_cmyk_becomes_rgb() -> None:
    inks = np.empty((16, 16, 4), np.uint8)
    inks[:] = (51, 0, 255, 102)
    pixels = np.asarray(decode_image(encode(Image.fromarray(inks, "CMYK"), "TIFF")))
    # (255 - ink) * (255 - black) / 255 = 122.4, 153 and 0
    assert np.abs(pixels[0, 0].astype(int) - (122, 153, 0)).max() <= 1
    assert (pixels == pixels[0, 0]).all()


@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_color_jpeg_stays_color(mode: str, progressive: bool) -> None:
    image = Image.new("RGB", (40, 24), (200, 30, 60)).convert(mode)
    image = decode_image(encode(image, "JPEG", quality=95, progressive=progressive))
    assert (image.mode, image.size) == ("RGB", (40, 24))
    assert np.abs(np.asarray(image).astype(int) - (200, 30, 60)).max() <= 3


@pytest.mark.parametrize("progressive", [False, True])
def test_grayscale_jpeg_stays_grayscale(progressive: bool) -> None:
    ramp = np.add.outer(np.arange(48), np.arange(40)).astype(np.uint8)
    image = decode_image(encode(ramp, "JPEG", quality=95, progressive=progressive))
    assert image.mode == "L"
    assert np.abs(np.asarray(image).astype(int) - ramp).max() <= 3


# --- deep pixels -------------------------------------------------------------------------------


def big_endian(pixels: NDArray[np.uint16]) -> Image.Image:
    size = (pixels.shape[1], pixels.shape[0])
    return Image.frombytes("I;16B", size, pixels.astype(">u2").tobytes())


DEEP: dict[str, Callable[[], bytes]] = {
    "png": lambda: encode(GRAY_16, "PNG"),
    "tiff": lambda: encode(GRAY_16, "TIFF"),
    "tiff_lzw": lambda: encode(GRAY_16, "TIFF", compression="tiff_lzw"),
    "big_endian_tiff": lambda: encode(big_endian(GRAY_16), "TIFF"),
    "32_bit_tiff": lambda: encode(GRAY_16.astype(np.int32), "TIFF"),
    "pgm": lambda: b"P5 20 24 65535\n" + GRAY_16.astype(">u2").tobytes(),
}


@pytest.mark.parametrize("kind", DEEP)
def test_16_bits_are_scaled_to_8(kind: str) -> None:
    assert_pixels(DEEP[kind](), "L", from_16_bit(GRAY_16))


def test_ends_of_the_16_bit_range_are_black_and_white() -> None:
    pixels = np.full((16, 16), 65535, np.uint16)
    pixels[0] = [0, 128, 129, 257, 385, 386, 65406, 65407, *[65535] * 8]
    row = np.asarray(decode_image(encode(pixels, "PNG"), bit_depth=16))[0]
    assert row.tolist() == [0, 0, 1, 1, 1, 2, 254, 255, *[255] * 8]


def test_black_16_bit_image_stays_black() -> None:
    assert_pixels(encode(np.zeros((16, 16), np.uint16), "PNG"), "L", np.zeros((16, 16)))


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_white_is_zero_16_bit_tiff_is_inverted(compression: str | None) -> None:
    written = encode(GRAY_16, "TIFF", compression=compression)
    # PhotometricInterpretation: tag 262, type SHORT, one value; 1 is black at 0.
    black_is_zero = struct.pack("<HHIH", 262, 3, 1, 1)
    assert written.count(black_is_zero) == 1
    data = written.replace(black_is_zero, struct.pack("<HHIH", 262, 3, 1, 0))
    assert_pixels(data, "L", from_16_bit(65535 - GRAY_16.astype(int)))


def test_16_bit_color_keeps_the_high_byte() -> None:
    pixels = np.stack([GRAY_16, 65535 - GRAY_16, GRAY_16 // 3], axis=-1)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels.astype(">u2"))
    assert_pixels(png(20, 24, bits=16, color_type=2, rows=rows), "RGB", pixels >> 8)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "32 bits"])
@pytest.mark.parametrize("brightest", [1, 255, 4095])
def test_12_bits_read_as_16_are_refused(kind: str, brightest: int) -> None:
    pixels = np.zeros((16, 16), np.int32 if kind == "32 bits" else np.uint16)
    pixels[3, 4] = brightest
    data = encode(pixels, "TIFF" if kind == "32 bits" else kind)
    with pytest.raises(ImageError, match=rf"brightest pixel is {brightest} of 65535: .*fewer bits"):
        decode_image(data, bit_depth=16)


def test_lowest_13_bit_value_is_accepted() -> None:
    pixels = np.zeros((16, 16), np.uint16)
    pixels[3, 4] = 4096
    assert np.asarray(decode_image(encode(pixels, "PNG"), bit_depth=16))[3, 4] == 16


@pytest.mark.parametrize("bits", range(8, 17))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "32 bits"])
def test_values_of_fewer_bits_fill_the_range(kind: str, bits: int) -> None:
    values = (GRAY_16.astype(np.int64) * (2**bits - 1) // 65535).astype(np.uint16)
    values[0, :2] = 0, 2**bits - 1
    pixels = values.astype(np.int32) if kind == "32 bits" else values
    data = encode(pixels, "PNG" if kind == "PNG" else "TIFF")
    assert used_bits(data) == bits
    expected = [[round(int(v) * 255 / (2**bits - 1)) for v in row] for row in values]
    np.testing.assert_array_equal(np.asarray(decode_image(data, bit_depth=bits)), expected)


def test_bit_depth_must_be_given_and_hold_the_values() -> None:
    values = encode((GRAY_16 // 16).astype(np.uint16), "PNG")  # 12 bits
    with pytest.raises(ImageError, match=r"does not define the range .*give `bit_depth`"):
        decode_image(values)
    with pytest.raises(ImageError, match="use 12 bits, more than the 11 bits of the other images"):
        decode_image(values, bit_depth=11)
    # Read as more, a dark image stays dark.
    assert np.asarray(decode_image(values, bit_depth=14)).max() == 64


def test_bit_depth_of_8_bit_images_is_not_used() -> None:
    data = encode(GRAY, "PNG")
    assert used_bits(data) is None
    np.testing.assert_array_equal(np.asarray(decode_image(data, bit_depth=12)), GRAY)


@pytest.mark.parametrize("color_type", [2, 4, 6])
def test_16_bit_color_of_fewer_bits_is_refused(color_type: int) -> None:
    channels = {2: 3, 4: 2, 6: 4}[color_type]
    pixels = np.stack([GRAY_16 // 16] * channels, axis=-1)
    if color_type != 2:
        pixels[..., -1] = 65535  # alpha
    rows = b"".join(b"\0" + row.tobytes() for row in pixels.astype(">u2"))
    data = png(20, 24, bits=16, color_type=color_type, rows=rows)
    assert used_bits(data) == 12
    with pytest.raises(ImageError, match="16-bit color that uses 12 bits"):
        decode_image(data, bit_depth=12)
    with pytest.raises(ImageError, match="brightest pixel is 4095 of 65535"):
        decode_image(data, bit_depth=16)


@pytest.mark.parametrize("value", [-1, 65536, 2**31 - 1, -(2**31)])
def test_32_bit_values_that_do_not_fit_16_bits_are_refused(value: int) -> None:
    pixels = np.full((16, 16), 30000, np.int32)
    pixels[5, 6] = value
    with pytest.raises(ImageError, match="do not fit 16 bits"):
        decode_image(encode(pixels, "TIFF"))


def test_floating_point_pixels_are_refused() -> None:
    with pytest.raises(ImageError, match="floating-point pixels"):
        decode_image(encode(GRAY.astype(np.float32), "TIFF"))


# --- orientation and metadata ------------------------------------------------------------------

# Where EXIF 2.32, tag 0x0112, puts the stored row 0 and column 0.
UPRIGHT: dict[int, Callable[[NDArray[np.generic]], NDArray[np.generic]]] = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: np.rot90(stored, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
def test_color_image_becomes_upright(orientation: int, format: str) -> None:
    options = {"lossless": True} if format == "WEBP" else {}
    data = encode(COLOR, format, exif=oriented(orientation), **options)
    assert_pixels(data, "RGB", UPRIGHT[orientation](COLOR))


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_grayscale_image_becomes_upright(orientation: int, format: str) -> None:
    data = encode(GRAY, format, exif=oriented(orientation))
    assert_pixels(data, "L", UPRIGHT[orientation](GRAY))


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("format", ["PNG", "TIFF", "big-endian TIFF"])
def test_16_bit_image_becomes_upright(orientation: int, format: str) -> None:
    image = big_endian(GRAY_16) if format == "big-endian TIFF" else GRAY_16
    data = encode(image, format.removeprefix("big-endian "), exif=oriented(orientation))
    assert_pixels(data, "L", UPRIGHT[orientation](np.asarray(from_16_bit(GRAY_16))))


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("pixels", [GRAY, COLOR], ids=["gray", "color"])
def test_jpeg_becomes_upright(orientation: int, pixels: NDArray[np.uint8]) -> None:
    stored = np.asarray(Image.open(io.BytesIO(encode(pixels, "JPEG"))))
    data = encode(pixels, "JPEG", exif=oriented(orientation))
    assert_pixels(data, "L" if pixels.ndim == 2 else "RGB", UPRIGHT[orientation](stored))


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_invalid_orientation_is_ignored(orientation: int) -> None:
    assert_pixels(encode(GRAY, "PNG", exif=oriented(orientation)), "L", GRAY)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_orientation_is_not_applied_twice(format: str) -> None:
    image = decode_image(encode(COLOR, format, exif=oriented(6)))
    again = ImageOps.exif_transpose(image)
    np.testing.assert_array_equal(np.asarray(again), np.asarray(image))


def test_metadata_is_dropped() -> None:
    exif = oriented(1)
    exif[0x010E] = "name of a patient"
    data = encode(GRAY, "PNG", exif=exif, transparency=3, dpi=(300, 300))
    assert decode_image(data).info == {}


def test_exif_field_of_the_wrong_type_is_ignored() -> None:
    def with_type(kind: int) -> bytes:
        # Two entries: DateTime as the given type, and Orientation 6.
        entries = struct.pack("<HHII", 306, kind, 1, 0) + struct.pack("<HHII", ORIENTATION, 3, 1, 6)
        return b"Exif\0\0II*\0\x08\0\0\0\x02\0" + entries + bytes(4)

    for kind in (2, 11, 3):  # text (the right type), float, short
        data = encode(GRAY, "PNG", exif=with_type(kind))
        assert_pixels(data, "L", UPRIGHT[6](GRAY))


# --- invalid and damaged files -----------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [b"", bytes(4096), b"Image Index,Finding Labels\n1,Mass\n", b"<html>404</html>", b"\xff\xd8"],
    ids=["empty", "zeros", "csv", "html", "two bytes of a jpeg"],
)
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ImageError, match="not an image of a known format"):
        decode_image(data)


@pytest.mark.parametrize("format", ["GIF", "ICO", "JPEG2000"])
def test_other_formats_are_refused(format: str) -> None:
    with pytest.raises(
        ImageError, match=r"known format \(PNG, JPEG, TIFF, BMP, WEBP, PPM, DICOM\)"
    ):
        decode_image(encode(GRAY, format))


SMOOTH = np.add.outer(np.arange(120), np.arange(90)).astype(np.uint8)
INTACT_FILES: dict[str, Callable[[], bytes]] = {
    "png": lambda: encode(SMOOTH, "PNG"),
    "png_16": lambda: encode(GRAY_16, "PNG"),
    "jpeg": lambda: encode(SMOOTH, "JPEG"),
    "jpeg_color": lambda: encode(np.dstack([SMOOTH] * 3), "JPEG"),
    "jpeg_progressive": lambda: encode(SMOOTH, "JPEG", progressive=True),
    "tiff": lambda: encode(SMOOTH, "TIFF"),
    "tiff_lzw": lambda: encode(SMOOTH, "TIFF", compression="tiff_lzw"),
    "tiff_deflate": lambda: encode(SMOOTH, "TIFF", compression="tiff_adobe_deflate"),
    "tiff_jpeg": lambda: encode(SMOOTH, "TIFF", compression="jpeg"),
    "bmp": lambda: encode(SMOOTH, "BMP"),
    "webp": lambda: encode(SMOOTH, "WEBP"),
    "ppm": lambda: encode(SMOOTH, "PPM"),
}


@pytest.mark.parametrize("tenths", range(10))
@pytest.mark.parametrize("kind", INTACT_FILES)
def test_truncated_file_is_refused(kind: str, tenths: int) -> None:
    data = INTACT_FILES[kind]()
    decode_image(data, bit_depth=16)
    with pytest.raises(ImageError):
        decode_image(data[: len(data) * tenths // 10], bit_depth=16)


@pytest.mark.parametrize("kind", ["png", "png_16"])
def test_flipped_bits_in_a_png_are_detected(kind: str) -> None:
    data = INTACT_FILES[kind]()
    intact = np.asarray(decode_image(data, bit_depth=16))
    for place in range(0, len(data), 7):
        damaged = bytearray(data)
        damaged[place] ^= 0x10
        try:
            pixels = np.asarray(decode_image(bytes(damaged), bit_depth=16))
        except ImageError:
            continue
        np.testing.assert_array_equal(pixels, intact)


@pytest.mark.parametrize("format", ["TIFF", "PNG", "WEBP", "MPO"])
def test_several_frames_are_refused(format: str) -> None:
    frames = [Image.fromarray(255 - COLOR)]
    data = encode(COLOR, format, save_all=True, append_images=frames)
    with pytest.raises(ImageError, match="holds several frames"):
        decode_image(data)


def test_damaged_tiff_tag_is_refused_if_warnings_are_errors() -> None:
    data = encode(GRAY, "TIFF", tiffinfo={305: "a scanner"})
    entry = struct.pack("<HHI", 305, 2, 10)
    assert data.count(entry) == 1
    damaged = data.replace(entry, struct.pack("<HHI", 305, 2, 10_000_000))
    with pytest.raises(ImageError, match="damaged: "):
        decode_image(damaged)
    with pytest.warns(UserWarning, match="(?i)tag"):
        assert_pixels(damaged, "L", GRAY)


def test_tiff_with_a_damaged_second_frame_is_refused() -> None:
    data = encode(GRAY, "TIFF", save_all=True, append_images=[Image.fromarray(GRAY)])
    uncompressed = struct.pack("<HHIH", 259, 3, 1, 1)
    first, second = data.index(uncompressed), data.rindex(uncompressed)
    assert first < second
    damaged = data[:second] + struct.pack("<HHIH", 259, 3, 1, 9999) + data[second + 10 :]
    with pytest.raises(ImageError, match="damaged"):
        decode_image(damaged)


# --- sizes -------------------------------------------------------------------------------------


def bmp_header(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IHHIIiiHHIIIIII", 54, 0, 0, 54, 40, width, height, 1, 24, *[0] * 6)


@pytest.mark.parametrize("action", ["error", "ignore"])
@pytest.mark.parametrize(
    "data",
    [
        png(60_000, 60_000, bits=8, color_type=0, rows=b""),
        png(10_000, 9_000, bits=8, color_type=0, rows=b""),
        png(8_001, 10_000, bits=8, color_type=0, rows=b""),
        bmp_header(60_000, 60_000),
        b"P5 60000 60000 255\n",
    ],
    ids=["60000 x 60000", "where Pillow warns", "just over", "bmp", "ppm"],
)
def test_huge_size_in_the_header_is_refused(data: bytes, action: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter(action)  # type: ignore[arg-type]
        with pytest.raises(ImageError, match=r"more than 80,000,000 pixels"):
            decode_image(data)


def test_largest_allowed_size_is_accepted() -> None:
    with pytest.raises(ImageError, match="damaged") as caught:
        decode_image(png(8_000, 10_000, bits=8, color_type=0, rows=b""))
    assert "pixels" not in str(caught.value)


@pytest.mark.parametrize("shape", [(15, 400), (400, 15), (1, 1), (15, 15)])
def test_too_small_image_is_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match=f"{shape[1]} x {shape[0]} is too small"):
        decode_image(encode(np.zeros(shape, np.uint8), "PNG"))


@pytest.mark.parametrize("shape", [(16, 321), (321, 16), (1000, 49)])
def test_very_narrow_image_is_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match="one side is over 20 times the other"):
        decode_image(encode(np.zeros(shape, np.uint8), "PNG"))


@pytest.mark.parametrize("shape", [(16, 320), (320, 16), (16, 16)])
def test_sizes_at_the_limits_are_accepted(shape: tuple[int, int]) -> None:
    pixels = np.arange(shape[0] * shape[1], dtype=np.uint32).reshape(shape) % 256
    assert_pixels(encode(pixels.astype(np.uint8), "PNG"), "L", pixels)


# --- files -------------------------------------------------------------------------------------


def test_file_and_link_to_it_are_read(tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(encode(GRAY, "PNG"))
    (tmp_path / "link.dat").symlink_to("image.png")
    for name in ("image.png", "link.dat"):
        np.testing.assert_array_equal(np.asarray(read_image(tmp_path / name)), GRAY)


def missing(folder: Path) -> Path:
    return folder / "image.png"


def broken_link(folder: Path) -> Path:
    (folder / "link.png").symlink_to("gone.png")
    return folder / "link.png"


def folder_instead_of_a_file(folder: Path) -> Path:
    (folder / "image.png").mkdir()
    return folder / "image.png"


def fifo(folder: Path) -> Path:
    os.mkfifo(folder / "image.png")
    return folder / "image.png"


def empty(folder: Path) -> Path:
    (folder / "image.png").touch()
    return folder / "image.png"


def link_to_itself(folder: Path) -> Path:
    (folder / "image.png").symlink_to("image.png")
    return folder / "image.png"


def below_a_file(folder: Path) -> Path:
    (folder / "images").touch()
    return folder / "images" / "image.png"


def over_the_limit(folder: Path) -> Path:
    with (folder / "image.png").open("wb") as file:
        file.truncate(MAX_BYTES + 1)  # sparse: takes no disk space
    return folder / "image.png"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (missing, "missing: no such file"),
        (broken_link, "missing: no such file"),
        (folder_instead_of_a_file, "not a regular file"),
        (fifo, "not a regular file"),
        (empty, "the file is empty"),
        (link_to_itself, "cannot be read: .*link"),
        (below_a_file, "cannot be read: Not a directory"),
        (over_the_limit, "536,870,913 bytes, over the limit 536,870,912"),
    ],
)
def test_unreadable_files_are_refused(
    tmp_path: Path, make: Callable[[Path], Path], reason: str
) -> None:
    path = make(tmp_path)
    with pytest.raises(ImageError, match=f"^{reason}|{reason}$"):
        read_bytes(path)
    with pytest.raises(ImageError, match=reason) as caught:
        read_image(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.timeout(10)
@pytest.mark.parametrize("become", [fifo, folder_instead_of_a_file, missing])
def test_file_replaced_before_opening_does_not_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, become: Callable[[Path], Path]
) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(encode(GRAY, "PNG"))

    def swap_and_open(name: str, flags: int) -> int:
        path.unlink()
        become(tmp_path)
        return open_nonblocking(name, flags)

    open_nonblocking = read._open_nonblocking
    monkeypatch.setattr(read, "_open_nonblocking", swap_and_open)
    with pytest.raises(ImageError, match=r"not a regular file|Is a directory|no such file"):
        read_bytes(path)


@pytest.mark.parametrize("size", [0, 10, 10_000])
def test_file_that_grows_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(encode(GRAY, "PNG"))
    check = read._check_file
    checked: list[int] = []

    def change_after_it_was_opened(status: os.stat_result) -> None:
        check(status)
        checked.append(status.st_size)
        if len(checked) == 2:
            os.truncate(path, size)

    monkeypatch.setattr(read, "_check_file", change_after_it_was_opened)
    with pytest.raises(ImageError, match="changed while it was read"):
        read_bytes(path)


@pytest.mark.skipif(not hasattr(fcntl, "F_SETLEASE"), reason="Linux has leases")
@pytest.mark.timeout(10)
def test_locked_file_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(encode(GRAY, "PNG"))
    with path.open("r+b") as holder:
        fcntl.fcntl(holder, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        handler = signal.signal(signal.SIGIO, signal.SIG_IGN)
        try:
            with pytest.raises(ImageError, match=r"cannot be read: .*unavailable"):
                read_bytes(path)
        finally:
            fcntl.fcntl(holder, fcntl.F_SETLEASE, fcntl.F_UNLCK)
            signal.signal(signal.SIGIO, handler)
    assert read_bytes(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_file_without_permission_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(encode(GRAY, "PNG"))
    path.chmod(0)
    with pytest.raises(ImageError, match="cannot be read: Permission denied"):
        read_bytes(path)


@pytest.mark.parametrize("decoder", ["PIL.Image.open", "featurecache.images.decode.decode_dicom"])
def test_image_too_large_for_memory_is_refused(
    monkeypatch: pytest.MonkeyPatch, decoder: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(decoder, fail)
    data = bytes(128) + b"DICM" if "dicom" in decoder else encode(GRAY, "PNG")
    with pytest.raises(ImageError, match="needs more memory than is available"):
        decode_image(data)


def test_message_names_the_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(INTACT_FILES["jpeg"]()[:600])
    with pytest.raises(ImageError, match=r"image\.jpg: damaged: .*truncated"):
        read_image(path)


# --- random damage -----------------------------------------------------------------------------

FUZZED = (
    *(make() for make in INTACT_FILES.values()),
    encode(COLOR, "PNG", exif=oriented(6)),
    encode(Image.fromarray(COLOR).quantize(16), "PNG", transparency=bytes(16)),
    encode(COLOR, "JPEG", exif=oriented(8)),
    encode(COLOR, "TIFF", exif=oriented(5)),
    encode(GRAY_16, "TIFF", compression="tiff_lzw"),
    encode(GRAY, "TIFF", save_all=True, append_images=[Image.fromarray(GRAY)]),
    encode(Image.fromarray(GRAY > 100), "TIFF", compression="group4"),
    encode(COLOR, "WEBP", exif=oriented(3)),
    encode(COLOR, "MPO", save_all=True, append_images=[Image.fromarray(COLOR)]),
)

# Headers, where damage does the most, fill the first few hundred bytes.
PLACES = st.one_of(st.integers(0, 400), st.integers(0, 20_000))
EDITS = st.one_of(
    st.tuples(st.just("set"), PLACES, st.binary(min_size=1, max_size=4)),
    st.tuples(st.just("insert"), PLACES, st.binary(min_size=1, max_size=8)),
    st.tuples(st.just("delete"), PLACES, st.integers(1, 40)),
    st.tuples(st.just("cut"), PLACES, st.none()),
)


def edited(data: bytes, kind: str, place: int, value: object) -> bytes:
    place %= len(data) + 1
    before, after = data[:place], data[place:]
    if isinstance(value, bytes):
        return before + value + (after[len(value) :] if kind == "set" else after)
    return before + (after[value:] if isinstance(value, int) else b"")


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(FUZZED), st.lists(EDITS, min_size=1, max_size=6))
@example(FUZZED[0], [("cut", 0, None)])
def test_damaged_bytes_raise_only_image_errors(
    data: bytes, edits: list[tuple[str, int, object]]
) -> None:
    for edit in edits:
        data = edited(data, *edit)
    try:
        image = decode_image(data)
    except ImageError:
        return
    assert image.mode in ("L", "RGB")
    assert min(image.size) >= MIN_SIDE
    assert np.asarray(image).shape[:2] == image.size[::-1]
    assert image.info == {}
