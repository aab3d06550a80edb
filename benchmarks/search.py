"""Duration of exact nearest neighbor search over embeddings in memory.

    python benchmarks/search.py [--rows 1000000] [--dim 768] [--queries 20]

One million rows of 768 dimensions take 1.5 GB in float16, and 3 GB as unit vectors in float32.
"""

import argparse
import time

import numpy as np

from featurecache.metrics.similarity import nearest, normalize_rows


def main() -> None:
    """Search random embeddings and print the durations."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--queries", type=int, default=20)
    arguments = parser.parse_args()
    generator = np.random.default_rng(0)
    embedding = np.empty((arguments.rows, arguments.dim), dtype=np.float16)
    for first in range(0, arguments.rows, 10_000):  # in chunks, to save 3 GB
        chunk = embedding[first : first + 10_000]
        chunk[:] = generator.standard_normal(chunk.shape, dtype=np.float32)
    start = time.perf_counter()
    gallery = normalize_rows(embedding)
    print(f"{arguments.rows:,} x {arguments.dim} normalized in {time.perf_counter() - start:.1f} s")
    seconds = []
    for row in generator.integers(arguments.rows, size=arguments.queries):
        query = gallery[row] + generator.standard_normal(arguments.dim, dtype=np.float32) * 0.01
        start = time.perf_counter()
        nearest_rows, _ = nearest(query / np.linalg.norm(query), gallery, top=10)
        seconds.append(time.perf_counter() - start)
        if nearest_rows[0] != row:
            raise SystemExit(f"row {nearest_rows[0]} is nearest to a query close to row {row}")
    print(
        f"query: median {np.median(seconds):.3f} s, maximum {max(seconds):.3f} s, over "
        f"{len(seconds)} queries"
    )


if __name__ == "__main__":
    main()
