"""Distances between perceptual hashes: of copies, and of different images.

    python benchmarks/perceptual_hashes.py --data DATA [--n-images 200]

DATA holds the folders ``nih`` and ``kermany``. Chosen images are re-encoded as JPEG (quality 30 to
95), resized (50 to 400 %), and both; their hashes are compared with those of the originals, the
256-pixel images of ``nih`` also with those as published. Then all different images are compared
with each other, and those of ``phantom``. Last, the time to compute a hash and to search.
"""

import argparse
import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featurecache.datasets.kermany import load_kermany
from featurecache.datasets.load import load_dataset
from featurecache.images.decode import decode_image, read_image
from featurecache.io.fingerprint import sha256_of_file
from featurecache.provenance.perceptual_hash import MAX_DISTANCE, is_copy, perceptual_hash

Hashes = NDArray[np.uint8]
Change = Callable[[Image.Image], Image.Image]

N_QUERIES, N_OTHERS = 25_000, 90_000
"""About the test and the training images of ChestX-ray14."""


def encoded(quality: int) -> Change:
    """Return a change: JPEG of this quality."""

    def change(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, format="JPEG", quality=quality)
        return decode_image(buffer.getvalue())

    return change


def resized(factor: float) -> Change:
    """Return a change: sides times this factor."""

    def change(image: Image.Image) -> Image.Image:
        width, height = (round(side * factor) for side in image.size)
        return image.resize((width, height), Image.Resampling.BILINEAR)

    return change


def both(first: Change, second: Change) -> Change:
    """Return both changes, one after the other."""
    return lambda image: second(first(image))


CHANGES = {
    **{f"JPEG, quality {quality}": encoded(quality) for quality in (30, 50, 70, 95)},
    **{f"{factor:.0%} of the size": resized(factor) for factor in (0.5, 0.75, 1.5, 2, 4)},
    "50 % of the size, then JPEG 30": both(resized(0.5), encoded(30)),
    "JPEG 30, then 50 % of the size": both(encoded(30), resized(0.5)),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--n-images", type=int, default=200)
    arguments = parser.parse_args()
    nih = load_dataset("nih", arguments.data, split="patient")
    kermany = load_kermany(arguments.data / "kermany", split="published")
    for dataset in (nih, kermany, load_dataset("phantom")):
        paths = list(dataset.files().values())
        hashes = np.stack([perceptual_hash(read_image(path)) for path in paths])
        print(f"{dataset.name}: {len(paths)} images")
        if dataset.name != "phantom":
            measure_copies(paths, hashes, arguments.n_images)
        if dataset is nih:
            measure_originals(arguments.data / "nih" / "originals_1024", paths, hashes)
        measure_others(
            hashes, [sha256_of_file(path) for path in paths], dataset.images["patient"].tolist()
        )
    measure_time(arguments.data / "nih" / "originals_1024")


def measure_copies(paths: list[Path], hashes: Hashes, number: int) -> None:
    """Print the distances of changed copies."""
    rows = np.random.default_rng(0).choice(len(paths), number, replace=False)
    images = [read_image(paths[row]) for row in rows]
    for name, change in CHANGES.items():
        copies = np.stack([perceptual_hash(change(image)) for image in images])
        distance = distances(copies, hashes[rows])
        missed = int((distance > MAX_DISTANCE).sum())
        print(
            f"  {name}: median {np.median(distance):.0f}, maximum {distance.max()}, "
            f"{missed} of {number} above {MAX_DISTANCE}"
        )


def measure_originals(folder: Path, paths: list[Path], hashes: Hashes) -> None:
    """Print the distances between images as published and at 256 pixels."""
    row_of = {path.name: row for row, path in enumerate(paths)}
    originals = sorted(folder.glob("*.png"))
    published = np.stack([perceptual_hash(read_image(path)) for path in originals])
    distance = distances(published, hashes[[row_of[path.name] for path in originals]])
    print(f"  {len(originals)} images as published: maximum {distance.max()}")


def measure_others(hashes: Hashes, files: list[str], patients: list[str]) -> None:
    """Print the lowest distances of images with different files."""
    of_patient, nearest = [], []
    names, sums = np.asarray(patients), np.asarray(files)
    for row in range(1, len(hashes)):
        distance = distances(hashes[:row], hashes[row])
        other_file = sums[:row] != sums[row]
        same = names[:row] == names[row]
        of_patient += distance[other_file & same].tolist()
        nearest += sorted(distance[other_file & ~same].tolist())[:3]
    print(f"  different images of one patient: lowest {sorted(of_patient)[:8]}")
    print(f"  of different patients: lowest {sorted(nearest)[:8]}")


def measure_time(folder: Path) -> None:
    """Print the CPU time to decode, to hash, and to search."""
    contents = [path.read_bytes() for path in sorted(folder.glob("*.png"))]
    start = time.process_time()
    images = [decode_image(content) for content in contents]
    decoded = time.process_time()
    for image in images:
        perceptual_hash(image)
    hashed = time.process_time()
    milliseconds = [1000 * seconds / len(images) for seconds in (decoded - start, hashed - decoded)]
    print(f"1024 x 1024: decoding {milliseconds[0]:.1f} ms, hash {milliseconds[1]:.1f} ms")
    rng = np.random.default_rng(0)
    queries, others = (rng.integers(0, 256, (n, 32), dtype=np.uint8) for n in (N_QUERIES, N_OTHERS))
    start = time.process_time()
    is_copy(queries, others)
    seconds = time.process_time() - start
    print(f"search of {N_QUERIES:,} among {N_OTHERS:,}: {seconds:.1f} s of CPU")


def distances(hashes: Hashes, others: Hashes) -> NDArray[np.int64]:
    """Return the number of different bits, row by row."""
    differing: NDArray[np.int64] = np.bitwise_count(hashes ^ others).sum(axis=-1, dtype=np.int64)
    return differing


if __name__ == "__main__":
    main()
