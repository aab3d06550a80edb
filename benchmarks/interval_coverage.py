"""Coverage of 95 % intervals in simulation: of single labels, of averages, and over seeds.

    python benchmarks/interval_coverage.py [--simulations 400] [--seed 0]

Prints the tables of docs/engineering/statistics.md. Several images belong to a patient and resemble
each other; labels are correlated, and so are their scores.
"""

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from featurecache.metrics.bootstrap import interval, resample_patients
from featurecache.metrics.multilabel import MetricArrays, compute_metrics
from featurecache.metrics.sampled_metrics import Estimate, MeanMetrics, sample_metrics

LAST = {"1": 1, "2": 2, "3 to 4": 4, "5 to 7": 7, "8 to 14": 14, "15 to 29": 29}
ROWS = (*LAST, "30 and more")
METRICS = ("auroc", "auprc", "f1", "precision", "recall", "specificity", "npv", "accuracy")
N_BOOTSTRAP = 300
N_SEEDS = 5
LARGE = 40_000


@dataclass(frozen=True)
class Setting:
    """A population of patients, and how many of them a test set has.

    Attributes:
        name: As in the table.
        n_patients: Number of patients.
        prevalence: (C,) share of images with each label.
        auroc: (C,) true AUROC of each label.
        max_images: A patient has 1 to this many images.
        within_patient: Correlation of the scores of two images of a patient.
    """

    name: str
    n_patients: int
    prevalence: NDArray[np.float64]
    auroc: NDArray[np.float64]
    max_images: int
    within_patient: float

    @property
    def shift(self) -> NDArray[np.float64]:
        """(C,) mean score of positives, in standard deviations; that of negatives is 0."""
        shift: NDArray[np.float64] = ndtri(self.auroc) * np.sqrt(2)
        return shift

    def simulate(
        self, generator: np.random.Generator, n_patients: int, seeds: int = 1
    ) -> tuple[NDArray[np.int8], NDArray[np.float64], NDArray[np.intp]]:
        """Return labels (N, C), scores (seeds, N, C) and patients (N,)."""
        normal, n_labels = generator.normal, len(self.prevalence)
        n_images = generator.integers(1, self.max_images, n_patients, endpoint=True)
        patient = np.repeat(np.arange(n_patients), n_images)
        shape = (len(patient), n_labels)
        illness = np.sqrt(0.5) * (
            normal(size=(n_patients, 1)) + normal(size=(n_patients, n_labels))
        )
        finding = np.sqrt(0.7) * illness[patient] + np.sqrt(0.3) * normal(size=shape)
        truth = (ndtr(finding) < self.prevalence).astype(np.int8)
        half = np.sqrt(self.within_patient / 2)
        of_patient = half * (normal(size=(n_patients, 1)) + normal(size=(n_patients, n_labels)))
        noise = np.sqrt(1 - self.within_patient) * normal(size=shape)
        shared = of_patient[patient] + noise + self.shift * truth
        # Seeds differ in a tenth of the variance, and in how well they separate the classes.
        weight = 0.1 if seeds > 1 else 0
        own = normal(size=(seeds, *shape))
        quality = weight * normal(size=(seeds, 1, 1)) * truth
        return truth, np.sqrt(1 - weight) * shared + np.sqrt(weight) * own + quality, patient

    @property
    def mean_auroc(self) -> NDArray[np.float64]:
        """(C,) mean true AUROC of the trainings with several seeds."""
        auroc: NDArray[np.float64] = ndtr(np.sqrt(0.9) * self.shift / np.sqrt(2 + 0.1**2))
        return auroc


COMMON = np.array([0.10, 0.02, 0.12, 0.18, 0.05, 0.06, 0.01, 0.05, 0.04, 0.02, 0.02, 0.015, 0.03])
AUROCS = np.array([0.75, 0.90, 0.80, 0.65, 0.70, 0.72, 0.60, 0.80, 0.75, 0.85, 0.95, 0.70, 0.70])
SETTINGS = (
    Setting("50 patients, 1 image", 50, np.full(8, 0.1), np.full(8, 0.8), 1, 0),
    Setting("100 patients, 1 image", 100, COMMON, AUROCS, 1, 0),
    Setting("100 patients, 1 to 4 images", 100, COMMON, AUROCS, 4, 0.5),
    Setting("300 patients, 1 to 8 images", 300, COMMON, AUROCS, 8, 0.9),
)


class Tally:
    """Count how often intervals hold the true value, by row of a table."""

    def __init__(self) -> None:
        """Start empty."""
        self.held: dict[tuple[str, ...], list[bool]] = defaultdict(list)

    def add(
        self, key: tuple[str, ...], bounds: tuple[float, float] | None, true: float | None
    ) -> None:
        """Count one interval; none is not counted."""
        if bounds is not None and true is not None:
            self.held[key].append(bool(bounds[0] <= true <= bounds[1]))

    def share(self, *key: str) -> str:
        """Return the coverage as text."""
        held = self.held.get(key)
        return "–" if not held else f"{np.mean(held):.3f}"


