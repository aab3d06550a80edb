"""``zero-shot``: score images by their prompts."""

from pathlib import Path
from typing import Annotated

import typer

from featurecache.cli.options import (
    AlignmentFile,
    CacheFile,
    NBootstrap,
    OperatingPointText,
    OptionalRun,
    OptionValues,
    PrevalenceTexts,
    Prompts,
    describe_choice,
    parse_prevalence,
    print_policy,
    print_units,
    require_free,
    takes_policy,
    takes_units,
)
from featurecache.cli.output import Json, print_json, print_result, print_run, print_status


@takes_policy
@takes_units
def zero_shot(
    cache: CacheFile = Path("cache"),
    scoring: Annotated[
        str,
        typer.Option(
            help="Conversion of cosines to probabilities: auto, sigmoid (with the model's scale "
            "and bias), softmax (over labels, or a single label and its negative) or pair (each "
            "label against its negative)."
        ),
    ] = "auto",
    prompts: Prompts = None,
    alignment: AlignmentFile = None,
    prevalence: PrevalenceTexts = None,
    out: OptionalRun = None,
    n_bootstrap: NBootstrap = 1000,
    operating_point: OperatingPointText = "f1",
    *,
    policy: OptionValues,
    units: OptionValues,
    json: Json = False,
) -> None:
    """Score images by their similarity to prompts, without any training.

    Thresholds are chosen on validation images if there are any, never on test images. A model whose
    images and texts do not share a space, such as dinov2-minilm, needs --alignment.

    Example: featurecache zero-shot --scoring pair
    """
    import featurecache as fc

    require_free(out)
    opened = fc.open_cache(
        cache,
        **policy,
        **units,
    )
    run = fc.zero_shot(
        opened,
        prompts=prompts,
        scoring=scoring,
        alignment=alignment,
        operating_point=operating_point,
        prevalence=parse_prevalence(prevalence),
        n_bootstrap=n_bootstrap,
    )
    prompts_used, method = run.config["prompts"]["name"], run.config["scoring"]
    print_status(
        f"scoring {describe_choice(cache, opened)} with prompts {prompts_used!r} ({method})"
    )
    print_policy(opened)
    print_units(opened)
    if out is not None:
        run.save(out)
    if json:
        print_json({"scoring": method, "prompts": prompts_used, **run.metrics.to_json()})
        return
    print_run(f"zero-shot on {run.dataset_name}", run)
    if out is None:
        print_status("not saved: give --out DIR to compare it later")
    else:
        print_result(f"run: {out}")
