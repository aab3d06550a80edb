"""Section "Embedding map": one map for each cache that the runs were made from."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from featurecache.errors import FeaturecacheError
from featurecache.evaluation.from_cache import find_cache
from featurecache.report import plots
from featurecache.report.embedding_map import embedding_map, most_balanced_label
from featurecache.report.load_runs import ScoredRun
from featurecache.report.plot_registry import PlotRegistry
from featurecache.units import STUDY

_NO_CACHE = (
    "This run trained the encoder itself, without a cache. For a map, extract embeddings with the "
    "fine-tuned encoder, and train a head on them or score them zero-shot."
)
_TOKENS = "This run's cache holds tokens, and a map is of one vector for each image."
_STUDIES = "This run scored studies, and a map is of images."


def map_section(
    scored: Sequence[ScoredRun],
    registry: PlotRegistry,
    caches: Sequence[Path],
    finding: str | None,
) -> list[dict[str, Any]]:
    """Return a map, or the reason why there is none, for each cache of the runs.

    Args:
        scored: the runs.
        registry: takes the plots.
        caches: files in which the runs' caches are looked for first.
        finding: label that colors the map; None for the most balanced one.
    """
    maps: dict[str, dict[str, Any]] = {}
    for run in scored:
        reference = run.config.get("cache") or {"path": run.name}
        key = json.dumps(
            [*(reference.get(name) for name in ("path", "fingerprint")), run.metrics.level]
        )
        if key in maps:
            maps[key]["runs"].append(run.name)
        else:
            maps[key] = {
                "runs": [run.name],
                "plot": None,
                "reason": None,
                **_map_of_run(run, registry, caches, finding),
            }
    return list(maps.values())


def _map_of_run(
    run: ScoredRun, registry: PlotRegistry, caches: Sequence[Path], finding: str | None
) -> dict[str, Any]:
    if "cache" not in run.config:
        return {"reason": _NO_CACHE}
    if run.metrics.level == STUDY:
        return {"reason": _STUDIES}
    if "tokens" in run.config["cache"].get("spec", {}):
        return {"reason": _TOKENS}
    try:
        points = embedding_map(find_cache(run.config["cache"], caches), run.scored)
    except FeaturecacheError as error:
        return {"reason": f"There is no map: {error}."}
    names = run.scored.label_names
    column = names.index(finding) if finding in names else most_balanced_label(run.scored)
    label = names[column]
    figure = plots.embedding_plot(
        points.points,
        run.scored.truth[points.rows, column],
        label=label,
        explained_variance=points.explained_variance,
    )
    return {
        "n_shown": len(points.points),
        "n_images": points.n_images,
        "split": run.scored.split,
        "label": label,
        "explained_variance": f"{100 * points.explained_variance.sum():.0f} %",
        "plot": registry.add(f"map-{run.name}", f"Embedding map of {run.name}, by {label}", figure),
    }
