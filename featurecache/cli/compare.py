"""``compare``: compare runs that scored the same images."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from featurecache.cli.options import NBootstrap
from featurecache.cli.output import Json, format_float, print_json, print_table

if TYPE_CHECKING:
    from featurecache.evaluation.comparison import MetricComparison

_METRICS = ("auroc", "auprc", "f1")


def compare(
    runs: Annotated[
        list[Path], typer.Argument(help="Run folders; each is compared with the first.")
    ],
    n_bootstrap: NBootstrap = 1000,
    json: Json = False,
) -> None:
    """Compare runs with the first: paired differences with 95 % intervals.

    The runs must have scored the same images. --json has all metrics.

    Example: featurecache compare runs/kermany-dinov2-minilm-baseline
    runs/kermany-dinov2-minilm-concat
    """
    import featurecache as fc

    result = fc.compare(runs, n_bootstrap=n_bootstrap)
    if json:
        print_json(result.to_json())
        return
    for comparison in result.comparisons:
        rows = [("macro", comparison.macro), *comparison.per_label.items()]
        print_table(
            f"{comparison.run} minus {result.first}: {result.n} {result.split} images of "
            f"{result.n_patients} patients [95 % interval], p with Holm's correction",
            ["", *("F1" if name == "f1" else name.upper() for name in _METRICS)],
            [[name, *(_cell(metrics[metric]) for metric in _METRICS)] for name, metrics in rows],
            optional=2,
        )


def _cell(metric: "MetricComparison") -> str:
    if metric.difference is None or metric.ci95 is None:
        return "-"
    low, high = metric.ci95
    return f"{metric.difference:+.3f} [{low:+.3f}, {high:+.3f}] p {format_float(metric.p_holm)}"
