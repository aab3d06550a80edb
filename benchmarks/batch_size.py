"""Cost of a forward pass by batch size, and which batch sizes give bit-identical embeddings.

    python benchmarks/batch_size.py --models tiny dinov2-small [--rounds 3]

CPU milliseconds per image, with the worker threads of an extraction; sizes are interleaved, and the
table holds medians over rounds. A model may be a folder. Pixels are random, as the cost does not
depend on them.
"""

import argparse
import statistics
import time
from functools import partial

import numpy as np
from PIL import Image

from featurecache.concurrency import worker_threads
from featurecache.encoders.encoder import Array, Encoder
from featurecache.encoders.loading import load_encoder
from featurecache.extraction.encode import MAX_ENCODER_THREADS

SIZES = (8, 16, 32, 64, 128)


def main() -> None:
    """Print one row per model and precision."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["tiny", "dinov2-small"])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    columns = ["model", "precision", *map(str, SIZES), "bit-identical in fp32"]
    print(f"| {' | '.join(columns)} |")
    print("|---" * len(columns) + "|")
    for model in arguments.models:
        for precision in ("bf16", "fp32"):
            encoder = load_encoder(model, device="cpu", precision=precision)
            shape = encoder.preprocess(Image.new("L", (300, 300))).shape
            pixels = np.random.default_rng(0).normal(size=(max(SIZES), *shape)).astype(np.float32)
            encoder.embed_pixels(pixels[:2])
            rounds = [
                [cost(encoder, pixels, size) for size in SIZES] for _ in range(arguments.rounds)
            ]
            cells = [f"{statistics.median(costs):.1f}" for costs in zip(*rounds, strict=True)]
            identical = "–" if precision == "bf16" else identical_sizes(encoder, pixels)
            print(f"| {' | '.join([model, precision, *cells, identical])} |", flush=True)


def cost(encoder: Encoder, pixels: Array, size: int) -> float:
    """Return CPU milliseconds per image at a batch size."""
    n_batches = 2 * max(1, len(pixels) // (2 * size))  # the same number for each of two threads
    start = time.process_time()
    with worker_threads("cpu", max_workers=MAX_ENCODER_THREADS) as threads:
        for _ in range(n_batches):
            threads.submit(partial(encoder.embed_pixels, pixels[:size]))
        for _ in threads.drain():
            pass
    return (time.process_time() - start) / (n_batches * size) * 1e3


def identical_sizes(encoder: Encoder, pixels: Array) -> str:
    """Return the batch sizes whose embeddings equal those of the largest batch bit for bit."""
    reference = encoder.embed_pixels(pixels)
    return ", ".join(
        str(size)
        for size in SIZES
        if np.array_equal(reference, embed_in_batches(encoder, pixels, size))
    )


def embed_in_batches(encoder: Encoder, pixels: Array, size: int) -> Array:
    """Return all embeddings, computed in batches of a size."""
    starts = range(0, len(pixels), size)
    return np.concatenate([encoder.embed_pixels(pixels[at : at + size]) for at in starts])


if __name__ == "__main__":
    main()
