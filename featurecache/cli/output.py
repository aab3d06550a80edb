"""Print results: tables and progress bars, or one JSON document."""

import io
import json
import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from featurecache.cli.option_names import with_option_names
from featurecache.errors import FeaturecacheWarning
from featurecache.wording import UNDEFINED, count_noun, count_scored

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from featurecache.metrics.conformal import Answers
    from featurecache.metrics.familiarity import FamiliarityScores
    from featurecache.metrics.metrics import ClassScores, Metrics, PairedGain, RankingScores
    from featurecache.progress import DetailedProgress
    from featurecache.runs.run import Run

_log = logging.getLogger(__name__)

QUIET_SECONDS: Final = 600.0
"""Progress is reported in lines at each tenth of the work, and at the latest after this time."""

Json = Annotated[bool, typer.Option("--json", help="Print only one JSON document on stdout.")]


def escape_control_chars(text: str, *, keep: str = "\n") -> str:
    """Escape characters that would move the cursor of a terminal or hide text.

    Labels, ids and file names may come from an untrusted source.

    Args:
        text: The text.
        keep: Control characters that are kept.
    """
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text
    )


def escape_unprintable() -> None:
    """Escape characters that the encoding of stdout or stderr lacks, instead of raising."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not replaced by another object
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def printed_warnings() -> Iterator[None]:
    """Print the library's own warnings without the line of code that raised them."""
    show = warnings.showwarning

    def show_warning(
        message: Warning | str, category: type[Warning], *args: Any, **kwargs: Any
    ) -> None:
        if issubclass(category, FeaturecacheWarning):
            warn(str(message))
        else:
            show(message, category, *args, **kwargs)

    with warnings.catch_warnings():
        warnings.simplefilter("always", FeaturecacheWarning)
        warnings.showwarning = show_warning
        yield


def print_status(line: str, level: int = logging.INFO) -> None:
    """Print a line of information on stderr, so that stdout holds only results.

    Arguments that the line names in backticks become options of the running command.
    """
    line = with_option_names(line)
    _log.log(level, line)
    typer.echo(escape_control_chars(line), err=True)


def warn(text: str) -> None:
    """Print a warning on stderr."""
    print_status(f"warning: {text}", logging.WARNING)


def print_address(address: str, server: str, *, json: bool) -> None:
    """Print where a server that ends with Ctrl-C is reached.

    Args:
        address: Its URL.
        server: What it is called.
        json: Whether to print a JSON document.
    """
    if json:
        print_json({"address": address})
    else:
        print_result(address)
    print_status(f"Ctrl-C ends the {server}")


def print_result(line: str) -> None:
    """Print a line of the result on stdout."""
    _log.info(line)
    typer.echo(escape_control_chars(line))


def print_json(document: Any) -> None:
    """Print the JSON document of ``--json`` on stdout, in ASCII, and log its warnings."""
    if isinstance(document, dict):
        for warning in document.get("warnings", ()):
            _log.warning(f"warning: {warning}")
    typer.echo(json.dumps(document, indent=2, allow_nan=False))


def label_rows(
    counts: Mapping[str, Mapping[str, int]],
) -> tuple[list[str], list[list[str]]]:
    """Return the columns and rows of a table of cells by label; see ``count_cells``."""
    kinds = list(next(iter(counts.values())))
    rows = [[name, *(f"{of_label[kind]:,}" for kind in kinds)] for name, of_label in counts.items()]
    return ["label", *kinds], rows


def format_known(number: int | None) -> str:
    """Return a number, or "unknown"."""
    return "unknown" if number is None else f"{number:,}"


