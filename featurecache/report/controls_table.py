"""Table of a run beside its controls, for the report and the commands."""

from typing import Final

from featurecache.metrics.metrics import Control, Metrics, RankingScores, RankingSummary
from featurecache.report.table import Table, format_interval, format_score
from featurecache.wording import UNDEFINED, count_noun

CONTROL_NAMES: Final = {
    "any_finding": "any finding (one score)",
    "prevalence": "prevalence of each label",
    "always_negative": "every image normal",
    "view_only": "view position alone",
    "shuffled_labels": "shuffled labels",
    "random_features": "random features",
    "permuted_texts": "permuted texts",
}


def with_controls(name: str, metrics: Metrics) -> dict[str, Metrics | Control]:
    """Return a run and its controls by displayed name, without those that could not be made.

    Of a run with several seeds these are the scores of the first, and the name says so.
    """
    if metrics.seed_note is not None:
        name = f"{name}, {metrics.seed_note}"
    controls = {
        CONTROL_NAMES.get(key, key.replace("_", " ")): control
        for key, control in metrics.controls.items()
        if control is not None
    }
    return {name: metrics, **controls}


def controls_table(name: str, metrics: Metrics) -> Table:
    """Return the scores of a run and of its controls; columns without any are left out.

    Args:
        name: Name of the run.
        metrics: Its metrics.
    """
    scores = with_controls(name, metrics)
    n_supported = len(metrics.supported_labels)
    columns = [("scores", list(scores))]
    columns.append(
        (
            f"macro AUROC, {count_noun(len(metrics.macro_labels), 'label')}",
            [_auroc(s.macro) for s in scores.values()],
        )
    )
    if n_supported < len(metrics.macro_labels):
        heading = f"macro AUROC, {count_noun(n_supported, 'label')} with enough patients"
        columns.append((heading, [_macro_auroc(s.supported) for s in scores.values()]))
    columns += [
        ("within abnormal images", [_macro_auroc(s.within_abnormal) for s in scores.values()]),
        ("macro AUPRC", [format_score(s.macro.auprc) for s in scores.values()]),
        ("micro AUROC", [format_score(s.micro.auroc) for s in scores.values()]),
        ("exact match", [format_score(s.exact_match) for s in scores.values()]),
        ("Hamming loss", [format_score(s.hamming_loss) for s in scores.values()]),
    ]
    columns = [(heading, cells) for heading, cells in columns if set(cells) != {UNDEFINED}]
    return Table(
        f"controls-{name}",
        f"{name} and its controls",
        [heading for heading, _ in columns],
        list(zip(*(cells for _, cells in columns), strict=True)),
    )


def _auroc(scores: RankingScores) -> str:
    return format_interval(scores.auroc, scores.auroc_ci)


def _macro_auroc(summary: RankingSummary | None) -> str:
    return UNDEFINED if summary is None else _auroc(summary.macro)
