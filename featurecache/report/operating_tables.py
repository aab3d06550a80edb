"""Tables of a run at its operating point, for the report and the commands."""

from typing import Final

from featurecache.metrics.metrics import DecisionScores, Metrics
from featurecache.metrics.subgroups import GroupScore, Subgroups
from featurecache.metrics.thresholds import NOT_CHOSEN
from featurecache.report.table import Table, format_difference, format_interval, format_score
from featurecache.wording import UNDEFINED, count_noun, pluralize


def operating_table(name: str, metrics: Metrics) -> Table:
    """Return sensitivity, specificity and predictive values of each label at its threshold.

    Means over labels come first, those over seeds where there are several.

    Args:
        name: Name of the run.
        metrics: Its metrics.
    """
    shown = {
        "sensitivity": "recall",
        "specificity": "specificity",
        "PPV": "precision",
        "NPV": "npv",
    }

    def row(name: str, threshold: str, scores: DecisionScores, source: str) -> list[str]:
        values = (format_interval(getattr(scores, m), scores.interval(m)) for m in shown.values())
        return [name, threshold, *values, source]

    headline, over = metrics.headline, ""
    if headline.note:
        over = f"; averages are the {headline.note}, labels those of {metrics.seed_note}"
    sources = {scores.threshold_source for scores in metrics.per_label.values()}
    sources -= {NOT_CHOSEN, None}
    rule = f" ({sources.pop()})" if len(sources) == 1 else ""
    rows = [
        row("macro", UNDEFINED, headline.macro, headline.note),
        row("micro", UNDEFINED, headline.micro, headline.note),
        *(
            row(label, format_score(scores.threshold), scores, scores.threshold_source or "")
            for label, scores in metrics.per_label.items()
            if scores.learned
        ),
    ]
    return Table(
        f"operating-points-{name}",
        f"{name} at its operating point{rule}, with 95 % intervals over patients; PPV and NPV are "
        f"those at the prevalence of these {pluralize(metrics.level)}{over}",
        ["label", "threshold", *shown, "chosen by"],
        rows,
    )


def prevalence_table(name: str, metrics: Metrics) -> Table | None:
    """Return the predictive values at a stated prevalence; None where none was stated.

    Args:
        name: Name of the run.
        metrics: Its metrics.
    """
    if not metrics.at_prevalence:
        return None
    rows = [
        [
            label,
            f"{values.prevalence:g}",
            format_interval(values.ppv, values.ci95.ppv),
            format_interval(values.npv, values.ci95.npv),
        ]
        for label, values in metrics.at_prevalence.items()
    ]
    return Table(
        f"prevalence-{name}",
        f"{name}: predictive values at a stated prevalence, with 95 % intervals over patients",
        ["label", "prevalence", "PPV", "NPV"],
        rows,
    )


def retuned_table(name: str, metrics: Metrics) -> Table | None:
    """Return the thresholds of the training beside retuned ones; None where there are none.

    Args:
        name: Name of the run.
        metrics: Its metrics.
    """
    if metrics.retuned is None or not metrics.retuned.per_label:
        return None
    rows = []
    for label, retuned in metrics.retuned.per_label.items():
        carried = metrics.per_label[label]
        rows.append(
            [
                label,
                format_score(carried.threshold),
                format_interval(carried.recall, carried.interval("recall")),
                format_interval(carried.specificity, carried.interval("specificity")),
                format_score(retuned.threshold),
                format_interval(retuned.recall, retuned.ci95.recall),
                format_interval(retuned.specificity, retuned.ci95.specificity),
                retuned.reason or "",
            ]
        )
    return Table(
        f"retuned-{name}",
        f"{name}: thresholds of the training, and retuned ones that the same rule "
        f"({metrics.retuned.operating_point}) chooses on this data set's validation images, with "
        "95 % intervals over patients",
        [
            "label",
            *("threshold", "sensitivity", "specificity"),
            *("retuned", "sensitivity there", "specificity there"),
            "note",
        ],
        rows,
    )


