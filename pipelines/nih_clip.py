"""CLIP on ChestX-ray14: prompts, zero-shot, retrieval, fine-tuning with BCE, class imbalance.

    python pipelines/nih_clip.py --model tiny --data DATA [--work studies] [--quick]

DATA holds the folder nih. What the study asks and found is on docs/studies/nih_clip.md.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from page import cell, table
from study import Study, open_study, publish, run_script

from featurecache.datasets.dataset import Dataset
from featurecache.datasets.splits import SPLITS
from featurecache.evaluation.comparison import Scored, read_scored
from featurecache.heads.config import HeadConfig
from featurecache.retrieval.metrics import measure_retrieval
from featurecache.runs.folder import read_metrics
from featurecache.store.cache import Cache

PROMPTS = ("showing", "signs")
REMEDIES: Mapping[str, Mapping[str, Any]] = {
    "none": {},
    "positives weighted in the loss": {"pos_weight": "balanced"},
    "rare findings drawn more often": {"resample": "weighted"},
    "a balanced subset": {"resample": "undersample"},
}
COMMON = 0.05
"""Share of the training images from which on a finding counts as common."""
DIRECTIONS = {
    "text_to_image": "{} to images",
    "image_to_text": "image to {}",
    "image_to_image": "image to images",
}
K = {"text_to_image": 10, "image_to_text": 3, "image_to_image": 10}
"""How many of the nearest count: ten images, three of the fourteen findings."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the study."""
    study = open_study("nih_clip", __doc__, arguments)
    manifest = study.load("nih", split="patient")
    cache = study.embed(manifest, prompts=PROMPTS)
    results = [overview(manifest), *study.without_joint_space]
    if study.encoder.aligned:
        results.append(zero_shot(study, cache))
    results += [*training(study, manifest, cache), retrieval(study, cache)]
    results.append(imbalance(study, cache))
    publish(study, results)


def overview(manifest: Dataset) -> str:
    """How many images, and how many of each finding."""
    counts = {s: (manifest.label_values[manifest.rows(s)] == 1).sum(axis=0) for s in SPLITS}
    rows = [
        [name, *(str(counts[split][column]) for split in SPLITS)]
        for column, name in enumerate(manifest.label_names)
    ]
    sizes = ", ".join(f"{len(manifest.rows(split))} {split}" for split in SPLITS)
    return table(f"Images with each finding, of {sizes}", ["", *SPLITS], rows)


def zero_shot(study: Study, cache: Cache) -> str:
    """Prompt sets and scorings, without training."""
    rows = []
    for prompts in PROMPTS:
        for scoring in ("pair", "sigmoid"):
            run = study.zero_shot(
                f"zero-{prompts}-{scoring}", cache, prompts=prompts, scoring=scoring
            )
            metrics = read_metrics(run)
            shuffled = metrics["controls"]["shuffled_labels"]
            rows.append([f"`{prompts}`", scoring, *_macro(metrics), _macro(shuffled)[0]])
    columns = ["prompts", "scoring", "AUROC", "AUPRC", "F1", "AUROC, labels shuffled"]
    return table("Zero-shot, macro over the findings", columns, rows)


def training(study: Study, manifest: Dataset, cache: Cache) -> list[str]:
    """Zero-shot, a head on the frozen encoder, and fine-tuning on ten images and on all."""
    runs = {}
    if study.encoder.aligned:
        runs["zero-shot, `signs`, pair"] = study.zero_shot(
            "zero-signs-pair", cache, prompts="signs", scoring="pair"
        )
    head = HeadConfig(head="baseline")
    runs["`baseline` head, encoder frozen"] = study.head("baseline", cache, head, controls=True)
    runs["fine-tuned on 10 images"] = study.finetune(
        "bce-10", manifest, "nih-bce", train_size=10, batch_size=10
    )
    runs["fine-tuned on all"] = study.finetune("bce", manifest, "nih-bce")
    first = next(iter(runs))
    rows = []
    for name, run in runs.items():
        against = "–"
        if name != first:
            compared = study.differences(runs[first], run)
            figure = compared["macro"]["auroc"]
            against = cell(figure["difference"], figure["ci95"], sign=True)
            against += f", {len(compared['per_label'])} findings"
        common = _means(study, read_scored(run), _common(cache), ("auroc",))
        rows.append([name, *_macro(read_metrics(run)), against, *common])
    columns = ["", "AUROC", "AUPRC", "F1", f"AUROC less that of {first}", "AUROC, common findings"]
    return [
        table("Training, macro over the findings that could be learned", columns, rows),
        per_finding("Fine-tuned on all, by finding", read_metrics(runs["fine-tuned on all"])),
    ]


