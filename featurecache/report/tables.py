"""The tables of a report: figures of metrics.json as text, rounded as the commands round them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from featurecache.report.load_runs import CurveRun, ScoredRun
from featurecache.report.plots import Estimate

UNDEFINED = "–"
CONTROLS = {
    "view_only": "view position alone",
    "shuffled_labels": "shuffled labels",
    "random_features": "random features",
    "permuted_texts": "permuted texts",
}
_OF_CONTROLS = (("macro", "auroc"), ("macro", "auprc"), ("micro", "auroc"))


@dataclass(frozen=True)
class Table:
    """A table whose first column heads its rows.

    Attributes:
        caption: what it shows.
        columns: headings.
        rows: as many cells each.
        anchors: where the heads of the rows lead, in this page; none for plain heads.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    anchors: Sequence[str] = field(default=())


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix: counts, and each as a share of its row for its shade."""

    run: str
    counts: Sequence[Sequence[int]]

    @property
    def shares(self) -> list[list[float]]:
        """(2, 2) of each count among those of its truth; 0 where there are none."""
        return [[cell / (sum(row) or 1) for cell in row] for row in self.counts]


def figure(value: float | None) -> str:
    """A figure as text; undefined is a dash."""
    return UNDEFINED if value is None else f"{value:.3f}"


def interval(value: float | None, bounds: Sequence[float] | None) -> str:
    """A figure with its 95 % interval."""
    if value is None or bounds is None:
        return figure(value)
    return f"{value:.3f} [{bounds[0]:.3f}, {bounds[1]:.3f}]"


def gain(value: float | None, bounds: Sequence[float] | None) -> str:
    """A difference with its 95 % interval."""
    if value is None:
        return UNDEFINED
    return _signed(value) + (
        "" if bounds is None else f" [{_signed(bounds[0])}, {_signed(bounds[1])}]"
    )


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def headline(runs: Sequence[ScoredRun]) -> Table:
    """One row a run; what it is of only where that differs."""
    differ = len({(run.model, run.dataset) for run in runs}) > 1
    columns = ["run", *(["encoder and data"] if differ else []), "images", "patients"]
    rows = []
    for run in runs:
        metrics = run.metrics
        macro, bounds = metrics["macro"], metrics["ci95"]["macro"]
        rows.append(
            [
                run.name,
                *([f"{run.model} on {run.dataset}"] if differ else []),
                f"{metrics['n']:,} {metrics['split']}",
                f"{metrics['n_patients']:,}",
                *(interval(macro[key], bounds[key]) for key in ("auroc", "auprc", "f1")),
                interval(metrics["micro"]["auroc"], metrics["ci95"]["micro"]["auroc"]),
                interval(metrics["exact_match"], metrics["ci95"]["exact_match"]),
            ]
        )
    return Table(
        "Averages over labels, with 95 % intervals from a bootstrap over patients",
        [*columns, "macro AUROC", "macro AUPRC", "macro F1", "micro AUROC", "exact match"],
        rows,
    )


def decisions(runs: Sequence[ScoredRun]) -> Table:
    """What the other figures are: calibration, Hamming loss, and decisions at 0.5."""
    rows = []
    for run in runs:
        metrics, half = run.metrics, run.metrics["at_half"]
        at_half = (half["macro"]["f1"], half["micro"]["f1"], half["exact_match"])
        rows.append(
            [
                run.name,
                *(calibration_error(metrics, side) for side in ("before", "after")),
                interval(metrics["hamming_loss"], metrics["ci95"]["hamming_loss"]),
                *(figure(value) for value in (*at_half, half["hamming_loss"])),
            ]
        )
    return Table(
        "Calibration, and decisions at a threshold of 0.5 in place of those chosen on validation",
        [
            *("run", "calibration error", "after Platt", "Hamming loss"),
            *(
                "macro F1 at\u00a00.5",
                "micro F1 at\u00a00.5",
                "exact match at\u00a00.5",
                "Hamming loss at\u00a00.5",
            ),
        ],
        rows,
    )


def calibration_error(metrics: Mapping[str, Any], side: str) -> str:
    """The macro calibration error before or after Platt's correction, with its interval."""
    calibration = metrics.get("calibration")
    if calibration is None:
        return UNDEFINED
    return interval(calibration["macro"][side]["ece"], calibration["ci95"][side]["ece"])


def differences(comparison: Mapping[str, Any], names: Mapping[str, str]) -> Table:
    """Each further run less the first, of a ``compare`` document."""
    rows = []
    for one in comparison["comparisons"]:
        row = [names[one["run"]]]
        for key in ("auroc", "auprc", "f1"):
            of = one["macro"][key]
            row += [gain(of["difference"], of["ci95"]), figure(of["p_holm"])]
        rows.append(row)
    return Table(
        f"Less {names[comparison['first']]}, on the same {comparison['n']:,} images and the same "
        f"{comparison['n_bootstrap']:,} bootstrap samples of patients, over {len(comparison['labels'])} labels",
        ["run", "macro AUROC", "p", "macro AUPRC", "p", "macro F1", "p"],
        rows,
    )


def overview(runs: Sequence[ScoredRun], labels: Sequence[str], anchors: Sequence[str]) -> Table:
    """One row a label: all figures of one run, or the AUROC of each of several."""
    if len(runs) == 1:
        (run,) = runs
        return Table(
            f"{run.name} by label, on {run.metrics['split']} images",
            ["label", "positive", *LABEL_COLUMNS],
            [
                [name, f"{run.metrics['per_label'][name]['n_positive']:,}", *label_row(run, name)]
                for name in labels
            ],
            anchors,
        )
    rows = []
    for name in labels:
        of = [run.metrics["per_label"].get(name) for run in runs]
        positives = next(one["n_positive"] for one in of if one is not None)
        rows.append([name, f"{positives:,}", *(label_auroc(run, name) for run in runs)])
    return Table(
        "AUROC by label",
        ["label", "positive", *(run.name for run in runs)],
        rows,
        anchors,
    )


