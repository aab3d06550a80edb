"""Coverage of the intervals of subgroups in simulation: scores, differences, gaps, worst groups.

    python benchmarks/group_coverage.py [--simulations 1000] [--seed 0]

Prints the tables of docs/engineering/statistics.md. Scores are normal, so that the AUROC, the
sensitivity and the false positive rate of each group, and of the others together, are known.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from featurecache.metrics.holm import holm
from featurecache.metrics.subgroups import LabelGroups, measure_subgroups

Floats = NDArray[np.float64]

THRESHOLD = 1.0
PREVALENCE = 0.4
METRICS = ("auroc", "tpr", "fpr")
PER_CALL = 100


@dataclass(frozen=True)
class Setting:
    """Groups of patients.

    Attributes:
        name: As in the table.
        n_patients: Number of patients of each group.
        max_images: A patient has 1 to this many images in a group.
        shift: Mean score of the positives of each group above that of its negatives.
        offset: Mean score of the negatives of each group.
        shared: Whether the groups are of the same patients, such as two views of each.
    """

    name: str
    n_patients: tuple[int, ...]
    max_images: int
    shift: tuple[float, ...]
    offset: tuple[float, ...]
    shared: bool = False


EQUAL = ((1.2,) * 3, (0.0,) * 3)
UNEQUAL = ((1.6, 1.2, 0.9), (0.0, 0.3, 0.6))
SETTINGS = (
    Setting("3 groups of 60, 1 image, equal", (60,) * 3, 1, *EQUAL),
    Setting("3 groups of 60, 1 image", (60,) * 3, 1, *UNEQUAL),
    Setting("3 groups of 60, 1 to 4 images, equal", (60,) * 3, 4, *EQUAL),
    Setting("3 groups of 60, 1 to 4 images", (60,) * 3, 4, *UNEQUAL),
    Setting("groups of 40, 100 and 300, 1 to 4 images", (40, 100, 300), 4, *UNEQUAL),
    Setting("2 views of 100, 1 to 4 images, equal", (100,) * 2, 4, (1.2, 1.2), (0, 0), True),
    Setting("2 views of 100, 1 to 4 images", (100,) * 2, 4, (1.6, 1.0), (0, 0.4), True),
)


def simulate(
    setting: Setting, generator: np.random.Generator, simulations: int
) -> tuple[NDArray[np.int8], Floats, NDArray[np.intp], NDArray[np.intp]]:
    """Return labels and scores (N, simulations), and the patient and group of each row, (N,).

    The findings and the scores of a patient's images resemble each other.
    """
    group, patient, first = list[int](), list[int](), 0
    for k, n_patients in enumerate(setting.n_patients):
        n_images = generator.integers(1, setting.max_images, n_patients, endpoint=True)
        patient += np.repeat(np.arange(first, first + n_patients), n_images).tolist()
        group += [k] * int(n_images.sum())
        first += 0 if setting.shared else n_patients
    of_row, in_group = np.array(patient), np.array(group)
    shape = (of_row.max() + 1, simulations)
    rows = (len(of_row), simulations)
    illness = np.sqrt(0.7) * generator.normal(size=shape)[of_row]
    finding = illness + np.sqrt(0.3) * generator.normal(size=rows)
    truth = (ndtr(finding) < PREVALENCE).astype(np.int8)
    own = np.sqrt(0.5) * generator.normal(size=shape)[of_row]
    score = own + np.sqrt(0.5) * generator.normal(size=rows)
    shift, offset = np.array(setting.shift)[in_group], np.array(setting.offset)[in_group]
    score += offset[:, np.newaxis] + shift[:, np.newaxis] * truth
    return truth, score, of_row, in_group


def true_values(setting: Setting, images: Floats) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Return each metric of the K groups, and of all others together.

    Args:
        setting: The groups.
        images: (K,) number of images of each group.
    """
    negative = np.array(setting.offset)
    positive = negative + np.array(setting.shift)
    aurocs = ndtr((positive[:, np.newaxis] - negative) / np.sqrt(2))
    rates = {"tpr": ndtr(positive - THRESHOLD), "fpr": ndtr(negative - THRESHOLD)}
    others = (1 - np.eye(len(images))) * images
    weights = others / others.sum(axis=1, keepdims=True)
    of_groups = {"auroc": np.diagonal(aurocs), **rates}
    of_others = {name: weights @ rate for name, rate in rates.items()}
    of_others["auroc"] = np.einsum("gi,gj,ij->g", weights, weights, aurocs)
    return of_groups, of_others


def outcomes(
    label: LabelGroups, own: Mapping[str, Floats], rest: Mapping[str, Floats]
) -> Iterator[tuple[str, str, bool]]:
    """Yield what is measured, by which metric, and whether the interval holds the truth."""

    def holds(bounds: tuple[float, float] | None, truth: float) -> bool:
        return bounds is not None and bounds[0] <= truth <= bounds[1]

    for metric in METRICS:
        p_values = []
        for k, scores in enumerate(label.groups.values()):
            score = getattr(scores, metric)
            if score is None:
                continue
            yield "group", metric, holds(score.ci95, own[metric][k])
            if score.difference is not None:
                difference = own[metric][k] - rest[metric][k]
                yield "difference", metric, holds(score.difference_ci95, difference)
                yield "p < 0.05", metric, score.p < 0.05
                p_values.append(score.p)
        if len(p_values) < len(label.groups):
            continue
        # Each label is a simulation of its own, and so a family of tests; two groups are one test.
        family = p_values[:1] if len(p_values) == 2 else p_values
        yield "any p < 0.05, Holm", metric, min(holm(family)) < 0.05
        gap = float(np.ptp(own[metric]))
        yield "largest gap", metric, holds(label.largest_gap[metric].ci95, gap)
        worst = float(own[metric].max() if metric == "fpr" else own[metric].min())
        yield "worst group", metric, holds(label.worst_group[metric].ci95, worst)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    covered = ("group", "difference", "largest gap", "worst group")
    tested = ("p < 0.05", "any p < 0.05, Holm")
    print(f"| groups | metric | {' | '.join((*covered, *tested))} |")
    print("|---" * (2 + len(covered) + len(tested)) + "|")
    for setting in SETTINGS:
        generator = np.random.default_rng(arguments.seed)
        held: dict[tuple[str, str], list[bool]] = defaultdict(list)
        for _ in range(-(-arguments.simulations // PER_CALL)):
            truth, score, patient, group = simulate(setting, generator, PER_CALL)
            images = np.bincount(group).astype(np.float64)
            own, rest = true_values(setting, images)
            measured = measure_subgroups(
                truth,
                score >= THRESHOLD,
                score,
                label_names=[str(number) for number in range(PER_CALL)],
                patients=patient,
                groups=group.astype(np.str_),
            )
            for label in measured.per_label.values():
                for what, metric, holds in outcomes(label, own, rest):
                    held[what, metric].append(holds)
        for metric in METRICS:
            shares = [f"{np.mean(held[what, metric]):.3f}" for what in (*covered, *tested)]
            print(f"| {setting.name} | {metric} | {' | '.join(shares)} |")


if __name__ == "__main__":
    main()
