"""Cross-validation of heads and of their settings, from which the defaults were chosen.

    python benchmarks/head_defaults.py cache/nih/dinov2-minilm.h5 cache/phantom/tiny.h5 ...
        [--experiment batch-norm|heads|sizes] [--splits 10]

Only training and validation images of the caches are used, never test images. Each split holds out
a quarter of the patients, and a head is trained on the others, a sixth of whose patients are its
validation images. Every candidate sees the same splits, and its difference to the first candidate
is paired. Macro AUROC is the mean over the labels with enough patients; splits are drawn until all
of these labels have positives and negatives on both sides, so that every score is over the same
labels.

batch-norm  baseline, concat and weighted_sum with batch norm in different layers
heads       every head as it is, and scikit-learn's LogisticRegression
sizes       the same, by the number of training and validation images

The reference, logistic, is a LogisticRegression per label on standardized unit-length embeddings,
with one C for all labels, of the lowest log loss in cross-validation over the training patients.
Like the heads, it does not learn from validation images.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

import featurecache as fc
from featurecache.heads.config import HeadConfig
from featurecache.heads.fit import fit_head, predict_probabilities
from featurecache.heads.registry import HEADS
from featurecache.heads.text_features import LabelTexts
from featurecache.heads.types import TrainingData
from featurecache.metrics.label_support import patient_support
from featurecache.metrics.ranking import auroc

HELD_OUT = 0.25
VALIDATION = 1 / 6
FOLDS = 5
STRENGTHS = np.logspace(-4, 0, 5)
SIZES = (64, 128, 256, 512, 1000, 2000)
MLPS = ("baseline", "concat", "weighted_sum")

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Images:
    """The training and validation images of a cache.

    Attributes:
        name: Name in the table.
        embedding: (N, D) embeddings.
        labels: (N, C) labels with enough patients: 1, 0 or -1.
        patient: (N,) index of each image's patient.
        texts: Prompt embeddings of the labels; None without text.
    """

    name: str
    embedding: NDArray[np.floating]
    labels: NDArray[np.int8]
    patient: Rows
    texts: LabelTexts | None


@dataclass(frozen=True)
class Split:
    """Patients of one split, by image: to learn from, for validation, and held out."""

    train: Rows
    val: Rows
    test: Rows


def read_images(path: str) -> Images:
    """Return the images of a cache that are not in its test split."""
    cache = fc.open_cache(path)
    rows = np.sort(np.concatenate([cache.rows("train"), cache.rows("val")]))
    return Images(
        f"{cache.header.dataset}, {cache.header.model}",
        cache.embedding[rows],
        cache.labels.values[rows],
        np.unique(cache.patients[rows], return_inverse=True)[1],
        LabelTexts.from_text_set(cache.text(None)) if cache.texts else None,
    )


def scored_labels(images: Images) -> Rows:
    """Return the labels whose score is part of the macro AUROC."""
    return np.flatnonzero(patient_support(images.labels, images.patient).enough)


def split_patients(images: Images, n_splits: int, size: int | None = None) -> Iterator[Split]:
    """Yield splits in which every scored label has both classes in training and held out.

    Args:
        images: The images.
        n_splits: Number of splits.
        size: Number of training and validation images; None for all. A small number need not
            have both classes of every label.
    """
    truth = images.labels[:, scored_labels(images)]

    def has_both_classes(rows: Rows) -> bool:
        part = truth[rows]
        return bool(((part == 1).any(axis=0) & (part == 0).any(axis=0)).all())

    seed = 0
    while n_splits > 0:
        seed += 1
        order = np.random.default_rng(seed).permutation(images.patient.max() + 1)
        rank = np.argsort(order)[images.patient]  # by patient, so that they stay whole
        n_patients = len(order)
        test = rank < HELD_OUT * n_patients
        learn = np.flatnonzero(~test)
        if not (has_both_classes(np.flatnonzero(test)) and has_both_classes(learn)):
            continue
        learn = learn[np.argsort(-rank[learn], kind="stable")][:size]
        last = np.unique(rank[learn])[: max(1, round(VALIDATION * len(np.unique(rank[learn]))))]
        val = np.isin(rank[learn], last)
        if not (images.labels[learn[~val]] == 1).any():
            continue
        n_splits -= 1
        yield Split(np.sort(learn[~val]), np.sort(learn[val]), np.flatnonzero(test))


def macro_auroc(images: Images, rows: Rows, scores: Floats) -> float:
    """Return the macro AUROC of scores (N, C) of n rows; a label that was not learned has 0.5."""
    values = [auroc(images.labels[rows, c], scores[:, c]) for c in scored_labels(images)]
    return float(np.mean(values))


Candidate = Callable[[Images, Split, int], Floats]
"""Learns from a split with a seed, and returns scores (N, C) of the images held out."""


def head(config: HeadConfig, images: Images, split: Split, seed: int) -> Floats:
    """Train a head."""
    texts = images.texts if HEADS[config.head].uses_text else None
    data = TrainingData(
        images.embedding, images.labels, split.train, split.val, texts, patient=images.patient
    )
    trained = fit_head(data, HeadConfig(**{**vars(config), "seed": seed}))
    return predict_probabilities(trained.module, images.embedding[split.test])


def logistic(images: Images, split: Split, seed: int) -> Floats:
    """Fit scikit-learn's LogisticRegression for each label."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold
    from sklearn.preprocessing import Normalizer, StandardScaler

    learn = split.train
    unit = Normalizer().transform(images.embedding.astype(np.float64))

    def predict(rows: Rows, others: Rows, strength: float) -> Floats:
        scaler = StandardScaler().fit(unit[rows])
        x, x_others = scaler.transform(unit[rows]), scaler.transform(unit[others])
        scores = np.zeros((len(others), images.labels.shape[1]))
        for c, truth in enumerate(images.labels[rows].T):
            known = truth >= 0
            if len(np.unique(truth[known])) == 2:
                model = LogisticRegression(C=strength, max_iter=2000)
                scores[:, c] = model.fit(x[known], truth[known]).decision_function(x_others)
        return scores

    folds = GroupKFold(FOLDS, shuffle=True, random_state=seed)
    losses = np.zeros(len(STRENGTHS))
    for train, val in folds.split(learn, groups=images.patient[learn]):
        truth = images.labels[learn[val]]
        for index, strength in enumerate(STRENGTHS):
            scores = predict(learn[train], learn[val], strength)
            log_loss = np.logaddexp(0, scores) - (truth == 1) * scores
            losses[index] += log_loss[truth >= 0].sum()
    return predict(learn, split.test, STRENGTHS[int(losses.argmin())])


