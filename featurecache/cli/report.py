"""``report``: runs as one HTML page."""

from pathlib import Path
from typing import Annotated

import typer

from featurecache.cli.dataset_options import (
    DataRoot,
    DatasetOptions,
    load_dataset,
    takes_dataset_options,
)
from featurecache.cli.errors import with_option_names
from featurecache.cli.options import Draws
from featurecache.cli.output import Json, print_json, print_status


@takes_dataset_options(without=("view_column", "sex_column", "age_column"))
def report(
    *,
    runs: Annotated[
        list[Path], typer.Argument(help="Run folders; further ones are compared with the first.")
    ],
    out: Annotated[Path, typer.Option(help="HTML file to write.", metavar="HTML")] = Path(
        "report.html"
    ),
    plots: Annotated[
        Path | None,
        typer.Option(help="Folder where plots are also written as PNG files.", metavar="DIR"),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing report.")
    ] = False,
    caches: Annotated[
        list[Path] | None,
        typer.Option(
            "--cache",
            help="Cache that is no longer where its run was made, for the embedding map. May be "
            "repeated.",
            metavar="FILE",
        ),
    ] = None,
    finding: Annotated[
        str | None,
        typer.Option(help="Label that colors the embedding map; default: the most balanced one."),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Data set of the first run, to show example images; not needed with --data-root.",
            metavar="NAME",
        ),
    ] = None,
    data_root: DataRoot = None,
    n_bootstrap: Draws = 1000,
    options: DatasetOptions,
    json: Json = False,
) -> None:
    """Write runs as one HTML page that opens anywhere, without a network.

    Takes runs of train-head, zero-shot, finetune, evaluate and learning-curve. The page holds no
    images unless --dataset or --data-root is given, with the options used for extraction.

    Example: featurecache report runs/nih-dinov2-minilm-concat --dataset nih --out concat.html
    """
    from featurecache.report.load_runs import dataset_of
    from featurecache.report.report import write_report

    data = None
    if dataset is not None or data_root is not None:
        data = load_dataset(dataset or dataset_of(runs[0]), data_root, options, quiet=json)
    written = write_report(
        runs,
        out,
        plots=plots,
        overwrite=overwrite,
        caches=caches or (),
        finding=finding,
        data=data,
        n_bootstrap=n_bootstrap,
    )
    size = written.path.stat().st_size
    if json:
        print_json(
            {
                "report": str(written.path),
                "bytes": size,
                "plots": [str(path) for path in written.plots],
                "notes": list(written.notes),
            }
        )
        return
    for note in written.notes:
        print_status(f"note: {with_option_names(note, report)}")
    beside = "" if plots is None else f"; {len(written.plots)} plots in {plots}"
    typer.echo(f"report: {written.path} ({size / 1e6:.1f} MB{beside})")
