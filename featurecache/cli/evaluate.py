"""``evaluate``: evaluate a trained model on another data set."""

from pathlib import Path
from typing import Annotated

import typer

from featurecache.cli.options import (
    Blank,
    CacheFiles,
    NBootstrap,
    OptionalRun,
    Uncertain,
    describe_choice,
    parse_pairs,
    print_policy,
    require_free,
)
from featurecache.cli.output import Json, print_json, print_result, print_run, print_status


def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder of train-head or finetune.")],
    cache: CacheFiles = None,
    label_map: Annotated[
        list[str] | None,
        typer.Option(
            help="Trained label, and the label of the cache that it is scored against, such as "
            "Effusion=Pleural_Effusion; repeat for more. Default: the labels of the same name.",
            metavar="SRC=DST",
        ),
    ] = None,
    split: Annotated[
        str, typer.Option(help="Images to score: test (those of the test split) or all.")
    ] = "test",
    out: OptionalRun = None,
    n_bootstrap: NBootstrap = 1000,
    uncertain: Uncertain = None,
    blank: Blank = None,
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
    opened = fc.open_cache(paths, uncertain=uncertain, blank=blank)
    images = "all images" if split == "all" else f"the {split} images"
    print_status(f"evaluating {run} on {images} of {describe_choice(paths, opened)}")
    print_policy(opened)
    result = fc.load_run(run).evaluate(
        opened,
        label_map=parse_pairs(label_map, "--label-map"),
        split=split,
        n_bootstrap=n_bootstrap,
    )
    pairs = result.metrics.label_map or {}
    matched = ", ".join(
        source if source == target else f"{source} (here {target})"
        for source, target in pairs.items()
    )
    print_status(f"labels: {matched}")
    if out is not None:
        result.save(out)
    if json:
        print_json(result.metrics.to_json())
        return
    print_run(f"{run} on {result.dataset_name}", result)
    if out is None:
        print_status("not saved: give --out DIR to compare it later")
    else:
        print_result(f"run: {out}")
