"""Cost of a cache of the size of ChestX-ray14: writing, opening, reading, scoring, first epoch.

    python benchmarks/cache.py [--rows 112120] [--dim 1024] [--rounds 5]

Embeddings are random; label frequencies and the size of the test split are those of NIH. Reading
is compared with numpy's ``fromfile`` on the same bytes and with h5py's ``[:]``. Methods are
interleaved; after the first round the file is in the page cache.
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
from numpy.typing import NDArray

from featurecache.evaluation.zero_shot import zero_shot
from featurecache.store.cache import Cache
from featurecache.store.reader import read_cache
from featurecache.store.records import Header, ImageTable, Labels, TextEmbeddings, TextSet, to_utf8
from featurecache.store.writer import write_cache

LABELS = tuple(f"finding {number}" for number in range(len(POSITIVES)))

FIRST_EPOCH = """
import os, sys, time
from featurecache.heads.train import train_head
ends = []
def note(seed, epoch):
    ends.append(time.time())
    if len(ends) == 2:
        print(2 * ends[0] - ends[1] - float(sys.argv[2]), flush=True)
        os._exit(0)
train_head(sys.argv[1], on_epoch=note)
"""
"""Prints the seconds from a given time to the start of the first epoch (as long as the second)."""


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
        print(f"written, random numbers included: {write:.1f} s, {path.stat().st_size:,} bytes")
        times = time_reading(path, arguments.rounds)
        for method, duration in times.items():
            print(f"{method}: {duration * 1e3:.1f} ms")
        ratio = times["whole embedding"] / times["np.fromfile"]
        print(f"whole embedding / np.fromfile: {ratio:.2f}")
        print(
            f"zero-shot, 1,000 bootstrap samples: {seconds(lambda: score(read_cache(path))):.1f} s"
        )
        command = [sys.executable, "-c", FIRST_EPOCH, str(path), str(time.time())]
        process = subprocess.run(command, check=True, capture_output=True, text=True)
        print(f"process start to first epoch: {float(process.stdout):.1f} s")


def seconds(call: Callable[[], object]) -> float:
    """Return the duration of a call in seconds."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def time_reading(path: Path, rounds: int) -> dict[str, float]:
    """Return the median duration in seconds of each method of reading."""
    import h5py

    cache = read_cache(path)
    with h5py.File(path, "r") as file:
        offset = file["images/embedding"].id.get_offset()
    shape = (len(cache.images), cache.dim)
    random_rows = np.random.default_rng(1).choice(shape[0], size=min(5000, shape[0]), replace=False)

    def read_with_h5py() -> None:
        with h5py.File(path, "r") as file:
            file["images/embedding"][:]

    methods: dict[str, Callable[[], object]] = {
        "np.fromfile": lambda: np.fromfile(
            path, np.float16, offset=offset, count=shape[0] * shape[1]
        ),
        "whole embedding": lambda: np.array(unread(cache).embedding),
        "h5py [:]": read_with_h5py,
        "5,000 random rows": lambda: unread(cache).embedding[random_rows],
        "open, with ids and labels": lambda: read_cache(path),
    }
    times: dict[str, list[float]] = {method: [] for method in methods}
    for _ in range(rounds):
        for method, read in methods.items():
            times[method].append(seconds(read))
    return {method: statistics.median(durations) for method, durations in times.items()}


def unread(cache: Cache) -> Cache:
    """Return the same cache, with none of its embedding read yet."""
    from dataclasses import replace

    return replace(cache)


def score(cache: Cache) -> float | None:
    """Score zero-shot, with controls and intervals."""
    return zero_shot(cache).metrics.macro.auroc


def write_synthetic(path: Path, rows: int, dim: int) -> None:
    """Write a cache of random embeddings, with a weak direction of each label and of each view.

    The variance of component j is proportional to j ** -1.5; a spectrum that is flat is not that
    of any encoder.
    """
    generator = np.random.default_rng(0)
    # As in NIH: 28,008 patients with 86,524 images, and 2,797 with 25,596.
    n_test, n_patients = (rows * number // 112_120 for number in (25_596, 28_008))
    patients = np.concatenate(
        [
            generator.integers(n_patients, size=rows - n_test),
            n_patients + generator.integers(rows * 2797 // 112_120, size=n_test),
        ]
    )
    split = np.where(patients >= n_patients, "test", np.where(patients % 10 == 0, "val", "train"))
    prevalence = np.array(POSITIVES) / 112_120
    values = (generator.random((rows, len(LABELS))) < prevalence).astype(np.int8)
    is_ap = generator.random(rows) < 0.4
    ensemble = generator.standard_normal((len(LABELS), dim)).astype(np.float32)
    ensemble /= np.linalg.norm(ensemble, axis=1, keepdims=True)
    spectrum = np.arange(1, dim + 1, dtype=np.float32) ** -0.75
    of_view = generator.standard_normal(dim, dtype=np.float32) / 10
    texts = TextEmbeddings(tuple((name,) for name in LABELS), ensemble[:, np.newaxis], ensemble)

    def embed(start: int, stop: int) -> NDArray[np.float16]:
        noise = generator.standard_normal((stop - start, dim), dtype=np.float32)
        signal = values[start:stop] @ ensemble + is_ap[start:stop, np.newaxis] * of_view
        return ((noise + signal) * spectrum).astype(np.float16)

    write_cache(
        path,
        header=Header("model", "images", (), False, False, {"checkpoint": "none"}, "images", {}),
        images=ImageTable(
            id=to_utf8([f"{row:08d}_000.png" for row in range(rows)]),
            sha256=to_utf8([f"{row:064x}" for row in range(rows)]),
            perceptual_hash=generator.integers(0, 256, (rows, 32), dtype=np.uint8),
            patient=to_utf8([f"{patient:08d}" for patient in patients]),
            split=to_utf8(split),
            study=np.full(len(is_ap), b""),
            view=np.where(is_ap, b"AP", b"PA"),
            sex=np.where(generator.random(rows) < 0.5, b"F", b"M"),
            age=to_utf8(generator.integers(20, 90, rows).astype(np.str_)),
            path=to_utf8([f"{row:08d}_000.png" for row in range(rows)]),
            size=np.ones(rows, dtype=np.int64),
            mtime_ns=np.ones(rows, dtype=np.int64),
        ),
        dim=dim,
        embedding=embed,
        labels=Labels(LABELS, values),
        texts={
            "signs": TextSet(
                "signs", "none", ("signs of {}",), LABELS, texts, None, True, 10.0, -10.0
            )
        },
        failures={},
    )


if __name__ == "__main__":
    main()
