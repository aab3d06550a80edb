"""``report``: write runs as one HTML page."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from featurecache.cli.dataset_options import (
    DataRoot,
    DatasetOptions,
    load_dataset_again,
    takes_dataset_options,
)
from featurecache.cli.options import RunNames, parse_pairs
from featurecache.cli.output import Json, print_json, print_result, print_status
from featurecache.wording import count_noun

if TYPE_CHECKING:
    from featurecache.report.plot_style import PlotFormat


@takes_dataset_options(
    without=(
        *("view_column", "sex_column", "age_column"),
        *("metadata_column", "name", "corrections", "only_labels"),
    )
)
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
        typer.Option(help="Folder for the plots as files. Default: none.", metavar="DIR"),
    ] = None,
    latex: Annotated[
        Path | None,
        typer.Option(help="Folder for the tables in LaTeX. Default: none.", metavar="DIR"),
    ] = None,
    markdown: Annotated[
        Path | None,
        typer.Option(help="Folder for the tables in Markdown. Default: none.", metavar="DIR"),
    ] = None,
    plot_format: Annotated[
        str, typer.Option(help="Format of the files in --plots.", metavar="png|pdf|svg")
    ] = "png",
    name: RunNames = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing report.")
    ] = False,
    caches: Annotated[
        list[Path] | None,
        typer.Option(
            "--cache",
            help="Cache that was moved since its run was made, for the embedding map; repeat for "
            "more.",
            metavar="FILE",
        ),
    ] = None,
    finding: Annotated[
        str | None,
        typer.Option(help="Label that colors the embedding map. Default: the most balanced one."),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Data set of the first run, if it cannot be loaded as it was for the run.",
            metavar="NAME",
        ),
    ] = None,
    data_root: DataRoot = None,
    images: Annotated[
        bool,
        typer.Option(
            "--images",
            help="Show example images, read from where they were when the run was made. Their ids "
            "are shown as well.",
        ),
    ] = False,
    options: DatasetOptions,
    json: Json = False,
) -> None:
    """Write a report of runs: one HTML page that opens in any browser, offline.

    The runs may come from train-head, zero-shot, finetune, evaluate and learning-curve. The page
    shows no images unless --images is given. Give options of the data set, which imply --images,
    only if it has moved or its ids are pseudonymized.

    Example: featurecache report runs/nih-dinov2-minilm-concat --images --out concat.html
    """
    from featurecache.report.load_runs import source_of_run
    from featurecache.report.report import write_report
    from featurecache.runs.folder import read_config

    data = None
    if images or dataset or data_root:
        source = source_of_run(read_config(runs[0]))
        data = load_dataset_again(source, dataset, data_root, options, used_by=runs[0], quiet=json)
    written = write_report(
        runs,
        out,
        plots=plots,
        latex=latex,
        markdown=markdown,
        overwrite=overwrite,
        caches=caches or (),
        finding=finding,
        names=parse_pairs(name, "--name"),
        plot_format=cast("PlotFormat", plot_format),
        data=data,
    )
    size = written.path.stat().st_size
    if json:
        print_json(
            {
                "report": str(written.path),
                "bytes": size,
                "plots": [str(path) for path in written.plots],
                "tables": [str(path) for path in written.tables],
                "notes": list(written.notes),
            }
        )
        return
    for note in written.notes:
        print_status(f"note: {note}")
    folders = {
        folder: count_noun(sum(file.parent == folder for file in files), noun)
        for folder, files, noun in (
            (plots, written.plots, "plot"),
            (latex, written.tables, "table"),
            (markdown, written.tables, "table"),
        )
        if folder is not None
    }
    also = "".join(f"; {number} in {folder}" for folder, number in folders.items())
    print_result(f"report: {written.path} ({size / 1e6:.1f} MB{also})")
