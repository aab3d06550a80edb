"""``table``: the metrics of runs as a table for a paper."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from featurecache.cli.options import RunNames, parse_pairs
from featurecache.cli.output import Json, print_json, print_status, print_table


class Format(StrEnum):
    """How a table is printed."""

    latex = "latex"
    markdown = "markdown"
    csv = "csv"


def table(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.")],
    format: Annotated[
        Format | None,
        typer.Option(help="Format. Default: a table for the terminal."),
    ] = None,
    name: RunNames = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            help="Column, such as macro F1 or supported AUROC; repeat for more. Default: macro "
            "AUROC, macro AUPRC, macro F1 and micro AUROC.",
        ),
    ] = None,
    marks: Annotated[
        bool,
        typer.Option(
            "--marks",
            help="Mark values that differ from the best of their column, by compare: the 95 % "
            "interval of the paired difference excludes 0.",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Print metrics of runs side by side: means, spread over seeds and 95 % intervals.

    The best value of each metric is in bold if all runs scored the same images. LaTeX needs the
    package booktabs; CSV has numbers in columns of their own. Overlapping intervals do
    not say whether runs differ: use --marks, or compare.

    Example: featurecache table runs/kermany-dinov2-minilm-baseline
    runs/kermany-dinov2-minilm-concat --format latex
    """
    import featurecache as fc

    columns = {} if metrics is None else {"metrics": metrics}
    result = fc.table(runs, names=parse_pairs(name, "--name"), marks=marks, **columns)
    if json:
        frame = result.frame.astype(object).where(result.frame.notna(), None)
        runs_json = frame.to_dict("records")
        print_json(
            {"comparable": result.comparable, "ranked": list(result.ranked), "runs": runs_json}
        )
        return
    with_values = [name for name in result.metrics if result.frame[name].notna().any()]
    unranked = [name for name in with_values if name not in result.ranked]
    if not result.comparable:
        print_status(
            "note: the runs scored different images or labels, so none is marked as the best"
        )
    elif unranked:
        print_status(
            f"note: {' and '.join(unranked)}: averages over different labels, because not all runs "
            "could learn the same; none is marked as the best. compare averages over the labels "
            "that they share"
        )
    if format is None:
        cells = result.cells()
        print_table("", list(cells.columns), cells.to_numpy().tolist(), optional=2)
        return
    writers = {
        Format.latex: result.to_latex,
        Format.markdown: result.to_markdown,
        Format.csv: result.to_csv,
    }
    typer.echo(writers[format](), nl=False)