def per_finding(title: str, metrics: dict[str, Any]) -> str:
    """Precision, recall, F1, AUROC and the confusion matrix of each finding."""
    rows = []
    for name, figures in metrics["per_label"].items():
        bounds = metrics["ci95"]["per_label"][name]
        matrix = figures["confusion"]
        cells = [cell(figures[key], bounds[key]) for key in ("precision", "recall", "f1", "auroc")]
        counts = ["–"] * 4 if matrix is None else [str(n) for row in matrix for n in row]
        rows.append([name, str(figures["n_positive"]), *cells, *counts])
    columns = ["", "positive", "precision", "recall", "F1", "AUROC", "TN", "FP", "FN", "TP"]
    return table(title, columns, rows)


def retrieval(study: Study, cache: Cache) -> str:
    """Texts to images, images to descriptions, images to images."""
    rows = []
    for direction, title in DIRECTIONS.items():
        k = K[direction]
        for prompts in PROMPTS if "{}" in title else PROMPTS[:1]:
            measured = measure_retrieval(cache, prompts=prompts, k=k, n_bootstrap=study.n_bootstrap)
            scores = getattr(measured, direction)
            if scores is None:
                continue
            keys = ("precision", "recall", "average_precision")
            cells = [cell(getattr(scores, key), getattr(scores.ci95, key)) for key in keys]
            name = title.format(f"`{prompts}`")
            rows.append([name, str(scores.n_queries), str(k), *cells, cell(scores.chance)])
    columns = [
        "",
        "queries",
        "K",
        "precision at K",
        "recall at K",
        "mean average precision",
        "share of relevant ones, by chance",
    ]
    return table("Retrieval among the test images", columns, rows)


def imbalance(study: Study, cache: Cache) -> str:
    """What remedies against rare findings do to common and to rare ones."""
    common = _common(cache)
    rows = []
    for remedy, settings in REMEDIES.items():
        config = HeadConfig(head="baseline", **settings)
        scored = read_scored(study.head(f"baseline-{remedy}", cache, config))
        for at, thresholds in (("0.5", np.full(len(common), 0.5)), ("validation", None)):
            cells = [
                text
                for group in (common, ~common)
                for text in _means(study, scored, group, ("recall", "f1"), thresholds=thresholds)
            ]
            rows.append([remedy, at, *cells])
    columns = ["recall, common", "F1, common", "recall, rare", "F1, rare"]
    title = (
        f"Remedies in training the `baseline` head, and thresholds: {common.sum()} common "
        f"findings, of at least {COMMON:.0%} of the training images, and {(~common).sum()} rarer "
        "ones"
    )
    return table(title, ["remedy", "threshold", *columns], rows)


def _means(
    study: Study,
    scored: Scored,
    group: NDArray[np.bool_],
    names: Sequence[str],
    *,
    thresholds: NDArray[np.float64] | None = None,
) -> list[str]:
    """Figures averaged over those of a group of findings that could be learned."""
    columns = np.flatnonzero(group & scored.learned)
    if len(columns) == 0:
        return [cell(None) for _ in names]
    chosen = scored.thresholds if thresholds is None else thresholds
    truth, probability = scored.truth[:, columns], scored.probability[:, columns]
    decided = probability >= chosen[columns]
    return study.macro_cells(truth, decided, probability, scored.patients, names)


def _common(cache: Cache) -> NDArray[np.bool_]:
    """(C,) whether a finding is common among the training images."""
    common: NDArray[np.bool_] = (cache.labels.values[cache.rows("train")] == 1).mean(
        axis=0
    ) >= COMMON
    return common


def _macro(metrics: Mapping[str, Any]) -> list[str]:
    """AUROC, AUPRC and F1, where there is one."""
    figures, bounds = metrics["macro"], metrics["ci95"]["macro"]
    return [cell(figures[key], bounds[key]) for key in ("auroc", "auprc", "f1") if key in figures]


if __name__ == "__main__":
    run_script(main)