def join_counts(counts: Mapping[str, int]) -> str:
    """Return numbers by name, such as "train 70, test 30"."""
    return ", ".join(f"{name} {number:,}" for name, number in counts.items()) or "none"


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    optional: int = 0,
    prose: Sequence[str] = (),
) -> None:
    """Print a table on stdout: for people on a terminal, as tab-separated values elsewhere.

    Names, numbers and paths are never broken into lines. A table that is too wide for the terminal
    loses its optional columns; if that is not enough, each row is printed as a block of lines,
    without its empty cells.

    Args:
        title: Line above the table; none if empty. Without a terminal it begins with "# ".
        columns: Headings of the columns.
        rows: The cells of each row.
        optional: Number of columns at the right that may be left out, from the right.
        prose: Headings of columns with sentences, which may be wrapped between words.
    """
    lines = [list(row) for row in rows]
    if not sys.stdout.isatty():
        if title:
            print_result(f"# {title}")  # readers of tables skip comments
        for line in (columns, *lines):
            typer.echo("\t".join(escape_control_chars(cell, keep="") for cell in line))
        typer.echo()
        return
    from rich.console import Console
    from rich.text import Text

    console = Console()
    if title:
        # Like other lines, it is left to the terminal to wrap: it may hold a path with spaces.
        console.print(Text(escape_control_chars(title)), style="italic", soft_wrap=True)
    for shown in range(len(columns), len(columns) - optional - 1, -1):
        if _print_grid(console, columns[:shown], [line[:shown] for line in lines], prose):
            break
    else:
        shown = len(columns)
        _print_blocks(console, columns, lines, prose)
    if shown < len(columns):
        print_status(
            f"not shown in {console.width} columns: {', '.join(columns[shown:])} (--json has them)"
        )


_COLUMN_GAP: Final = 2
_MIN_PROSE_WIDTH: Final = 16


def _print_grid(
    console: "Console",
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    prose: Sequence[str],
) -> bool:
    """Print a row per line; return False, and print nothing, where that does not fit."""
    from rich import box
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    # Text, not markup: a label may hold brackets.
    cells = [[Text(escape_control_chars(cell)) for cell in row] for row in (columns, *rows)]
    full = [max(cell_len(cell.plain) for cell in column) for column in zip(*cells, strict=True)]
    widths = list(full)
    for position, heading in enumerate(columns):
        if heading in prose:
            words = [word for row in cells for word in row[position].plain.split()]
            widths[position] = min(full[position], max(_MIN_PROSE_WIDTH, *map(cell_len, words)))
    spare = console.width - sum(widths) - _COLUMN_GAP * (len(widths) - 1)
    if spare < 0:
        return False
    while spare > 0 and widths != full:
        narrowest = max(range(len(full)), key=lambda i: (full[i] + 1) / (widths[i] + 1))
        widths[narrowest] += 1
        spare -= 1
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for name, width in zip(cells[0], widths, strict=True):
        table.add_column(name, width=width)
    for row in cells[1:]:
        table.add_row(*row)
    console.print(table)
    console.print()
    return True


def _print_blocks(
    console: "Console",
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    prose: Sequence[str],
) -> None:
    """Print each row as a block with a line per column; sentences are wrapped between words.

    What fits only without its heading beside it is printed below it.
    """
    from rich.cells import cell_len
    from rich.text import Text

    indent = max(map(cell_len, columns)) + _COLUMN_GAP
    width = max(_MIN_PROSE_WIDTH, console.width - indent)
    for row in rows:
        for heading, cell in zip(columns, row, strict=True):
            text = escape_control_chars(cell)
            if not text:
                continue
            lines = [text]
            if heading in prose:
                lines = wrap(text, width, break_long_words=False, break_on_hyphens=False)
            gap = " " * (indent - cell_len(heading))
            if len(lines) == 1 and width < cell_len(text) <= console.width - _COLUMN_GAP:
                gap = ("\n" if heading else "") + " " * _COLUMN_GAP
            line = Text.assemble((heading, "bold"), gap, f"\n{' ' * indent}".join(lines))
            console.print(line, soft_wrap=True)
        console.print()


def each_task(bar: "Progress") -> "DetailedProgress":
    """Return a callback that shows each task that it is called with in a bar of its own."""
    tasks: dict[str, TaskID] = {}

    def progress(done: int, total: int, task: str) -> None:
        if task not in tasks:
            tasks[task] = bar.add_task(task, total=total, detail="")
        bar.update(tasks[task], completed=done)

    return progress


