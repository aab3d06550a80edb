"""Error rates of `compare` in simulation: type I error, family-wise error, coverage and power.

    python benchmarks/comparison_errors.py [--simulations 1000] [--seed 0]

Prints the tables of docs/engineering/statistics.md. Runs are correlated, several images belong to
each patient and resemble each other, and the two runs' scores are on different scales.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, ndtr, ndtri

from featurecache.evaluation.comparison import RunComparison, ScoredImages, compare_scored
from featurecache.evaluation.repeated_runs import Trial, rank_all, ranking_gain
from featurecache.evaluation.split_data import SplitData
from featurecache.metrics.jackknife import mean_interval

N_LABELS = 8
N_SEEDS = 5
ROWS = {"5 to 7": (5, 7), "8 to 14": (8, 14), "15 to 29": (15, 29), "30 to 60": (30, 60)}
MIXED = np.array([1, 2, 4, 5, 6, 8, 12, 20, 35, 60])
EQUAL = (0.75, 0.90)
BETTER = (0.75, 0.85)
METRICS = ("auroc", "auprc", "f1")
LARGEST = (6, 10)


def simulate(
    generator: np.random.Generator,
    aurocs: Sequence[float],
    *,
    n_positive: NDArray[np.intp],
    n_patients: int,
    correlation: float = 0.6,
    within_patient: float = 0.5,
    largest: int = 0,
) -> list[ScoredImages]:
    """Return runs with the given true AUROCs on the same images.

    Scores are normal, with a part that a patient's images share, both correlated between runs.

    Args:
        generator: Source of random numbers.
        aurocs: AUROC of each run, the same for all labels.
        n_positive: (C,) number of positive patients of each label.
        n_patients: Number of patients; each has 1 image or more, 1.8 in the mean.
        correlation: Correlation of two runs' scores.
        within_patient: Correlation of two images of a patient.
        largest: Number of images of one patient who has every label; 0 for no such patient.
    """
    n_images = 1 + generator.poisson(0.8, size=n_patients)
    n_images[0] = largest or n_images[0]
    patient = np.repeat(np.arange(n_patients), n_images)
    n, c, r = len(patient), len(n_positive), len(aurocs)
    truth = np.empty((n, c), dtype=np.int8)
    for label, number in enumerate(n_positive):
        ill = generator.permutation(n_patients) < number - bool(largest)
        ill[0] |= bool(largest)
        seen = generator.random(n) < 0.6  # a finding may be on some of a patient's images only
        seen[np.unique(patient, return_index=True)[1]] = True
        truth[:, label] = ill[patient] & seen

    def noise(rows: int) -> NDArray[np.float64]:
        shared = generator.standard_normal((rows, c, 1))
        own = generator.standard_normal((rows, c, r))
        mixed: NDArray[np.float64] = np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own
        return mixed

    score = np.sqrt(within_patient) * noise(n_patients)[patient]
    score += np.sqrt(1 - within_patient) * noise(n)
    score += truth[:, :, np.newaxis] * np.sqrt(2) * ndtri(aurocs)
    return [
        ScoredImages(
            name=f"run {run}",
            split="test",
            ids=np.array([f"{row:05d}" for row in range(n)]),
            patients=patient.astype(str),
            studies=np.full(n, ""),
            splits=np.full(n, "test"),
            sha256=np.full(n, ""),
            label_names=tuple(f"label {label}" for label in range(c)),
            truth=truth,
            # Each run on its own scale: only the ranking counts.
            probability=expit(3 * score[..., run] - 2) if run % 2 else ndtr(score[..., run] / 2),
            thresholds=np.full(c, expit(1.0) if run % 2 else ndtr(0.5)),
        )
        for run in range(r)
    ]


@dataclass
class Outcomes:
    """Intervals of many simulations of one kind."""

    excludes_zero: list[bool] = field(default_factory=list)
    covers: list[bool] = field(default_factory=list)

    def add(self, interval: tuple[float, float] | None, true: float) -> None:
        """Add an interval, and what it should cover."""
        if interval is not None:
            low, high = interval
            self.excludes_zero.append(not low <= 0 <= high)
            self.covers.append(low <= true <= high)

    @property
    def error(self) -> str:
        """Share of intervals without 0, which are also those with p < 0.05."""
        return f"{np.mean(self.excludes_zero):.3f}"

    @property
    def coverage(self) -> str:
        """Share of intervals that cover the truth."""
        return f"{np.mean(self.covers):.3f}"


def any_holm(runs: Sequence[RunComparison]) -> bool:
    """Return whether any corrected p value is below 0.05."""
    metrics = [metric["auroc"] for run in runs for metric in run.per_label.values()]
    metrics += [run.supported["auroc"] for run in runs if run.supported]
    return any(metric.p_holm is not None and metric.p_holm < 0.05 for metric in metrics)


def compare_pairs(
    generator: np.random.Generator,
    n: int,
    positives: tuple[int, int],
    aurocs: Sequence[float],
    *,
    largest: int = 0,
) -> tuple[dict[str, Outcomes], dict[str, Outcomes], float]:
    """Compare n pairs of runs.

    Returns:
        By metric, the outcomes of single labels and of their mean; and the share of comparisons
        with any corrected p value below 0.05.
    """
    of_label = {name: Outcomes() for name in METRICS}
    of_macro = {name: Outcomes() for name in METRICS}
    n_any = 0
    true = aurocs[1] - aurocs[0]
    for _ in range(n):
        n_positive = generator.integers(positives[0], positives[1] + 1, size=N_LABELS)
        n_patients = int(generator.integers(100, 301))
        runs = simulate(
            generator, aurocs, n_positive=n_positive, n_patients=n_patients, largest=largest
        )
        (comparison,) = compare_scored(runs).comparisons
        n_any += any_holm([comparison])
        for name in METRICS:
            for metrics in comparison.per_label.values():
                of_label[name].add(metrics[name].ci95, true)
            if comparison.supported is not None:
                of_macro[name].add(comparison.supported[name].ci95, true)
    return of_label, of_macro, n_any / n


def compare_several(generator: np.random.Generator, n: int) -> float:
    """Return the share of comparisons of three runs with a first one that find any difference."""
    n_any = 0
    for _ in range(n):
        runs = simulate(generator, [0.8] * 4, n_positive=MIXED, n_patients=200)
        n_any += any_holm(compare_scored(runs).comparisons)
    return n_any / n


def repeat_trainings(
    generator: np.random.Generator, n: int, positives: tuple[int, int]
) -> tuple[Outcomes, Outcomes]:
    """Score two heads with five seeds each, whose true AUROCs vary around 0.8 by 0.02.

    Returns:
        The outcomes of the first head's mean AUROC, and of the second's gain, which is 0.
    """
    means, gains = Outcomes(), Outcomes()
    for _ in range(n):
        n_positive = generator.integers(positives[0], positives[1] + 1, size=N_LABELS)
        aurocs = list(generator.normal(0.8, 0.02, size=2 * N_SEEDS))
        runs = simulate(generator, aurocs, n_positive=n_positive, n_patients=200)
        truth, patients = runs[0].truth, runs[0].patients
        rows = np.arange(len(truth))
        data = SplitData(
            truth=truth,
            label_names=runs[0].label_names,
            patient=patients,
            view=np.full(len(rows), ""),
            train=rows[:0],
            val=rows[:0],
            test=rows,
            learned=runs[0].learned,
        )
        ranked = rank_all([Trial(data, run.probability) for run in runs], rows, runs[0].learned)
        first, second = ranked.trials[:N_SEEDS], ranked.trials[N_SEEDS:]
        values = np.array([trial.averages["macro"]["auroc"] for trial in first])
        means.add(mean_interval(values, ranked.dof["macro"], limits=(0, 1)), 0.8)
        pairs = list(zip(second, first, strict=True))
        gains.add(ranking_gain(pairs, ranked.dof).macro.auroc.ci95, 0.0)
    return means, gains


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a Markdown table."""
    print(f"\n{title}\n\n| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def main() -> None:
    """Simulate, and print Markdown tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    generator = np.random.default_rng(arguments.seed)
    n = arguments.simulations
    labels: list[list[str]] = []
    macro: list[list[str]] = []
    family, others, trainings = [], [], []
    for row, positives in ROWS.items():
        of_label, of_macro, any_p = zip(
            *(compare_pairs(generator, n, positives, (auroc, auroc)) for auroc in EQUAL),
            compare_pairs(generator, n, positives, BETTER),
            strict=True,
        )
        for cells, (*equal, better) in ((labels, of_label), (macro, of_macro)):
            errors = [outcomes["auroc"].error for outcomes in equal]
            cells.append([row, *errors, better["auroc"].error, better["auroc"].coverage])
        family.append([row, *(f"{share:.3f}" for share in any_p[: len(EQUAL)])])
        others.append(
            [row, *(of[0][name].coverage for of in (of_label, of_macro) for name in METRICS[1:])]
        )
        means, gains = repeat_trainings(generator, n // 2, positives)
        trainings.append([row, means.coverage, gains.error])
    uneven = []
    for row, positives in ROWS.items():
        for largest in LARGEST:
            outcomes = [
                compare_pairs(generator, n // 4, positives, (auroc, auroc), largest=largest)[0]
                for auroc in EQUAL
            ]
            uneven.append([row, str(largest), *(of["auroc"].error for of in outcomes)])
    family.append(["1 to 60, three comparisons", f"{compare_several(generator, n):.3f}", ""])
    first = "positive patients"
    errors = [f"error at {auroc:.2f}" for auroc in EQUAL]
    power = f"power, {BETTER[0]:.2f} against {BETTER[1]:.2f}"
    print_table(f"One label, {n * N_LABELS:,} tests", [first, *errors, power, "coverage"], labels)
    print_table(
        f"Mean of {N_LABELS} labels, {n:,} tests", [first, *errors, power, "coverage"], macro
    )
    print_table(
        f"One label, one patient with many images, {n // 4 * N_LABELS:,} tests",
        [first, "images of one patient", *errors],
        uneven,
    )
    print_table(f"Any p_holm < 0.05, {n:,} comparisons", [first, *errors], family)
    columns = [f"{name}, {of}" for of in ("label", "mean") for name in ("AUPRC", "F1")]
    print_table("Coverage of other metrics, equal runs", [first, *columns], others)
    columns = ["coverage of the mean", "error of the gain"]
    print_table(f"{N_SEEDS} seeds, {n // 2:,} simulations", [first, *columns], trainings)


if __name__ == "__main__":
    main()
