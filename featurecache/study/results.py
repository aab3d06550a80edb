"""The results of a study: one long table, and tables of runs that scored the same images."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurecache.datasets.phantom.folder import SYNTHETIC
from featurecache.evaluation.table import MetricsTable, are_comparable, table
from featurecache.io.atomic import make_folder, new_file
from featurecache.io.markup import escape_markdown, markdown_table
from featurecache.metrics.metrics import Metrics
from featurecache.report.report import report
from featurecache.runs.run import Run
from featurecache.study.note import explain_table
from featurecache.study.plan import Experiment, StudyPlan
from featurecache.study.published import PublishedResult, comparable_results
from featurecache.wording import count_noun, count_scored

if TYPE_CHECKING:
    import pandas as pd

    from featurecache.datasets.dataset import Dataset

_AVERAGES = ("macro", "supported", "micro")
_RANKING = ("auroc", "auprc")
_DECISIONS = (*_RANKING, "precision", "recall", "specificity", "npv", "f1", "accuracy")

COLUMNS = (
    *("dataset", "trained_on", "model", "features", "method"),
    *("run", "level", "split", "n", "n_patients", "seeds"),
    *("of", "metric", "value", "sd", "low", "high"),
)
"""Columns of ``results.csv``; arguments of the study file follow the fifth."""


@dataclass(frozen=True)
class StudyTable:
    """Runs that scored the same images.

    Attributes:
        dataset: Name, in the study file, of the data set.
        caption: The data set and what was scored.
        metrics: Their metrics.
        note: What the numbers, brackets and marks mean.
        published: Published results on the same images and labels, if all runs average over these.
    """

    dataset: str
    caption: str
    metrics: MetricsTable
    note: str
    published: Sequence[PublishedResult]


def write_results(
    plan: StudyPlan,
    runs: Mapping[Experiment, Run],
    frame: "pd.DataFrame",
    tables: Sequence[StudyTable],
) -> list[Path]:
    """Write ``results.csv``, ``tables.md``, ``tables.tex`` and ``report.html``.

    ``tables-NAME.tex`` has the tables of one data set.

    Args:
        plan: The study.
        runs: The runs of its experiments that have one.
        frame: What ``results_frame`` returns for them.
        tables: What ``study_tables`` returns for them.

    Returns:
        The files.

    Raises:
        OSError: The disk is full or not writable.
    """
    out = plan.file.out
    make_folder(out)
    latex = [
        _latex(one, _label(out.absolute().name, one, tables[:number]))
        for number, one in enumerate(tables)
    ]
    texts = {
        "results.csv": frame.to_csv(index=False),
        "tables.md": "\n".join(map(_markdown, tables)),
        "tables.tex": "\n".join(latex),
    }
    for one, text in zip(tables, latex, strict=True):
        name = f"tables-{one.dataset}.tex"
        texts[name] = f"{texts[name]}\n{text}" if name in texts else text
    page = out / "report.html"
    for name, text in texts.items():
        if not _holds(out / name, text):
            page.unlink(missing_ok=True)  # of other results; it takes the longest
            with new_file(out / name) as temporary:
                temporary.write_text(text, encoding="utf-8")
    if runs and not page.exists():
        names = {str(run.path): f"{one.dataset}: {one.title}" for one, run in runs.items()}
        report(list(runs.values()), page, names=names)
    return [*(out / name for name in texts), *([page] if runs else [])]


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_bytes() == text.encode()


def results_frame(runs: Mapping[Experiment, Run]) -> "pd.DataFrame":
    """Return one row for each experiment, average or label, and metric.

    Columns are ``dataset`` (that was scored), ``trained_on``, ``model``, ``features``, ``method``,
    one for each argument of the study file, ``run`` (the folder), ``level``, ``split``, ``n`` (of
    images or studies), ``n_patients``, ``seeds``, ``of`` ("macro", "supported", "micro" or a
    label), ``metric``, ``value`` (the mean over seeds), ``sd`` (over seeds, n - 1), ``low`` and
    ``high`` (95 % interval). Labels are scored with the first seed.
    """
    import pandas as pd

    arguments = dict.fromkeys(name for one in runs for name in one.settings)
    arguments.pop("seeds", None)
    rows = []
    for one, run in runs.items():
        metrics, settings = run.metrics, one.settings
        common: dict[str, Any] = {
            "dataset": one.dataset,
            "trained_on": one.trained_on,
            "model": one.model,
            "features": one.features,
            "method": one.method,
            **{name: settings.get(name, "") for name in arguments},
            "run": one.folder.name,
            "level": metrics.level,
            "split": metrics.split,
            "n": metrics.n,
            "n_patients": metrics.n_patients,
            "seeds": metrics.headline.n_seeds,
        }
        rows += [{**common, **row} for row in _rows(metrics)]
    return pd.DataFrame(rows, columns=[*COLUMNS[:5], *arguments, *COLUMNS[5:]])


def _rows(metrics: Metrics) -> Iterator[dict[str, Any]]:
    for average in _AVERAGES:
        scores = getattr(metrics.headline, average)
        if scores is None:
            continue
        spreads = getattr(metrics.seeds, average) if metrics.seeds is not None else {}
        for name in _RANKING if average == "supported" else _DECISIONS:
            spread = spreads.get(name)
            yield _row(average, name, scores, None if spread is None else spread.sd)
    for label, scores in metrics.per_label.items():
        for name in _DECISIONS:
            yield _row(label, name, scores, None)


def _row(of: str, metric: str, scores: Any, sd: float | None) -> dict[str, Any]:
    low, high = scores.interval(metric) or (None, None)
    value = getattr(scores, metric)
    return {"of": of, "metric": metric, "value": value, "sd": sd, "low": low, "high": high}


def study_tables(plan: StudyPlan, runs: Mapping[Experiment, Run]) -> list[StudyTable]:
    """Return a table of the runs on each data set that scored the same images in the same way.

    Runs whose images or labels differ are in several tables, as they cannot be compared.
    """
    groups: dict[tuple[Any, ...], list[dict[Experiment, Run]]] = {}
    for one, run in runs.items():
        scored = sorted(run.label_policy.items()), sorted(run.units.chosen.items())
        key = (one.dataset, str(scored), run.metrics.split, run.metrics.n)
        for group in groups.setdefault(key, []):
            if are_comparable([next(iter(group.values())), run]):
                group[one] = run
                break
        else:
            groups[key].append({one: run})
    split = [(dataset, group) for (dataset, *_), found in groups.items() for group in found]
    several = Counter(dataset for dataset, _ in split)
    return [_table(plan, group, several[dataset] > 1) for dataset, group in split]


def _table(plan: StudyPlan, group: Mapping[Experiment, Run], one_of_several: bool) -> StudyTable:
    one, run = next(iter(group.items()))
    metrics, dataset = run.metrics, plan.datasets[one.dataset]
    scored = count_scored(metrics.n, metrics.split, metrics.level, metrics.n_patients)
    how = ""
    if one_of_several:
        choices = {**run.label_policy, **run.units.chosen}
        how = f", {count_noun(len(metrics.per_label), 'label')}"
        how += "".join(f", {name} {value}" for name, value in choices.items())
    made = table(
        list(group.values()),
        names={str(run.path): one.title for one, run in group.items()},
        metrics=plan.file.metrics,
        marks=True,
    )
    scores = [run.metrics for run in group.values()]
    note = explain_table(made, scores, n_bootstrap=plan.file.n_bootstrap)
    kind = ""
    if SYNTHETIC in dataset.notes:
        kind = " (synthetic images)"
        note += ["The images are synthetic: scores on them say nothing about patients."]
    return StudyTable(
        dataset=one.dataset,
        caption=f"{one.dataset}{kind}: {scored}{how}",
        metrics=made,
        note=" ".join(note),
        published=()
        if _has_corrected_labels(dataset)
        else comparable_results(
            dataset.collection or one.dataset,
            metrics.level,
            metrics.n,
            metrics.headline.labels["macro"],
            made.ranked,
        ),
    )


def _has_corrected_labels(dataset: "Dataset") -> bool:
    return dataset.source is not None and "corrections" in dataset.source["options"]


def _markdown(one: StudyTable) -> str:
    lines = [f"## {escape_markdown(one.caption)}\n", one.metrics.to_markdown(), f"{one.note}\n"]
    if one.published:
        columns = ["method", "metric", "value", "protocol", "source"]
        rows = [
            [result.method, result.metric, f"{result.value:.3f}", result.protocol, result.source]
            for result in one.published
        ]
        escaped = [list(map(escape_markdown, row)) for row in rows]
        lines += ["Published, as reported; not repeated here:\n", markdown_table(columns, escaped)]
    return "\n".join(lines)


def _label(study: str, one: StudyTable, before: Sequence[StudyTable]) -> str:
    """Return the name of a table for references in LaTeX; that of a second one has a number."""
    number = 1 + sum(other.dataset == one.dataset for other in before)
    words = f"{study}-{one.dataset}" + (f"-{number}" if number > 1 else "")
    return f"tab:{re.sub(r'[^A-Za-z0-9.+-]+', '-', words)}"


def _latex(one: StudyTable, label: str) -> str:
    reported = "; ".join(
        f"{result.method}: {result.metric} {result.value:.3f} ({result.protocol}; {result.source})"
        for result in one.published
    )
    published = f" Published, as reported; not repeated here: {reported}." if reported else ""
    return one.metrics.to_latex(caption=one.caption, label=label, note=f"{one.note}{published}")
