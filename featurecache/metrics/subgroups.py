"""Subgroups: AUROC, TPR and FPR of groups of images at one threshold, and the gaps between them.

Each group is compared with all other images that are in a group, and the groups with each other.
Intervals and p values are over patients (`clustered`), of which a group needs enough. Intervals of
the largest gap and of the worst group hold although both are chosen by looking at the groups: they
are simultaneous over all pairs, or all groups (Bonferroni).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.metrics.clustered import ClusteredEstimates, clustered_estimates
from featurecache.metrics.document import Change, ChangeInterval, Count, Document, Interval, Score
from featurecache.metrics.holm import holm
from featurecache.metrics.label_support import patient_support
from featurecache.metrics.ranking import AnyFloats, Labels
from featurecache.wording import count_noun

MIN_POSITIVES: Final = 10
"""Positive images that a group needs, beside the patients that every interval needs."""

_ESTIMATED: Final = {"auroc": "auroc", "tpr": "recall", "fpr": "fpr"}
"""Metrics of a group, and what `clustered` calls them."""


class GroupScore(Document):
    """One metric of one group.

    Attributes:
        value: Its value.
        ci95: Its 95 % interval.
        difference: The value minus that of all other groups together; None where these have too
            few patients.
        difference_ci95: Its 95 % interval.
        p: p value of the difference.
        p_holm: The same, corrected for all groups and labels of the attribute (Holm 1979).
    """

    value: Score | None = None
    ci95: Interval | None = None
    difference: Change | None = None
    difference_ci95: ChangeInterval | None = None
    p: float | None = None
    p_holm: float | None = None


class GroupScores(Document):
    """The metrics of one group of images for one label.

    Attributes:
        n: Number of images whose label is known.
        n_positive: Number of positive ones.
        n_positive_patients: Number of patients with a positive image.
        n_negative_patients: Number of patients with a negative image.
        auroc: AUROC within the group.
        tpr: True positive rate (sensitivity) at the threshold of the run.
        fpr: False positive rate (1 - specificity) at the threshold of the run.
        reason: Why there are no scores; None where there are.
    """

    n: Count
    n_positive: Count
    n_positive_patients: Count
    n_negative_patients: Count
    auroc: GroupScore | None = None
    tpr: GroupScore | None = None
    fpr: GroupScore | None = None
    reason: str | None = None


class LargestGap(Document):
    """The largest difference of one metric between two groups of one label.

    Attributes:
        highest: The group with the highest value.
        lowest: The group with the lowest value.
        difference: Their difference. Chance makes it too large, the more so the more groups.
        ci95: 95 % interval of the largest difference between any two groups.
    """

    highest: str
    lowest: str
    difference: Change
    ci95: ChangeInterval


class WorstGroup(Document):
    """The group with the worst value of one metric: lowest AUROC or TPR, or highest FPR.

    Attributes:
        group: The group.
        value: Its value.
        ci95: 95 % interval of the worst value of any group.
    """

    group: str
    value: Score
    ci95: Interval


class LabelGroups(Document):
    """The groups of one label.

    Attributes:
        groups: Their scores by name.
        largest_gap: By metric ("auroc", "tpr", "fpr"); without metrics of fewer than two groups.
        worst_group: The same.
    """

    groups: dict[str, GroupScores]
    largest_gap: dict[str, LargestGap]
    worst_group: dict[str, WorstGroup]


class Subgroups(Document):
    """Metrics of the groups of images that one attribute, such as sex or age, defines.

    Attributes:
        n_images: Number of images of each group.
        n_unknown: Number of images in no group: the value is unknown, or in none of the bins.
        n_tests: Number of tests that the p values of each metric are corrected for.
        per_label: The groups of each learned label.
    """

    n_images: dict[str, Count]
    n_unknown: Count
    n_tests: dict[str, Count]
    per_label: dict[str, LabelGroups]


def measure_subgroups(
    truth: Labels,
    predicted: NDArray[np.bool_],
    ranking: AnyFloats,
    *,
    label_names: Sequence[str],
    patients: NDArray[Any],
    groups: NDArray[np.str_],
) -> Subgroups:
    """Measure each group of images, and the differences between them.

    Args:
        truth: (N, C) labels 1, 0 or -1 (unknown).
        predicted: (N, C) binary decisions, of one threshold for all groups.
        ranking: (N, C) scores for the AUROC.
        label_names: C names.
        patients: (N,) patient of each image.
        groups: (N,) group of each image; empty for none.

    Returns:
        The groups, in alphabetical order.
    """
    names = [str(name) for name in np.unique(groups) if name]
    _, patient_index = np.unique(patients, return_inverse=True)
    members = groups == np.array(names, dtype=np.str_)[:, np.newaxis]
    # Columns: the groups, then for each group all others, label by label.
    masks = np.concatenate([members, ~members & (groups != "")]).T
    of_groups = np.concatenate(
        [np.where(masks, truth[:, [c]], -1) for c in range(len(label_names))], axis=1
    )
    repeats = masks.shape[1]
    support = patient_support(of_groups, patient_index)
    n_positive = (of_groups == 1).sum(axis=0)
    reasons = [
        f"{_few(int(n_positive[c]))}, and at least {MIN_POSITIVES} are needed"
        if n_positive[c] < MIN_POSITIVES
        else support.reason(c)
        for c in range(of_groups.shape[1])
    ]
    grid = np.arange(of_groups.shape[1]).reshape(len(label_names), 2, len(names))
    usable = np.array([reason is None for reason in reasons], dtype=np.bool_)
    measured = {
        metric: _Measured(
            metric,
            clustered_estimates(
                estimated,
                of_groups,
                np.repeat(predicted, repeats, axis=1),
                np.repeat(ranking, repeats, axis=1),
                patient_index,
            ),
            usable,
        )
        for metric, estimated in _ESTIMATED.items()
    }
    scores = {metric: of_metric.scores(grid) for metric, of_metric in measured.items()}
    per_label = {}
    for c, label in enumerate(label_names):
        columns = grid[c, 0]
        of_label = {
            name: GroupScores(
                n=int((of_groups[:, column] >= 0).sum()),
                n_positive=int(n_positive[column]),
                n_positive_patients=int(support.positive[column]),
                n_negative_patients=int(support.negative[column]),
                reason=reasons[column],
                **{metric: by_column.get(int(column)) for metric, by_column in scores.items()},
            )
            for name, column in zip(names, columns, strict=True)
        }
        kept = {
            name: int(column) for name, column in zip(names, columns, strict=True) if usable[column]
        }
        per_label[label] = LabelGroups(
            groups=of_label,
            largest_gap={m: v.largest_gap(kept) for m, v in measured.items() if len(kept) > 1},
            worst_group={m: v.worst_group(kept) for m, v in measured.items() if len(kept) > 1},
        )
    return Subgroups(
        n_images={name: int(of_name.sum()) for name, of_name in zip(names, members, strict=True)},
        n_unknown=int((groups == "").sum()),
        n_tests={metric: of_metric.n_tests for metric, of_metric in measured.items()},
        per_label=per_label,
    )


def _few(n_positive: int) -> str:
    return f"only {count_noun(n_positive, 'positive image')}" if n_positive else "no positive image"


class _Measured:
    """One metric of all columns, as it is shown."""

    def __init__(
        self, metric: str, estimates: ClusteredEstimates, usable: NDArray[np.bool_]
    ) -> None:
        self.metric, self.estimates, self.usable = metric, estimates, usable
        self.n_tests = 0

    def scores(self, grid: NDArray[np.intp]) -> dict[int, GroupScore]:
        """Return the score of each usable group by its column.

        Args:
            grid: (C, 2, K) columns of the K groups of each label, and of all others of each.
        """
        group, rest = grid[:, 0].ravel(), grid[:, 1].ravel()
        low, high = self.estimates.intervals()
        tested = self.usable[group] & self.usable[rest]
        pairs = group[tested], rest[tested]
        p = self.estimates.p_values(*pairs)
        # Of two groups, each is all others of the other one: one test, not two.
        label = np.repeat(np.arange(len(grid)), grid.shape[2])[tested]
        tests = label if grid.shape[2] == 2 else np.arange(len(p))
        _, first, test_of = np.unique(tests, return_index=True, return_inverse=True)
        self.n_tests = len(first)
        p_holm = np.array(holm(p[first].tolist()))[test_of] if len(p) else p
        rows = zip(pairs[0], *self.estimates.differences(*pairs), p, p_holm, strict=True)
        compared: dict[int, dict[str, Any]] = {
            int(column): {
                "difference": float(difference),
                "difference_ci95": (float(below), float(above)),
                "p": float(of_test),
                "p_holm": float(corrected),
            }
            for column, difference, below, above, of_test, corrected in rows
        }
        return {
            column: GroupScore(
                value=float(self.estimates.values[column]),
                ci95=(float(low[column]), float(high[column])),
                **compared.get(column, {}),
            )
            for column in group[self.usable[group]].tolist()
        }

    def largest_gap(self, groups: Mapping[str, int]) -> LargestGap:
        """Return the largest gap between two or more groups, given by name with their columns."""
        names, columns = list(groups), np.array(list(groups.values()))
        values = self.estimates.values[columns]
        first, second = (columns[side] for side in np.triu_indices(len(columns), k=1))
        _, low, high = self.estimates.differences(first, second, error=0.05 / len(first))
        return LargestGap(
            highest=names[int(values.argmax())],
            lowest=names[int(values.argmin())],
            difference=float(values.max() - values.min()),
            # Of each pair in either direction.
            ci95=(
                max(float(low.max()), -float(high.min()), 0.0),
                max(float(high.max()), -float(low.min())),
            ),
        )

    def worst_group(self, groups: Mapping[str, int]) -> WorstGroup:
        """Return the worst of some groups, given by name with their columns."""
        names, columns = list(groups), np.array(list(groups.values()))
        low, high = self.estimates.intervals(error=0.05 / len(columns))
        values = self.estimates.values[columns]
        pick = np.max if self.metric == "fpr" else np.min
        worst = float(pick(values))
        return WorstGroup(
            group=names[values.tolist().index(worst)],
            value=worst,
            ci95=(float(pick(low[columns])), float(pick(high[columns]))),
        )
