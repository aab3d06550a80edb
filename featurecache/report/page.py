"""Build the HTML page of a report from its sections."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurecache.errors import UnknownNameError
from featurecache.report.answers_section import answers_section
from featurecache.report.checklist import checklists
from featurecache.report.cohort_section import cohort_section
from featurecache.report.command_line import command_line
from featurecache.report.controls_section import controls_section
from featurecache.report.label_sections import has_tied_probabilities, label_sections
from featurecache.report.load_runs import CurveRun, ReportRun, RunLike, ScoredRun, load_runs
from featurecache.report.map_section import map_section
from featurecache.report.palette import DARK, LIGHT, N_SERIES
from featurecache.report.plot_registry import PlotRegistry, unique_file_name
from featurecache.report.reproduce import reproduction_commands
from featurecache.report.results_section import results_section
from featurecache.report.table import Table
from featurecache.report.training_section import learning_curves, training_histories
from featurecache.store.records import format_counts

if TYPE_CHECKING:
    from jinja2 import Environment
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class ReportPage:
    """The page of a report, and its plots.

    Attributes:
        html: the whole page.
        figures: plots by file name without suffix.
        tables: tables by file name without suffix, in the order of the page.
        notes: what the page lacks, and what to do about it.
    """

    html: str
    figures: Mapping[str, "Figure"]
    tables: Mapping[str, Table]
    notes: Sequence[str]


def build_page(
    given_runs: Sequence[RunLike],
    *,
    files: Mapping[str, Path] | None = None,
    caches: Sequence[Path] = (),
    finding: str | None = None,
    names: Mapping[str, str] | None = None,
    command_options: Sequence[str] = (),
) -> ReportPage:
    """Build the page of a report.

    Args:
        given_runs: runs, learning curves, or their folders; further ones are compared with the
            first.
        files: path of each image of the first run's data set, by id; None for no example images.
        caches: files in which the runs' caches are looked for first.
        finding: label that colors the embedding map; None for the most balanced one.
        names: what to call runs, by their name or folder.
        command_options: options of the command that writes the page.

    Raises:
        RunError: a run is missing or damaged.
        UsageError: a run is given twice, or ``files`` lack an image of the first run.
        UnknownNameError: no run has a label named ``finding``.
    """
    runs = load_runs(given_runs, names)
    scored = [run for run in runs if isinstance(run, ScoredRun)]
    curves = [run for run in runs if isinstance(run, CurveRun)]
    labels = list(dict.fromkeys(name for run in scored for name in run.scored.label_names))
    if finding is not None and finding not in labels:
        raise UnknownNameError("finding", finding, labels)
    registry = PlotRegistry()
    page: dict[str, Any] = {
        "title": _title(runs),
        "subject": _subject(runs),
        "runs": runs,
        "scored": scored,
        "warnings": _warnings(runs),
        "cohorts": cohort_section(scored, registry),
        "answers": answers_section(scored),
        "results": results_section(scored, registry),
        "labels": label_sections(scored, labels, registry, files, caches),
        "tied_runs": [run.name for run in scored if has_tied_probabilities(run)],
        "has_examples": files is not None,
        "controls": controls_section(scored, registry),
        "histories": training_histories(scored, registry),
        "curves": learning_curves(curves, registry),
        "maps": map_section(scored, registry, caches, finding),
        "checklists": checklists(scored[0]) if scored else [],
        "details": [_run_details(run) for run in runs],
        "report_command": command_line(
            ["report", *(str(run.folder or run.name) for run in runs), *command_options]
        ),
        "max_curves": N_SERIES,
        "light": LIGHT,
        "dark": DARK,
    }
    notes = [entry["reason"] for entry in page["maps"] if entry["reason"]]
    return ReportPage(_render(page), registry.figures, _tables(page), notes)


def _tables(page: Mapping[str, Any]) -> dict[str, Table]:
    """Return the tables of a page by file name."""
    tables: dict[str, Table] = {}
    for table in _find_tables(page):
        name = unique_file_name(table.name, tables)
        tables[name] = replace(table, name=name)
    return tables


def _find_tables(content: Any) -> Iterator[Table]:
    if isinstance(content, Table):
        yield content
    elif isinstance(content, Mapping):
        yield from _find_tables(list(content.values()))
    elif isinstance(content, list | tuple):
        for entry in content:
            yield from _find_tables(entry)


@cache
def _templates() -> "Environment":
    """Return the page's templates, which are compiled once."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("featurecache.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _render(page: Mapping[str, Any]) -> str:
    return _templates().get_template("report.html.j2").render(page)


def _title(runs: Sequence[ReportRun]) -> str:
    names = [run.name for run in runs]
    if len(names) <= 3:
        return ", ".join(names)
    return f"{names[0]} and {len(names) - 1} other runs"


def _subject(runs: Sequence[ReportRun]) -> str:
    """Return encoder and data set of all runs; empty where they differ (the tables name them)."""
    subjects = {f"{run.model} on {run.dataset}" for run in runs}
    return subjects.pop() if len(subjects) == 1 else ""


def _warnings(runs: Sequence[ReportRun]) -> list[tuple[str, list[str]]]:
    """Return each warning once, with the names of its runs."""
    return _by_text((warning, run) for run in runs for warning in run.warnings)


def _by_text(texts: Iterable[tuple[str, ReportRun]]) -> list[tuple[str, list[str]]]:
    """Return each text once, with the names of its runs."""
    names: dict[str, list[str]] = {}
    for text, run in texts:
        names.setdefault(text, []).append(run.name)
    return list(names.items())


def _run_details(run: ReportRun) -> dict[str, Any]:
    """Return how a run was made: the main facts, the commands, and the whole config."""
    cache, prompts = run.config.get("cache") or {}, run.config.get("prompts") or {}
    versions = (run.config.get("versions") or {}).items()
    facts = {
        "folder": run.folder,
        "kind": run.kind,
        "encoder": run.model,
        "data set": run.dataset,
        "cache": cache.get("path"),
        "cache fingerprint": cache.get("fingerprint"),
        "prompts": prompts.get("name"),
        "prompts fingerprint": prompts.get("fingerprint"),
        "alignment fingerprint": (run.config.get("alignment") or {}).get("fingerprint"),
        "excluded images": format_counts(run.excluded),
        "training images": run.config.get("n_train"),
        "best epoch": run.config.get("best_epoch"),
        "versions": ", ".join(f"{name} {version}" for name, version in versions),
    }
    return {
        "name": run.name,
        "facts": [(name, str(value)) for name, value in facts.items() if value not in (None, "")],
        "commands": reproduction_commands(run),
        "config": json.dumps(run.config, indent=2, ensure_ascii=False),
    }