@contextmanager
def progress_bar(*, hidden: bool) -> "Iterator[Progress]":
    """Show a progress bar on stderr; without a terminal, a line at each tenth of the work.

    These lines are also logged. Tasks follow each other: when the next one begins, or the work ends
    without an error, a task that ended early, such as a training that was stopped, is shown as
    complete.

    Args:
        hidden: Whether to show nothing; the progress is logged all the same.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        Task,
        TaskID,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Count(MofNCompleteColumn):
        def render(self, task: Task) -> Text:
            """Show nothing where the total is unknown or 0, instead of "0/?" and "0/0"."""
            return super().render(task) if task.total else Text()

    on_terminal = sys.stderr.isatty()
    milestones = _Milestones(_log.info if hidden or on_terminal else print_status)

    class LoggedProgress(Progress):
        def add_task(self, *args: Any, **kwargs: Any) -> TaskID:
            self.complete()
            return super().add_task(*args, **kwargs)

        def complete(self) -> None:
            for task in self.tasks:
                if not task.finished:
                    self.update(task.id, total=task.completed)

        def update(self, task_id: TaskID, *args: Any, **kwargs: Any) -> None:
            super().update(task_id, *args, **kwargs)
            task = self.tasks[task_id]
            milestones.update(
                task.description, task.completed, task.total, str(task.fields["detail"])
            )

    with LoggedProgress(
        TextColumn("{task.description}"),
        BarColumn(),
        Count(),
        TextColumn("{task.fields[detail]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True, quiet=hidden),
        disable=hidden or not on_terminal,
    ) as bar:
        yield bar
        bar.complete()


class _Milestones:
    """Report the progress of each task at every tenth, and after ``QUIET_SECONDS``."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._logged: dict[str, tuple[int, float]] = {}

    def update(self, task: str, completed: float, total: float | None, detail: str) -> None:
        """Report a task if it reached another tenth, or was reported long ago."""
        now = time.monotonic()
        logged_tenth, logged_at = self._logged.setdefault(task, (0, now))
        tenth = int(10 * completed / total) if total else 0 if total is None else 10
        if tenth != logged_tenth or now - logged_at > QUIET_SECONDS:
            self._logged[task] = tenth, now
            state = "running" if total is None else "done"
            count = f"{completed:.0f} of {total:.0f}" if total else state
            self._report(f"{task}: {count}{f', {detail}' if detail else ''}")


def format_float(value: float | None, *, digits: int = 3) -> str:
    """Format a score; a dash if it is undefined."""
    return UNDEFINED if value is None else f"{value:.{digits}f}"


def with_interval(value: float | None, interval: tuple[float, float] | None) -> str:
    """Format a score with its 95 % interval."""
    if value is None or interval is None:
        return format_float(value)
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"


