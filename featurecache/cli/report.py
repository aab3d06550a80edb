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
from featurecache.cli.options import Draws
from featurecache.cli.output import Json, print_json, print_status


@takes_dataset_options(without=("view_column", "sex_column", "age_column"))
def report(
    *,
    runs: Annotated[
        list[Path], typer.Argument(help="Run folders; further ones are compared with the first.")
    ],
    out: Annotated[Path, typer.Option(help="The page to write.", metavar="HTML")] = Path(
        "report.html"
    ),
    plots: Annotated[
        Path | None,
        typer.Option(help="A folder for the plots as PNG files too.", metavar="DIR"),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a report that is there already.")
    ] = False,
    cache: Annotated[
        list[Path] | None,
        typer.Option(
            help="For the map: a cache that is no longer where its run says; give it again for "
            "more.",
            metavar="FILE",
        ),
    ] = None,
    finding: Annotated[
        str | None,
        typer.Option(
            help="Label that the map is coloured by. Without it the one that divides it best."
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="The data set of the runs: its films are shown. --data-root alone is enough where "
            "the runs are named after it.",
            metavar="NAME",
        ),
    ] = None,
    data_root: DataRoot = None,
    n_bootstrap: Draws = 1000,
    options: DatasetOptions,
    json: Json = False,
) -> None:
    """Write runs as one HTML page that opens anywhere, without a network.

    Runs of train-head, zero-shot, finetune, evaluate and curve. No film is put into the page
    without --dataset or --data-root; give the options that the cache was extracted with.

    Example: featurecache report runs/nih-dinov2-minilm-concat --dataset nih --out concat.html
    """
    from featurecache.report.page import build_report
    from featurecache.report.write import require_unwritten, write_report

    if not overwrite:
        require_unwritten(out, *([] if plots is None else [plots]))
    if len(runs) > 1 and n_bootstrap:
        print_status(f"{len(runs)} runs, compared with {runs[0]} where they scored the same images")
    films = None
    if dataset is not None or data_root is not None:
        from featurecache.report.load_runs import dataset_of

        films = load_dataset(dataset or dataset_of(runs[0]), data_root, options, quiet=json).files()
    made = build_report(
        runs, films=films, caches=cache or [], finding=finding, n_bootstrap=n_bootstrap
    )
    written = write_report(made, out, plots)
    size = out.stat().st_size
    if json:
        print_json(
            {
                "report": str(out),
                "bytes": size,
                "plots": [str(path) for path in written],
                "notes": list(made.notes),
            }
        )
        return
    for note in made.notes:
        print_status(f"note: {note}")
    beside = "" if plots is None else f"; {len(written)} plots in {plots}"
    typer.echo(f"report: {out} ({size / 1e6:.1f} MB{beside})")
