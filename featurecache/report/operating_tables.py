"""Tables of a run at its operating point, for the report and the commands."""

from featurecache.metrics.metrics import Metrics
from featurecache.report.table import Table, format_interval, format_score


def operating_table(name: str, metrics: Metrics) -> Table:
    """Return sensitivity, specificity and predictive values of each label at its threshold.

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
    rows = [
        [
            label,
            format_score(scores.threshold),
            scores.threshold_source or "",
            *(format_interval(getattr(scores, m), scores.interval(m)) for m in shown.values()),
        ]
        for label, scores in metrics.per_label.items()
        if scores.learned
    ]
    return Table(
        f"{name} at its operating point, with 95 % intervals over patients; PPV and NPV are those "
        "at the prevalence of these images",
        ["label", "threshold", "chosen by", *shown],
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
        f"{name}: predictive values at a stated prevalence, with 95 % intervals over patients",
        ["label", "prevalence", "PPV", "NPV"],
        rows,
    )


def operating_tables(name: str, metrics: Metrics) -> list[Table]:
    """Return all tables of a run at its operating point that it has.

    Args:
        name: Name of the run.
        metrics: Its metrics.
    """
    tables = [operating_table(name, metrics), prevalence_table(name, metrics)]
    return [table for table in tables if table is not None and table.rows]