def print_metrics(title: str, metrics: "Metrics", printed: set[str]) -> None:
    """Print a table of the headline metrics and those of each label, then further metrics.

    Args:
        title: What the metrics are of.
        metrics: The metrics.
        printed: Remarks that this command printed before, which are not repeated.
    """
    from featurecache.metrics.label_support import MIN_PATIENTS
    from featurecache.metrics.platt_scaling import describe_platt
    from featurecache.report.controls_table import controls_table
    from featurecache.report.operating_tables import (
        calibration_in_the_large_table,
        operating_table,
        prevalence_table,
        retuned_table,
        subgroup_tables,
    )

    def row(name: str, positives: str, scores: "RankingScores") -> list[str]:
        return [
            name,
            positives,
            *(
                with_interval(getattr(scores, key, None), scores.interval(key))
                for key in ("auroc", "auprc", "f1")
            ),
        ]

    headline = metrics.headline
    n_macro, n_supported = len(headline.labels["macro"]), len(headline.labels["supported"])
    rows = [row(f"macro, {count_noun(n_macro, 'label')}", "", headline.macro)]
    if headline.supported is not None and n_supported < n_macro:
        labels = count_noun(n_supported, "label")
        rows.append(row(f"macro, {labels} with enough patients", "", headline.supported))
    rows.append(row("micro", "", headline.micro))
    seed = metrics.seed_note
    over, of_seed = (" and seeds", f"{seed}: ") if seed else ("", "")
    if metrics.within_abnormal is not None:
        name = "macro within abnormal images"
        name = f"{name}, {seed}" if seed else name
        rows.append(row(name, "", metrics.within_abnormal.macro))
    for label, scores in metrics.per_label.items():
        positive = f"{scores.n_positive} ({scores.n_positive_patients})"
        rows.append(row(label, positive, scores))
    averages = f", averages: {headline.note}; labels: {seed}" if seed else ""
    print_table(
        f"{title}: {count_scored(metrics.n, metrics.split, metrics.level, metrics.n_patients)}"
        f"{averages} "
        f"[95 % interval over patients{over}]",
        ["", "pos. (pat.)", "AUROC", "AUPRC", "F1"],
        rows,
        optional=2,
    )
    if too_few := [label for label, s in metrics.per_label.items() if s.learned and s.no_interval]:
        line = (
            f"no interval with fewer than {MIN_PATIENTS} patients with a positive, or with a "
            f"negative image: {', '.join(too_few)}\n"
        )
        if line not in printed:
            print_result(line)
            printed.add(line)
    operating = operating_table("this run", metrics)
    print_table(operating.caption, ["", *operating.columns[1:]], operating.rows, optional=3)
    controls = controls_table("this run", metrics)
    if len(controls.columns) > 1:
        print_table(
            "this run and trivial baselines", ["", *controls.columns[1:]], controls.rows, optional=5
        )
    for table in (
        prevalence_table("this run", metrics),
        retuned_table("this run", metrics),
        # Of the training's own data set, probabilities are right on average unless they are badly
        # off, which the calibration error says.
        calibration_in_the_large_table("this run", metrics) if metrics.label_map else None,
        *subgroup_tables("this run", metrics),
    ):
        if table is not None:
            print_table(table.caption, table.columns, table.rows, prose=("note",))
    if metrics.retuned is not None and metrics.retuned.reason is not None:
        print_result(f"no retuned thresholds: {metrics.retuned.reason}")
    if metrics.calibration is not None:
        before, after = metrics.calibration.macro.before, metrics.calibration.macro.after
        fitted = "of the training run" if metrics.label_map else "fitted on validation images"
        n_labels = len(metrics.calibration.labels)
        errors = with_interval(before.error, before.ci95.error)
        if after != before:
            after_scaling = with_interval(after.error, after.ci95.error)
            errors = f"{errors} before and {after_scaling} after Platt scaling"
        print_result(
            f"{of_seed}calibration error, bins of {count_noun(n_labels, 'label')} with enough "
            f"patients pooled: {errors}"
            if n_labels
            else f"{of_seed}calibration error: undefined, because no label has enough patients"
        )
        print_result(f"Platt scaling {fitted}: {describe_platt(metrics.calibration)}")
    if metrics.familiarity is not None:
        _print_familiarity(metrics.familiarity)
    if metrics.answers is not None:
        _print_answers(metrics.answers, of_seed, carried=bool(metrics.label_map))
    any_finding = metrics.controls.get("any_finding")
    gains: dict[str, PairedGain | None] = {
        "one score of any finding": None if any_finding is None else any_finding.gain,
        "permuted texts": metrics.text_gain,
    }
    for against, gain in gains.items():
        if gain is None:
            continue
        mean_of = "" if gain.pairs == 1 else f", mean of {gain.pairs} pairs"
        auroc = gain.macro.auroc
        print_result(
            f"gain over {against} (paired{mean_of}): macro AUROC over "
            f"{count_noun(len(gain.labels), 'label')} "
            f"{with_interval(auroc.difference, auroc.ci95)}"
        )
    over = f"{headline.note}: " if headline.note else ""
    half = metrics.at_half
    at_half = f"macro F1 {format_float(half.macro.f1)}, micro F1 {format_float(half.micro.f1)}"
    if metrics.negatives == "all":
        exact_match = with_interval(headline.exact_match, headline.exact_match_ci)
        hamming_loss = with_interval(headline.hamming_loss, headline.hamming_loss_ci)
        print_result(f"{over}exact match {exact_match}   Hamming loss {hamming_loss}")
        at_half += (
            f", exact match {format_float(half.exact_match)}, Hamming loss "
            f"{format_float(half.hamming_loss)}"
        )
    else:
        print_result(
            "exact match and Hamming loss: undefined, because they are of whole images, and only "
            f"{metrics.negatives} negatives are scored"
        )
    if metrics.classes is not None:
        _print_classes(metrics.classes, over)
    print_result(f"{of_seed}at a threshold of 0.5 for all labels: {at_half}")


