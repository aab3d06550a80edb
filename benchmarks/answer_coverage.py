"""Coverage of split-conformal answers in simulation, per label, also of several images per patient.

    python benchmarks/answer_coverage.py [--draws 1000] [--seed 0]

Prints the table of docs/engineering/statistics.md. In each draw, validation patients and new ones
are of one population. Patients with more images have higher scores, which a quantile over images
would not account for.
"""

import argparse
from collections import defaultdict

import numpy as np
from interval_coverage import Setting

from featurecache.metrics.conformal import fit_conformal, measure_answers

PREVALENCES = np.array([0.5, 0.3, 0.15])
AUROCS = np.array([0.95, 0.85, 0.75])
NAMES = tuple(f"{share:g}" for share in PREVALENCES)
N_NEW = 2000
LEARNED = np.ones(len(NAMES), dtype=np.bool_)
SETTINGS = tuple(
    (Setting(f"{n} patients, {images}", n, PREVALENCES, AUROCS, most, within), coverage)
    for n, images, most, within, coverage in (
        (100, "1 image", 1, 0.0, 0.9),
        (100, "1 to 6 images", 6, 0.7, 0.9),
        (300, "1 image", 1, 0.0, 0.9),
        (300, "1 to 6 images", 6, 0.7, 0.9),
        (300, "1 to 6 images", 6, 0.7, 0.95),
    )
)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(
        "| validation | to cover | prevalence | draws with answers | positives covered | negatives "
        "covered | in the expected range | unsure | wrong if answered |"
    )
    print("|---" * 9 + "|")
    for setting, coverage in SETTINGS:
        generator = np.random.default_rng(arguments.seed)
        found: dict[str, list[tuple[float | None, ...]]] = defaultdict(list)
        for _ in range(arguments.draws):
            n_patients = setting.n_patients + N_NEW
            truth, (score,), patient = setting.simulate(generator, n_patients)
            score = score + 0.15 * np.bincount(patient)[patient][:, np.newaxis]
            probability = 1 / (1 + np.exp(-score))
            is_new = patient >= setting.n_patients
            limits = fit_conformal(
                truth[~is_new],
                probability[~is_new],
                patient[~is_new],
                coverage=coverage,
                learned=LEARNED,
            )
            answers = measure_answers(
                truth[is_new],
                probability[is_new],
                limits,
                label_names=NAMES,
                patients=patient[is_new],
            )
            for name, label in answers.per_label.items():
                if label.reason is not None:
                    continue
                within = []
                for one in (label.positive, label.negative):
                    assert one.coverage is not None
                    assert one.expected is not None
                    low, high = one.expected
                    within.append(low <= one.coverage <= high)
                found[name].append(
                    (
                        label.positive.coverage,
                        label.negative.coverage,
                        float(np.mean(within)),
                        label.unsure,
                        label.error,
                    )
                )
        for name in NAMES:
            if not found[name]:
                continue
            means = np.nanmean(np.array(found[name], dtype=np.float64), axis=0)
            cells = " | ".join(f"{mean:.3f}" for mean in means)
            share = len(found[name]) / arguments.draws
            print(f"| {setting.name} | {coverage:g} | {name} | {share:.3f} | {cells} |")


if __name__ == "__main__":
    main()
