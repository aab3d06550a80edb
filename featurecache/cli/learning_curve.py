"""``learning-curve``: metrics by the number of training images."""

from pathlib import Path
from typing import Annotated, Any

import typer

from featurecache.cli.config_options import parse_numbers, takes_settings
from featurecache.cli.options import (
    UNITS,
    CacheFiles,
    Join,
    OptionValues,
    describe_choice,
    print_joined_rows,
    print_kept,
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
    print_status,
    print_table,
    progress_bar,
    warn,
    with_interval,
)
from featurecache.heads.config import HeadConfig
from featurecache.wording import count_noun

_OFFERED = {"prompts", "fusion", "seed"}
_NOT_OFFERED = tuple(name for name in HeadConfig.__dataclass_fields__ if name not in _OFFERED)


@takes_policy
@takes_units(UNITS)
@takes_settings(HeadConfig, without=_NOT_OFFERED)
def learning_curve(
    head: Annotated[
        list[str] | None,
        typer.Option(
            help="Head: see 'featurecache heads'; repeat for others, which are compared with the "
            "first. Default: baseline, concat and weighted_sum.",
            metavar="NAME",
        ),
    ] = None,
    cache: CacheFiles = None,
    join: Join = "features",
    sizes: Annotated[
        str | None,
        typer.Option(
            help="Numbers of training images, with commas. Default: up to eight from 16 to all.",
            metavar="N,N,...",
        ),
    ] = None,
    seeds: Annotated[
        int,
        typer.Option(help="Number of random subsets of each size, with one training each.", min=1),
    ] = 5,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Run folder to create. Default: runs/DATASET-MODEL-curve.", metavar="DIR"
        ),
    ] = None,
    *,
    policy: OptionValues,
    units: OptionValues,
    json: Json = False,
    settings: dict[str, Any],
) -> None:
    """Train heads on subsets of increasing size and plot their test metrics.

    Heads with the same seed are trained on the same images, so their differences are paired.

    Example: featurecache learning-curve --head baseline --head concat --sizes 16,128,1024
    """
    import featurecache as fc
    from featurecache.heads.learning_curve import default_sizes

    heads = head or ["baseline", "concat", "weighted_sum"]
    numbers = None if sizes is None else parse_numbers(sizes, "sizes", example="16,128,1024")
    require_free(out)
    paths = cache or [Path("cache")]
    opened = fc.open_cache(paths, join=join, **policy, **units)
    print_status(f"training {', '.join(heads)} on {describe_choice(paths, opened)}")
    print_policy(opened)
    print_joined_rows(opened)
    print_units(opened)
    with progress_bar(hidden=json) as bar:
        numbers = numbers or tuple(default_sizes(len(opened.inputs.learning_rows("train"))))
        task = bar.add_task("train", total=len(heads) * len(numbers) * seeds, detail="")
        result = fc.learning_curve(
            opened,
            heads,
            sizes=numbers,
            seeds=seeds,
            on_head=lambda: bar.update(task, advance=1, detail=""),
            **settings,
        )
    target, metrics = result.save(out), result.metrics
    print_kept(target, result.default_name)
    if json:
        print_json({"run": str(target), **metrics.to_json()})
        return
    n_seeds = len(result.seeds)
    mean_of = " [95 % interval over patients"
    if n_seeds > 1:
        mean_of = f", mean of {n_seeds} seeds{mean_of} and seeds"
    for name in result.heads:
        is_first = name == result.heads[0]
        rows = []
        for size, point in zip(result.sizes, result.points[name], strict=True):
            row = [str(size), str(point.labels)]
            row.append(with_interval(point.macro.auroc, point.macro.auroc_ci))
            if not is_first:
                row.append(with_interval(point.auroc_gain.difference, point.auroc_gain.ci95))
            rows.append(row)
        gain = [] if is_first else [f"gain over {result.heads[0]}, paired"]
        print_table(
            f"{name}: macro AUROC over {count_noun(len(metrics.labels), 'label')} on "
            f"{count_noun(metrics.n, f'test {opened.units.level}')} of "
            f"{count_noun(metrics.n_patients, 'patient')}{mean_of}]",
            ["images", "labels learned", "AUROC", *gain],
            rows,
        )
    for warning in result.warnings:
        warn(warning)
    print_result(f"run: {target} (plot: {target / 'curve.png'})")
