"""``demo``: the whole job once."""

from pathlib import Path
from typing import Annotated

import typer

from featurecache.cli.options import Draws
from featurecache.cli.output import (
    Json,
    format_float,
    print_json,
    print_result,
    print_status,
    print_table,
    with_interval,
)


def demo(
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder to make; featurecache-demo without it, or -2, -3 ...", metavar="DIR"
        ),
    ] = None,
    n_bootstrap: Draws = 1000,
    json: Json = False,
) -> None:
    """Show the whole job on synthetic films, with a model that ships with the package.

    Draws the data set phantom, embeds it with tiny, trains the three heads and scores zero-shot.
    Nothing is downloaded. The films are synthetic: the figures say that the software works, and
    nothing about patients.

    Example: featurecache demo --out my-demo
    """
    from dataclasses import asdict

    from featurecache.demo import run_demo
    from featurecache.runs.folder import free_folder

    folder = free_folder(Path(), "featurecache-demo") if out is None else out
    rows = run_demo(folder, n_bootstrap=n_bootstrap, tell=print_status)
    if json:
        print_json({"folder": str(folder), "results": [asdict(row) for row in rows]})
        return
    print_table(
        "synthetic test films, macro over 14 findings [95 % interval over patients]",
        ["method", "AUROC", "AUPRC", "F1", "seconds"],
        [
            [
                row.method,
                with_interval(row.auroc, row.interval),
                format_float(row.auprc),
                format_float(row.f1),
                format_float(row.seconds, digits=1),
            ]
            for row in rows
        ],
    )
    print_result(f"folder: {folder}/ (results.csv; runs/ and cache/ for every other command)")
