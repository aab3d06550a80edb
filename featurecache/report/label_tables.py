"""Tables of single labels: overview, metrics by run, confusion matrices."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from featurecache.metrics.platt_scaling import describe_platt
from featurecache.report.load_runs import ScoredRun
from featurecache.report.table import Table, format_difference, format_interval, format_score
from featurecache.wording import UNDEFINED

_COLUMNS = (
    *("AUROC", "AUPRC", "F1", "PPV", "sensitivity"),
    *("threshold", "calibration error", "after Platt scaling"),
)


@dataclass(frozen=True)
class ConfusionMatrix:
    """A confusion matrix, [[tn, fp], [fn, tp]]."""

    run: str
    counts: Sequence[Sequence[int]]

    @property
    def row_fractions(self) -> list[list[float]]:
        """(2, 2) counts as fractions of their row, for the shade of the cells; 0 in empty rows."""
        return [[count / (sum(row) or 1) for count in row] for row in self.counts]


def overview_table(
    runs: Sequence[ScoredRun], labels: Sequence[str], anchors: Sequence[str]
) -> Table:
    """Return one row per label: all metrics of a single run, or the AUROC of several."""
    if len(runs) == 1:
        (run,) = runs
        caption = f"{run.name} by label, on {run.metrics.split} images"
        columns: Sequence[str] = _COLUMNS
        cells = [_metric_cells(run, label) for label in labels]
    else:
        caption, columns = "AUROC by label", [run.name for run in runs]
        cells = [[_auroc_cell(run, label) for run in runs] for label in labels]
    counts = [common_counts(runs, label) for label in labels]
    if all(counts):
        columns = ["positive", *columns]
        cells = [[f"{n[0]:,}", *row] for n, row in zip(counts, cells, strict=True) if n]
    else:
        caption += "; the runs scored different images or labels, so numbers of positives differ"
    notes = [
        next((note for run in runs if (note := _no_interval(run, label))), "") for label in labels
    ]
    rows = [[label, *row] for label, row in zip(labels, cells, strict=True)]
    return _with_notes(Table("labels", caption, ["label", *columns], rows, anchors), notes)


def common_counts(runs: Sequence[ScoredRun], label: str) -> tuple[int, int] | None:
    """Return how many images are positive and how many known; None where the runs differ."""
    counts = {
        (scores.n_positive, scores.n_known)
        for run in runs
        if (scores := run.metrics.per_label.get(label))
    }
    return counts.pop() if len(counts) == 1 else None


def label_table(runs: Sequence[ScoredRun], label: str) -> Table:
    """Return the metrics of a label, one row per run."""
    rows = [[run.name, *_metric_cells(run, label)] for run in runs]
    columns = ["run", *_COLUMNS]
    if common_counts(runs, label) is None:
        columns.insert(1, "positive")
        for row, run in zip(rows, runs, strict=True):
            scores = run.metrics.per_label[label]
            row.insert(1, f"{scores.n_positive:,} of {scores.n_known:,}")
    notes = [_no_interval(run, label) for run in runs]
    return _with_notes(Table(f"metrics-{label}", f"Metrics of {label}", columns, rows), notes)


def calibration_table(run: ScoredRun) -> Table | None:
    """Return the calibration of a run by label, with the reasons for what is missing."""
    if run.metrics.calibration is None:
        return None
    fitted = "of the training run" if run.metrics.label_map else "fitted on validation images"
    rows = []
    for label, calibration in run.metrics.calibration.per_label.items():
        before, after = calibration.before, calibration.after
        reasons = []
        if calibration.undefined_reason is not None:
            reasons.append(f"undefined: {calibration.undefined_reason}")
        if calibration.no_slope is not None:
            reasons.append(f"no slope: {calibration.no_slope}")
        if calibration.reason is not None:
            reasons.append(f"no Platt scaling: {calibration.reason}")
        rows.append(
            [
                label,
                format_interval(before.error, before.ci95.error),
                format_interval(before.calibration_slope, before.ci95.calibration_slope),
                format_interval(before.calibration_intercept, before.ci95.calibration_intercept),
                format_difference(
                    before.observed_minus_predicted, before.ci95.observed_minus_predicted
                ),
                format_interval(before.observed_to_expected, before.ci95.observed_to_expected),
                format_score(before.brier),
                format_interval(after.error, after.ci95.error),
                "; ".join(reasons),
            ]
        )
    return Table(
        f"calibration-{run.name}",
        f"Calibration of {run.name} by label, with 95 % intervals over patients; Platt scaling "
        f"{fitted}: {describe_platt(run.metrics.calibration)}",
        [
            "label",
            "error",
            "slope",
            "intercept",
            "observed minus predicted",
            "observed / expected",
            "Brier score",
            "error after Platt scaling",
            "note",
        ],
        rows,
    )


def delong_table(run: ScoredRun) -> Table | None:
    """Return DeLong's intervals of the AUROC beside those over patients; None without any."""
    delong = run.metrics.delong
    if delong is None or delong.reason is not None:
        return None
    rows = []
    for label, interval in delong.per_label.items():
        scores = run.metrics.per_label[label]
        bounds = "" if interval.auroc is None else "{:.3f} to {:.3f}".format(*interval.auroc)
        auroc = format_interval(scores.auroc, scores.auroc_ci)
        rows.append([label, auroc, bounds or UNDEFINED, interval.reason or ""])
    return Table(
        f"delong-{run.name}",
        f"AUROC of {run.name} with two 95 % intervals: over patients, and by DeLong, as each "
        "patient has one image",
        ["label", "AUROC", "DeLong's interval", "note"],
        rows,
    )


def confusion_matrices(runs: Sequence[ScoredRun], label: str) -> list[ConfusionMatrix]:
    """Return the confusion matrices of a label, without runs that could not learn it."""
    matrices = [(run.name, run.metrics.per_label[label].confusion) for run in runs]
    return [ConfusionMatrix(name, counts) for name, counts in matrices if counts is not None]


def _no_interval(run: ScoredRun, label: str) -> str:
    """Return why a label has no intervals; empty where it has, or the run is without the label."""
    scores = run.metrics.per_label.get(label)
    reason = None if scores is None else scores.no_interval
    return "" if reason is None else f"no interval: {reason}"


def _with_notes(table: Table, notes: Sequence[str]) -> Table:
    """Add a column of notes, if there are any."""
    if not any(notes):
        return table
    rows = [[*row, note] for row, note in zip(table.rows, notes, strict=True)]
    return replace(table, columns=[*table.columns, "note"], rows=rows)


def _auroc_cell(run: ScoredRun, label: str) -> str:
    scores = run.metrics.per_label.get(label)
    return UNDEFINED if scores is None else format_interval(scores.auroc, scores.auroc_ci)


def _metric_cells(run: ScoredRun, label: str) -> list[str]:
    """Return the metrics of a label, under ``_COLUMNS``."""
    scores, calibration = run.metrics.per_label[label], run.metrics.calibration
    errors = None if calibration is None else calibration.per_label[label]
    return [
        format_interval(scores.auroc, scores.auroc_ci),
        format_interval(scores.auprc, scores.auprc_ci),
        format_interval(scores.f1, scores.f1_ci),
        format_score(scores.precision),
        format_score(scores.recall),
        format_score(scores.threshold),
        UNDEFINED if errors is None else format_score(errors.before.error),
        UNDEFINED if errors is None else format_score(errors.after.error),
    ]
