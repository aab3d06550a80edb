"""What commands print: tables and progress for people, one JSON document for programs."""

import json
import logging
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from rich.progress import Progress

_log = logging.getLogger(__name__)

QUIET_SECONDS: Final = 600.0
"""The log hears of work that goes on at each tenth of it, and after this time."""

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout, nothing else.")
]


def escape_control_chars(text: str) -> str:
    """Text fit for a terminal: what would move its cursor or hide a word is spelled out.

    Labels, ids and file names may come from anybody.
    """
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text
    )


def print_status(line: str, level: int = logging.INFO) -> None:
    """A line for people, on stderr, so that stdout holds results only."""
    _log.log(level, line)
    typer.echo(escape_control_chars(line), err=True)


def warn(text: str) -> None:
    """A warning, on stderr."""
    print_status(f"warning: {text}", logging.WARNING)


def print_result(line: str) -> None:
    """A line of the result, on stdout."""
    _log.info(line)
    typer.echo(escape_control_chars(line))


def print_json(document: Any) -> None:
    """The one JSON document of ``--json``; the log hears its warnings."""
    if isinstance(document, dict):
        for warning in document.get("warnings", ()):
            _log.warning(f"warning: {warning}")
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on stdout, as wide as it needs to be where stdout is no terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(escape_control_chars(title)) if title else None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    for column in columns:
        table.add_column(Text(escape_control_chars(column)), overflow="fold")
    for row in rows:
        # Text, not markup: a label may hold brackets.
        table.add_row(*(Text(escape_control_chars(cell)) for cell in row))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


@contextmanager
def progress_bar(*, hidden: bool) -> "Iterator[Progress]":
    """A bar on stderr with rate and time left; the log hears of it now and then."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    milestones = _Milestones()

    class LoggedProgress(Progress):
        def update(self, task_id: TaskID, *args: Any, **kwargs: Any) -> None:
            super().update(task_id, *args, **kwargs)
            task = self.tasks[task_id]
            milestones.pass_by(
                task.description, task.completed, task.total, str(task.fields["detail"])
            )

    with LoggedProgress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[detail]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=hidden,
    ) as bar:
        yield bar


class _Milestones:
    """What the log has heard of each task."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[int, float]] = {}

    def pass_by(self, task: str, completed: float, total: float | None, detail: str) -> None:
        """Log how far a task is, if it is a tenth further or was not heard of for long."""
        now = time.monotonic()
        tenth, at = self._told.setdefault(task, (0, now))
        here = int(10 * completed / total) if total else 0
        if here != tenth or now - at > QUIET_SECONDS:
            self._told[task] = here, now
            more = f", {detail}" if detail else ""
            _log.info(f"{task}: {completed:.0f} of {total or 0:.0f}{more}")


def format_float(value: float | None, *, digits: int = 3) -> str:
    """A figure as text; undefined is a dash."""
    return "-" if value is None else f"{value:.{digits}f}"


def with_interval(value: float | None, interval: Sequence[float] | None) -> str:
    """A figure with its 95 % interval."""
    if value is None or interval is None:
        return format_float(value)
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"


def print_metrics(title: str, metrics: Mapping[str, Any]) -> None:
    """The headline figures and the figures of each label, the first three with their intervals."""
    bounded, plain = ("auroc", "auprc", "f1"), ("precision", "recall", "accuracy")
    intervals = metrics["ci95"]

    def row(
        name: str, positives: str, figures: Mapping[str, Any], bounds: Mapping[str, Any]
    ) -> list[str]:
        return [
            name,
            positives,
            *(with_interval(figures.get(key), bounds.get(key)) for key in bounded),
            *(format_float(figures.get(key)) for key in plain),
        ]

    rows = [row(group, "", metrics[group], intervals[group]) for group in ("macro", "micro")]
    for name, control in metrics["controls"].items():
        if control is not None:
            control_name = f"macro of {name.replace('_', ' ')}"
            rows.append(row(control_name, "", control["macro"], control["ci95"]["macro"]))
    for label, figures in metrics["per_label"].items():
        bounds = intervals["per_label"][label]
        rows.append(row(label, str(figures["n_positive"]), figures, bounds))
    print_table(
        f"{title}: {metrics['n']} {metrics['split']} images of {metrics['n_patients']} patients, "
        "[95 % interval over patients]",
        ["", "positive", "AUROC", "AUPRC", "F1", *plain],
        rows,
    )
    exact = with_interval(metrics["exact_match"], intervals["exact_match"])
    hamming = with_interval(metrics["hamming_loss"], intervals["hamming_loss"])
    if (calibration := metrics.get("calibration")) is not None:
        before, after = (
            with_interval(calibration["macro"][side]["ece"], calibration["ci95"][side]["ece"])
            for side in ("before", "after")
        )
        print_result(f"calibration error {before}, after Platt scaling on validation {after}")
    if (gain := metrics.get("text_gain")) is not None:
        auroc = gain["macro"]["auroc"]
        of = "" if gain["pairs"] == 1 else f", mean of {gain['pairs']} pairs"
        print_result(
            f"its own texts rather than permuted ones (paired{of}): macro AUROC "
            f"{with_interval(auroc['difference'], auroc['ci95'])}"
        )
    half = metrics["at_half"]
    print_result(f"exact match {exact}   Hamming loss {hamming}")
    print_result(
        f"at a threshold of 0.5 for all labels: macro F1 {format_float(half['macro']['f1'])}, "
        f"micro F1 {format_float(half['micro']['f1'])}, exact match {format_float(half['exact_match'])}, "
        f"Hamming loss {format_float(half['hamming_loss'])}"
    )
