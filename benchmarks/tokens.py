"""Time and memory of training the attentive head on a cache of tokens.

    python benchmarks/tokens.py [--n-images 5000] [--tokens 50] [--dim 768] [--epochs 60]
                                [--controls]

It writes a cache of random tokens in which labels can be learned, then trains in a process of its
own. Memory is the peak of what the process itself allocated (``RssAnon``); pages of the mapped file
(``RssFile``) are not counted, since the system takes them back when it needs them.
"""

import argparse
import multiprocessing
import re
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from featurecache.heads.train import train_head
from featurecache.store.records import Header, ImageTable, Labels, to_utf8
from featurecache.store.writer import write_cache

N_LABELS = 14


def main() -> None:
    """Write the cache, train, and print what it took."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, default in (("n-images", 5000), ("tokens", 50), ("dim", 768), ("epochs", 60)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--controls", action="store_true", help="Train the controls, too.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokens.h5"
        write(path, arguments.n_images, arguments.tokens, arguments.dim)
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            seconds, before, peak, epochs, auroc = pool.submit(
                measure, path, arguments.epochs, arguments.controls
            ).result()
        size = path.stat().st_size
    print(
        f"{arguments.n_images:,} x {arguments.tokens} x {arguments.dim}: cache {size / 2**20:.0f} "
        f"MiB, {seconds:.0f} s for {epochs} epochs, memory {before / 2**20:.0f} MiB before and "
        f"{peak / 2**20:.0f} MiB at its peak, AUROC {auroc:.3f}"
    )


def write(path: Path, n_images: int, n_tokens: int, dim: int) -> None:
    """Write a cache of random tokens; a label is a direction of one token of an image."""
    rng = np.random.default_rng(0)
    labels = (rng.random((n_images, N_LABELS)) < 0.2).astype(np.int8)
    place = rng.integers(n_tokens, size=labels.shape)
    ids = to_utf8([f"{row:06d}.png" for row in range(n_images)])
    unknown = np.full(n_images, b"")

    def embedding(start: int, stop: int) -> np.ndarray:
        tokens = np.random.default_rng(start).standard_normal(
            (stop - start, n_tokens, dim), dtype=np.float32
        )
        for image, label in zip(*np.nonzero(labels[start:stop]), strict=True):
            tokens[image, place[start + image, label], label] += 60
        return tokens.reshape(stop - start, -1).astype(np.float16)

    write_cache(
        path,
        header=Header(
            model="random",
            dataset="random",
            notes=(),
            image_level_split=False,
            exposed=False,
            encoder_spec={"features": "tokens:7", "tokens": n_tokens},
            collection="random",
            trained_on={},
        ),
        images=ImageTable(
            id=ids,
            sha256=to_utf8([f"{row:064x}" for row in range(n_images)]),
            perceptual_hash=rng.integers(256, size=(n_images, 32), dtype=np.uint8),
            patient=ids,
            split=to_utf8(np.resize(["train"] * 7 + ["val"] + ["test"] * 2, n_images)),
            study=unknown,
            view=unknown,
            sex=unknown,
            age=unknown,
            path=ids,
            size=np.ones(n_images, dtype=np.int64),
            mtime_ns=np.ones(n_images, dtype=np.int64),
        ),
        dim=n_tokens * dim,
        embedding=embedding,
        labels=Labels(tuple(f"finding {number}" for number in range(N_LABELS)), labels),
        texts={},
        failures={},
    )


def measure(path: Path, epochs: int, controls: bool) -> tuple[float, int, int, int, float]:
    """Train; return seconds, allocated memory before and at its peak, epochs and the AUROC."""
    before, peak, done = allocated(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], allocated())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    run = train_head(path, "attentive", epochs=epochs, controls=controls, n_bootstrap=100)
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    return seconds, before, peak[0], len(run.history), run.metrics.macro.auroc or 0.0


def allocated() -> int:
    """Return the memory that this process itself allocated, in bytes."""
    match = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert match is not None
    return int(match[1]) * 1024


if __name__ == "__main__":
    main()
