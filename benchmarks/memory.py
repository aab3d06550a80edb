"""Peak memory of extraction and merging, and how it grows with the number of images.

    python benchmarks/memory.py [--n-images 10000 30000 100000]

Each measurement runs in its own process, which loads a data set from a CSV file with ids, paths,
patients, splits, views and findings as long as those of ChestX-ray14, and then runs one of

fresh      an extraction into a new cache
resumed    an extraction that was interrupted when half of the images were encoded
extended   an extraction into a finished cache of half of the images
merge      merging of two shards, without the data set

The encoder is a stub with 64 dimensions, and all images are the same 16 x 16 pixels, so that only
what is kept about the images grows. Slopes, in bytes per image, are from the smallest to the
largest number of images: of the data set in memory, of the peak memory, and of the peak without the
data set.
"""

import argparse
import multiprocessing
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from featurecache.datasets.csv import load_csv
from featurecache.datasets.dataset import Dataset
from featurecache.encoders.encoder import Array, Encoder
from featurecache.extraction.update import update_caches
from featurecache.store.layout import cache_path
from featurecache.store.merge import Shard, merge_caches

DIM = 64
PIXELS = 8
BATCH = 32
WORKERS = 2
FINDINGS = ("Atelectasis|Effusion", "No Finding", "Infiltration", "Mass|Nodule|Pneumothorax")


class Stub(Encoder):
    """A fixed random projection of a few pixels."""

    aligned = False
    has_images = True
    has_text = False
    scale = None
    bias = None
    image_spec: Mapping[str, Any] = {"checkpoint": "stub"}
    text_spec: Mapping[str, Any] = {}

    def __init__(self) -> None:
        super().__init__(name="stub", device="cpu", precision="fp32")
        shape = (3 * PIXELS**2, DIM)
        self.weights = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)

    def preprocess(self, image: Image.Image) -> Array:
        """Resize the image."""
        gray = np.asarray(image.convert("L").resize((PIXELS, PIXELS)), dtype=np.float32)
        return np.stack([gray / 255] * 3)

    def embed_pixels(self, pixels: Array) -> Array:
        """Project the pixels."""
        return pixels.reshape(len(pixels), -1) @ self.weights

    def encode_texts(self, texts: Sequence[str]) -> Array:
        """Raise, as there is no text encoder."""
        raise NotImplementedError


def main() -> None:
    """Measure every case at every size and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--n-images", type=int, nargs="+", default=[10_000, 30_000, 100_000])
    sizes = sorted(parser.parse_args().n_images)
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # like the commands
    head = [
        *(f"{size:,} images, MiB" for size in sizes),
        "data set",
        "peak",
        "peak without data set",
    ]
    print(f"| | {' | '.join(head)} |")
    print("|---" * (1 + len(head)) + "|")
    rows: dict[str, list[tuple[int, int]]] = {name: [] for name in CASES}
    with tempfile.TemporaryDirectory() as name:
        for size in sizes:
            data_dir = Path(name) / f"{size}"
            write_images(data_dir, size)
            for case, (prepare, measured) in CASES.items():
                cache = data_dir / f"cache-{case}"
                for step in prepare:
                    in_subprocess(step, data_dir, cache)
                rows[case].append(in_subprocess(measured, data_dir, cache))
    for case, results in rows.items():
        (small_data, small_peak), (large_data, large_peak) = results[0], results[-1]
        n_images = sizes[-1] - sizes[0]
        slopes = [(large_data - small_data) / n_images, (large_peak - small_peak) / n_images]
        cells = [f"{peak / 2**20:.0f}" for _, peak in results]
        cells += [f"{slope:.0f}" for slope in (*slopes, slopes[1] - slopes[0])]
        print(f"| {case} | {' | '.join(cells)} |")


def write_images(folder: Path, n_images: int) -> None:
    """Write equal images, and a CSV file that lists them."""
    folder.mkdir()
    images = folder / "images"
    images.mkdir()
    shades = np.random.default_rng(0).integers(256, size=(16, 16), dtype=np.uint8)
    Image.fromarray(shades).save(folder / "image.png")
    image_bytes = (folder / "image.png").read_bytes()
    lines = ["id,path,patient,fold,view,findings"]
    for number in range(n_images):
        patient = number // 4  # images per patient as in ChestX-ray14
        name = f"{patient:08d}_{number % 4:03d}.png"
        (images / name).write_bytes(image_bytes)
        fold = ("train", "train", "val", "test")[patient % 4]
        view = ("PA", "AP")[number % 2]
        lines.append(f"{name},images/{name},{patient:08d},{fold},{view},{FINDINGS[number % 4]}")
    (folder / "images.csv").write_text("\n".join(lines))


def in_subprocess(
    step: Callable[[Path, Path], int], data_dir: Path, cache: Path
) -> tuple[int, int]:
    """Run a step in a new process; return bytes of the data set and of the peak memory."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(measure, step, data_dir, cache).result()


def measure(step: Callable[[Path, Path], int], data_dir: Path, cache: Path) -> tuple[int, int]:
    """Run a step in this process; return bytes of the data set and of the peak memory."""
    return step(data_dir, cache), resident("VmHWM")


def resident(which: str) -> int:
    """Return the resident memory in bytes: current (VmRSS) or peak (VmHWM).

    Not ``ru_maxrss``, which a process inherits from its parent.
    """
    match = re.search(rf"{which}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert match is not None
    return int(match[1]) * 1024


def load_images(data_dir: Path) -> Dataset:
    """Load the data set."""
    return load_csv(
        data_dir / "images.csv",
        id="id",
        patient="patient",
        split="fold",
        view="view",
        multilabel="findings",
    )


def run(data_dir: Path, cache: Path, **options: Any) -> int:
    """Extract; return the bytes of the data set in memory."""
    before = resident("VmRSS")
    dataset = load_images(data_dir)
    dataset_bytes = resident("VmRSS") - before
    update_caches(dataset, [Stub()], cache_dir=cache, batch_size=BATCH, workers=WORKERS, **options)
    return dataset_bytes


def whole(data_dir: Path, cache: Path) -> int:
    """Extract all images."""
    return run(data_dir, cache)


def half(data_dir: Path, cache: Path) -> int:
    """Extract the first half into a finished cache."""
    return run(data_dir, cache, limit=len(load_images(data_dir)) // 2)


def interrupted(data_dir: Path, cache: Path) -> int:
    """Extract until half of the images are encoded, and leave them in chunks."""

    def stop(finished: int, total: int) -> None:
        if finished >= total // 2:
            raise KeyboardInterrupt

    try:
        return run(data_dir, cache, progress=stop)
    except KeyboardInterrupt:
        return 0


def shards(data_dir: Path, cache: Path) -> int:
    """Extract both halves as shards."""
    for number in (1, 2):
        run(data_dir, cache, shard=Shard(number, 2))
    return 0


def merge(data_dir: Path, cache: Path) -> int:
    """Merge the shards."""
    target = cache_path(cache, "images", "stub")
    merge_caches([Shard(number, 2).path(target) for number in (1, 2)])
    return 0


CASES: Mapping[str, tuple[Sequence[Callable[[Path, Path], int]], Callable[[Path, Path], int]]] = {
    "fresh": ([], whole),
    "resumed": ([interrupted], whole),
    "extended": ([half], whole),
    "merge": ([shards], merge),
}


if __name__ == "__main__":
    main()
