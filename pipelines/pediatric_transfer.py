"""Pediatric and adult chest X-rays: zero-shot, fine-tuning and transfer of one model.

    python pipelines/pediatric_transfer.py --model tiny --data DATA [--work studies] [--quick]

DATA holds the folders kermany and nih. pediatric_transfer.toml lists the runs, and
docs/studies/pediatric_transfer.md describes the study and its results.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from page import table
from study import (
    CONTROLS,
    Study,
    compare,
    control_cells,
    macro_cells,
    open_study,
    publish,
    run_script,
)

import featurecache as fc
from featurecache.evaluation.comparison import scored_images
from featurecache.images.decode import read_image
from featurecache.metrics.bootstrap import none_if_nan
from featurecache.metrics.ranking import auroc
from featurecache.report.table import format_difference, format_score
from featurecache.study.run import StudyResult
from featurecache.wording import UNDEFINED

LABEL = "Pneumonia"
OTHER = {"kermany": "nih", "nih": "kermany"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the study."""
    study = open_study("pediatric_transfer", __doc__, arguments)
    result = study.run()
    datasets = result.plan.datasets
    results = study.alignment_notes
    for name, other in OTHER.items():
        runs = methods(study, result, name, other)
        results += [scores(study, name, datasets[name], runs), controls(name, runs)]
    results.append(sharpness(study, datasets))
    publish(study, results)


def methods(study: Study, result: StudyResult, name: str, other: str) -> dict[str, fc.Run]:
    """Return the runs on a data set by what was done, without training, here or on the other."""
    zero_shot = {
        f"zero-shot, `{one.properties['prompts']}`": run
        for one, run in result.runs.items()
        if one.kind == "zero_shot" and one.dataset == name
    }
    objective = "contrastive" if study.encoder.aligned else "bce"
    return {
        **zero_shot,
        "head on the frozen encoder, trained here": result.run(
            dataset=name, head="baseline", trained_on=name
        ),
        "head on the frozen encoder, trained on the other": result.run(
            dataset=name, head="baseline", trained_on=other
        ),
        f"fine-tuned here, {objective}": result.run(
            dataset=name, method="fine-tuned", trained_on=name
        ),
        f"fine-tuned on the other, {objective}": result.run(
            dataset=name, method="fine-tuned", trained_on=other
        ),
    }


def scores(study: Study, name: str, dataset: fc.Dataset, runs: Mapping[str, fc.Run]) -> str:
    """Tabulate all methods on the test images of a data set, and differences from the first."""
    first = next(iter(runs))
    rows = []
    for method, run in runs.items():
        difference = UNDEFINED
        if method != first:
            metric = compare(runs[first], run).headline
            difference = format_difference(metric.difference, metric.ci95)
        cells = macro_cells(run.metrics, ("accuracy", "precision", "recall", "auroc"))
        rows.append([method, *cells, format_score(auroc_of_confidence(run)), difference])
    sizes = ", ".join(f"{len(dataset.rows(s))} {s}" for s in ("train", "val", "test"))
    n_positive = int(dataset.split("test").labels[LABEL].sum())
    title = f"{name}: {sizes}; {n_positive} of the test images with pneumonia"
    columns = [
        *("", "accuracy", "precision", "recall", "AUROC", "AUROC as computed in the paper"),
        f"AUROC minus {first}",
    ]
    return table(title, columns, rows)


def auroc_of_confidence(run: fc.Run) -> float | None:
    """Compute the AUROC of the confidence in the predicted class, whichever it is.

    The paper uses it in place of the probability of pneumonia.
    """
    scored = scored_images(run)
    confidence = np.maximum(scored.probability[:, 0], 1 - scored.probability[:, 0])
    return none_if_nan(np.asarray(auroc(scored.truth[:, 0], confidence)))


CONTROLS_NOTE: Final = (
    "–: with a single label, any finding is that label itself; view position alone needs training "
    "images whose views are known, which Kermany and zero-shot scores lack."
)


def controls(name: str, runs: Mapping[str, fc.Run]) -> str:
    """Tabulate the controls of all methods."""
    rows = [[method, *control_cells(run.metrics)] for method, run in runs.items()]
    return f"{table(f'{name}: controls, AUROC', ['', *CONTROLS.values()], rows)}\n\n{CONTROLS_NOTE}"


def sharpness(study: Study, datasets: Mapping[str, fc.Dataset]) -> str:
    """Measure how well a single number per image predicts pneumonia: its sharpness."""
    rows = []
    for name, dataset in datasets.items():
        cells = []
        for split in ("train", "test"):
            part = dataset.split(split)
            score = np.array([[_sharpness(part.root / path)] for path in part.images["path"]])
            patients = part.images["patient"].to_numpy(dtype=np.str_)
            predicted = np.zeros(score.shape, dtype=np.bool_)
            cells += study.macro_cells(part.label_values, predicted, score, patients, ("auroc",))
        rows.append([name, *cells])
    title = "Sharpness: AUROC of the mean difference of neighboring pixels, at 64 x 64"
    return table(title, ["", "train", "test"], rows)


def _sharpness(path: Path) -> float:
    gray = np.asarray(read_image(path).convert("L").resize((64, 64)), dtype=np.float64)
    return float(np.abs(np.diff(gray, axis=1)).mean())


if __name__ == "__main__":
    run_script(main)