def true_metrics(setting: Setting, generator: np.random.Generator) -> MetricArrays:
    """Return the metrics of a large sample; a label's AUROC is known exactly."""
    truth, (score,), _ = setting.simulate(generator, LARGE)
    metrics = compute_metrics(truth, score >= threshold(setting), score)
    metrics.per_label["auroc"][:] = setting.auroc
    return metrics


def threshold(setting: Setting) -> NDArray[np.float64]:
    """Return the (C,) thresholds, fixed for all samples."""
    return 0.6 * setting.shift + 0.3


def row_of(n_patients: int) -> str:
    """Return the row of the table for a number of positive patients."""
    return next((name for name, last in LAST.items() if n_patients <= last), ROWS[-1])


def one_setting(setting: Setting, simulations: int, seed: int, tally: Tally) -> None:
    """Simulate test sets of one setting."""
    generator = np.random.default_rng(seed)
    true = true_metrics(setting, generator)
    learned = np.ones(len(setting.prevalence), dtype=np.bool_)
    for simulation in range(simulations):
        truth, (score,), patient = setting.simulate(generator, setting.n_patients)
        resamples = resample_patients(patient, n_bootstrap=N_BOOTSTRAP, seed=simulation)
        sampled = sample_metrics(truth, score >= threshold(setting), score, resamples, learned)
        mean = MeanMetrics([sampled])
        for column in np.flatnonzero(mean.macro_labels).tolist():
            row = row_of(int(mean.support.positive[column]))
            bootstrap = sampled.arrays.per_label["auroc"][1:, column]
            tally.add(("bootstrap", row), interval(bootstrap), setting.auroc[column])
            estimate = mean.label("auroc", column, always=True)
            tally.add(("label", row), estimate.ci95, setting.auroc[column])
        for metric in METRICS:
            of_labels = true.per_label[metric]
            values = sampled.arrays.per_label[metric][0]
            for column in np.flatnonzero(mean.support.enough).tolist():
                bounds = mean.label(metric, column).ci95
                tally.add((metric, "label"), bounds, of_labels[column])
            averaged = mean.macro_labels & ~np.isnan(values)
            macro_true = of_labels[averaged].mean() if averaged.any() else None
            tally.add((metric, setting.name), mean.macro(metric).ci95, macro_true)
            tally.add((metric, "micro"), mean.micro(metric).ci95, float(true.micro[metric]))
            samples = sampled.arrays.macro[metric][1:]
            tally.add((metric, "bootstrap", setting.name), interval(samples), macro_true)
        for name in ("exact_match", "hamming_loss"):
            pooled: Estimate = getattr(mean, name)
            tally.add((name, "micro"), pooled.ci95, getattr(true, name))


def over_seeds(setting: Setting, simulations: int, seed: int, tally: Tally) -> None:
    """Simulate trainings with several seeds: the mean over trainings and patients is covered."""
    generator = np.random.default_rng(seed)
    learned = np.ones(len(setting.prevalence), dtype=np.bool_)
    for simulation in range(simulations):
        truth, scores, patient = setting.simulate(generator, setting.n_patients, N_SEEDS)
        resamples = resample_patients(patient, n_bootstrap=N_BOOTSTRAP, seed=simulation)
        mean = MeanMetrics(
            [sample_metrics(truth, score > 9, score, resamples, learned) for score in scores]
        )
        true = float(setting.mean_auroc[mean.macro_labels].mean())
        tally.add(("seeds", setting.name), mean.macro("auroc").ci95, true)


def print_table(columns: Sequence[str], rows: Mapping[str, Sequence[str]]) -> None:
    """Print a Markdown table."""
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for name, cells in rows.items():
        print(f"| {name} | {' | '.join(cells)} |")
    print()


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    tally = Tally()
    for setting in SETTINGS:
        one_setting(setting, arguments.simulations, arguments.seed, tally)
        over_seeds(setting, arguments.simulations // 5, arguments.seed, tally)
    names = [setting.name for setting in SETTINGS]
    print_table(
        ["positive patients", "percentile bootstrap", "score interval"],
        {row: [tally.share("bootstrap", row), tally.share("label", row)] for row in ROWS},
    )
    print_table(
        ["AUROC", "macro, percentile bootstrap", "macro", f"macro, mean of {N_SEEDS} seeds"],
        {
            name: [
                tally.share("auroc", "bootstrap", name),
                tally.share("auroc", name),
                tally.share("seeds", name),
            ]
            for name in names
        },
    )
    print_table(
        ["metric", "label", *(f"macro, {name}" for name in names), "micro"],
        {
            metric: [tally.share(metric, of) for of in ("label", *names, "micro")]
            for metric in (*METRICS, "exact_match", "hamming_loss")
        },
    )


if __name__ == "__main__":
    main()
