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
from pathlib import Path

import numpy as np
from paired_seeds import compare_seeds

import featurecache as fc
from featurecache.extraction.probe import min_cosine
from featurecache.runs.predictions import Predictions

BACKENDS = {"fp32": "torch", "int8": "openvino"}
HEADS = ("linear", "baseline", "weighted_sum")


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
                trainings = [train(cache, head, arguments.seeds) for cache in caches.values()]
                result = compare_seeds(*trainings)
                name = encoder if isinstance(encoder, str) else "fine-tuned"
                cells = (name, dataset.name, f"{cosine:.5f}", head, f"{result.first:.4f}", result)
                print(f"| {' | '.join(map(str, cells))} |", flush=True)


def train(cache: fc.Cache, head: str, seeds: int) -> list[Predictions]:
    """Return the predictions of a head with several seeds."""
    return [
        fc.train_head(cache, head, seed=seed, controls=False, n_bootstrap=0).scored
        for seed in range(seeds)
    ]


if __name__ == "__main__":
    main()