def label_auroc(run: ScoredRun, label: str) -> str:
    """A label's AUROC with its interval; a dash where the run has no such label."""
    if label not in run.metrics["per_label"]:
        return UNDEFINED
    return interval(
        run.metrics["per_label"][label]["auroc"],
        run.metrics["ci95"]["per_label"][label]["auroc"],
    )


LABEL_COLUMNS = (
    *("AUROC", "AUPRC", "F1", "precision", "recall"),
    *("threshold", "calibration error", "after Platt"),
)


def label_row(run: ScoredRun, label: str) -> list[str]:
    """All figures of a label, under ``LABEL_COLUMNS``."""
    figures, bounds = run.metrics["per_label"][label], run.metrics["ci95"]["per_label"][label]
    calibration = (run.metrics.get("calibration") or {}).get("per_label", {}).get(label)
    return [
        *(interval(figures.get(key), bounds.get(key)) for key in ("auroc", "auprc", "f1")),
        *(figure(figures.get(key)) for key in ("precision", "recall", "threshold")),
        *(
            UNDEFINED if calibration is None else figure(calibration[side]["ece"])
            for side in ("before", "after")
        ),
    ]


def of_label(runs: Sequence[ScoredRun], label: str) -> Table:
    """A label's figures, one row a run."""
    return Table(
        f"Figures of {label}",
        ["run", *LABEL_COLUMNS],
        [[run.name, *label_row(run, label)] for run in runs],
    )


def confusions(runs: Sequence[ScoredRun], label: str) -> list[Confusion]:
    """A label's confusion matrices; none of a run that could not learn it."""
    found = [(run.name, run.metrics["per_label"][label].get("confusion")) for run in runs]
    return [Confusion(name, counts) for name, counts in found if counts is not None]


def controls(run: ScoredRun) -> tuple[Table, list[Estimate]]:
    """A run beside its controls, as a table and as what is drawn of it."""
    metrics = run.metrics
    rows, drawn = [], []
    documents = {run.name: metrics} | {
        CONTROLS.get(key, key.replace("_", " ")): one for key, one in metrics["controls"].items()
    }
    for name, one in documents.items():
        if one is None:
            rows.append([name, *[UNDEFINED] * len(_OF_CONTROLS)])
            continue
        rows.append(
            [
                name,
                *(interval(one[g][key], one["ci95"][g][key]) for g, key in _OF_CONTROLS),
            ]
        )
        macro, bounds = one["macro"]["auroc"], one["ci95"]["macro"]["auroc"]
        drawn.append(Estimate(name, macro, bounds, aside=one is not metrics))
    columns = ["scored", "macro AUROC", "macro AUPRC", "micro AUROC"]
    return Table(f"{run.name} and its controls", columns, rows), drawn


def text_gain(run: ScoredRun) -> str | None:
    """What a head's own texts bring against permuted ones; None where it was not measured."""
    found = run.metrics.get("text_gain")
    if found is None:
        return None
    auroc = found["macro"]["auroc"]
    of = "" if found["pairs"] == 1 else f", mean of {found['pairs']} seeds"
    return (
        f"Its own texts rather than permuted ones (paired{of}): macro AUROC "
        f"{gain(auroc['difference'], auroc['ci95'])}."
    )


def seeds(run: ScoredRun) -> str | None:
    """The spread of macro AUROC over seeds; None of a single one."""
    found = run.metrics.get("seeds")
    if found is None:
        return None
    auroc = found["macro"]["auroc"]
    if auroc["mean"] is None or auroc["sd"] is None:
        return None
    return (
        f"Macro AUROC over {len(found['seeds'])} seeds: {auroc['mean']:.4f} ± {auroc['sd']:.4f} "
        "(standard deviation). Every other figure here is of the first seed."
    )


def curve(run: CurveRun) -> Table:
    """A learning curve, one row a head and size."""
    rows = []
    curve, of_seeds = run.curve, f"means of {len(run.config.get('seeds', []))} seeds"
    for head, points in curve.cells.items():
        for size, point in zip(curve.sizes, points, strict=True):
            rows.append(
                [
                    head,
                    f"{size:,}",
                    str(point.labels),
                    interval(point.macro.auroc, point.ci95.auroc),
                    interval(point.macro.auprc, point.ci95.auprc),
                    gain(point.auroc_gain.difference, point.auroc_gain.ci95),
                ]
            )
    return Table(
        f"{run.name}: {curve.n:,} test images of {curve.n_patients:,} patients, "
        f"{of_seeds}, 95 % intervals over patients and seeds",
        [
            *("head", "training images", "labels", "macro AUROC", "macro AUPRC"),
            "gain in AUROC over the first head, paired",
        ],
        rows,
    )


def _label_of(run: ScoredRun, number: str) -> str:
    """A history names labels by their place among the run's."""
    names = run.scored.label_names
    return names[int(number)] if number.isdecimal() and int(number) < len(names) else "all"


def chosen(run: ScoredRun) -> Table | None:
    """The settings that a head chose on validation; None where its history is of epochs."""
    if not run.history or not {"setting", "validation"} <= set(run.history[0]):
        return None
    lines = [line for line in run.history if line.get("chosen") == "True"]
    return Table(
        f"{run.name}: what was chosen on validation, of {len(run.history)} candidates",
        ["label", "setting", "validation", "measure"],
        [
            [
                _label_of(run, line.get("label", "")),
                line["setting"],
                f"{float(line['validation']):.4f}",
                line.get("measure", ""),
            ]
            for line in lines
        ],
    )
