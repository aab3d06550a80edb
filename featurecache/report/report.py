"""Write a report of runs: one HTML page, and its plots and tables on request."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from featurecache.datasets.load import load_source
from featurecache.errors import UnknownNameError, UsageError
from featurecache.extraction.source import DatasetLike, as_dataset
from featurecache.heads.learning_curve import LearningCurve
from featurecache.io.atomic import new_file, new_folder, require_short_name
from featurecache.provenance.provenance import Source
from featurecache.report.command_line import dataset_options, options
from featurecache.report.load_runs import RunLike, source_of_run
from featurecache.report.page import ReportPage, build_page
from featurecache.report.plot_style import PLOT_FORMATS, PlotFormat, save_figure
from featurecache.runs.run import Run
from featurecache.store.cache import Cache
from featurecache.store.open import CacheLike

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class WrittenReport:
    """Files of a report.

    Attributes:
        path: the HTML page.
        plots: files of its plots.
        tables: files of its tables.
        notes: what the page lacks, and what to do about it.
    """

    path: Path
    plots: Sequence[Path]
    tables: Sequence[Path]
    notes: Sequence[str]


def report(
    runs: RunLike | Sequence[RunLike],
    out: PathLike = "report.html",
    *,
    plots: PathLike | None = None,
    latex: PathLike | None = None,
    markdown: PathLike | None = None,
    overwrite: bool = False,
    caches: CacheLike = (),
    finding: str | None = None,
    names: Mapping[str, str] | None = None,
    plot_format: PlotFormat = "png",
    data: "DatasetLike | Run | None" = None,
) -> Path:
    """Write runs as one HTML page that opens anywhere, without a network.

    Example:
        >>> import featurecache as fc
        >>> cache = fc.open_cache("cache/phantom/tiny.h5")
        >>> runs = [fc.train_head(cache, "linear", controls=False), fc.zero_shot(cache)]
        >>> fc.report(runs, "report.html").name
        'report.html'

    Args:
        runs: Runs, learning curves, or their folders; further ones are compared with the first.
        out: HTML file to write.
        plots: Folder where each plot is also written as a file for papers. It is created if it
            does not exist.
        latex: Folder where each table is also written in LaTeX, for the packages booktabs and
            longtable.
        markdown: Folder where each table is also written in Markdown.
        overwrite: Replace an existing page, plots and tables.
        caches: Caches, or their files, that are no longer where their runs were made, for the
            embedding map.
        finding: Label that colors the embedding map. Defaults to the most balanced label.
        names: What to call runs, by their name or folder.
        plot_format: Format of ``plots``: "png" (300 dpi), "pdf" or "svg".
        data: Data set of the first run, its name or path, or the run itself, for the data set that
            it was made from, to show example images. Their ids are shown, too, so mind who may see
            the page. Without it the page holds no images.

    Returns:
        The page.

    Raises:
        RunError: A run is missing or damaged.
        UsageError: The page or a folder exists, two folders are the same, a run is given twice, or
            ``data`` lacks an image of the first run.
        UnknownNameError: No run has a label named ``finding``, or there is no such format.
        OSError: The disk is full or not writable.
    """
    return write_report(
        runs,
        out,
        plots=plots,
        latex=latex,
        markdown=markdown,
        overwrite=overwrite,
        caches=caches,
        finding=finding,
        names=names,
        plot_format=plot_format,
        data=data,
    ).path


def write_report(
    runs: RunLike | Sequence[RunLike],
    out: PathLike = "report.html",
    *,
    plots: PathLike | None = None,
    latex: PathLike | None = None,
    markdown: PathLike | None = None,
    overwrite: bool = False,
    caches: CacheLike = (),
    finding: str | None = None,
    names: Mapping[str, str] | None = None,
    plot_format: PlotFormat = "png",
    data: "DatasetLike | Run | None" = None,
) -> WrittenReport:
    """Write a report like `report`, and return all files written with notes on what is missing."""
    if plot_format not in PLOT_FORMATS:
        raise UnknownNameError("plot format", plot_format, PLOT_FORMATS)
    path = Path(out)
    given_folders = {"plots": plots, "latex": latex, "markdown": markdown}
    folders = {name: Path(folder) for name, folder in given_folders.items() if folder is not None}
    require_short_name(path)
    for argument, folder in folders.items():
        require_short_name(folder, argument=argument)
    if len(set(folders.values())) < len(folders):
        raise UsageError("two of `plots`, `latex` and `markdown` are the same folder")
    if not overwrite:
        for argument, folder in folders.items():
            _require_absent(folder, argument)
        # With folders, an interrupted call may have written the page alone; it is compared below.
        if not folders or not path.is_file():
            _require_absent(path, "out")
    given = [caches] if isinstance(caches, Cache | str | os.PathLike) else caches
    cache_files = [
        file
        for cache in given
        for file in (
            [member.path for source in cache.sources for member in source.members]
            if isinstance(cache, Cache)
            else [Path(cache)]
        )
    ]
    if isinstance(data, Run):
        data = load_source(source_of_run(data.config), used_by=f"the run {data.name}")
    dataset = None if data is None else as_dataset(data)
    arguments = {
        "out": str(path),
        **{argument: str(folder) for argument, folder in folders.items()},
        "cache": list(map(str, cache_files)),
        "finding": finding,
        "name": [f"{run}={name}" for run, name in (names or {}).items()],
        "plot_format": None if plots is None or plot_format == "png" else plot_format,
    }
    loaded: list[str] = []
    if dataset is not None:
        # A data set that was made in Python has no options; its name shows that there was one.
        source = dataset.source or Source(
            dataset=dataset.name, root=None, options={}, pseudonymized=False
        )
        loaded = dataset_options(source, without=("view", "sex", "age", "name"))
    page = build_page(
        [runs] if isinstance(runs, Run | LearningCurve | str | os.PathLike) else runs,
        files=None if dataset is None else dataset.files(),
        caches=cache_files,
        finding=finding,
        names=names,
        command_options=[*loaded, *options(arguments, report)],
    )
    if not overwrite and path.exists() and path.read_bytes() != _content(page):
        _require_absent(path, "out")
    save_page(page, path)
    files: dict[str, Mapping[str, Callable[[Path], object]]] = {
        "plots": {
            f"{name}.{plot_format}": partial(save_figure, figure, plot_format=plot_format)
            for name, figure in page.figures.items()
        },
        "latex": {
            f"{name}.tex": partial(_write_text, table.to_latex())
            for name, table in page.tables.items()
        },
        "markdown": {
            f"{name}.md": partial(_write_text, table.to_markdown())
            for name, table in page.tables.items()
        },
    }
    saved = {argument: _save_files(folder, files[argument]) for argument, folder in folders.items()}
    return WrittenReport(
        path,
        plots=saved.get("plots", []),
        tables=[*saved.get("latex", []), *saved.get("markdown", [])],
        notes=page.notes,
    )


def _require_absent(target: Path, argument: str) -> None:
    if target.exists():
        raise UsageError(f"{target} already exists: give another `{argument}`, or `overwrite`")


def save_page(page: ReportPage, path: Path) -> None:
    """Save a page as an HTML file; an existing file is replaced atomically.

    Raises:
        OSError: the disk is full or not writable.
    """
    with new_file(path) as temporary:
        temporary.write_bytes(_content(page))


def _save_files(folder: Path, files: Mapping[str, Callable[[Path], object]]) -> list[Path]:
    """Save files in a folder, which appears when it is complete, or replace them one by one.

    Args:
        folder: the folder, created if missing.
        files: what writes each file to a path, by its name in the folder.

    Returns:
        The files.
    """
    if folder.exists():
        for name, write in files.items():
            with new_file(folder / name) as temporary:
                write(temporary)
    else:
        with new_folder(folder) as temporary_folder:
            for name, write in files.items():
                write(temporary_folder / name)
    return [folder / name for name in files]


def _write_text(text: str, path: Path) -> None:
    path.write_bytes(_encode(text))


def _content(page: ReportPage) -> bytes:
    return _encode(page.html)


def _encode(text: str) -> bytes:
    # Paths may hold bytes that are not UTF-8; they become question marks.
    return text.encode("utf-8", errors="replace")
