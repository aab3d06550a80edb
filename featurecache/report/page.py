"""The report: runs laid out as sections, and rendered into one HTML page."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurecache.errors import UnknownNameError
from featurecache.report import plots, tables
from featurecache.report.embedding_map import embedding_map_or_reason, most_separating_label
from featurecache.report.label_sections import has_ties, labels_of
from featurecache.report.load_runs import CurveRun, Run, ScoredRun, read_runs
from featurecache.report.palette import DARK, LIGHT, SERIES
from featurecache.report.plot_registry import Plots
from featurecache.report.reproduce import command_line, commands
from featurecache.report.results import results
from featurecache.report.training_section import histories, learning_curves

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Report:
    """A page, and the figures in it.

    Attributes:
        html: the whole page.
        figures: by file name without its ending.
        notes: what is missing, and what to do.
    """

    html: str
    figures: Mapping[str, "Figure"]
    notes: Sequence[str]


def build_report(
    folders: Sequence[Path],
    *,
    films: Mapping[str, Path] | None = None,
    caches: Sequence[Path] = (),
    finding: str | None = None,
    n_bootstrap: int = 1000,
) -> Report:
    """Make the report of runs.

    Args:
        folders: run folders; further ones are compared with the first.
        films: file of each image by its id; None for a report without pictures of films.
        caches: files in which the runs' caches are looked for first.
        finding: label that the map is coloured by; None for the one that divides it best.
        n_bootstrap: bootstrap draws of the differences between runs; 0 for none.

    Raises:
        RunError: a run is missing or damaged.
        UsageError: a run is given twice, or the films are not those of the first run.
        UnknownNameError: the finding is no label.
    """
    runs = read_runs(folders)
    scored = [run for run in runs if isinstance(run, ScoredRun)]
    curves = [run for run in runs if isinstance(run, CurveRun)]
    labels = list(dict.fromkeys(name for run in scored for name in run.scored.label_names))
    if finding is not None and finding not in labels:
        raise UnknownNameError("finding", finding, labels)
    drawn = Plots()
    page: dict[str, Any] = {
        "title": _title(runs),
        "subject": _subject(runs),
        "runs": runs,
        "scored": scored,
        "warnings": _warnings(runs),
        "results": results(scored, drawn, n_bootstrap),
        "labels": labels_of(scored, labels, drawn, films),
        "ties": [run.name for run in scored if has_ties(run)],
        "has_films": films is not None,
        "film_dataset": scored[0].dataset if scored else "",
        "controls": _controls(scored, drawn),
        "histories": histories(scored, drawn),
        "curves": learning_curves(curves, drawn),
        "maps": _maps(scored, drawn, caches, finding),
        "making": [_making(run) for run in runs],
        "again": command_line(["report", *map(str, folders)]),
        "most_curves": SERIES,
        "light": LIGHT,
        "dark": DARK,
    }
    notes = [one["reason"] for one in page["maps"] if one["reason"]]
    return Report(_render(page), drawn.figures, notes)


def _render(page: Mapping[str, Any]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("featurecache.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(page)


def _title(runs: Sequence[Run]) -> str:
    names = [run.name for run in runs]
    if len(names) <= 3:
        return ", ".join(names)
    return f"{names[0]} and {len(names) - 1} other runs"


def _subject(runs: Sequence[Run]) -> str:
    """What all runs are of, where it is the same; else what each is of stands in the tables."""
    subjects = {f"{run.model} on {run.dataset}" for run in runs}
    return subjects.pop() if len(subjects) == 1 else ""


def _warnings(runs: Sequence[ScoredRun | CurveRun]) -> list[tuple[str, list[str]]]:
    """Each warning once, with the runs that it is of."""
    found: dict[str, list[str]] = {}
    for run in runs:
        document = run.metrics if isinstance(run, ScoredRun) else run.figures
        for warning in document.get("warnings") or ():
            found.setdefault(str(warning), []).append(run.name)
    return list(found.items())


def _controls(scored: Sequence[ScoredRun], drawn: Plots) -> list[dict[str, Any]]:
    found = []
    for run in scored:
        if not any(run.metrics["controls"].values()):
            continue
        table, estimates = tables.controls(run)
        plot = drawn.add(
            f"controls-{run.name}",
            f"Macro AUROC of {run.name} and of its controls",
            plots.estimates_figure(estimates, axis="macro AUROC", reference=0.5),
        )
        found.append({"table": table, "plot": plot, "text_gain": tables.text_gain(run)})
    return found


def _maps(
    scored: Sequence[ScoredRun], drawn: Plots, caches: Sequence[Path], finding: str | None
) -> list[dict[str, Any]]:
    """One map for each cache that the runs were made from."""
    found: dict[str, dict[str, Any]] = {}
    for run in scored:
        reference = run.config.get("cache") or {"path": str(run.folder)}
        key = json.dumps([reference.get(name) for name in ("path", "fingerprint")])
        if key in found:
            found[key]["runs"].append(run.name)
            continue
        found[key] = {"runs": [run.name], "plot": None, "reason": None, "label": None}
        names = run.scored.label_names
        label = names.index(finding) if finding in names else most_separating_label(run.scored)
        laid = embedding_map_or_reason(run.config, run.scored, given=caches)
        if isinstance(laid, str):
            found[key]["reason"] = laid
            continue
        found[key] |= {
            "shown": len(laid.points),
            "images": laid.images,
            "split": run.scored.split,
            "label": names[label],
            "explained": f"{100 * laid.explained.sum():.0f} %",
            "plot": drawn.add(
                f"map-{run.name}",
                f"Map of the embeddings behind {run.name}, by {names[label]}",
                plots.map_figure(
                    laid.points,
                    run.scored.truth[laid.rows, label],
                    finding=names[label],
                    explained=laid.explained,
                ),
            ),
        }
    return list(found.values())


def _making(run: ScoredRun | CurveRun) -> dict[str, Any]:
    """How a run was made: what a reader asks for first, and the rest as its config has it."""
    cache = run.config.get("cache") or {}
    facts = {
        "folder": str(run.folder),
        "kind": run.kind,
        "encoder": run.model,
        "data set": run.dataset,
        "cache": cache.get("path"),
        "fingerprint of the cache": cache.get("fingerprint"),
        "prompts": (run.config.get("prompts") or {}).get("name"),
        "fingerprint of the prompts": (run.config.get("prompts") or {}).get("fingerprint"),
        "fingerprint of the alignment": (run.config.get("alignment") or {}).get("fingerprint"),
        "training images": run.config.get("n_train"),
        "kept epoch": run.config.get("best_epoch"),
        "versions": ", ".join(
            f"{name} {number}" for name, number in (run.config.get("versions") or {}).items()
        ),
    }
    return {
        "name": run.name,
        "facts": [(name, str(value)) for name, value in facts.items() if value not in (None, "")],
        "commands": commands(run),
        "config": json.dumps(run.config, indent=2, ensure_ascii=False),
    }
