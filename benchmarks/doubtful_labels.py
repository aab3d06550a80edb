"""How well `audit --labels` finds labels that were flipped.

    python benchmarks/doubtful_labels.py [--n-images 600] [--share 0.05] [--repetitions 5]

Labels of ``phantom`` are flipped at random, in embeddings of ``tiny``, which has not seen these
images. It prints the precision among the most doubtful labels, the share of the flipped ones that
are among all doubtful ones, and, by label, the expected share of wrong labels beside the true one.
"""

import argparse
from dataclasses import replace
from tempfile import TemporaryDirectory

import numpy as np

import featurecache as fc
from featurecache.audit.doubtful_labels import DoubtfulLabels, doubtful_labels
from featurecache.store.cache import Cache

TOP = (50, 100, 200, 400)


def flip_labels(cache: Cache, *, share: float, seed: int) -> tuple[Cache, np.ndarray]:
    """Return a cache with flipped labels, and which were flipped, (N, C)."""
    values = cache.labels.values
    flipped = np.random.default_rng(seed).random(values.shape) < share
    cells = np.where(flipped, 1 - values, values).astype(np.int8)
    return replace(cache, labels=replace(cache.labels, cells=cells)), flipped


def are_flipped(doubtful: DoubtfulLabels, cache: Cache, flipped: np.ndarray) -> np.ndarray:
    """Return which of the doubtful labels were flipped, most doubtful first."""
    row = {image: number for number, image in enumerate(cache.ids.tolist())}
    column = {label: number for number, label in enumerate(cache.labels.names)}
    return np.array([flipped[row[cell.image], column[cell.label]] for cell in doubtful.cells])


def main() -> None:
    """Print the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n-images", type=int, default=600)
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        data = fc.load_dataset("phantom", f"{folder}/phantom", n_images=options.n_images)
        cache = fc.extract(data, "tiny", cache_dir=folder)
        precisions, recalls, shares = [], [], []
        for seed in range(options.repetitions):
            changed, flipped = flip_labels(cache, share=options.share, seed=seed)
            doubtful = doubtful_labels(changed, n_bootstrap=0)
            right = are_flipped(doubtful, changed, flipped)
            precisions.append([right[:top].mean() for top in (*TOP, len(right))])
            recalls.append(right.sum() / flipped.sum())
            shares.append(
                [
                    (of.auroc, of.wrong_share, flipped[:, c].mean())
                    for c, of in enumerate(doubtful.labels.values())
                ]
            )
    for top, values in zip((*TOP, "all"), zip(*precisions, strict=True), strict=True):
        print(f"precision of the first {top}: {np.mean(values):.3f} (lowest {min(values):.3f})")
    print(f"of the flipped labels, doubtful: {np.mean(recalls):.3f}")
    print("label, AUROC, expected share, true share")
    means = np.mean(np.array(shares, dtype=float), axis=0)
    for label, row in zip(cache.labels.names, means.tolist(), strict=True):
        print(label, *(f"{value:.3f}" for value in row))


if __name__ == "__main__":
    main()
