"""A table of the metrics of runs, for papers."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Final

from featurecache.errors import UsageError
from featurecache.evaluation.comparison import require_same_images, scored_images
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
}
"""The metrics, and where they are in the headline of a run."""


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
            seeds where there are several, ``<metric> sd`` (standard deviation over seeds),
            ``<metric> low`` and ``<metric> high`` (95 % interval). NaN where undefined.
        comparable: Whether all runs scored the same images, without which none is the best.
    """

    frame: "pd.DataFrame"
    comparable: bool

    def __repr__(self) -> str:
        return self.to_markdown()

    def _repr_html_(self) -> str:
        return str(self._cells("<b>{}</b>", escape=_escape_html).to_html(index=False, escape=False))

    def cells(self) -> "pd.DataFrame":
        """Return the table as texts, such as "0.812 ± 0.004 [0.790, 0.833]"."""
        return self._cells("{}")

    def to_latex(self) -> str:
        """Return a LaTeX table (package booktabs) with the best value of each metric in bold."""
        cells = self._cells(r"\textbf{{{}}}", escape=escape_latex)
        return latex_table(list(cells.columns), cells.to_numpy().tolist())

    def to_markdown(self) -> str:
        """Return a Markdown table with the best value of each metric in bold."""
        cells = self._cells("**{}**", escape=escape_markdown)
        return markdown_table(list(cells.columns), cells.to_numpy().tolist())

    def to_csv(self) -> str:
        """Return ``frame`` as CSV: numbers in columns of their own, and no marks."""
        return str(self.frame.to_csv(index=False))

    def _cells(self, best: str, *, escape: Callable[[str], str] = str) -> "pd.DataFrame":
        """Return texts, where those of the best values are put into a pattern."""
        import pandas as pd

        cells = {"run": [escape(name) for name in self.frame["run"]]}
        for name in COLUMNS:
            value, sd, low, high = (
                self.frame[f"{name}{suffix}"] for suffix in ("", " sd", " low", " high")
            )
            is_best = (value == value.max()) & self.comparable & (len(value) > 1)
            numbers = zip(value, sd, low, high, strict=True)
            texts = [escape(_format(*of_run)) for of_run in numbers]
            cells[name] = [
                best.format(text) if mark else text
                for text, mark in zip(texts, is_best, strict=True)
            ]
        return pd.DataFrame(cells)


def table(
    runs: Run | str | os.PathLike[str] | Sequence[Run | str | os.PathLike[str]],
    *,
    names: Mapping[str, str] | None = None,
) -> MetricsTable:
    """Put the metrics of runs into a table: means, spread over seeds, and 95 % intervals.

    Overlapping intervals do not say whether runs differ: use ``compare``.

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

    Returns:
        The table, which ``to_latex``, ``to_markdown`` and ``to_csv`` write.

    Raises:
        RunError: A run is missing or damaged.
        UsageError: There are no runs, some scored images and others studies, or images of other
            views, uncertain or blank cells count differently in them, or ``names`` names another
            run.
    """
    import pandas as pd

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
        for column, (average, metric) in COLUMNS.items():
            scores = getattr(run.metrics.headline, average)
            spread = None
            if run.metrics.seeds is not None:
                spread = getattr(run.metrics.seeds, average)[metric].sd
            low, high = scores.interval(metric) or (None, None)
            row |= {
                column: getattr(scores, metric),
                f"{column} sd": spread,
                f"{column} low": low,
                f"{column} high": high,
            }
        rows.append(row)
    frame = pd.DataFrame(rows)
    frame = frame.astype({name: float for name in frame.columns if name != "run"})
    return MetricsTable(frame, comparable=_are_comparable(loaded))


def _are_comparable(runs: Sequence[Run]) -> bool:
    try:
        for first, second in pairwise(map(scored_images, runs)):
            require_same_images(first, second)
    except UsageError:
        return False
    return True


def _format(value: float, sd: float, low: float, high: float) -> str:
    if value != value:  # NaN
        return UNDEFINED
    spread = "" if sd != sd else f" ± {sd:.3f}"
    interval = "" if low != low else f" [{low:.3f}, {high:.3f}]"
    return f"{value:.3f}{spread}{interval}"


def _escape_html(text: str) -> str:
    from html import escape

    return escape(text)
