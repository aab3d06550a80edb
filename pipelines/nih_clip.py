"""CLIP on ChestX-ray14: prompts, zero-shot, retrieval, fine-tuning with BCE, class imbalance.

    python pipelines/nih_clip.py --model tiny --data DATA [--work studies] [--quick]

DATA holds the folder nih. nih_clip.toml lists the runs, and docs/studies/nih_clip.md describes the
study and its results.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from page import table
from study import Study, compare, macro_cells, open_study, publish, run_script

import featurecache as fc
from featurecache.evaluation.comparison import scored_images
from featurecache.metrics.metrics import Metrics
from featurecache.report.table import format_difference, format_interval, format_score
from featurecache.retrieval.metrics import measure_retrieval
from featurecache.study.run import StudyResult
from featurecache.wording import UNDEFINED

PROMPTS = ("showing", "signs")
SPLITS = ("train", "val", "test")
REMEDIES = {
    "balanced": "positives weighted in the loss",
    "weighted": "rare findings sampled more often",
    "undersample": "balanced subset",
}
"""By the value of ``pos_weight`` or ``resample``."""
MIN_COMMON_PREVALENCE = 0.05
"""Fraction of the training images from which on a finding counts as common."""
DIRECTIONS = {
    "text_to_image": "{} to images",
    "image_to_text": "image to {}",
    "image_to_image": "image to images",
}
K = {"text_to_image": 10, "image_to_text": 3, "image_to_image": 10}
"""Ten images, or three of the fourteen findings."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the study."""
    study = open_study("nih_clip", __doc__, arguments)
    result = study.run()
    dataset = result.plan.datasets["nih"]
    cache = study.cache(dataset)
    common = common_findings(cache)
    results = [label_counts(dataset), *study.alignment_notes]
    if study.encoder.aligned:
        results.append(zero_shot(result))
    results += [*training(study, result, common), retrieval(study, cache)]
    results.append(imbalance(study, result, common))
    publish(study, results)


def label_counts(dataset: fc.Dataset) -> str:
    """Count the positive images of each finding."""
    positive = (dataset.labels.to_numpy() == 1).astype(int)
    counts = np.stack([positive[dataset.rows(split)].sum(axis=0) for split in SPLITS], axis=1)
    rows = [[name, *map(str, row)] for name, row in zip(dataset.label_names, counts, strict=True)]
    sizes = ", ".join(f"{len(dataset.rows(split))} {split}" for split in SPLITS)
    return table(f"Images with each finding, of {sizes}", ["", *SPLITS], rows)


def zero_shot(result: StudyResult) -> str:
    """Compare prompt sets and scorings without training."""
    rows = []
    for one, run in result.runs.items():
        if one.kind == "zero_shot":
            shuffled = run.metrics.controls["shuffled_labels"]
            control = shuffled and format_interval(shuffled.macro.auroc, shuffled.macro.auroc_ci)
            scores = macro_cells(run.metrics, ("auroc", "auprc", "f1"))
            prompts, scoring = one.properties["prompts"], one.properties["scoring"]
            rows.append([f"`{prompts}`", scoring, *scores, control or UNDEFINED])
    columns = ["prompts", "scoring", "AUROC", "AUPRC", "F1", "AUROC, shuffled labels"]
    return table("Zero-shot, macro over the findings", columns, rows)


def training(study: Study, result: StudyResult, common: NDArray[np.bool_]) -> list[str]:
    """Compare zero-shot, a head on the frozen encoder, and fine-tuning on ten or all images."""
    runs = {}
    if study.encoder.aligned:
        runs["zero-shot, `signs`, pair"] = result.run(prompts="signs", scoring="pair")
    runs["`baseline` head, encoder frozen"] = result.run(
        head="baseline", pos_weight=None, resample=None
    )
    runs["fine-tuned on 10 images"] = result.run(method="fine-tuned", train_size=10)
    runs["fine-tuned on all"] = result.run(method="fine-tuned", train_size=None)
    first = next(iter(runs))
    rows = []
    for name, run in runs.items():
        difference = UNDEFINED
        if name != first:
            comparison = compare(runs[first], run)
            auroc = comparison.headline
            difference = format_difference(auroc.difference, auroc.ci95)
            tested = [m for m in comparison.per_label.values() if m["auroc"].ci95 is not None]
            difference += f", {len(tested)} findings"
        scores = macro_cells(run.metrics, ("auroc", "auprc", "f1"))
        of_common = group_cells(study, run, common, ("auroc",))
        rows.append([name, *scores, difference, *of_common])
    columns = ["", "AUROC", "AUPRC", "F1", f"AUROC minus {first}", "AUROC, common findings"]
    return [
        table("Training, macro over the findings that could be learned", columns, rows),
        per_finding("Fine-tuned on all, by finding", runs["fine-tuned on all"].metrics),
    ]


