"""Write a report of runs: one HTML page, and its plots on request."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
        notes: what the page lacks, and what to do about it.
    """

    path: Path
    plots: Sequence[Path]
    notes: Sequence[str]


def report(
    runs: RunLike | Sequence[RunLike],
    out: PathLike = "report.html",
    *,
    plots: PathLike | None = None,
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
        overwrite: Replace an existing page and plots.
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
        UsageError: The page or the folder of plots exists, a run is given twice, or ``data`` lacks
            an image of the first run.
        UnknownNameError: No run has a label named ``finding``, or there is no such format.
        OSError: The disk is full or not writable.
    """
    return write_report(
        runs,
        out,
        plots=plots,
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
    path, plots_folder = Path(out), None if plots is None else Path(plots)
    require_short_name(path)
    if plots_folder is not None:
        require_short_name(plots_folder, argument="plots")
    if not overwrite:
        if plots_folder is not None:
            _require_absent(plots_folder, "plots")
        # With plots, an interrupted call may have written the page alone; it is compared below.
        if plots_folder is None or not path.is_file():
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
        "plots": None if plots is None else str(plots),
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
    return WrittenReport(path, save_page(page, path, plots_folder, plot_format), page.notes)


def _require_absent(target: Path, argument: str) -> None:
    if target.exists():
        raise UsageError(f"{target} already exists: give another `{argument}`, or `overwrite`")


def save_page(
    page: ReportPage, path: Path, plots: Path | None = None, plot_format: PlotFormat = "png"
) -> list[Path]:
    """Save a page, and then its plots; existing files are replaced atomically.

    A folder of plots appears when it is complete.

    Args:
        page: the page.
        path: HTML file.
        plots: folder for the plots, created if missing; None for no plots.
        plot_format: their format.

    Returns:
        The plots written.

    Raises:
        OSError: the disk is full or not writable.
    """
    with new_file(path) as temporary:
        temporary.write_bytes(_content(page))
    if plots is None:
        return []
    figures = {f"{name}.{plot_format}": figure for name, figure in page.figures.items()}
    if plots.exists():
        for name, figure in figures.items():
            with new_file(plots / name) as temporary:
                save_figure(figure, temporary, plot_format)
    else:
        with new_folder(plots) as folder:
            for name, figure in figures.items():
                save_figure(figure, folder / name, plot_format)
    return [plots / name for name in figures]


def _content(page: ReportPage) -> bytes:
    # Paths may hold bytes that are not UTF-8; they become question marks.
    return page.html.encode("utf-8", errors="replace")
