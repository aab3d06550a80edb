"""``evaluate``: what was trained on one data set, measured on another's cache."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
from featurecache.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class _Trained:
    """What both kinds of run offer."""

    labels: Sequence[str]
    thresholds: Sequence[float]
    descriptions: Sequence[Mapping[str, Any]]
    probabilities: "Callable[[NDArray[np.floating]], NDArray[np.float64]]"


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
    from featurecache.encoders.compatibility import library_difference
    from featurecache.evaluation.external import (
        external_rows,
        match_labels,
        save_external,
        validate_external,
    )
    from featurecache.io.atomic import require_absent
    from featurecache.provenance import read_provenance

    if out is not None:
        require_absent(out)
    found, called = open_caches(cache)
    present = [one.header.encoder_spec for one in found.members]
    trained = _read(run, present[0])
    print_status(f"{run} on cache {called}, {split} images")
    if len(present) != len(trained.descriptions):
        raise UsageError(
            f"{run} takes the embeddings of {len(trained.descriptions)} encoders, and --cache "
            f"gives {len(present)}: give the caches of its encoders, in their order"
        )
    for of_run, of_cache in zip(trained.descriptions, present, strict=True):
        if difference := library_difference(of_run, of_cache, run=run):
            warn(f"it was trained with other library versions ({difference})")
    matched = match_labels(trained.labels, found.labels.names, _parse(label_map))
    ids = found.ids[external_rows(found, split)].tolist()
    read_provenance(run).require_unseen(found.header.collection, ids)
    transfer = validate_external(
        found,
        trained.probabilities,
        labels=trained.labels,
        thresholds=trained.thresholds,
        label_map=matched,
        split=split,
        n_bootstrap=n_bootstrap,
    )
    metrics = transfer.metrics
    print_status(
        f"labels: {', '.join(f'{source} as {target}' for source, target in matched.items())}"
    )
    if out is not None:
        save_external(out, found, transfer, run=run)
    if json:
        print_json(metrics)
        return
    print_metrics(f"{run} on {found.header.dataset}", metrics)
    for warning in metrics["warnings"]:
        warn(warning)
    if out is not None:
        print_result(f"run: {out}")


def _read(run: Path, made_with: Mapping[str, Any]) -> _Trained:
    from featurecache.runs.folder import run_kind

    if run_kind(run) == "finetune":
        from featurecache.finetune.run import read_finetuned

        tuned = read_finetuned(run, precision=made_with.get("precision"))
        descriptions = [tuned.encoder.image_spec]
        return _Trained(tuned.labels, tuned.thresholds, descriptions, tuned.probabilities)
    from featurecache.heads.io import read_head
    from featurecache.heads.training import predict_probabilities

    head = read_head(run)
    return _Trained(
        head.labels,
        head.thresholds,
        [encoder.description for encoder in head.encoders],
        lambda embedding: predict_probabilities(head.module, embedding),
    )


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
