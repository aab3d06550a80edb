"""``demo``: try everything once, on synthetic images."""

from pathlib import Path
from typing import Annotated

import typer

from featurecache.cli.options import NBootstrap
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
            help="Folder to create. Default: featurecache-demo, or with -2, -3 ...",
            metavar="DIR",
        ),
    ] = None,
    n_bootstrap: NBootstrap = 1000,
    json: Json = False,
) -> None:
    """Try the whole workflow on synthetic images, with a model that ships with the package.

    Generates the data set phantom, embeds it with the model tiny, trains three heads and scores
    zero-shot. Nothing is downloaded. The images are synthetic: the metrics show that the software
    works, and say nothing about patients.

    Example: featurecache demo --out my-demo
    """
    from dataclasses import asdict

    from featurecache.demo import demo_folder, run_demo

    folder = demo_folder(Path()) if out is None else out
    results = run_demo(folder, n_bootstrap=n_bootstrap, on_step=print_status)
    if json:
        print_json({"folder": str(folder), "results": [asdict(result) for result in results]})
        return
    print_table(
        "synthetic test images, macro average of 14 labels [95 % interval over patients]",
        ["method", "AUROC", "AUPRC", "F1", "seconds"],
        [
            [
                result.method,
                with_interval(result.auroc, result.auroc_ci),
                format_float(result.auprc),
                format_float(result.f1),
                format_float(result.seconds, digits=1),
            ]
            for result in results
        ],
    )
    print_result(f"folder: {folder}/ (results.csv, and runs/ and cache/ for the other commands)")