def _print_familiarity(familiarity: "FamiliarityScores") -> None:
    from featurecache.metrics.familiarity import MIN_FOREIGN

    if familiarity.knn is None or familiarity.mahalanobis is None:
        print_result(f"familiarity: unknown, because {familiarity.reason}")
        return
    foreign = (
        f"fewer than {MIN_FOREIGN} are too few to call an image foreign"
        if familiarity.foreign is None
        else f"{100 * familiarity.foreign:.1f} % are less familiar than 99 % of them"
    )
    print_result(
        f"familiarity: median percentile {familiarity.knn:.0f} (nearest neighbors) and "
        f"{familiarity.mahalanobis:.0f} (Mahalanobis) among one image each of "
        f"{count_noun(familiarity.n_reference, 'training patient')}; 50 is typical, 0 is foreign. "
        f"{foreign[0].upper()}{foreign[1:]}"
    )


def _print_answers(answers: "Answers", of_seed: str, *, carried: bool) -> None:
    """Print how often the answers present, absent and unsure are right.

    Args:
        answers: The answers.
        of_seed: Start of the lines, the seed where there are several.
        carried: Whether their limits were chosen on another data set.
    """
    from featurecache.metrics.conformal import describe_unanswered

    rows = [
        [
            name,
            with_interval(label.positive.coverage, label.positive.ci95),
            with_interval(label.negative.coverage, label.negative.ci95),
            with_interval(label.unsure, label.ci95.unsure),
            with_interval(label.error, label.ci95.error),
        ]
        for name, label in answers.per_label.items()
        if label.reason is None
    ]
    if rows:
        print_table(
            f"{of_seed}answers present, absent or unsure, to cover {answers.coverage:.0%} of "
            "positives and of negatives [exact 95 % interval over patients]",
            ["", "positives covered", "negatives covered", "unsure", "wrong if answered"],
            rows,
            optional=2,
        )
    if unanswered := describe_unanswered(answers):
        of_run = " by the limits of the training run" if carried else ""
        print_result(f"{of_seed}no answers{of_run}: {unanswered}")


def _print_classes(classes: "ClassScores", over: str) -> None:
    ci95 = classes.ci95
    accuracy = with_interval(classes.accuracy, ci95.accuracy)
    balanced = with_interval(classes.balanced_accuracy, ci95.balanced_accuracy)
    print_result(f"{over}top-1 accuracy {accuracy}   balanced accuracy {balanced}")
    print_table(
        "images by true class (row) and predicted class (column)",
        ["", *classes.labels],
        [
            [label, *map(str, row)]
            for label, row in zip(classes.labels, classes.confusion, strict=True)
        ],
    )


def print_run(title: str, run: "Run", printed: set[str] | None = None) -> None:
    """Print the metrics and the warnings of a run.

    Args:
        title: What the run is.
        run: The run.
        printed: Remarks on earlier runs of this command, which are not repeated; those on this run
            are added.
    """
    printed = set() if printed is None else printed
    print_metrics(title, run.metrics, printed)
    for warning in run.warnings:
        if warning not in printed:
            warn(warning)
    printed.update(run.warnings)
