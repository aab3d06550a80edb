"""``compare``: compare runs that scored the same images."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from featurecache.cli.options import STUDY_SCORES
from featurecache.cli.output import Json, format_float, print_json, print_result, print_table
from featurecache.wording import UNDEFINED, count_scored

if TYPE_CHECKING:
    from featurecache.evaluation.comparison import Comparison, MetricComparison, RunComparison


def compare(
    runs: Annotated[
        list[Path], typer.Argument(help="Run folders; each is compared with the first.")
    ],
    level: Annotated[
        str | None,
        typer.Option(
            help="study to join the scores of images by study, in runs that scored images. "
            "Default: as the runs are."
        ),
    ] = None,
    study_scores: Annotated[str | None, typer.Option(help=STUDY_SCORES, metavar="HOW")] = None,
    json: Json = False,
) -> None:
    """Compare runs with the first: paired differences with 95 % intervals and p values.

    The runs must have scored the same images or studies. --json has all metrics.

    Example: featurecache compare runs/kermany-dinov2-minilm-baseline
    runs/kermany-dinov2-minilm-concat
    """
    import featurecache as fc
    from featurecache.metrics.label_support import MIN_PATIENTS

    result = fc.compare(runs, level=level, study_scores=study_scores)
    if json:
        print_json(result.to_json())
        return
    for comparison in result.comparisons:
        _print_auroc(result, comparison)
        _print_averages(comparison)
    uneven: dict[str, str] = {}
    for comparison in result.comparisons:
        for name in result.supported_labels:
            if (reason := comparison.per_label[name]["auroc"].no_interval) is not None:
                uneven[name] = reason
    if uneven:
        reasons = {reason: [n for n in uneven if uneven[n] == reason] for reason in uneven.values()}
        lines = (f"{', '.join(names)}: {reason}" for reason, names in reasons.items())
        print_result(f"no interval for {'; '.join(lines)}")
    few = [name for name, label in result.labels.items() if label.no_interval is not None]
    if few:
        print_result(
            f"no interval or p with fewer than {MIN_PATIENTS} positive or negative patients: "
            f"{', '.join(few)}"
        )
    if correction := result.correction:
        print_result(f"p (Holm): {correction}")


def _print_auroc(result: "Comparison", comparison: "RunComparison") -> None:
    """Print the differences in AUROC: averages, then labels with their numbers of patients."""
    from featurecache.evaluation.comparison import format_p

    n_macro, n_supported = len(result.macro_labels), len(result.supported_labels)
    averages = {f"macro over {n_macro}": comparison.macro}
    if comparison.supported is not None and n_supported < n_macro:
        averages = {f"macro over {n_supported} of {n_macro}": comparison.supported, **averages}
    patients = {
        name: f"{label.n_positive_patients} / {label.n_negative_patients}"
        for name, label in result.labels.items()
    }
    print_table(
        f"{comparison.title} minus {result.first_title}: "
        f"{count_scored(result.n, result.split, result.level, result.n_patients)}, "
        "AUROC [95 % interval over patients]",
        ["", "patients +/-", "difference", "p", "p (Holm)", "first", "run"],
        [
            [
                name,
                patients.get(name, ""),
                _difference(metrics["auroc"]),
                format_p(metrics["auroc"].p),
                format_p(metrics["auroc"].p_holm),
                format_float(metrics["auroc"].first),
                format_float(metrics["auroc"].run),
            ]
            for name, metrics in [*averages.items(), *comparison.per_label.items()]
        ],
        optional=2,
    )


def _print_averages(comparison: "RunComparison") -> None:
    """Print the differences in further metrics over several labels."""
    macro = comparison.averages
    metrics = {
        "macro AUPRC": macro["auprc"],
        "macro F1": macro["f1"],
        "micro AUROC": comparison.micro["auroc"],
        "exact match": comparison.exact_match,
        "Hamming loss": comparison.hamming_loss,
    }
    print_table(
        "",
        ["", "difference", "first", "run"],
        [
            [name, _difference(metric), format_float(metric.first), format_float(metric.run)]
            for name, metric in metrics.items()
        ],
    )


def _difference(metric: "MetricComparison") -> str:
    if metric.difference is None:
        return UNDEFINED
    if metric.ci95 is None:
        return f"{metric.difference:+.3f}"
    low, high = metric.ci95
    return f"{metric.difference:+.3f} [{low:+.3f}, {high:+.3f}]"
