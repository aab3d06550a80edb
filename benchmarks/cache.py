"""What a cache as large as ChestX-ray14 costs: to write, open, read, score, and begin to train on.

    python benchmarks/cache.py [--split 112120] [--dim 1024] [--rounds 5]

The embeddings are random, with NIH's label frequencies and, of its test set, the share of images
and of patients. Reading is compared with numpy's ``fromfile`` of the same bytes and with h5py's
``[:]``, interleaved, the file being in the system's memory after the first round.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from heads import POSITIVES

from featurecache.evaluation.zero_shot import zero_shot
from featurecache.store.cache import Cache
from featurecache.store.reader import read_cache
from featurecache.store.records import Header, ImageTable, Labels, TextEmbeddings, TextSet, to_utf8
from featurecache.store.writer import write_cache

NAMES = tuple(f"finding {number}" for number in range(len(POSITIVES)))

FIRST_EPOCH = """
import os, sys, time
from pathlib import Path
from featurecache.heads.config import HeadConfig
from featurecache.heads.experiment import run_experiment
from featurecache.store.reader import read_cache
ends = []
def note(seed, epoch):
    ends.append(time.time())
    if len(ends) == 2:
        print(2 * ends[0] - ends[1] - float(sys.argv[2]), flush=True)
        os._exit(0)
run_experiment(read_cache(Path(sys.argv[1])), HeadConfig(head="weighted_sum"), on_epoch=note)
"""
"""Prints the seconds from a time given to the beginning of the first epoch, which lasts as long as
the second."""


def main() -> None:
    """Write a cache and time what is done with it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=112_120)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "cache.h5"
        write = seconds(lambda: write_synthetic(path, arguments.rows, arguments.dim))
        print(f"written, with drawing its numbers: {write:.1f} s, {path.stat().st_size:,} bytes")
        times = reading(path, arguments.rounds)
        for what, taken in times.items():
            print(f"{what}: {taken * 1e3:.1f} ms")
        ratio = times["the whole embedding"] / times["np.fromfile of its bytes"]
        print(f"the whole embedding / np.fromfile: {ratio:.2f}")
        print(f"zero-shot with 1,000 draws: {seconds(lambda: score(read_cache(path))):.1f} s")
        command = [sys.executable, "-c", FIRST_EPOCH, str(path), str(time.time())]
        found = subprocess.run(command, check=True, capture_output=True, text=True)
        print(f"from nothing to the first epoch of weighted_sum: {float(found.stdout):.1f} s")


def seconds(call: Callable[[], object]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def reading(path: Path, rounds: int) -> dict[str, float]:
    """Medians of the seconds that each way of reading takes."""
    import h5py

    cache = read_cache(path)
    with h5py.File(path, "r") as file:
        offset = file["images/embedding"].id.get_offset()
    shape = (len(cache.images), cache.dim)
    some = np.random.default_rng(1).choice(shape[0], size=min(5000, shape[0]), replace=False)

    def plain() -> None:
        with h5py.File(path, "r") as file:
            file["images/embedding"][:]

    ways: dict[str, Callable[[], object]] = {
        "np.fromfile of its bytes": lambda: np.fromfile(
            path, np.float16, offset=offset, count=shape[0] * shape[1]
        ),
        "the whole embedding": lambda: np.array(cache_of(cache).embedding),
        "h5py's [:]": plain,
        "5,000 random rows": lambda: cache_of(cache).embedding[some],
        "opened, with ids and labels": lambda: read_cache(path),
    }
    times: dict[str, list[float]] = {what: [] for what in ways}
    for _ in range(rounds):
        for what, way in ways.items():
            times[what].append(seconds(way))
    return {what: statistics.median(taken) for what, taken in times.items()}


def cache_of(cache: Cache) -> Cache:
    """The same cache, with nothing of its embedding looked at yet."""
    from dataclasses import replace

    return replace(cache)


def score(cache: Cache) -> float | None:
    """Zero-shot, with everything that belongs to it."""
    return zero_shot(cache).metrics.macro.auroc


def write_synthetic(path: Path, rows: int, dim: int) -> None:
    """A cache of random embeddings."""
    generator = np.random.default_rng(0)
    # As in NIH: 28,008 patients with 86,524 images, and 2,797 with 25,596.
    tested = rows * 25_596 // 112_120
    patients = np.concatenate(
        [
            generator.integers(rows * 28_008 // 112_120, size=rows - tested),
            28_008 + generator.integers(rows * 2797 // 112_120, size=tested),
        ]
    )
    in_test = patients >= 28_008
    split = np.where(in_test, "test", np.where(generator.random(rows) < 0.1, "val", "train"))
    share = np.array(POSITIVES) / 112_120
    ensemble = generator.standard_normal((len(NAMES), dim)).astype(np.float32)
    ensemble /= np.linalg.norm(ensemble, axis=1, keepdims=True)
    texts = TextEmbeddings(tuple((name,) for name in NAMES), ensemble[:, np.newaxis], ensemble)
    write_cache(
        path,
        header=Header("model", "films", (), False, False, {"checkpoint": "none"}, "films", {}),
        images=ImageTable(
            id=to_utf8([f"{row:08d}_000.png" for row in range(rows)]),
            sha256=np.full(rows, b"0" * 64),
            patient=to_utf8([f"{patient:08d}" for patient in patients]),
            split=to_utf8(split),
            view=np.full(rows, b"PA"),
            sex=np.full(rows, b"F"),
            age=np.full(rows, b"50"),
            size=np.ones(rows, dtype=np.int64),
            mtime_ns=np.ones(rows, dtype=np.int64),
        ),
        dim=dim,
        embedding=lambda start, stop: generator.standard_normal(
            (stop - start, dim), dtype=np.float32
        ).astype(np.float16),
        labels=Labels(NAMES, (generator.random((rows, len(NAMES))) < share).astype(np.int8)),
        texts={
            "signs": TextSet(
                "signs", "none", ("signs of {}",), NAMES, texts, None, True, 10.0, -10.0
            )
        },
        failures={},
    )


if __name__ == "__main__":
    main()
