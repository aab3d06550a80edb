"""``evaluate``: evaluate a trained model on another data set."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from featurecache.cli.options import (
    UNITS_OF_RUN,
    CacheFiles,
    Join,
    NBootstrap,
    OptionalRun,
    OptionValues,
    PrevalenceTexts,
    describe_choice,
    parse_groups,
    parse_prevalence,
    print_joined_rows,
    print_policy,
    print_units,
    require_free,
    takes_policy,
    takes_units,
)
from featurecache.cli.output import (
    Json,
    print_json,
    print_result,
    print_run,
    print_status,
    print_table,
    with_interval,
)
from featurecache.wording import count_noun

if TYPE_CHECKING:
    from featurecache.metrics.localization import Localization, MapScores
    from featurecache.metrics.metrics import LabelMatch

_KINDS: Final = {"same": "here", "union": "here any of", "near": "here only near", "map": "here"}
_MAX_LABELS: Final = 14
"""Labels in a line."""


@takes_policy
@takes_units(UNITS_OF_RUN)
def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder of train-head or finetune.")],
    cache: CacheFiles = None,
    join: Join = "features",
    label_map: Annotated[
        list[str] | None,
        typer.Option(
            help="Trained label, and the label of the cache that it is scored against, such as "
            "Effusion=Pleural_Effusion; repeat for more, also for several labels of the cache, any "
            "of which counts. Default: the labels of the same name, or of the same meaning by the "
            "vocabulary.",
            metavar="SRC=DST",
        ),
    ] = None,
    split: Annotated[
        str, typer.Option(help="Images to score: test (those of the test split) or all.")
    ] = "test",
    prevalence: PrevalenceTexts = None,
    by: Annotated[
        str | None,
        typer.Option(
            help="Groups of images whose AUROC, sensitivity and false positive rate are compared: "
            "sex, view, age with bins, and columns of --groups, joined by commas, such as "
            "sex,age:0-18-40-65-.",
            metavar="NAME,...",
        ),
    ] = None,
    groups: Annotated[
        Path | None,
        typer.Option(help="Table with the column id and further columns for --by.", metavar="FILE"),
    ] = None,
    negatives: Annotated[
        str,
        typer.Option(
            help="Negatives that labels are scored against: all, healthy (images without any "
            "finding) or diseased (images with another finding).",
            metavar="WHICH",
        ),
    ] = "all",
    boxes: Annotated[
        Path | None,
        typer.Option(
            help="Table of boxes around findings, with id, label, x, y, width, height, image_width "
            "and image_height in pixels, or the file of NIH, RSNA, VinDr-CXR, ChestX-Det or "
            "PadChest-GR: is the attention of a head on tokens in them?",
            metavar="FILE",
        ),
    ] = None,
    out: OptionalRun = None,
    n_bootstrap: NBootstrap = 1000,
    *,
    policy: OptionValues,
    units: OptionValues,
    json: Json = False,
) -> None:
    """Evaluate a trained head or a fine-tuned encoder on another data set (external validation).

    Nothing is tuned on that data set: the thresholds are those of the training run. The cache must
    come from the encoder that the head was trained on, or from the fine-tuned encoder itself.

    Example: featurecache evaluate runs/kermany-dinov2-minilm-baseline
    --cache cache/nih/dinov2-minilm.h5 --label-map Pneumonia=Pneumonia
    """
    import featurecache as fc

    require_free(out)
    paths = cache or [Path("cache")]
    trained = fc.load_run(run)
    scored = trained.units.override(**units)
    opened = fc.open_cache(paths, join=join, **policy, **asdict(scored))
    images = "all images" if split == "all" else f"the {split} images"
    print_status(f"evaluating {run} on {images} of {describe_choice(paths, opened)}")
    print_policy(opened)
    print_joined_rows(opened)
    print_units(opened)
    result = trained.evaluate(
        opened,
        label_map=parse_groups(label_map, "--label-map"),
        split=split,
        prevalence=parse_prevalence(prevalence),
        by=by,
        groups=groups,
        negatives=negatives,
        boxes=boxes,
        n_bootstrap=n_bootstrap,
    )
    _print_matches(result.metrics.label_map or {}, opened.labels.names)
    if out is not None:
        result.save(out)
    if json:
        print_json(result.metrics.to_json())
        return
    print_run(f"{run} on {result.dataset_name}", result)
    if result.metrics.localization is not None:
        _print_localization(result.metrics.localization)
    if out is None:
        print_status("not saved: give --out DIR to compare it later")
    else:
        print_result(f"run: {out}")


def _print_matches(matches: "Mapping[str, LabelMatch]", present: Sequence[str]) -> None:
    """Print what each trained label is scored against, and which labels nothing is."""
    described = [
        label
        if match.labels == [label]
        else f"{label} ({_KINDS[match.kind]} {' or '.join(match.labels)})"
        for label, match in matches.items()
    ]
    print_status(f"labels: {', '.join(described)}")
    used = {label for match in matches.values() for label in match.labels}
    if unused := [label for label in present if label not in used]:
        shown = ", ".join(unused[:_MAX_LABELS]) + (", ..." if len(unused) > _MAX_LABELS else "")
        print_status(f"{count_noun(len(unused), 'label')} of the cache not scored: {shown}")


def _print_localization(localization: "Localization") -> None:
    """Print how well the attention points at boxes, beside the center of the image."""

    def row(name: str, n: int, maps: "MapScores", center: "MapScores") -> list[str]:
        return [
            name,
            str(n),
            *(
                with_interval(getattr(scores, metric), getattr(scores.ci95, metric))
                for metric in ("pointing_game", "iou")
                for scores in (maps, center)
            ),
        ]

    images = count_noun(localization.n_images, "image")
    print_table(
        f"attention in boxes, {images} of {count_noun(localization.n_patients, 'patient')} "
        "[95 % interval over patients]",
        ["", "boxed", "pointing game", "center", "mean IoU", "center"],
        [
            row("all labels", localization.n, localization.maps, localization.center),
            *(row(name, of.n, of.maps, of.center) for name, of in localization.per_label.items()),
        ],
        optional=2,
    )
