"""Squeezing every drop out of CLIP features: three heads, sizes, balance, seeds, text controls.

    python pipelines/squeeze_features.py --model tiny --data DATA [--work studies] [--quick]

DATA holds the folder nih. What the study asks and found is on docs/studies/squeeze_features.md.
"""

from collections.abc import Sequence
from typing import Any

from page import cell, spread, table
from study import CONTROLS, Study, control_cells, open_study, publish, run_script

from featurecache.heads.config import HeadConfig, TextAblation
from featurecache.heads.registry import HEADS as REGISTERED
from featurecache.runs.folder import read_metrics
from featurecache.store.cache import Cache

HEADS = ("baseline", "concat", "weighted_sum")
WITH_TEXT = HEADS[1:]
TEXTS: tuple[TextAblation, ...] = ("none", "permuted", "random", "zero")
SIZES = (50, 100, 200, 400)
QUICK_SIZES = (40, 80)
MACRO = ("auroc", "auprc", "precision", "recall", "f1")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the study."""
    study = open_study("squeeze_features", __doc__, arguments)
    cache = study.embed(study.load("nih", split="patient"), prompts=("signs",))
    publish(
        study,
        [
            *all_images(study, cache),
            text_controls(study, cache),
            every_head(study, cache),
            sizes(study, cache),
        ],
    )


def all_images(study: Study, cache: Cache) -> list[str]:
    """The three heads on every training image, beside each other and beside controls."""
    runs = {
        head: study.head(
            f"{head}-all", cache, HeadConfig(head=head), seeds=study.seeds, controls=True
        )
        for head in HEADS
    }
    documents = {head: read_metrics(run) for head, run in runs.items()}
    first, second, third, fourth = [], [], [], []
    for head, metrics in documents.items():
        cells = [cell(metrics["macro"][key], metrics["ci95"]["macro"][key]) for key in MACRO]
        first.append([f"`{head}`", *cells])
        keys = ("precision", "recall", "f1")
        cells = [cell(metrics["micro"][key], metrics["ci95"]["micro"][key]) for key in keys]
        cells += [
            cell(metrics[key], metrics["ci95"][key]) for key in ("exact_match", "hamming_loss")
        ]
        second.append([f"`{head}`", *cells])
        if head != HEADS[0]:
            compared = study.differences(runs[HEADS[0]], runs[head])
            cells = [_difference(compared["macro"][key]) for key in MACRO]
            third.append([f"`{head}`", *cells])
        fourth.append([f"`{head}`", *control_cells(metrics)])
    named = ["AUROC", "AUPRC", "precision", "recall", "F1"]
    micro = ["micro precision", "micro recall", "micro F1", "exact match", "Hamming loss"]
    return [
        table("All training images, seed 0, macro over the findings", ["", *named], first),
        table("The same heads, all findings together", ["", *micro], second),
        table(f"Less the figure of `{HEADS[0]}`, on the same draws", ["", *named], third),
        table("Controls: AUROC without any finding in what is learned", ["", *CONTROLS], fourth),
    ]


def text_controls(study: Study, cache: Cache) -> str:
    """Heads with real text, and with text that can carry no meaning, over seeds."""
    rows = [[f"`{HEADS[0]}`, no text", *_seeds(read_metrics(study.run(f"{HEADS[0]}-all")))]]
    for head in WITH_TEXT:
        for control in TEXTS:
            name = f"{head}-all" if control == "none" else f"{head}-{control}"
            config = HeadConfig(head=head, text_ablation=control)
            run = study.head(name, cache, config, seeds=study.seeds)
            rows.append([f"`{head}`, {control}", *_seeds(read_metrics(run))])
    title = f"What the text does: mean and standard deviation over {study.seeds} seeds"
    return table(title, ["", "AUROC", "precision", "recall", "F1"], rows)


def every_head(study: Study, cache: Cache) -> str:
    """All heads that the encoder allows, against the first, and what their texts bring."""
    aligned = all(text.aligned for text in cache.texts.values())
    rows = []
    for name, spec in REGISTERED.items():
        if spec.text == "aligned" and not aligned:
            continue
        run = study.head(f"{name}-all", cache, HeadConfig(head=name), seeds=1, controls=True)
        metrics = read_metrics(run)
        cells = [cell(metrics["macro"][key], metrics["ci95"]["macro"][key]) for key in MACRO[:2]]
        compared = "–"
        if name != HEADS[0]:
            compared = _difference(
                study.differences(study.run(f"{HEADS[0]}-all"), run)["macro"]["auroc"]
            )
        gain = metrics["text_gain"]
        cells += [compared, "–" if gain is None else _difference(gain["macro"]["auroc"])]
        rows.append([f"`{name}`", *cells])
    title = "Every head on all training images, seed 0, macro over the findings"
    columns = ["", "AUROC", "AUPRC", f"AUROC less `{HEADS[0]}`", "its texts less permuted ones"]
    return table(title, columns, rows)


def sizes(study: Study, cache: Cache) -> str:
    """Balanced subsets of growing size, over seeds: which images, and which weights."""
    heads: list[tuple[str, TextAblation]] = [(head, "none") for head in HEADS]
    heads += [(head, "permuted") for head in WITH_TEXT]
    rows = []
    for size in QUICK_SIZES if study.quick else SIZES:
        for head, text in heads:
            config = HeadConfig(
                head=head, resample="undersample", train_size=size, text_ablation=text
            )
            run = study.head(f"{head}-{text}-{size}", cache, config, seeds=study.seeds)
            name = f"`{head}`" if text == "none" else f"`{head}`, {text} text"
            rows.append([str(size), name, *_seeds(read_metrics(run))])
    title = f"Balanced subsets: mean and standard deviation over {study.seeds} seeds"
    return table(title, ["images", "", "AUROC", "precision", "recall", "F1"], rows)


def _seeds(metrics: dict[str, Any]) -> list[str]:
    keys = ("auroc", "precision", "recall", "f1")
    return [spread(metrics["seeds"]["macro"][key]["values"]) for key in keys]


def _difference(figure: dict[str, Any]) -> str:
    return cell(figure["difference"], figure["ci95"], sign=True)


if __name__ == "__main__":
    run_script(main)
