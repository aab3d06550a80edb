"""What heads lose if embeddings come from a network with 8-bit weights.

    python benchmarks/quantization.py --data DATA --work WORK [--seeds 5]

DATA holds the folders kermany and nih. Two encoders are compared with themselves: dinov2-minilm,
frozen, and dinov2-small after its last two blocks were fine-tuned on 600 images of Kermany. Each
embeds both data sets with torch in fp32 and with OpenVINO in int8. Heads are trained on either
cache with the same seeds. The difference is that in macro AUROC of the test images, over the labels
with at least five patients of both kinds, averaged over seeds; its 95 % interval is over patients
and seeds, by the bootstrap. WORK keeps what was computed.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

import featurecache as fc
from featurecache.extraction.probe import min_cosine
from featurecache.runs.predictions import Predictions

EXACT, QUANTIZED = "fp32", "int8"
BACKENDS = {EXACT: "torch", QUANTIZED: "openvino"}
HEADS = ("linear", "baseline", "weighted_sum")
N_BOOTSTRAP = 1000
MIN_PATIENTS = 5


def main() -> None:
    """Compare the heads and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    datasets = [
        fc.load_dataset("kermany", arguments.data),
        fc.load_dataset("nih", arguments.data, split="patient"),
    ]
    tuned = arguments.work / "tuned"
    if not tuned.exists():
        fc.finetune(
            datasets[0],
            "dinov2-small",
            objective="bce",
            trainable="last-2",
            train_size=600,
            epochs=3,
            learning_rate=1e-4,
            out=tuned,
        )
    print("| encoder | data set | smallest cosine | head | fp32 | int8 minus fp32 |")
    print("|---|---|---|---|---|---|")
    for encoder in ("dinov2-minilm", tuned):
        for dataset in datasets:
            caches = {
                precision: fc.extract(
                    dataset,
                    encoder,
                    backend=backend,
                    precision=precision,
                    cache_dir=arguments.work / precision,
                )
                for precision, backend in BACKENDS.items()
            }
            embeddings = [cache.embedding.astype(np.float32) for cache in caches.values()]
            cosine = min_cosine(*embeddings)
            for head in HEADS:
                if head == "weighted_sum" and encoder == tuned:
                    continue  # the image encoder alone has no texts
                exact, difference = compare(caches, head, range(arguments.seeds))
                name = encoder if isinstance(encoder, str) else "fine-tuned"
                print(
                    f"| {name} | {dataset.name} | {cosine:.5f} | {head} | {exact} | {difference} |",
                    flush=True,
                )


def compare(caches: dict[str, fc.Cache], head: str, seeds: Sequence[int]) -> tuple[str, str]:
    """Return the macro AUROC on exact embeddings, and the difference of quantized ones."""
    scores = {
        precision: [
            fc.train_head(cache, head, seed=seed, controls=False, n_bootstrap=0).scored
            for seed in seeds
        ]
        for precision, cache in caches.items()
    }
    first = scores[EXACT][0]
    test = np.flatnonzero(first.splits == "test")
    patients, owner = np.unique(first.patients[test], return_inverse=True)
    labels = supported(first.truth[test], owner)
    rng = np.random.default_rng(0)

    def aurocs(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the macro AUROC of each precision and seed."""
        values = [
            [macro_auroc(run, test, labels, weights[owner]) for run in scores[precision]]
            for precision in (EXACT, QUANTIZED)
        ]
        return np.array(values)

    estimate = aurocs(np.ones(len(patients)))
    differences = []
    for _ in range(N_BOOTSTRAP):
        sample = rng.integers(len(patients), size=len(patients))
        drawn = aurocs(np.bincount(sample, minlength=len(patients)).astype(np.float64))
        chosen = rng.integers(len(seeds), size=len(seeds))
        differences.append((drawn[1] - drawn[0])[chosen].mean())
    low, high = np.nanpercentile(differences, [2.5, 97.5])
    mean = (estimate[1] - estimate[0]).mean()
    return f"{estimate[0].mean():.4f}", f"{mean:+.4f} [{low:+.4f}, {high:+.4f}]"


def supported(truth: NDArray[np.int8], owner: NDArray[np.intp]) -> list[int]:
    """Return the labels with enough patients that have a positive, and a negative, image."""
    return [
        label
        for label in range(truth.shape[1])
        if all(len(np.unique(owner[truth[:, label] == value])) >= MIN_PATIENTS for value in (0, 1))
    ]


def macro_auroc(
    run: Predictions,
    test: NDArray[np.intp],
    labels: Sequence[int],
    weights: NDArray[np.float64],
) -> float:
    """Return the macro AUROC of weighted images; NaN where a label has no AUROC."""
    values = []
    for label in labels:
        truth = run.truth[test, label]
        if len(np.unique(truth[weights > 0])) < 2:
            return float("nan")
        values.append(roc_auc_score(truth, run.probability[test, label], sample_weight=weights))
    return float(np.mean(values))


if __name__ == "__main__":
    main()
