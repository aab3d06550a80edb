"""A table of the metrics of runs, for papers."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Final

import numpy as np

from featurecache.errors import UnknownNameError, UsageError
from featurecache.evaluation.comparison import (
    Comparison,
    compare,
    require_same_images,
    scored_images,
)
from featurecache.io.markup import escape_latex, escape_markdown, latex_table, markdown_table
from featurecache.label_cells import require_same_policy
from featurecache.runs.run import Run, as_run, displayed_names
from featurecache.units import require_same_level
from featurecache.wording import UNDEFINED

if TYPE_CHECKING:
    import pandas as pd

COLUMNS: Final[Mapping[str, tuple[str, str]]] = {
    "macro AUROC": ("macro", "auroc"),
    "macro AUPRC": ("macro", "auprc"),
    "macro F1": ("macro", "f1"),
    "micro AUROC": ("micro", "auroc"),
    "supported AUROC": ("supported", "auroc"),
    "supported AUPRC": ("supported", "auprc"),
    "macro precision": ("macro", "precision"),
    "macro recall": ("macro", "recall"),
    "micro F1": ("micro", "f1"),
}
"""The metrics, and where they are in the headline of a run."""

DEFAULT_METRICS: Final = ("macro AUROC", "macro AUPRC", "macro F1", "micro AUROC")

MARK: Final = "†"
"""Marks a value that differs from the best of its column."""


@dataclass(frozen=True, repr=False)
class MetricsTable:
    """Metrics of runs, one row each.

    Example:
        >>> import featurecache as fc
        >>> metrics = fc.table(fc.zero_shot("cache/phantom/tiny.h5", n_bootstrap=20))
        >>> metrics.frame.columns[:3].tolist()
        ['run', 'macro AUROC', 'macro AUROC sd']

    Attributes:
        frame: Column ``run`` and, for each metric, four columns: its value, which is the mean over
            seeds where there are several, ``<metric> sd`` (standard deviation over seeds, n - 1),
            ``<metric> low`` and ``<metric> high`` (95 % interval). NaN where undefined.
        comparable: Whether all runs scored the same labels of the same images.
        ranked: The metrics that have a best value: of comparable runs, over the same labels. They
            are not the same if some runs could not learn a label.
        marked: For each metric, whether the value of each run has a mark: it differs from the best
            one. Empty without marks.
    """

    frame: "pd.DataFrame"
    comparable: bool
    ranked: Sequence[str]
    marked: Mapping[str, Sequence[bool]] = field(default_factory=dict)

    def __repr__(self) -> str:
        return self.to_markdown()

    def _repr_html_(self) -> str:
        cells = self._cells("<b>{}</b>", escape=_escape_html, mark=f"<sup>{MARK}</sup>")
        return str(cells.to_html(index=False, escape=False))

    def cells(self) -> "pd.DataFrame":
        """Return the table as texts, such as "0.812 ± 0.004 [0.790, 0.833]"."""
        return self._cells("{}", mark=MARK)

    def to_latex(self, *, caption: str = "", label: str = "", note: str = "") -> str:
        """Return a LaTeX table (package booktabs) with the best value of each metric in bold.

        Args:
            caption: Caption; without one there is only the ``tabular``. With one, a table of many
                rows is a ``longtable``.
            label: Its name for references, such as "tab:heads".
            note: Text below a table with a caption.
        """
        mark = r"$^{\dagger}$"
        cells = self._cells(r"\textbf{{{}}}", escape=escape_latex, mark=mark)
        return latex_table(
            list(cells.columns),
            cells.to_numpy().tolist(),
            caption=escape_latex(caption),
            label=label,
            note=escape_latex(note).replace(MARK, mark),
        )

    def to_markdown(self) -> str:
        """Return a Markdown table with the best value of each metric in bold."""
        cells = self._cells("**{}**", escape=escape_markdown, mark=MARK)
        return markdown_table(list(cells.columns), cells.to_numpy().tolist())

    def to_csv(self) -> str:
        """Return ``frame`` as CSV: numbers in columns of their own, and no marks."""
        return str(self.frame.to_csv(index=False))

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics."""
        return [name for name in self.frame.columns if name in COLUMNS]

    def _cells(
        self, best: str, *, escape: Callable[[str], str] = str, mark: str = ""
    ) -> "pd.DataFrame":
        """Return texts, where those of the best values are put into a pattern."""
        import pandas as pd

        cells = {"run": [escape(name) for name in self.frame["run"]]}
        for name in self.metrics:
            value, sd, low, high = (
                self.frame[f"{name}{suffix}"] for suffix in ("", " sd", " low", " high")
            )
            is_best = (value == value.max()) & (name in self.ranked) & (len(value) > 1)
            numbers = zip(value, sd, low, high, strict=True)
            texts = [escape(_format(*of_run)) for of_run in numbers]
            marked = self.marked.get(name, [False] * len(texts))
            cells[name] = [
                best.format(text) if top else f"{text}{mark}" if differs else text
                for text, top, differs in zip(texts, is_best, marked, strict=True)
            ]
        return pd.DataFrame(cells)


