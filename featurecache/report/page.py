"""The report: runs laid out as sections, and rendered into one HTML page."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.errors import UnknownNameError, UsageError
from featurecache.report import plots, tables
from featurecache.report.contents import CurveRun, Run, ScoredRun, read_runs
from featurecache.report.curves import (
    Points,
    precision_recall_points,
    reliability,
    roc_points,
    simplified,
)
from featurecache.report.embedding_map import MOST_POINTS, map_or_reason, telling_label
from featurecache.report.examples import Films, most_certain
from featurecache.report.palette import DARK, LIGHT
from featurecache.report.plots import Estimate
from featurecache.report.repeat import command_line, commands
from featurecache.report.svg import inline_svg
from featurecache.scoring.comparison import compare_scored, refuse_others

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure

_TIES = 1e-3


@dataclass(frozen=True)
class Plot:
    """A plot in the page: what it shows, and a shorter caption where its place says the rest."""

    title: str
    svg: "Markup"
    caption: str = ""


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


@dataclass
class _Plots:
    """Makes plots, and keeps their figures."""

    figures: "dict[str, Figure]" = field(default_factory=dict)

    def add(self, name: str, title: str, figure: "Figure", *, caption: str = "") -> Plot:
        from markupsafe import Markup

        name = _unused(re.sub(r"[^\w.-]+", "-", name).strip("-."), self.figures)
        self.figures[name] = figure
        # The SVG is matplotlib's, which escapes what it is given; ElementTree wrote it anew.
        svg = Markup(inline_svg(figure, title=title, prefix=f"p{len(self.figures)}-"))
        return Plot(title, svg, caption or title)


def build_report(
    folders: Sequence[Path],
    *,
    films: Mapping[str, Path] | None = None,
    caches: Sequence[Path] = (),
    finding: str | None = None,
    draws: int = 1000,
) -> Report:
    """Make the report of runs.

    Args:
        folders: run folders; further ones are compared with the first.
        films: file of each image by its id; None for a report without pictures of films.
        caches: files in which the runs' caches are looked for first.
        finding: label that the map is coloured by; None for the one that divides it best.
        draws: bootstrap draws of the differences between runs; 0 for none.

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
    drawn = _Plots()
    page: dict[str, Any] = {
        "title": _title(runs),
        "subject": _subject(runs),
        "runs": runs,
        "scored": scored,
        "warnings": _warnings(runs),
        "results": _results(scored, drawn, draws),
        "labels": _labels(scored, labels, drawn, films),
        "ties": [run.name for run in scored if _has_ties(run)],
        "has_films": films is not None,
        "film_dataset": scored[0].dataset if scored else "",
        "controls": _controls(scored, drawn),
        "histories": _histories(scored, drawn),
        "curves": _curves(curves, drawn),
        "maps": _maps(scored, drawn, caches, finding),
        "making": [_making(run) for run in runs],
        "again": command_line(["report", *map(str, folders)]),
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


def _results(scored: Sequence[ScoredRun], drawn: _Plots, draws: int) -> dict[str, Any] | None:
    if not scored:
        return None
    result: dict[str, Any] = {
        "headline": tables.headline(scored),
        "tiles": _tiles(scored[0]) if len(scored) == 1 else (),
        "seeds": [(run.name, line) for run in scored if (line := tables.seeds(run))],
        "plot": None,
        "differences": None,
        "apart": [],
        "decisions": tables.decisions(scored),
    }
    if len(scored) == 1:
        return result
    estimates = [
        Estimate(run.name, run.metrics["macro"]["auroc"], run.metrics["ci95"]["macro"]["auroc"])
        for run in scored
    ]
    result["plot"] = drawn.add(
        "runs",
        "Macro AUROC of each run with its 95 % interval",
        plots.estimates_figure(estimates, axis="macro AUROC", reference=0.5),
    )
    together = [scored[0]]
    for run in scored[1:]:
        try:
            refuse_others(scored[0].scored, run.scored)
        except UsageError as error:
            result["apart"].append(str(error))
        else:
            together.append(run)
    if len(together) > 1 and draws > 0:
        try:
            comparison = compare_scored([run.scored for run in together], draws=draws)
        except UsageError as error:
            result["apart"].append(str(error))
        else:
            names = {str(run.folder): run.name for run in together}
            result["differences"] = tables.differences(comparison, names)
    return result


def _tiles(run: ScoredRun) -> list[tuple[str, str, str]]:
    """The few figures that are looked at first: name, figure, what stands below it."""
    metrics = run.metrics
    tiles = []
    for key, name in (("auroc", "macro AUROC"), ("auprc", "macro AUPRC"), ("f1", "macro F1")):
        bounds = metrics["ci95"]["macro"][key]
        below = "" if bounds is None else f"{bounds[0]:.3f} to {bounds[1]:.3f}"
        tiles.append((name, tables.figure(metrics["macro"][key]), below))
    if (calibration := metrics.get("calibration")) is not None:
        after = tables.figure(calibration["macro"]["after"]["ece"])
        before = tables.figure(calibration["macro"]["before"]["ece"])
        tiles.append(("calibration error", before, f"{after} after Platt"))
    patients = f"of {metrics['n_patients']:,} patients"
    return [*tiles, (f"{metrics['split']} images", f"{metrics['n']:,}", patients)]


def _labels(
    scored: Sequence[ScoredRun],
    labels: Sequence[str],
    drawn: _Plots,
    files: Mapping[str, Path] | None,
) -> dict[str, Any] | None:
    if not scored:
        return None
    anchors = [f"label-{number}" for number in range(1, len(labels) + 1)]
    films = None if files is None else Films(files)
    return {
        "overview": tables.overview(scored, labels, anchors),
        "sections": [
            _label(label, anchor, scored, drawn, films)
            for label, anchor in zip(labels, anchors, strict=True)
        ],
    }


def _label(
    label: str, anchor: str, scored: Sequence[ScoredRun], drawn: _Plots, films: Films | None
) -> dict[str, Any]:
    having = [run for run in scored if label in run.scored.label_names]
    columns = {run.name: run.scored.label_names.index(label) for run in having}
    # A run that could not learn a label has no figures of it, and no curves.
    able = {
        run.name: (run.scored.truth[:, c], run.scored.probability[:, c])
        for run in having
        if run.scored.learned[c := columns[run.name]]
    }
    places = {run.name: number for number, run in enumerate(scored)}
    figures = having[0].metrics["per_label"][label]
    known, positive = figures["n_known"], figures["n_positive"]
    rocs = {name: simplified(roc_points(*pair)) for name, pair in able.items()}
    recalls = {name: simplified(precision_recall_points(*pair)) for name, pair in able.items()}
    bins = {name: reliability(*pair) for name, pair in able.items()}
    shown = []
    if any(len(points) for points in rocs.values()):
        plot = plots.roc_figure(rocs, places)
        shown.append(drawn.add(f"roc-{label}", f"ROC of {label}", plot, caption="ROC"))
    if any(len(points) for points in recalls.values()):
        plot = plots.precision_recall_figure(recalls, places, positive / known)
        title = f"Precision and recall of {label}"
        shown.append(
            drawn.add(f"precision-recall-{label}", title, plot, caption="Precision and recall")
        )
    if any(len(one.images) for one in bins.values()):
        plot = plots.reliability_figure(bins, places)
        title = f"Calibration of {label}"
        shown.append(drawn.add(f"calibration-{label}", title, plot, caption="Calibration"))
    return {
        "name": label,
        "anchor": anchor,
        "positive": positive,
        "known": known,
        "plots": shown,
        "table": tables.of_label(having, label),
        "confusions": tables.confusions(having, label),
        "examples": None if films is None else _examples(having[0], columns, films),
        "example_run": having[0].name,
    }


def _examples(
    run: ScoredRun, columns: Mapping[str, int], films: Films
) -> list[tuple[str, list[dict[str, Any]]]]:
    groups = most_certain(run.scored, columns[run.name])
    return [
        (
            group,
            [
                {"id": one.id, "p": f"{one.probability:.3f}", "picture": films.picture(one.id)}
                for one in found
            ],
        )
        for group, found in groups.items()
    ]


def _has_ties(run: ScoredRun) -> bool:
    """Whether a curve of its probabilities is not the one whose area metrics.json holds."""
    for c, label in enumerate(run.scored.label_names):
        auroc = run.metrics["per_label"][label]["auroc"]
        if auroc is None:
            continue
        points = roc_points(run.scored.truth[:, c], run.scored.probability[:, c])
        if len(points) and abs(_area(points) - auroc) > _TIES:
            return True
    return False


def _area(points: Points) -> float:
    return float((np.diff(points.x) * (points.y[1:] + points.y[:-1]) / 2).sum())


def _controls(scored: Sequence[ScoredRun], drawn: _Plots) -> list[dict[str, Any]]:
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


def _histories(scored: Sequence[ScoredRun], drawn: _Plots) -> list[dict[str, Any]]:
    found = []
    for run in scored:
        table, plot = tables.chosen(run), None
        if losses := _losses(run.history):
            best = run.config.get("best_epoch")
            plot = drawn.add(
                f"losses-{run.name}",
                f"Loss of {run.name} by epoch",
                plots.losses_figure(losses, best=best if isinstance(best, int) else None),
            )
        if plot or table:
            found.append({"name": run.name, "plot": plot, "table": table})
    return found


def _losses(history: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Epochs and losses by name; of several members each has its own."""
    losses: dict[str, tuple[list[float], list[float]]] = {}
    for line in history:
        if "epoch" not in line:
            return {}
        member = f"{line['model']}: " if "model" in line else ""
        for column, name in (("train_loss", "training"), ("val_loss", "validation")):
            if column in line:
                epochs, values = losses.setdefault(member + name, ([], []))
                epochs.append(float(line["epoch"]))
                values.append(float(line[column]))
    return {name: (np.array(one), np.array(two)) for name, (one, two) in losses.items()}


def _curves(curves: Sequence[CurveRun], drawn: _Plots) -> list[dict[str, Any]]:
    found = []
    for run in curves:
        sizes, cells = run.figures["sizes"], run.figures["cells"]
        scores = {
            head: [Estimate(head, one["macro"]["auroc"], one["ci95"]["auroc"]) for one in row]
            for head, row in cells.items()
        }
        shown = [
            drawn.add(
                f"curve-{run.name}",
                f"{run.name}: macro AUROC by the number of training images",
                plots.sizes_figure(sizes, scores, axis="macro AUROC"),
            )
        ]
        gains = {
            head: [
                Estimate(head, one["gain"]["auroc"]["difference"], one["gain"]["auroc"]["ci95"])
                if one["gain"]
                else Estimate(head, None, None)
                for one in row
            ]
            for head, row in list(cells.items())[1:]
        }
        if gains:
            first = next(iter(cells))
            shown.append(
                drawn.add(
                    f"gain-{run.name}",
                    f"{run.name}: gain in macro AUROC over {first}, paired",
                    plots.sizes_figure(sizes, gains, axis=f"gain over {first}", first=1),
                )
            )
        found.append({"name": run.name, "plots": shown, "table": tables.curve(run)})
    return found


def _maps(
    scored: Sequence[ScoredRun], drawn: _Plots, caches: Sequence[Path], finding: str | None
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
        label = names.index(finding) if finding in names else telling_label(run.scored)
        laid = map_or_reason(run.config, run.scored, given=caches)
        if isinstance(laid, str):
            found[key]["reason"] = laid
            continue
        found[key] |= {
            "shown": len(laid.points),
            "images": laid.images,
            "most": MOST_POINTS,
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


def _unused(name: str, taken: Mapping[str, Any]) -> str:
    """A file name that no other plot has, whatever labels differ by."""
    candidate, number = name[:80], 1
    # Not only as it is written: some file systems do not tell case.
    lowered = {one.lower() for one in taken}
    while candidate.lower() in lowered:
        number += 1
        candidate = f"{name[:80]}-{number}"
    return candidate
