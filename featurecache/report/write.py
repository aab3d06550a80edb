"""A report's files: one page, and its plots where they are asked for."""

from pathlib import Path

from featurecache.errors import UsageError
from featurecache.io.atomic import new_file
from featurecache.report.page import Report
from featurecache.report.plots import save_png


def require_unwritten(*targets: Path) -> None:
    """A report replaces an older one only when it is told to.

    Raises:
        UsageError: something is at one of the targets already.
    """
    for target in targets:
        if target.exists():
            raise UsageError(f"{target} is there already: give another place, or --overwrite")


def write_report(report: Report, page: Path, plots: Path | None = None) -> list[Path]:
    """Write a report, each file whole or not at all; what is there is replaced.

    Args:
        report: what to write.
        page: the HTML file.
        plots: a folder for PNG files of its plots, made where it is not there; None for no plots.

    Returns:
        The plots that were written.

    Raises:
        OSError: the disk is full or not writable.
    """
    written = []
    if plots is not None:
        for name, figure in report.figures.items():
            path = plots / f"{name}.png"
            with new_file(path) as unfinished:
                save_png(figure, unfinished)
            written.append(path)
    with new_file(page) as unfinished:
        # A path may hold bytes that are no text: they become question marks.
        unfinished.write_bytes(report.html.encode("utf-8", errors="replace"))
    return written
