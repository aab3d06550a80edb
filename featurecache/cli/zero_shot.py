"""``zero-shot``: score a cache against its prompts."""

from pathlib import Path
from typing import Annotated

import typer

from featurecache.cli.options import (
    AlignmentFile,
    CacheFile,
    Draws,
    OptionalRun,
    Prompts,
)
from featurecache.cli.output import (
    Json,
    print_json,
    print_metrics,
    print_result,
    print_status,
    warn,
)


def zero_shot(
    cache: CacheFile = Path("cache"),
    scoring: Annotated[
        str,
        typer.Option(
            help="auto; sigmoid (the model's scale and bias); softmax over labels, or over a "
            "single label and its negative; pair (each label against its negative)."
        ),
    ] = "auto",
    prompts: Prompts = None,
    alignment: AlignmentFile = None,
    out: OptionalRun = None,
    n_bootstrap: Draws = 1000,
    json: Json = False,
) -> None:
    """Score images by their likeness to prompts, without any training.

    Thresholds are chosen on validation images where there are any; test is only measured. A model
    whose images and texts share no space, such as dinov2-minilm, needs an --alignment.

    Example: featurecache zero-shot --scoring pair
    """
    from featurecache.evaluation.zero_shot import zero_shot as score
    from featurecache.io.atomic import require_absent
    from featurecache.store.open import open_cache

    if out is not None:
        require_absent(out)
    opened = open_cache(cache)
    run = score(
        opened,
        prompts=prompts,
        scoring=scoring,
        n_bootstrap=n_bootstrap,
        alignment=alignment,
    )
    prompts_used, method = run.config["prompts"]["name"], run.config["scoring"]
    print_status(
        f"cache {opened.path}{' (the newest)' if cache.is_dir() else ''}, prompts "
        f"{prompts_used!r}, {method} scoring"
    )
    if out is not None:
        run.save(out)
    if json:
        print_json({"scoring": method, "prompts": prompts_used, **run.metrics.to_json()})
        return
    print_metrics(f"zero-shot on {run.dataset_name}", run.metrics.to_json())
    for warning in run.warnings:
        warn(warning)
    if out is not None:
        print_result(f"run: {out}")
