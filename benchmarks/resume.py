"""What it takes to find that nothing is left to do: extracting a large data set a second time.

    python benchmarks/resume.py [--images 1000000]

The films are links to 256 files, a thousand in a folder, listed by a CSV file with ids, paths,
patients, splits, views and findings as long as those of ChestX-ray14. Their cache is made by an
engine that reads no film. Then, each in a process of its own, with the usual engine:

again    the same extraction: all is cached
hashed   the same with hashed ids, into a cache that was made so
parts    one that was interrupted when all was encoded and nothing put together yet

Printed are the seconds that the table takes to load, its ids to hash, and the extraction; and the
most memory that the process ever had.
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
from memory import BATCH, DIM, FINDINGS, WORKERS, Stub, resident, table_of
from PIL import Image

from featurecache.datasets.pseudonymize import IdKey, pseudonymize_dataset
from featurecache.encoders.encoder import Encoder
from featurecache.extraction.decode import ImageTask
from featurecache.extraction.encode import EncodedBatch, EventHandler, ImageResult
from featurecache.extraction.update import update_caches
from featurecache.store.records import to_utf8

FILES = 256
KEY = IdKey(b"the key of a benchmark")

Seconds = tuple[float, float, float]
"""To load, to hash, to extract."""


def main() -> None:
    """Measure every case, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=1_000_000)
    images = parser.parse_args().images
    print(f"| {images:,} images | load, s | hash, s | extract, s | in all, s | memory, MiB |")
    print("|---" * 6 + "|")
    with tempfile.TemporaryDirectory() as name:
        films = Path(name)
        write_films(films, images)
        for case, prepare, hashed in (
            ("again", finished, False),
            ("hashed", finished, True),
            ("parts", interrupted, False),
        ):
            cache = films / f"cache-{case}"
            alone(prepare, films, cache, hashed)
            seconds, peak = alone(again, films, cache, hashed)
            cells = [f"{part:.1f}" for part in (*seconds, sum(seconds))]
            print(f"| {case} | {' | '.join(cells)} | {peak / 2**20:.0f} |", flush=True)


def write_films(folder: Path, number: int) -> None:
    """A few files, links to them, and the table of the links."""
    rng = np.random.default_rng(0)
    files = [folder / f"film-{file}.png" for file in range(FILES)]
    for file in files:
        Image.fromarray(rng.integers(256, size=(16, 16), dtype=np.uint8)).save(file)
    with (folder / "films.csv").open("w", encoding="utf-8") as table:
        table.write("id,path,patient,fold,view,findings\n")
        for film in range(number):
            patient = film // 4
            name, place = f"{patient:08d}_{film % 4:03d}.png", f"images/{film // 1000:06d}"
            if film % 1000 == 0:
                (folder / place).mkdir(parents=True)
            os.link(files[film % FILES], folder / place / name)
            fold, view = ("train", "train", "val", "test")[patient % 4], ("PA", "AP")[film % 2]
            table.write(f"{name},{place}/{name},{patient:08d},{fold},{view},{FINDINGS[film % 4]}\n")


def alone(
    step: Callable[[Path, Path, bool], Seconds], films: Path, cache: Path, hashed: bool
) -> tuple[Seconds, int]:
    """Run a step in a new process: what it took, and the most memory, in bytes, that it had."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(measure, step, films, cache, hashed).result()


def measure(
    step: Callable[[Path, Path, bool], Seconds], films: Path, cache: Path, hashed: bool
) -> tuple[Seconds, int]:
    """Run a step in this process."""
    return step(films, cache, hashed), resident("VmHWM")


def again(films: Path, cache: Path, hashed: bool, **options: Any) -> Seconds:
    """Extract."""
    start = time.perf_counter()
    manifest = table_of(films)
    loaded = time.perf_counter()
    if hashed:
        manifest = pseudonymize_dataset(manifest, KEY)
    ready = time.perf_counter()
    update_caches(manifest, [Stub()], cache_dir=cache, batch_size=BATCH, workers=WORKERS, **options)
    return loaded - start, ready - loaded, time.perf_counter() - ready


def finished(films: Path, cache: Path, hashed: bool) -> Seconds:
    """Make the cache, without reading films."""
    return again(films, cache, hashed, engine=pretend)


def interrupted(films: Path, cache: Path, hashed: bool) -> Seconds:
    """Make all its parts, and not the cache."""

    def stop(done: int, total: int) -> None:
        if done == total:
            raise KeyboardInterrupt

    try:
        return again(films, cache, hashed, engine=pretend, progress=stop)
    except KeyboardInterrupt:
        return 0.0, 0.0, 0.0


def pretend(
    tasks: Iterable[ImageTask],
    encoders: Sequence[Encoder],
    handle: EventHandler,
    *,
    batch_size: int,
    **_: Any,
) -> None:
    """An engine that looks at each film's file and makes its embedding up."""
    digests: dict[int, str] = {}
    rng = np.random.default_rng(0)
    batch: list[tuple[int, str, os.stat_result]] = []

    def flush() -> None:
        rows, sums, states = zip(*batch, strict=True)
        for row, state in zip(rows, states, strict=True):
            handle(ImageResult(row, state.st_size, state.st_mtime_ns, frozenset({0}), None), 0.0)
        handle(
            EncodedBatch(
                encoder=0,
                row=np.array(rows),
                sha256=to_utf8(sums),
                size=np.array([state.st_size for state in states]),
                mtime_ns=np.array([state.st_mtime_ns for state in states]),
                embedding=rng.standard_normal((len(batch), DIM), dtype=np.float32),
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
