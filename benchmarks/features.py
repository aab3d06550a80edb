"""What heads gain if other features of a frozen image network are cached.

    python benchmarks/features.py --data DATA --cache CACHE [--model dinov2-small] [--seeds 5]

DATA holds the folders kermany and nih. The features of both data sets are extracted in one pass
over the images; CACHE keeps them. Heads are trained on each with the same seeds, and compared with
the same head on the model's own embedding (attentive, which needs tokens, with baseline). The
difference is that in macro AUROC of the test images, over the labels with at least five patients of
both kinds, averaged over seeds; its 95 % interval is over patients and seeds, by the bootstrap.
"""

import argparse
from pathlib import Path

from paired_seeds import compare_seeds

import featurecache as fc
from featurecache.runs.predictions import Predictions

OWN = "pooled"
VECTORS = (OWN, "mean", "cls+mean", "layers:-1,-2,-3,-4", "layers:-1,-2,-3,-4+mean")
TOKENS = "tokens:7"
HEADS = ("linear", "baseline")
ATTENTIVE = "attentive"


def main() -> None:
    """Extract the features, compare the heads and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--model", default="dinov2-small")
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    print("| data set | head | features | values | AUROC | difference |")
    print("|---|---|---|---|---|---|")
    for dataset in (
        fc.load_dataset("kermany", arguments.data),
        fc.load_dataset("nih", arguments.data, split="patient"),
    ):
        extracted = fc.extract(
            dataset,
            arguments.model,
            features=[*VECTORS, TOKENS],
            precision="exact",
            cache_dir=arguments.cache,
        )
        caches = dict(zip((*VECTORS, TOKENS), extracted, strict=True))
        own: dict[str, list[Predictions]] = {}
        for head, features in [
            *((head, features) for head in HEADS for features in VECTORS),
            (ATTENTIVE, TOKENS),
        ]:
            cache = caches[features]
            runs = [
                fc.train_head(cache, head, seed=seed, controls=False, n_bootstrap=0).scored
                for seed in range(arguments.seeds)
            ]
            reference = own.setdefault(HEADS[-1] if head == ATTENTIVE else head, runs)
            result = compare_seeds(reference, runs)
            difference = "–" if runs is reference else result
            cells = (dataset.name, head, features, cache.dim, f"{result.other:.4f}", difference)
            print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main()
