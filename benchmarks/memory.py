"""What extraction and merging take in memory, and how that grows with the number of images.

    python benchmarks/memory.py [--images 10000 30000 100000]

Every figure is of a process of its own, which loads a table of films from a CSV file with ids,
paths, patients, splits, views and findings as long as those of ChestX-ray14, and runs one of

fresh      an extraction from nothing
resumed    one that was interrupted when half of the films were encoded
extended   one that finds a finished cache of half of the films
merge      two shards put together, without any table

The encoder is a stub of 64 dimensions, and all films are the same one of 16 pixels square, so that
nothing grows but what is kept about the images. The slopes, in bytes an image, are from the
fewest images to the most: of the table by itself, as it lies in memory once loaded; of the most
memory that the process ever had; and of that without the table.
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
    """A fixed random map of a few pixels."""

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
        """Shrink it."""
        grey = np.asarray(image.convert("L").resize((PIXELS, PIXELS)), dtype=np.float32)
        return np.stack([grey / 255] * 3)

    def embed_pixels(self, pixels: Array) -> Array:
        """Map them."""
        return pixels.reshape(len(pixels), -1) @ self.weights

    def encode_texts(self, texts: Sequence[str]) -> Array:
        """There are none."""
        raise NotImplementedError


def main() -> None:
    """Measure every case at every size, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[10_000, 30_000, 100_000])
    sizes = sorted(parser.parse_args().images)
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # as the commands do
    head = [*(f"{size:,} images, MiB" for size in sizes), "table", "in all", "without the table"]
    print(f"| | {' | '.join(head)} |")
    print("|---" * (1 + len(head)) + "|")
    rows: dict[str, list[tuple[int, int]]] = {name: [] for name in CASES}
    with tempfile.TemporaryDirectory() as name:
        for size in sizes:
            films = Path(name) / f"{size}"
            write_films(films, size)
            for case, (prepare, measured) in CASES.items():
                cache = films / f"cache-{case}"
                for step in prepare:
                    alone(step, films, cache)
                rows[case].append(alone(measured, films, cache))
    for case, found in rows.items():
        (table, least), (full_table, most) = found[0], found[-1]
        images = sizes[-1] - sizes[0]
        slopes = [(full_table - table) / images, (most - least) / images]
        cells = [f"{peak / 2**20:.0f}" for _, peak in found]
        cells += [f"{slope:.0f}" for slope in (*slopes, slopes[1] - slopes[0])]
        print(f"| {case} | {' | '.join(cells)} |")


def write_films(folder: Path, number: int) -> None:
    """So many equal films, and the table of them."""
    folder.mkdir()
    films = folder / "images"
    films.mkdir()
    shades = np.random.default_rng(0).integers(256, size=(16, 16), dtype=np.uint8)
    Image.fromarray(shades).save(folder / "film.png")
    film_bytes = (folder / "film.png").read_bytes()
    lines = ["id,path,patient,fold,view,findings"]
    for film in range(number):
        patient = film // 4  # as many films as a patient of ChestX-ray14 has
        name = f"{patient:08d}_{film % 4:03d}.png"
        (films / name).write_bytes(film_bytes)
        fold = ("train", "train", "val", "test")[patient % 4]
        view = ("PA", "AP")[film % 2]
        lines.append(f"{name},images/{name},{patient:08d},{fold},{view},{FINDINGS[film % 4]}")
    (folder / "films.csv").write_text("\n".join(lines))


def alone(step: Callable[[Path, Path], int], films: Path, cache: Path) -> tuple[int, int]:
    """Run a step in a new process: what its table takes, and the most it had, in bytes."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(measure, step, films, cache).result()


def measure(step: Callable[[Path, Path], int], films: Path, cache: Path) -> tuple[int, int]:
    """Run a step in this process."""
    return step(films, cache), resident("VmHWM")


def resident(which: str) -> int:
    """Bytes in memory now (VmRSS), or the most there ever were (VmHWM).

    Not ``ru_maxrss``: a process inherits that from the one that started it.
    """
    found = re.search(rf"{which}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def table_of(films: Path) -> Dataset:
    """The films."""
    return load_csv(
        films / "films.csv",
        id="id",
        patient="patient",
        split="fold",
        view="view",
        multilabel="findings",
    )


def run(films: Path, cache: Path, **options: Any) -> int:
    """Extract; gives what the table takes."""
    before = resident("VmRSS")
    manifest = table_of(films)
    table = resident("VmRSS") - before
    update_caches(manifest, [Stub()], cache_dir=cache, batch_size=BATCH, workers=WORKERS, **options)
    return table


def whole(films: Path, cache: Path) -> int:
    """Extract all films."""
    return run(films, cache)


def half(films: Path, cache: Path) -> int:
    """Extract the first half into a finished cache."""
    return run(films, cache, limit=len(table_of(films)) // 2)


def interrupted(films: Path, cache: Path) -> int:
    """Extract until half are encoded, and leave that in parts."""

    def stop(finished: int, total: int) -> None:
        if finished >= total // 2:
            raise KeyboardInterrupt

    try:
        return run(films, cache, progress=stop)
    except KeyboardInterrupt:
        return 0


def shards(films: Path, cache: Path) -> int:
    """Extract both halves as shards."""
    for number in (1, 2):
        run(films, cache, shard=Shard(number, 2))
    return 0


def merge(films: Path, cache: Path) -> int:
    """Put the shards together."""
    target = cache_path(cache, "films", "stub")
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
