"""Cost of reading an image before the encoder, and effect of faster ways to downscale it.

    python benchmarks/decoding.py --data DATA

DATA holds the folders kermany and nih. The first table gives median milliseconds per image on one
core. The second gives those of other decoders that are installed (opencv-python-headless, pyspng,
simplejpeg, imagecodecs), and how many of their images differ from Pillow's. The third resizes
images of 3000 x 2500, enlarged from 1024 x 1024, as the encoders do, by several methods: Pillow's
reducing_gap, which first shrinks by integer factors, and its draft mode, in which libjpeg decodes
at a half, a quarter or an eighth of the size, but no smaller than a given multiple of the target
size. It gives milliseconds to decode and resize, the largest change of a pixel in gray levels, and
the fraction of pixels that change.
"""

import argparse
import hashlib
import io
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from featurecache.encoders.loading import load_encoder
from featurecache.images.decode import decode_image
from featurecache.images.read import read_bytes

Result = TypeVar("Result")

SIDES = (128, 224, 512)
METHODS: dict[str, tuple[int, float | None]] = {
    "exact": (0, None),
    "gap 2": (0, 2.0),
    "gap 3": (0, 3.0),
    "draft 1x": (1, None),
    "draft 2x": (2, None),
    "draft 3x": (3, None),
    "draft 5x": (5, None),
}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", nargs="+", default=["tiny", "dinov2-small"])
    parser.add_argument("--n-images", type=int, default=40)
    arguments = parser.parse_args()
    originals = sorted((arguments.data / "nih/originals_1024").glob("*.png"))[: arguments.n_images]
    kermany = sorted((arguments.data / "kermany/train/NORMAL").glob("*.jpeg"))[: arguments.n_images]
    large = [enlarge(path) for path in originals[:6]]
    images = {
        "224 px JPEG": [read_bytes(path) for path in kermany],
        "1024 px PNG": [read_bytes(path) for path in originals],
        "3000 px JPEG": large,
    }
    encoders = {name: load_encoder(name, precision="exact") for name in arguments.models}
    columns = ["images", "hash", "decode", *(f"preprocess for {name}" for name in encoders)]
    print_row(columns)
    print("|---" * len(columns) + "|")
    for kind, files in images.items():
        costs: dict[str, list[float]] = {column: [] for column in columns[1:]}
        for data in files * 3:
            duration, _ = timed(partial(hashlib.sha256, data))
            costs["hash"].append(duration)
            duration, image = timed(partial(decode_image, data))
            costs["decode"].append(duration)
            for name, encoder in encoders.items():
                duration, _ = timed(partial(encoder.preprocess, image))
                costs[f"preprocess for {name}"].append(duration)
        print_row([kind, *(f"{statistics.median(values):.2f}" for values in costs.values())])
    print()
    print_row(["images", "decoder", "milliseconds", "against Pillow", "differ"])
    print("|---|---|---|---|---|")
    for kind in ("224 px JPEG", "1024 px PNG"):
        compare_decoders(kind, images[kind])
    print()
    print_row(["3000 px JPEG to", *METHODS])
    print("|---" * (1 + len(METHODS)) + "|")
    for side in SIDES:
        exact = [resize(data, side, 0, None)[1] for data in large]
        print_row([str(side), *(cell(large, exact, side, *method) for method in METHODS.values())])


def with_pillow(data: bytes) -> NDArray[np.uint8]:
    """Decode with Pillow."""
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(data)))


def with_opencv(data: bytes) -> NDArray[np.uint8]:
    """Decode with OpenCV."""
    import cv2

    cv2.setNumThreads(1)
    flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), flags))


def with_imagecodecs(data: bytes) -> NDArray[np.uint8]:
    """Decode with libpng or libjpeg-turbo through imagecodecs."""
    import imagecodecs

    decode = imagecodecs.png_decode if is_png(data) else imagecodecs.jpeg8_decode
    return np.asarray(decode(data))


def with_spng(data: bytes) -> NDArray[np.uint8]:
    """Decode a PNG with libspng."""
    import pyspng

    return np.asarray(pyspng.load(data)) if is_png(data) else with_pillow(data)


def with_turbo(data: bytes) -> NDArray[np.uint8]:
    """Decode a JPEG with libjpeg-turbo, to RGB."""
    import simplejpeg

    if is_png(data):
        return with_pillow(data)
    return np.asarray(simplejpeg.decode_jpeg(data))


def is_png(data: bytes) -> bool:
    """Return whether a file is a PNG."""
    return data.startswith(b"\x89PNG")


DECODERS = {
    "Pillow": with_pillow,
    "OpenCV": with_opencv,
    "imagecodecs": with_imagecodecs,
    "pyspng": with_spng,
    "simplejpeg": with_turbo,
}


def compare_decoders(kind: str, files: Sequence[bytes]) -> None:
    """Print a row for each decoder that is installed; their calls are interleaved."""
    decoders = {name: decode for name, decode in DECODERS.items() if is_installed(decode, files[0])}
    costs: dict[str, list[float]] = {name: [] for name in decoders}
    differ = dict.fromkeys(decoders, 0)
    for repeat in range(4):
        for data in files:
            for name, decode in decoders.items():
                duration, pixels = timed(partial(decode, data))
                costs[name].append(duration)
                differ[name] += repeat == 0 and not np.array_equal(pixels, with_pillow(data))
    pillow = statistics.median(costs["Pillow"])
    for name, values in costs.items():
        median = statistics.median(values)
        print_row([kind, name, f"{median:.2f}", f"{median / pillow:.2f}", str(differ[name])])


def is_installed(decode: Callable[[bytes], NDArray[np.uint8]], data: bytes) -> bool:
    """Return whether the library of a decoder is there."""
    try:
        decode(data)
    except ImportError:
        return False
    return True


def enlarge(path: Path) -> bytes:
    """Return an image at the resolution of a detector, as a JPEG of quality 85."""
    from PIL import Image

    buffer = io.BytesIO()
    image = Image.open(path).convert("L").resize((2500, 3000), Image.Resampling.BICUBIC)
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def resize(
    data: bytes, side: int, draft: int, gap: float | None
) -> tuple[float, NDArray[np.int16]]:
    """Return CPU milliseconds, and the pixels with a shorter side of ``side``."""
    from PIL import Image

    start = time.process_time()
    image = Image.open(io.BytesIO(data))
    width, height = image.size
    if draft:
        image.draft(None, (draft * side, draft * side))
    small = image.resize((side, side * height // width), 3, reducing_gap=gap)
    return (time.process_time() - start) * 1e3, np.asarray(small).astype(np.int16)


def cell(
    files: Sequence[bytes],
    exact: Sequence[NDArray[np.int16]],
    side: int,
    draft: int,
    gap: float | None,
) -> str:
    """Return duration and error of a resizing method, compared with exact resizing."""
    results = [resize(data, side, draft, gap) for data in files]
    levels = np.abs(np.stack([pixels for _, pixels in results]) - np.stack(exact))
    duration = statistics.median(milliseconds for milliseconds, _ in results)
    return f"{duration:.1f} ms, {levels.max()}, {(levels > 0).mean():.0%}"


def timed(call: Callable[[], Result]) -> tuple[float, Result]:
    """Return the CPU milliseconds of a call, and its result."""
    start = time.process_time()
    result = call()
    return (time.process_time() - start) * 1e3, result


def print_row(cells: Sequence[str]) -> None:
    """Print one row of a table."""
    print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
