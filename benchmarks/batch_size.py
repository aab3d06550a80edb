"""What the batch size does to the cost of a forward pass, and to embeddings in fp32.

    python benchmarks/batch_size.py --models tiny dinov2-small [--rounds 3]

Milliseconds of processor time an image, in lanes as an extraction has them; sizes interleaved,
medians of the rounds. A model may be a folder. Pixels are random: no cost depends on them.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from functools import partial

import numpy as np
from PIL import Image

from featurecache.concurrency import worker_threads
from featurecache.encoders.encoder import Array, Encoder
from featurecache.encoders.loading import load_encoder
from featurecache.extraction.encode import MOST_LANES

SIZES = (8, 16, 32, 64, 128)


def main() -> None:
    """Print a line for each model and precision."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["tiny", "dinov2-small"])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    columns = ["model", "precision", *map(str, SIZES), "equal bits in fp32"]
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
            equal = "–" if precision == "bf16" else equal_sizes(encoder, pixels)
            print(f"| {' | '.join([model, precision, *cells, equal])} |", flush=True)


def cost(encoder: Encoder, pixels: Array, size: int) -> float:
    """Milliseconds of processor time an image."""
    passes = 2 * max(1, len(pixels) // (2 * size))  # as many for each of two lanes
    start = time.process_time()
    with worker_threads("cpu", most=MOST_LANES) as lanes:
        for _ in range(passes):
            lanes.submit(partial(encoder.embed_pixels, pixels[:size]))
        for _ in lanes.rest():
            pass
    return (time.process_time() - start) / (passes * size) * 1e3


def equal_sizes(encoder: Encoder, pixels: Array) -> str:
    """The sizes whose embeddings are those of the largest, bit for bit."""
    whole = encoder.embed_pixels(pixels)
    return ", ".join(
        str(size) for size in SIZES if np.array_equal(whole, parts(encoder, pixels, size))
    )


def parts(encoder: Encoder, pixels: Array, size: int) -> Array:
    """All embeddings, made in batches of a size."""
    starts: Sequence[int] = range(0, len(pixels), size)
    return np.concatenate([encoder.embed_pixels(pixels[at : at + size]) for at in starts])


if __name__ == "__main__":
    main()
