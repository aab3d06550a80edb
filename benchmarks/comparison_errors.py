"""Error rates of `compare` in simulation: type I error, family-wise error, coverage and power.

    python benchmarks/comparison_errors.py [--simulations 400] [--seed 0]

Prints the tables of docs/engineering/statistics.md. Runs are correlated, several images belong to
each patient and resemble each other, and the two runs' scores are on different scales.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, ndtr, ndtri
from scipy.stats import binom

from featurecache.evaluation.comparison import (
    MetricComparison,
    RunComparison,
    ScoredImages,
    compare_scored,
)

N_LABELS = 8
ROWS = {"5 to 7": (5, 7), "8 to 14": (8, 14), "15 to 29": (15, 29), "30 to 60": (30, 60)}
NULLS = (0.75, 0.90)
GAIN = (0.75, 0.85)
METRICS = ("auroc", "auprc", "f1")


def simulate(
    generator: np.random.Generator,
    aurocs: Sequence[float],
    *,
    n_positive: NDArray[np.intp],
    n_patients: int,
    correlation: float = 0.6,
    within_patient: float = 0.5,
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
    """
    n_images = 1 + generator.poisson(0.8, size=n_patients)
    patient = np.repeat(np.arange(n_patients), n_images)
    n, c, r = len(patient), len(n_positive), len(aurocs)
    truth = np.empty((n, c), dtype=np.int8)
    for label, number in enumerate(n_positive):
        ill = generator.permutation(n_patients) < number
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
            splits=np.full(n, "test"),
            label_names=tuple(f"label {label}" for label in range(c)),
            truth=truth,
            # Each run on its own scale: only the ranking counts.
            probability=expit(3 * score[..., run] - 2) if run % 2 else ndtr(score[..., run] / 2),
            thresholds=np.full(c, expit(1.0) if run % 2 else ndtr(0.5)),
            learned=np.ones(c, dtype=bool),
        )
        for run in range(r)
    ]


@dataclass
class Counts:
    """Outcomes of many tests of one kind."""

    rejected: list[bool] = field(default_factory=list)
    covered: list[bool] = field(default_factory=list)
    widths: list[float] = field(default_factory=list)

    def add(self, metric: MetricComparison, true: float) -> None:
        """Add one test; ``true`` is the true difference."""
        if metric.ci95 is None:
            return
        low, high = metric.ci95
        self.rejected.append(not low <= 0 <= high)
        self.covered.append(low <= true <= high)
        self.widths.append(high - low)

    def __str__(self) -> str:
        """Format the share of rejections and the coverage."""
        return f"{np.mean(self.rejected):.3f} | {np.mean(self.covered):.3f}"


def any_holm(runs: Sequence[RunComparison]) -> bool:
    """Return whether any corrected p value is below 0.05."""
    metrics = [metric["auroc"] for run in runs for metric in run.per_label.values()]
    metrics += [run.supported["auroc"] for run in runs if run.supported]
    return any(metric.p_holm is not None and metric.p_holm < 0.05 for metric in metrics)


def main() -> None:
    """Simulate, and print Markdown tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--simulations", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    generator = np.random.default_rng(arguments.seed)
    n = arguments.simulations

    print(f"One label: {n * N_LABELS:,} tests per number. Power: true AUROC 0.75 and 0.85.\n")
    print(
        "| positive patients | "
        + " | ".join(f"error, AUROC {null:.2f} | coverage" for null in NULLS)
        + " | power | coverage |"
    )
    print("|---" * 7 + "|")
    macro_rows, decision_rows = [], []
    for row, (low, high) in ROWS.items():
        label_cells, macro_cells, decision_cells = [], [], []
        for aurocs in (*((null, null) for null in NULLS), GAIN):
            label, macro, family = Counts(), Counts(), []
            others = {name: (Counts(), Counts()) for name in METRICS[1:]}
            for _ in range(n):
                runs = simulate(
                    generator,
                    aurocs,
                    n_positive=generator.integers(low, high + 1, size=N_LABELS),
                    n_patients=int(generator.integers(100, 301)),
                )
                comparison = compare_scored(runs).comparisons[0]
                true = aurocs[1] - aurocs[0]
                for metrics in comparison.per_label.values():
                    label.add(metrics["auroc"], true)
                    for name, (of_label, _) in others.items():
                        of_label.add(metrics[name], true)
                assert comparison.supported is not None
                macro.add(comparison.supported["auroc"], true)
                for name, (_, of_macro) in others.items():
                    of_macro.add(comparison.supported[name], true)
                family.append(any_holm([comparison]))
            label_cells.append(str(label))
            macro_cells.append(f"{macro} | {np.mean(family):.3f}")
            if aurocs[0] == aurocs[1]:
                decision_cells += [f"{np.mean(c.covered):.3f}" for c in others["auprc"]]
        print(f"| {row} | {' | '.join(label_cells)} |", flush=True)
        macro_rows.append(f"| {row} | {' | '.join(macro_cells)} |")
        decision_rows.append(f"| {row} | {' | '.join(decision_cells)} |")
    print("\nmacro\n" + "\n".join(macro_rows))
    print("\nauprc cov label, macro x nulls\n" + "\n".join(decision_rows))

    family = []
    for _ in range(n):
        runs = simulate(
            generator,
            [0.8] * 4,
            n_positive=np.array([1, 2, 4, 5, 6, 8, 12, 20, 35, 60]),
            n_patients=200,
        )
        family.append(any_holm(compare_scored(runs).comparisons))
    print(f"\nmixed, 3 comparisons: {np.mean(family):.3f} of {n}")
    print(binom.interval(0.95, n, 0.05))


if __name__ == "__main__":
    main()
