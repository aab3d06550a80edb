"""What ``tiny`` can do, beside DINOv2-small: the figures of its model card.

    python pipelines/measure_tiny.py WORK --data DATA

Embeds phantom, Kermany and NIH (split by patient) into caches in WORK, and prints a table:
zero-shot, and a linear probe, LogisticRegression on unit-length standardised embeddings with C
chosen on validation. Test AUROC, macro over the labels for which it is defined, with 95 % intervals
over patients; the probes' difference on the same draws of patients. Validation images chose tiny's
epoch; test images, and the phantom of this seed, it has never seen.
"""

import argparse
from pathlib import Path

import numpy as np
from logistic_reference import logistic_probabilities
from page import cell

from featurecache.datasets.load import load_dataset
from featurecache.encoders.loading import load_encoder
from featurecache.evaluation.from_cache import zero_shot
from featurecache.extraction.update import update_caches
from featurecache.metrics.bootstrap import bootstrap_metrics, interval, resample_patients
from featurecache.metrics.multilabel import compute_metrics
from featurecache.prompts import load_prompts
from featurecache.store.cache import Cache
from featurecache.store.reader import read_cache

MODELS = ("tiny", "dinov2-minilm")
DRAWS = 1000
COLUMNS = (
    "data set",
    "test images, patients",
    "zero-shot, tiny",
    "probe, tiny",
    "probe, DINOv2-small",
    "difference",
)


def main() -> None:
    """Embed, score and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    arguments = parser.parse_args()
    print(f"| {' | '.join(COLUMNS)} |")
    print("|---" * len(COLUMNS) + "|")
    for dataset, manifest in (
        ("phantom", load_dataset("phantom")),
        ("kermany", load_dataset("kermany", arguments.data / "kermany")),
        ("nih", load_dataset("nih", arguments.data / "nih", split="patient")),
    ):
        summaries = update_caches(
            manifest,
            [load_encoder(name) for name in MODELS],
            cache_dir=arguments.work,
            prompts=load_prompts("signs"),
        )
        tiny, dinov2 = (read_cache(summary.path) for summary in summaries)
        print(row(dataset, tiny, dinov2), flush=True)


def row(dataset: str, tiny: Cache, dinov2: Cache) -> str:
    """One line of the table."""
    test = tiny.rows("test")
    if not np.array_equal(tiny.ids[test], dinov2.ids[dinov2.rows("test")]):
        raise SystemExit(f"the two caches of {dataset} do not have the same test images")
    zero = zero_shot(tiny, n_bootstrap=DRAWS).metrics
    patients = tiny.patients[test]
    n_bootstrap = resample_patients(patients, n_bootstrap=DRAWS, seed=0)
    truth = tiny.labels.values[test]
    probes = [logistic_probabilities(cache)[cache.rows("test")] for cache in (tiny, dinov2)]
    scored = ~np.isnan(probes[0]).any(axis=0)
    figures, drawn = [], []
    for probability in probes:
        p = probability[:, scored]
        figures.append(float(compute_metrics(truth[:, scored], p >= 0.5, p).macro["auroc"]))
        drawn.append(bootstrap_metrics(truth[:, scored], p >= 0.5, p, n_bootstrap).macro["auroc"])
    cells = [
        dataset,
        f"{len(test)}, {len(np.unique(patients))}",
        cell(zero["macro"]["auroc"], zero["ci95"]["macro"]["auroc"]),
        *(cell(figure, interval(of)) for figure, of in zip(figures, drawn, strict=True)),
        cell(figures[0] - figures[1], interval(drawn[0] - drawn[1])),
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
