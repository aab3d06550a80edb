"""Evaluate ``tiny`` beside DINOv2-small: the metrics of its model card.

    python pipelines/measure_tiny.py WORK --data DATA

Extracts phantom, Kermany and NIH (split by patient) into caches in WORK, and prints a table:
zero-shot, and a linear probe (LogisticRegression on standardized unit-length embeddings with C
chosen on validation). Metrics are test AUROC, macro over the labels for which it is defined, with
95 % intervals over patients; the difference of the probes is on the same bootstrap samples. The
training epoch of tiny was chosen on validation images; it has seen neither the test images nor this
phantom.
"""

import argparse
from pathlib import Path

import numpy as np
from logistic_reference import logistic_probabilities

import featurecache as fc
from featurecache.metrics.bootstrap import bootstrap_metrics, interval, resample_patients
from featurecache.metrics.multilabel import compute_metrics
from featurecache.report.table import format_interval

MODELS = ("tiny", "dinov2-minilm")
COLUMNS = (
    "data set",
    "test images, patients",
    "zero-shot, tiny",
    "probe, tiny",
    "probe, DINOv2-small",
    "difference",
)


def main() -> None:
    """Extract, evaluate and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    arguments = parser.parse_args()
    encoders = [fc.load_encoder(name, precision="exact") for name in MODELS]
    print(f"| {' | '.join(COLUMNS)} |")
    print("|---" * len(COLUMNS) + "|")
    for dataset in (
        fc.load_dataset("phantom"),
        fc.load_dataset("kermany", arguments.data / "kermany"),
        fc.load_dataset("nih", arguments.data / "nih", split="patient"),
    ):
        tiny, dinov2 = fc.extract(dataset, encoders, prompts="signs", cache_dir=arguments.work)
        print(row(dataset.name, tiny, dinov2), flush=True)


def row(dataset_name: str, tiny: fc.Cache, dinov2: fc.Cache) -> str:
    """Return one row of the table."""
    test = tiny.rows("test")
    if not np.array_equal(tiny.ids[test], dinov2.ids[dinov2.rows("test")]):
        raise SystemExit(f"the two caches of {dataset_name} do not have the same test images")
    zero_shot = fc.zero_shot(tiny).metrics.macro
    patients = tiny.patients[test]
    samples = resample_patients(patients, n_bootstrap=1000, seed=0)
    truth = tiny.labels.values[test]
    probes = [logistic_probabilities(cache)[cache.rows("test")] for cache in (tiny, dinov2)]
    fitted = ~np.isnan(probes[0]).any(axis=0)
    scores, resampled = [], []
    for probability in probes:
        p = probability[:, fitted]
        scores.append(float(compute_metrics(truth[:, fitted], p >= 0.5, p).macro["auroc"]))
        resampled.append(bootstrap_metrics(truth[:, fitted], p >= 0.5, p, samples).macro["auroc"])
    cells = [
        dataset_name,
        f"{len(test)}, {len(np.unique(patients))}",
        format_interval(zero_shot.auroc, zero_shot.auroc_ci),
        *(
            format_interval(score, interval(values))
            for score, values in zip(scores, resampled, strict=True)
        ),
        format_interval(scores[0] - scores[1], interval(resampled[0] - resampled[1])),
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
