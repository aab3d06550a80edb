"""``zero-shot``: score images by their prompts."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from featurecache.cli.options import (
    UNITS,
    AlignmentFile,
    CacheFile,
    NBootstrap,
    OperatingPointText,
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
from featurecache.cli.output import (
    Json,
    format_float,
    print_json,
    print_result,
    print_run,
    print_status,
    print_table,
    warn,
    with_interval,
)
from featurecache.wording import UNDEFINED, count_noun, count_scored

if TYPE_CHECKING:
    from featurecache.evaluation.prompt_comparison import PromptComparison, PromptScores


@takes_policy
@takes_units(UNITS)
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
    prompt_sets: Annotated[
        bool,
        typer.Option(
            "--prompt-sets",
            help="Compare the AUROC of each prompt set of the cache, or of --prompts, and of each "
            "of its templates, in place of a run.",
        ),
    ] = False,
    alignment: AlignmentFile = None,
    prevalence: PrevalenceTexts = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Run folder to create; with --prompt-sets, a file, .csv or .parquet. Default: "
            "none.",
            metavar="PATH",
        ),
    ] = None,
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

    With --prompt-sets it is compared how much the AUROC depends on the wording. Nothing is chosen
    by it.

    Example: featurecache zero-shot --scoring pair
    """
    import featurecache as fc
    from featurecache.io.table import check_table_file, write_table

    if prompt_sets and (prevalence or operating_point != "f1"):
        raise typer.BadParameter(
            "an AUROC has no threshold: leave out --prevalence and --operating-point",
            param_hint="--prompt-sets",
        )
    if prompt_sets and out is not None:
        check_table_file(out)
    require_free(out)
    opened = fc.open_cache(
        cache,
        **policy,
        **units,
    )
    if prompt_sets:
        print_status(f"comparing the prompts of {describe_choice(cache, opened)}")
        print_policy(opened)
        print_units(opened)
        comparison = fc.compare_prompts(
            opened,
            prompts=prompts,
            scoring=scoring,
            alignment=alignment,
            n_bootstrap=n_bootstrap,
        )
        if out is not None:
            write_table(comparison.to_pandas(), out)
        if json:
            print_json(comparison.to_json())
            return
        _print_comparison(comparison)
        if out is not None:
            print_result(f"AUROC of each prompt set, template and label: {out}")
        return
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


def _print_comparison(comparison: "PromptComparison") -> None:
    scored = count_scored(comparison.n, comparison.split, comparison.level, comparison.n_patients)
    print_table(
        f"zero-shot by prompt on {comparison.dataset}: {scored}, macro over "
        f"{count_noun(len(comparison.macro_labels), 'label')} [95 % interval over patients]",
        ["prompt set", "template", "macro AUROC", "lowest AUROC", "reversed"],
        [
            [
                row.prompt_set,
                row.title,
                with_interval(row.macro.auroc, row.macro.ci95),
                _lowest(row),
                ", ".join(row.reversed_labels) or UNDEFINED,
            ]
            for row in comparison.rows
        ],
        optional=2,
    )
    for name, spread in comparison.spread.items():
        if spread.sd is not None:
            lowest, highest = format_float(spread.lowest), format_float(spread.highest)
            print_result(
                f"{name}: macro AUROC of {spread.n_templates} templates {lowest} to {highest}, "
                f"standard deviation {format_float(spread.sd)}"
            )
    for warning in comparison.warnings:
        warn(warning)


def _lowest(row: "PromptScores") -> str:
    """Return the label with the lowest AUROC."""
    defined = {
        label: score.auroc for label, score in row.per_label.items() if score.auroc is not None
    }
    if not defined:
        return UNDEFINED
    label = min(defined, key=defined.__getitem__)
    return f"{label} {format_float(defined[label])}"