def table(
    runs: Run | str | os.PathLike[str] | Sequence[Run | str | os.PathLike[str]],
    *,
    names: Mapping[str, str] | None = None,
    metrics: Sequence[str] = DEFAULT_METRICS,
    marks: bool = False,
) -> MetricsTable:
    """Put the metrics of runs into a table: means, spread over seeds, and 95 % intervals.

    Overlapping intervals do not say whether runs differ: use ``marks``, or ``compare``.

    Example:
        >>> import featurecache as fc
        >>> cache = fc.open_cache("cache/phantom/tiny.h5")
        >>> runs = fc.train_head(cache, ["linear", "prototype"], controls=False, n_bootstrap=20)
        >>> metrics = fc.table(runs)
        >>> metrics.to_markdown().splitlines()[0]
        '| run | macro AUROC | macro AUPRC | macro F1 | micro AUROC |'

    Args:
        runs: Runs or their folders.
        names: What to call runs, by their name or folder.
        metrics: Columns, in their order: keys of ``evaluation.table.COLUMNS``, such as "macro F1".
            "supported" averages over the labels with enough patients.
        marks: Mark the values that differ from the best of their column: the 95 % interval of the
            paired difference, of ``compare``, excludes 0. The intervals are not corrected for the
            number of runs, nor for having chosen the best one on these images. Averages over
            different labels have no marks, as there is no best one: ``compare`` averages over the
            labels that all runs share.

    Returns:
        The table, which ``to_latex``, ``to_markdown`` and ``to_csv`` write.

    Raises:
        RunError: A run is missing or damaged.
        UsageError: There are no runs, some scored images and others studies, or images of other
            views, uncertain or blank cells count differently in them, or ``names`` names another
            run.
        UnknownNameError: There is no such metric.
    """
    import pandas as pd

    for name in metrics:
        if name not in COLUMNS:
            raise UnknownNameError("metric", name, COLUMNS)

    given = [runs] if isinstance(runs, Run | str | os.PathLike) else runs
    if not given:
        raise UsageError("give at least one run")
    loaded = [as_run(run) for run in given]
    for first, second in combinations(loaded, 2):
        require_same_policy(
            first.label_policy,
            second.label_policy,
            names=(str(first.path or first.name), str(second.path or second.name)),
        )
        require_same_level(
            first.units,
            second.units,
            names=(str(first.path or first.name), str(second.path or second.name)),
        )
    rows = []
    displayed = displayed_names([run.name for run in loaded], [run.path for run in loaded], names)
    for run, name in zip(loaded, displayed, strict=True):
        row: dict[str, str | float | None] = {"run": name}
        for column in metrics:
            average, metric = COLUMNS[column]
            scores = getattr(run.metrics.headline, average)
            spread = None
            if run.metrics.seeds is not None and scores is not None:
                spread = getattr(run.metrics.seeds, average)[metric].sd
            low, high = (scores and scores.interval(metric)) or (None, None)
            row |= {
                column: None if scores is None else getattr(scores, metric),
                f"{column} sd": spread,
                f"{column} low": low,
                f"{column} high": high,
            }
        rows.append(row)
    frame = pd.DataFrame(rows)
    frame = frame.astype({name: float for name in frame.columns if name != "run"})
    comparable = are_comparable(loaded)
    labels = [run.metrics.headline.labels for run in loaded]
    ranked = [
        name
        for name in metrics
        if comparable
        and frame[name].notna().any()
        and len({frozenset(one[COLUMNS[name][0]]) for one in labels}) == 1
    ]
    marked = _differ_from_best(loaded, frame, ranked) if marks else {}
    return MetricsTable(frame, comparable=comparable, ranked=ranked, marked=marked)


def are_comparable(runs: Sequence[Run]) -> bool:
    """Return whether all runs scored the same labels of the same images."""
    try:
        for first, second in pairwise(map(scored_images, runs)):
            require_same_images(first, second)
    except UsageError:
        return False
    return True


def _differ_from_best(
    runs: Sequence[Run], frame: "pd.DataFrame", metrics: Sequence[str]
) -> dict[str, list[bool]]:
    """Return, for each metric and run, whether the paired difference from the best excludes 0."""
    marked = {}
    comparisons: dict[int, Comparison] = {}
    for name in metrics:
        average, metric = COLUMNS[name]
        values = frame[name].to_numpy(float)
        if len(runs) < 2:
            continue
        best = int(np.nanargmax(values))
        others = [number for number in range(len(runs)) if number != best]
        if best not in comparisons:
            comparisons[best] = compare([runs[best], *(runs[number] for number in others)])
        differs = [False] * len(runs)
        for number, comparison in zip(others, comparisons[best].comparisons, strict=True):
            differences = getattr(comparison, average) or {}
            interval = differences[metric].ci95 if metric in differences else None
            differs[number] = interval is not None and not interval[0] <= 0 <= interval[1]
        marked[name] = differs
    return marked


def _format(value: float, sd: float, low: float, high: float) -> str:
    if value != value:  # NaN
        return UNDEFINED
    spread = "" if sd != sd else f" ± {sd:.3f}"
    interval = "" if low != low else f" [{low:.3f}, {high:.3f}]"
    return f"{value:.3f}{spread}{interval}"


def _escape_html(text: str) -> str:
    from html import escape

    return escape(text)