def calibration_in_the_large_table(name: str, metrics: Metrics) -> Table | None:
    """Return whether there are as many positives as the probabilities say; None where unknown.

    Args:
        name: Name of the run.
        metrics: Its metrics.
    """
    if metrics.calibration is None:
        return None
    rows = [
        [
            label,
            format_difference(
                scores.observed_minus_predicted, scores.ci95.observed_minus_predicted
            ),
            format_interval(scores.observed_to_expected, scores.ci95.observed_to_expected),
        ]
        for label, calibration in metrics.calibration.per_label.items()
        if (scores := calibration.before).observed_minus_predicted is not None
    ]
    if not rows:
        return None
    return Table(
        f"calibration-in-the-large-{name}",
        f"{name}: calibration in the large, with 95 % intervals over patients; below 0, and below "
        "1, the probabilities are too high",
        ["label", "observed minus predicted", "observed / expected"],
        rows,
    )


def subgroup_tables(name: str, metrics: Metrics) -> list[Table]:
    """Return the groups of each attribute, and the largest gaps between them.

    Args:
        name: Name of the run.
        metrics: Its metrics.
    """
    return [
        table
        for attribute, subgroups in (metrics.subgroups or {}).items()
        for table in _tables_of_attribute(f"{name} by {attribute}", subgroups)
    ]


_METRICS: Final = {"auroc": "AUROC", "tpr": "sensitivity", "fpr": "false positive rate"}
"""What the metrics of groups are called."""


def _tables_of_attribute(title: str, subgroups: Subgroups) -> list[Table]:
    groups, gaps = [], []
    for label, of_label in subgroups.per_label.items():
        for group, scores in of_label.groups.items():
            cells = [_with_star(getattr(scores, metric)) for metric in _METRICS]
            counts = [f"{scores.n:,}", f"{scores.n_positive:,}"]
            groups.append([label, group, *counts, *cells, scores.reason or ""])
        for metric, gap in of_label.largest_gap.items():
            worst = of_label.worst_group[metric]
            gaps.append(
                [
                    label,
                    _METRICS[metric],
                    format_interval(gap.difference, gap.ci95),
                    f"{gap.highest} against {gap.lowest}",
                    f"{worst.group}: {format_interval(worst.value, worst.ci95)}",
                ]
            )
    unknown = subgroups.n_unknown
    left_out = f"; {count_noun(unknown, 'image is', 'images are')} in no group" if unknown else ""
    compared = ""
    if n_tests := subgroups.n_tests["auroc"]:
        compared = (
            "; * differs from all other groups together (p < 0.05 after Holm's correction over "
            f"{count_noun(n_tests, 'test')} of each metric)"
        )
    tables = [
        Table(
            f"subgroups-{title}",
            f"{title}, at the same thresholds, with 95 % intervals over patients{left_out}"
            f"{compared}",
            ["label", "group", "images", "positive", *_METRICS.values(), "note"],
            groups,
        )
    ]
    if gaps:
        tables.append(
            Table(
                f"gaps-{title}",
                f"{title}: largest gaps and worst groups, with 95 % intervals that hold for all "
                "pairs and all groups at once",
                ["label", "metric", "largest gap", "between", "worst group"],
                gaps,
            )
        )
    return tables


def _with_star(score: GroupScore | None) -> str:
    if score is None:
        return UNDEFINED
    star = " *" if score.p_holm is not None and score.p_holm < 0.05 else ""
    return format_interval(score.value, score.ci95) + star


def operating_tables(name: str, metrics: Metrics) -> list[Table]:
    """Return all tables of a run at its operating point that it has.

    Args:
        name: Name of the run.
        metrics: Its metrics.
    """
    tables = [
        operating_table(name, metrics),
        prevalence_table(name, metrics),
        retuned_table(name, metrics),
    ]
    return [table for table in tables if table is not None and table.rows]
