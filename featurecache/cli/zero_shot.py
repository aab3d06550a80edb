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
    choose_cache,
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
    from featurecache.alignment.alignment import read_alignment
    from featurecache.evaluation.from_cache import save_zero_shot
    from featurecache.evaluation.from_cache import zero_shot as run
    from featurecache.io.atomic import require_absent
    from featurecache.store.reader import read_cache

    path, chosen = choose_cache(cache)
    if out is not None:
        require_absent(out)
    found = read_cache(path)
    aligned = None if alignment is None else read_alignment(alignment)
    result = run(
        found, prompts=prompts, scoring=scoring, n_bootstrap=n_bootstrap, alignment=aligned
    )
    print_status(
        f"cache {path}{' (the newest)' if chosen else ''}, prompts {result.text.name!r}, "
        f"{result.scoring} scoring"
    )
    if out is not None:
        save_zero_shot(out, found, result)
    if json:
        print_json({"scoring": result.scoring, "prompts": result.text.name, **result.metrics})
        return
    print_metrics(f"zero-shot on {found.header.dataset}", result.metrics)
    for warning in result.metrics["warnings"]:
        warn(warning)
    if out is not None:
        print_result(f"run: {out}")
