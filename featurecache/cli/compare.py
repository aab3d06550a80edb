"""``compare``: runs against each other on the same images."""

from pathlib import Path
from typing import Annotated

import typer

from featurecache.cli.options import Draws
from featurecache.cli.output import Json, format_float, print_json, print_table

_METRICS = ("auroc", "auprc", "f1")


def compare(
    runs: Annotated[
        list[Path], typer.Argument(help="Run folders; each is compared with the first.")
    ],
    n_bootstrap: Draws = 1000,
    json: Json = False,
) -> None:
    """Compare runs in pairs: differences with intervals, on the same draws of patients.

    The runs must have scored the same images. With --json every metric is compared.

    Example: featurecache compare runs/kermany-dinov2-minilm-baseline
    runs/kermany-dinov2-minilm-concat
    """
    from featurecache.evaluation.comparison import compare as run

    found = run(runs, n_bootstrap=n_bootstrap).to_json()
    if json:
        print_json(found)
        return
    for comparison in found["comparisons"]:
        rows = [("macro", comparison["macro"]), *comparison["per_label"].items()]
        print_table(
            f"{comparison['run']} less {found['first']}: {found['n']} {found['split']} images of "
            f"{found['n_patients']} patients [95 % interval], p after Holm",
            ["", *(name.upper() if name != "f1" else "F1" for name in _METRICS)],
            [[name, *(_cell(figures[metric]) for metric in _METRICS)] for name, figures in rows],
        )


def _cell(figure: dict[str, float | list[float] | None]) -> str:
    difference, bounds, p = figure["difference"], figure["ci95"], figure["p_holm"]
    if not isinstance(difference, float) or not isinstance(bounds, list):
        return "-"
    assert isinstance(p, float)
    return f"{difference:+.3f} [{bounds[0]:+.3f}, {bounds[1]:+.3f}] p {format_float(p)}"
