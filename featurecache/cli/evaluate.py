"""``evaluate``: what was trained on one data set, measured on another's cache."""

from pathlib import Path
from typing import Annotated

import typer

from featurecache.cli.options import CacheFiles, Draws, OptionalRun, open_caches
from featurecache.cli.output import (
    Json,
    print_json,
    print_metrics,
    print_result,
    print_status,
    warn,
)


def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder that train-head or finetune made.")],
    cache: CacheFiles = None,
    label_map: Annotated[
        list[str] | None,
        typer.Option(
            "--label-map",
            help="TRAINED=PRESENT: measure a trained label against this one of the cache; give it "
            "again for more. Without it, labels of the same name.",
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="test: the cache's test images; all: every one.")] = (
        "test"
    ),
    out: OptionalRun = None,
    n_bootstrap: Draws = 1000,
    json: Json = False,
) -> None:
    """Measure a trained head or a fine-tuned encoder on another data set.

    Nothing is chosen on that data set: thresholds are those of the training. The cache has to be
    made by the encoder that the run was trained with, or, for a fine-tuning, by the run's own.

    Example: featurecache evaluate runs/kermany-dinov2-minilm-baseline
    --cache cache/nih/dinov2-minilm.h5 --label-map Pneumonia=Pneumonia
    """
    from featurecache.io.atomic import require_absent
    from featurecache.runs.run import load_run

    if out is not None:
        require_absent(out)
    opened, cache_name = open_caches(cache)
    print_status(f"{run} on cache {cache_name}, {split} images")
    result = load_run(run).evaluate(
        opened, label_map=_parse(label_map), split=split, n_bootstrap=n_bootstrap
    )
    matched = result.config["label_map"]
    names = ", ".join(f"{source} as {target}" for source, target in matched.items())
    print_status(f"labels: {names}")
    if out is not None:
        result.save(out)
    if json:
        print_json(result.metrics.to_json())
        return
    print_metrics(f"{run} on {result.dataset_name}", result.metrics.to_json())
    for warning in result.warnings:
        warn(warning)
    if out is not None:
        print_result(f"run: {out}")


def _parse(label_map: list[str] | None) -> dict[str, str] | None:
    if not label_map:
        return None
    pairs = [entry.partition("=") for entry in label_map]
    for entry, (source, equals, target) in zip(label_map, pairs, strict=True):
        if not (source and equals and target):
            raise typer.BadParameter(
                f"{entry!r}: write TRAINED=PRESENT, such as Pneumonia=Effusion",
                param_hint="--label-map",
            )
    names = [source for source, _, _ in pairs]
    if len(set(names)) < len(names):
        raise typer.BadParameter("a trained label is given twice", param_hint="--label-map")
    return {source: target for source, _, target in pairs}
