"""CLIP against MedCLIP on children's films: zero-shot, fine-tuning and transfer, one model a run.

    python pipelines/pediatric_transfer.py --model tiny --data DATA [--work studies] [--quick]

DATA holds the folders kermany and nih. What the study asks and found is on
docs/studies/pediatric_transfer.md.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from page import cell, table
from study import CONTROLS, Study, control_cells, open_study, publish, run_script

from featurecache.datasets.dataset import Dataset
from featurecache.encoders.loading import load_encoder
from featurecache.evaluation.comparison import read_scored
from featurecache.evaluation.external import save_external, validate_external
from featurecache.finetune.run import FinetunedClassifier, read_finetuned
from featurecache.heads.config import HeadConfig
from featurecache.heads.fit import predict_probabilities
from featurecache.heads.io import SavedHead, read_head
from featurecache.images.decode import read_image
from featurecache.metrics.bootstrap import none_if_nan
from featurecache.metrics.ranking import auroc
from featurecache.runs.folder import read_metrics
from featurecache.store.cache import Cache

LABEL = "Pneumonia"
PROMPTS = ("lungs", "signs")
RECIPES = {"kermany": "pediatric-clip-ucsd", "nih": "pediatric-clip"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the study."""
    study = open_study("pediatric_transfer", __doc__, arguments)
    films = {
        "kermany": study.load("kermany", subset="viral"),
        "nih": only_label(study.load("nih", split="patient"), LABEL),
    }
    caches = {name: study.embed(manifest, prompts=PROMPTS) for name, manifest in films.items()}
    objective = "contrastive" if study.encoder.aligned else "bce"
    config = HeadConfig(head="baseline")
    heads, tuned = {}, {}
    for name, cache in caches.items():
        heads[name] = study.head(f"{name}-head", cache, config, controls=True)
        recipe = RECIPES[name]
        tuned[name] = study.finetune(f"{name}-tuned", films[name], recipe, objective=objective)
    runs: dict[str, dict[str, Path]] = {}
    for name, other in (("kermany", "nih"), ("nih", "kermany")):
        cache = caches[name]
        runs[name] = zero_shot(study, name, cache)
        runs[name]["head on the frozen encoder, trained here"] = heads[name]
        target = study.run(f"{other}-head-on-{name}")
        if not target.exists():
            transfer_head(study, heads[other], cache, target)
        runs[name]["head on the frozen encoder, trained on the other"] = target
        runs[name][f"fine-tuned here, {objective}"] = tuned[name]
        target = study.run(f"{other}-tuned-on-{name}")
        if not target.exists():
            transfer_tuned(study, tuned[other], films[name], target)
        runs[name][f"fine-tuned on the other, {objective}"] = target
    results = study.without_joint_space
    for name, manifest in films.items():
        results.append(figures(study, name, manifest, runs[name]))
        results.append(controls(name, runs[name]))
    results.append(sharpness(study, films))
    publish(study, results)


def zero_shot(study: Study, name: str, cache: Cache) -> dict[str, Path]:
    """A run for each prompt set; none without a joint space."""
    if not study.encoder.aligned:
        return {}
    return {
        f"zero-shot, `{prompts}`": study.zero_shot(f"{name}-zero-{prompts}", cache, prompts=prompts)
        for prompts in PROMPTS
    }


def only_label(manifest: Dataset, label: str) -> Dataset:
    """The same films with one of their labels."""
    return replace(manifest, labels=manifest.labels[[label]], label_names=(label,))


def transfer_head(study: Study, run: Path, cache: Cache, target: Path) -> None:
    """Measure a head on another data set's cache, by the same encoder."""
    head = read_head(run)
    transfer(study, run, head, partial(predict_probabilities, head.module), cache, target)


def transfer_tuned(study: Study, run: Path, films: Dataset, target: Path) -> None:
    """Measure a fine-tuned encoder on another data set's test films."""
    tuned = read_finetuned(run)
    test = films.take(films.rows("test"))
    cache = study.embed(test, encoder=load_encoder(str(run)))
    transfer(study, run, tuned, tuned.probabilities, cache, target)


def transfer(
    study: Study,
    run: Path,
    trained: SavedHead | FinetunedClassifier,
    classify: Callable[[NDArray[np.floating]], NDArray[np.float64]],
    cache: Cache,
    target: Path,
) -> None:
    """Measure what a run predicts of a cache, and save it."""
    measured = validate_external(
        cache,
        classify,
        labels=trained.labels,
        thresholds=trained.thresholds,
        label_map={LABEL: LABEL},
        n_bootstrap=study.n_bootstrap,
    )
    save_external(target, cache, measured, run=run)


def figures(study: Study, name: str, films: Dataset, runs: Mapping[str, Path]) -> str:
    """Every method on one data set's test films, and its difference from the first."""
    first = next(iter(runs))
    rows = []
    for method, run in runs.items():
        metrics = read_metrics(run)
        macro, bounds = metrics["macro"], metrics["ci95"]["macro"]
        keys = ("accuracy", "precision", "recall", "auroc")
        cells = [cell(macro[key], bounds[key]) for key in keys]
        against = "–"
        if method != first:
            figure = study.differences(runs[first], run)["macro"]["auroc"]
            against = cell(figure["difference"], figure["ci95"], sign=True)
        rows.append([method, *cells, cell(auroc_of_confidence(run)), against])
    test = films.rows("test")
    counts = ", ".join(f"{len(films.rows(s))} {s}" for s in ("train", "val", "test"))
    positives = (films.label_values[test] == 1).sum()
    title = f"{name}: {counts}; {positives} of the test images with pneumonia"
    columns = [
        "",
        "accuracy",
        "precision",
        "recall",
        "AUROC",
        "AUROC as the paper computed it",
        f"AUROC less that of {first}",
    ]
    return table(title, columns, rows)


def auroc_of_confidence(run: Path) -> float | None:
    """What comes out where the confidence in whatever was predicted is taken for P(pneumonia)."""
    scored = read_scored(run)
    confidence = np.maximum(scored.probability[:, 0], 1 - scored.probability[:, 0])
    return none_if_nan(np.asarray(auroc(scored.truth[:, 0], confidence)))


def controls(name: str, runs: Mapping[str, Path]) -> str:
    """What scores without a finding in it."""
    rows = [[method, *control_cells(read_metrics(run))] for method, run in runs.items()]
    return table(f"{name}: controls, AUROC", ["", *CONTROLS], rows)


def sharpness(study: Study, films: Mapping[str, Dataset]) -> str:
    """What one number a film says, the mean difference of neighbouring pixels at 64 x 64."""
    rows = []
    for name, manifest in films.items():
        cells = []
        for split in ("train", "test"):
            chosen = manifest.images.iloc[manifest.rows(split)]
            score = np.array([[_sharpness(manifest.root / path)] for path in chosen["path"]])
            truth, decided = manifest.label_values[manifest.rows(split)], score > np.inf
            patients = chosen["patient"].to_numpy(dtype=np.str_)
            cells += study.macro_cells(truth, decided, score, patients, ("auroc",))
        rows.append([name, *cells])
    title = "How sharp a film is: AUROC of the mean difference of neighbouring pixels, at 64 x 64"
    return table(title, ["", "train", "test"], rows)


def _sharpness(path: Path) -> float:
    grey = np.asarray(read_image(path).convert("L").resize((64, 64)), dtype=np.float64)
    return float(np.abs(np.diff(grey, axis=1)).mean())


if __name__ == "__main__":
    run_script(main)
