"""Cost of extracting a large data set again when all of its images are cached.

    python benchmarks/resume.py [--n-images 1000000]

Images are links to 256 files, a thousand per folder, listed by a CSV file with ids, paths,
patients, splits, views and findings as long as those of ChestX-ray14. Their cache is made by an
engine that reads no image. Then, each in its own process, with the usual engine:

again           the same extraction
pseudonymized   the same with pseudonymized ids, and a cache of such ids
chunks          an extraction that was interrupted after the last image, before its chunks were
                combined

The table holds the seconds to load the data set, to pseudonymize its ids and to extract, and the
peak memory of the process.
"""

import argparse
import hashlib
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from memory import BATCH, DIM, FINDINGS, WORKERS, Stub, load_images, resident
from PIL import Image

from featurecache.datasets.pseudonymize import IdKey
from featurecache.encoders.encoder import Encoder
from featurecache.extraction.decode import ImageTask
from featurecache.extraction.encode import EncodedBatch, EventHandler, ImageResult
from featurecache.extraction.update import update_caches
from featurecache.store.records import to_utf8

FILES = 256
KEY = IdKey(b"the key of a benchmark")

Seconds = tuple[float, float, float]
"""To load, to pseudonymize, to extract."""


def main() -> None:
    """Measure every case and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--n-images", type=int, default=1_000_000)
    n_images = parser.parse_args().n_images
    print(
        f"| {n_images:,} images | load, s | pseudonymize, s | extract, s | total, s | peak, MiB |"
    )
    print("|---" * 6 + "|")
    with tempfile.TemporaryDirectory() as name:
        data_dir = Path(name)
        write_images(data_dir, n_images)
        for case, prepare, pseudonymized in (
            ("again", finished, False),
            ("pseudonymized", finished, True),
            ("chunks", interrupted, False),
        ):
            cache = data_dir / f"cache-{case}"
            in_subprocess(prepare, data_dir, cache, pseudonymized)
            seconds, peak = in_subprocess(again, data_dir, cache, pseudonymized)
            cells = [f"{duration:.1f}" for duration in (*seconds, sum(seconds))]
            print(f"| {case} | {' | '.join(cells)} | {peak / 2**20:.0f} |", flush=True)


def write_images(folder: Path, n_images: int) -> None:
    """Write a few files, links to them, and a CSV file that lists the links."""
    rng = np.random.default_rng(0)
    files = [folder / f"image-{file}.png" for file in range(FILES)]
    for file in files:
        Image.fromarray(rng.integers(256, size=(16, 16), dtype=np.uint8)).save(file)
    with (folder / "images.csv").open("w", encoding="utf-8") as table:
        table.write("id,path,patient,fold,view,findings\n")
        for number in range(n_images):
            patient = number // 4
            name, subfolder = f"{patient:08d}_{number % 4:03d}.png", f"images/{number // 1000:06d}"
            if number % 1000 == 0:
                (folder / subfolder).mkdir(parents=True)
            os.link(files[number % FILES], folder / subfolder / name)
            fold, view = ("train", "train", "val", "test")[patient % 4], ("PA", "AP")[number % 2]
            table.write(
                f"{name},{subfolder}/{name},{patient:08d},{fold},{view},{FINDINGS[number % 4]}\n"
            )


def in_subprocess(
    step: Callable[[Path, Path, bool], Seconds], data_dir: Path, cache: Path, pseudonymized: bool
) -> tuple[Seconds, int]:
    """Run a step in a new process; return its duration and the peak memory in bytes."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(measure, step, data_dir, cache, pseudonymized).result()


def measure(
    step: Callable[[Path, Path, bool], Seconds], data_dir: Path, cache: Path, pseudonymized: bool
) -> tuple[Seconds, int]:
    """Run a step in this process; return its duration and the peak memory in bytes."""
    return step(data_dir, cache, pseudonymized), resident("VmHWM")


def again(data_dir: Path, cache: Path, pseudonymized: bool, **options: Any) -> Seconds:
    """Extract."""
    start = time.perf_counter()
    dataset = load_images(data_dir)
    loaded = time.perf_counter()
    if pseudonymized:
        dataset = dataset.pseudonymize(KEY)
    ready = time.perf_counter()
    update_caches(dataset, [Stub()], cache_dir=cache, batch_size=BATCH, workers=WORKERS, **options)
    return loaded - start, ready - loaded, time.perf_counter() - ready


def finished(data_dir: Path, cache: Path, pseudonymized: bool) -> Seconds:
    """Make the cache, without reading images."""
    return again(data_dir, cache, pseudonymized, engine=fake_engine)


def interrupted(data_dir: Path, cache: Path, pseudonymized: bool) -> Seconds:
    """Make all chunks, but not the cache."""

    def stop(done: int, total: int) -> None:
        if done == total:
            raise KeyboardInterrupt

    try:
        return again(data_dir, cache, pseudonymized, engine=fake_engine, progress=stop)
    except KeyboardInterrupt:
        return 0.0, 0.0, 0.0


def fake_engine(
    tasks: Iterable[ImageTask],
    encoders: Sequence[Encoder],
    handle: EventHandler,
    *,
    batch_size: int,
    **_: Any,
) -> None:
    """Extraction engine that does not read images: embeddings are random."""
    digests: dict[int, str] = {}
    rng = np.random.default_rng(0)
    batch: list[tuple[int, str, os.stat_result]] = []

    def flush() -> None:
        rows, sums, states = zip(*batch, strict=True)
        for row in rows:
            handle(ImageResult(row, None), 0.0)
        handle(
            EncodedBatch(
                row=np.array(rows),
                sha256=to_utf8(sums),
                perceptual_hash=np.zeros((len(batch), 32), dtype=np.uint8),
                size=np.array([state.st_size for state in states]),
                mtime_ns=np.array([state.st_mtime_ns for state in states]),
                embeddings={0: rng.standard_normal((len(batch), DIM), dtype=np.float32)},
            ),
            0.0,
        )
        batch.clear()

    for task in tasks:
        state = task.path.stat()
        if state.st_ino not in digests:
            digests[state.st_ino] = hashlib.sha256(task.path.read_bytes()).hexdigest()
        batch.append((task.row, digests[state.st_ino], state))
        if len(batch) == batch_size:
            flush()
    if batch:
        flush()


if __name__ == "__main__":
    main()
