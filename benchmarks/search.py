"""How long exact search takes: a query against a gallery of embeddings in memory.

    python benchmarks/search.py [--split 1000000] [--dim 768] [--queries 20]

One million rows of 768 dimensions take 1.5 GB as they lie in a cache, and 3 GB as unit vectors.
"""

import argparse
import time

import numpy as np

from featurecache.metrics.similarity import nearest, normalize_rows


def main() -> None:
    """Make random embeddings, search them, print the times."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--queries", type=int, default=20)
    arguments = parser.parse_args()
    generator = np.random.default_rng(0)
    embedding = np.empty((arguments.rows, arguments.dim), dtype=np.float16)
    for first in range(0, arguments.rows, 10_000):  # at once, the draws would take 3 GB
        part = embedding[first : first + 10_000]
        part[:] = generator.standard_normal(part.shape, dtype=np.float32)
    start = time.perf_counter()
    gallery = normalize_rows(embedding)
    print(f"{arguments.rows:,} x {arguments.dim} made ready in {time.perf_counter() - start:.1f} s")
    seconds = []
    for row in generator.integers(arguments.rows, size=arguments.queries):
        query = gallery[row] + generator.standard_normal(arguments.dim, dtype=np.float32) * 0.01
        start = time.perf_counter()
        found, _ = nearest(query / np.linalg.norm(query), gallery, top=10)
        seconds.append(time.perf_counter() - start)
        if found[0] != row:
            raise SystemExit(f"the query made from row {row} found row {found[0]}")
    print(
        f"a query: median {np.median(seconds):.3f} s, at the most {max(seconds):.3f} s, "
        f"of {len(seconds)}"
    )


if __name__ == "__main__":
    main()
