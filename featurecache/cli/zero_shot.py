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
from featurecache.cli.output import Json, print_json, print_metrics, say, tell, warn


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
    draws: Draws = 1000,
    json: Json = False,
) -> None:
    """Score images by their likeness to prompts, without any training.

    Thresholds are chosen on validation images where there are any; test is only measured. A model
    whose images and texts share no space, such as dinov2-minilm, needs an --alignment.

    Example: featurecache zero-shot --scoring pair
    """
    from featurecache.atomic import refuse_existing
    from featurecache.scoring.cached import save_zero_shot
    from featurecache.scoring.cached import zero_shot as run
    from featurecache.store.alignment import read_alignment
    from featurecache.store.reader import read_cache

    path, chosen = choose_cache(cache)
    if out is not None:
        refuse_existing(out)
    found = read_cache(path)
    aligned = None if alignment is None else read_alignment(alignment)
    result = run(found, prompts=prompts, scoring=scoring, draws=draws, alignment=aligned)
    say(
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
        tell(f"run: {out}")
