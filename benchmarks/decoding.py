"""What a film costs before the encoder, and what reading it smaller would save and change.

    python benchmarks/decoding.py --data DATA

DATA holds the folders kermany and nih. The first table gives milliseconds of one core a film,
medians. The second resizes films of 3000 x 2500, enlarged from 1024 x 1024, as the encoders do, and
compares: Pillow's reducing_gap, which shrinks by whole factors first, and its draft, by which
libjpeg decodes at a half, a quarter or an eighth of the size, but no less than so many times what
is wanted. It gives milliseconds to decode and resize, the largest change of a pixel in levels, and
the share of pixels that change.
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
from featurecache.images.decode import decode_image, read_bytes

Result = TypeVar("Result")

SIDES = (128, 224, 512)
WAYS: dict[str, tuple[int, float | None]] = {
    "as it is": (0, None),
    "gap 2": (0, 2.0),
    "gap 3": (0, 3.0),
    "draft 1x": (1, None),
    "draft 2x": (2, None),
    "draft 3x": (3, None),
    "draft 5x": (5, None),
}


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", nargs="+", default=["tiny", "dinov2-small"])
    parser.add_argument("--films", type=int, default=40)
    arguments = parser.parse_args()
    originals = sorted((arguments.data / "nih/originals_1024").glob("*.png"))[: arguments.films]
    kermany = sorted((arguments.data / "kermany/train/NORMAL").glob("*.jpeg"))[: arguments.films]
    large = [enlarged(path) for path in originals[:6]]
    films = {
        "224 px JPEG": [read_bytes(path) for path in kermany],
        "1024 px PNG": [read_bytes(path) for path in originals],
        "3000 px JPEG": large,
    }
    encoders = {name: load_encoder(name, precision="fp32") for name in arguments.models}
    columns = ["films", "hash", "decode", *(f"preprocess for {name}" for name in encoders)]
    print_row(columns)
    print("|---" * len(columns) + "|")
    for kind, files in films.items():
        costs: dict[str, list[float]] = {column: [] for column in columns[1:]}
        for data in files * 3:
            took, _ = timed(partial(hashlib.sha256, data))
            costs["hash"].append(took)
            took, image = timed(partial(decode_image, data))
            costs["decode"].append(took)
            for name, encoder in encoders.items():
                took, _ = timed(partial(encoder.preprocess, image))
                costs[f"preprocess for {name}"].append(took)
        print_row([kind, *(f"{statistics.median(values):.2f}" for values in costs.values())])
    print()
    print_row(["3000 px JPEG to", *WAYS])
    print("|---" * (1 + len(WAYS)) + "|")
    for side in SIDES:
        exact = [resized(data, side, 0, None)[1] for data in large]
        print_row([str(side), *(cell(large, exact, side, *way) for way in WAYS.values())])


def enlarged(path: Path) -> bytes:
    """A film at the size of a detector, as a JPEG of quality 85."""
    from PIL import Image

    buffer = io.BytesIO()
    image = Image.open(path).convert("L").resize((2500, 3000), Image.Resampling.BICUBIC)
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def resized(
    data: bytes, side: int, draft: int, gap: float | None
) -> tuple[float, NDArray[np.int16]]:
    """Milliseconds, and the pixels with their shorter side at ``side``."""
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
    """One way of making films smaller, against the exact one."""
    runs = [resized(data, side, draft, gap) for data in files]
    levels = np.abs(np.stack([found for _, found in runs]) - np.stack(exact))
    took = statistics.median(milliseconds for milliseconds, _ in runs)
    return f"{took:.1f} ms, {levels.max()}, {(levels > 0).mean():.0%}"


def timed(call: Callable[[], Result]) -> tuple[float, Result]:
    """Milliseconds of processor time, and the result."""
    start = time.process_time()
    found = call()
    return (time.process_time() - start) * 1e3, found


def print_row(cells: Sequence[str]) -> None:
    """One line of a table."""
    print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