def usable_heads(images: Images) -> list[str]:
    """Return the heads that can be trained on these images."""
    texts = images.texts
    aligned = texts is not None and texts.aligned
    allowed = {"none": True, "constant": texts is not None, "aligned": aligned}
    return [name for name, spec in HEADS.items() if allowed[spec.text] and not spec.takes_tokens]


def compare(
    images: Images, candidates: dict[str, Candidate], splits: Sequence[Split]
) -> Iterator[str]:
    """Yield a row of the table for each candidate: its score and the difference to the first."""
    reference: Floats | None = None
    for name, candidate in candidates.items():
        start = time.perf_counter()
        scores = np.array(
            [
                macro_auroc(images, split.test, candidate(images, split, seed))
                for seed, split in enumerate(splits)
            ]
        )
        seconds = (time.perf_counter() - start) / len(splits)
        difference = "–"
        if reference is None:
            reference = scores
        else:
            gain = scores - reference
            difference = f"{gain.mean():+.3f} ± {gain.std(ddof=1):.3f}, {(gain > 0).sum()} better"
        spread = scores.std(ddof=1)
        size = f"{np.mean([len(s.train) + len(s.val) for s in splits]):.0f}"
        row = (images.name, size, name, f"{scores.mean():.3f} ± {spread:.3f}", difference)
        yield f"| {' | '.join(row)} | {seconds:.1f} |"


def batch_norm_candidates(_: Images) -> dict[str, Candidate]:
    """Return the MLPs with batch norm in different layers; the published one comes first."""
    return {
        f"`{name}`, batch norm {layers}": partial(head, HeadConfig(name, batch_norm=layers))
        for name in MLPS
        for layers in ("later", "first", "all", "none")
    }


def head_candidates(images: Images) -> dict[str, Candidate]:
    """Return the reference and all heads."""
    heads = {f"`{name}`": partial(head, HeadConfig(name)) for name in usable_heads(images)}
    return {"logistic": logistic, **heads}


def main() -> None:
    """Print a table of all candidates."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("caches", nargs="+")
    parser.add_argument(
        "--experiment", choices=("batch-norm", "heads", "sizes"), default="batch-norm"
    )
    parser.add_argument("--splits", type=int, default=10)
    arguments = parser.parse_args()
    print("| data | images | candidate | macro AUROC | minus the first | seconds |")
    print("|---" * 6 + "|")
    for images in map(read_images, arguments.caches):
        run_experiment(images, arguments.experiment, arguments.splits)


def run_experiment(images: Images, experiment: str, n_splits: int) -> None:
    """Print the rows of one data set."""
    sizes: Sequence[int | None] = (None,)
    if experiment == "sizes":
        most = len(next(split_patients(images, 1)).train)
        sizes = (*(size for size in SIZES if size < most), None)
    make = batch_norm_candidates if experiment == "batch-norm" else head_candidates
    for size in sizes:
        splits = list(split_patients(images, n_splits, size))
        for row in compare(images, make(images), splits):
            print(row, flush=True)


if __name__ == "__main__":
    main()
