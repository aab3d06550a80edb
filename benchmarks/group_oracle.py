"""Rates of subgroups and the gaps between them, compared with those of fairlearn.

    pip install fairlearn
    python benchmarks/group_oracle.py [--seed 0]

Prints the largest difference to fairlearn's ``MetricFrame`` of each metric, over ten labels and
five groups of unequal size, with unknown labels.
"""

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np

from featurecache.metrics.subgroups import measure_subgroups

N_IMAGES, N_LABELS, N_GROUPS = 2000, 10, 5


def main() -> None:
    """Print the differences."""
    from fairlearn.metrics import MetricFrame, false_positive_rate, true_positive_rate
    from sklearn.metrics import roc_auc_score

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    generator = np.random.default_rng(parser.parse_args().seed)
    truth = generator.choice([0, 1, -1], (N_IMAGES, N_LABELS), p=[0.6, 0.3, 0.1]).astype(np.int8)
    group = generator.choice(N_GROUPS, N_IMAGES, p=[0.4, 0.3, 0.15, 0.1, 0.05]).astype(np.str_)
    scores = generator.normal(size=truth.shape) + (truth == 1)
    predicted = scores > 0.7
    names = [str(number) for number in range(N_LABELS)]
    measured = measure_subgroups(
        truth, predicted, scores, label_names=names, patients=np.arange(N_IMAGES), groups=group
    )
    functions: dict[str, Callable[..., Any]] = {
        "tpr": true_positive_rate,
        "fpr": false_positive_rate,
        "auroc": roc_auc_score,
    }
    for metric, function in functions.items():
        differences = []
        for column, name in enumerate(names):
            known = truth[:, column] >= 0
            values = scores if metric == "auroc" else predicted
            frame = MetricFrame(
                metrics=function,
                y_true=truth[known, column],
                y_pred=values[known, column],
                sensitive_features=group[known],
            )
            label = measured.per_label[name]
            for key, expected in frame.by_group.items():
                score = getattr(label.groups[str(key)], metric)
                differences.append(abs(score.value - expected))
            gap = frame.difference(method="between_groups")
            differences.append(abs(label.largest_gap[metric].difference - gap))
        print(f"{metric}: {len(differences)} values, largest difference {max(differences):.2g}")


if __name__ == "__main__":
    main()