def per_finding(title: str, metrics: Metrics) -> str:
    """Tabulate precision, recall, F1, AUROC and the confusion matrix of each finding."""
    rows = []
    for name, scores in metrics.per_label.items():
        cells = [
            format_interval(getattr(scores, key), scores.interval(key))
            for key in ("precision", "recall", "f1", "auroc")
        ]
        matrix = scores.confusion
        counts = [UNDEFINED] * 4 if matrix is None else [str(n) for row in matrix for n in row]
        rows.append([name, str(scores.n_positive), *cells, *counts])
    columns = ["", "positive", "precision", "recall", "F1", "AUROC", "TN", "FP", "FN", "TP"]
    return table(title, columns, rows)


def retrieval(study: Study, cache: fc.Cache) -> str:
    """Measure retrieval from texts to images, images to texts, and images to images."""
    rows = []
    for direction, title in DIRECTIONS.items():
        k = K[direction]
        for prompts in PROMPTS if "{}" in title else PROMPTS[:1]:
            metrics = measure_retrieval(cache, prompts=prompts, k=k, n_bootstrap=study.n_bootstrap)
            scores = getattr(metrics, direction)
            if scores is None:
                continue
            cells = [
                format_interval(getattr(scores, name), getattr(scores.ci95, name))
                for name in ("precision", "recall", "average_precision")
            ]
            name = title.format(f"`{prompts}`")
            rows.append([name, str(scores.n_queries), str(k), *cells, format_score(scores.chance)])
    columns = [
        *("", "queries", "K", "precision at K", "recall at K", "mean average precision"),
        "fraction relevant (chance)",
    ]
    return table("Retrieval among the test images", columns, rows)


def imbalance(study: Study, result: StudyResult, common: NDArray[np.bool_]) -> str:
    """Compare remedies against class imbalance, on common and on rare findings."""
    rows = []
    for one, run in result.runs.items():
        if one.kind != "train_head":
            continue
        used = one.arguments.get("pos_weight", one.arguments.get("resample"))
        remedy = REMEDIES.get(used, "none")
        for source, threshold in (("0.5", 0.5), ("validation", None)):
            cells = [
                cell
                for group in (common, ~common)
                for cell in group_cells(study, run, group, ("recall", "f1"), threshold=threshold)
            ]
            rows.append([remedy, source, *cells])
    columns = ["recall, common", "F1, common", "recall, rare", "F1, rare"]
    title = (
        f"Remedies in training the `baseline` head, and thresholds: {common.sum()} common "
        f"findings, in at least {MIN_COMMON_PREVALENCE:.0%} of the training images, and "
        f"{(~common).sum()} rare ones"
    )
    return table(title, ["remedy", "threshold", *columns], rows)


def group_cells(
    study: Study,
    run: fc.Run,
    group: NDArray[np.bool_],
    names: Sequence[str],
    *,
    threshold: float | None = None,
) -> list[str]:
    """Format metrics averaged over the findings of a group that could be learned.

    Args:
        study: the study.
        run: the run.
        group: (C,) mask of findings.
        names: names of the metrics.
        threshold: decision threshold; None for the thresholds chosen on validation.
    """
    scored = scored_images(run)
    columns = np.flatnonzero(group & scored.learned)
    if len(columns) == 0:
        return [UNDEFINED for _ in names]
    truth, probability = scored.truth[:, columns], scored.probability[:, columns]
    predicted = probability >= (scored.thresholds[columns] if threshold is None else threshold)
    return study.macro_cells(truth, predicted, probability, scored.patients, names)


def common_findings(cache: fc.Cache) -> NDArray[np.bool_]:
    """Return a (C,) mask of the findings that are common among the training images."""
    _, labels, _ = cache.arrays("train")
    common: NDArray[np.bool_] = (labels == 1).mean(axis=0) >= MIN_COMMON_PREVALENCE
    return common


if __name__ == "__main__":
    run_script(main)
