"""``learning-curve``: what heads score, by the number of images they learned from."""

from pathlib import Path
from typing import Annotated

import typer

from featurecache.cli.options import CacheFiles, Draws, Fusion, Prompts, open_caches
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


def learning_curve(
    head: Annotated[
        list[str] | None,
        typer.Option(
            help="A head; give --head again for others, which are compared with the first. Without "
            "it baseline, concat and weighted_sum."
        ),
    ] = None,
    cache: CacheFiles = None,
    fusion: Fusion = "early",
    sizes: Annotated[
        str | None,
        typer.Option(
            help="Numbers of training images, joined by commas. Without it eight from 16 to all.",
            metavar="N,N,...",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Subsets and trainings for each size.", min=1)] = 5,
    seed: Annotated[int, typer.Option(help="The first seed.")] = 0,
    prompts: Prompts = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Run folder to make; runs/DATASET-MODEL-curve without it.", metavar="DIR"
        ),
    ] = None,
    n_bootstrap: Draws = 1000,
    json: Json = False,
) -> None:
    """Train heads on ever more images, several times each, and plot what they score on test.

    Heads of one seed learn from the same images, so that their differences are paired.

    Example: featurecache learning-curve --head baseline --head concat --sizes 16,128,1024
    """
    from featurecache.heads.learning_curve import default_sizes, learning_curve
    from featurecache.io.atomic import require_absent

    names = head or ["baseline", "concat", "weighted_sum"]
    numbers = None if sizes is None else _numbers(sizes)
    if out is not None:
        require_absent(out)
    found, called = open_caches(cache)
    print_status(f"cache {called}, heads {', '.join(names)}")
    with progress_bar(hidden=json) as bar:
        chosen = numbers or default_sizes(len(found.rows("train")))
        task = bar.add_task("train", total=len(names) * len(chosen) * seeds, detail="")
        result = learning_curve(
            found,
            names,
            sizes=chosen,
            seeds=seeds,
            seed=seed,
            prompts=prompts,
            fusion=fusion,  # type: ignore[arg-type]  # HeadConfig checks it
            n_bootstrap=n_bootstrap,
            on_head=lambda: bar.update(task, advance=1, detail=""),
        )
    target, metrics = result.save(out), result.metrics
    if json:
        print_json({"run": str(target), **metrics.to_json()})
        return
    for name in result.heads:
        others = name != result.heads[0]
        rows = []
        for size, point in zip(result.sizes, result.points[name], strict=True):
            row = [str(size), str(point.labels)]
            row.append(with_interval(point.macro.auroc, point.macro.auroc_ci))
            if others:
                row.append(with_interval(point.auroc_gain.difference, point.auroc_gain.ci95))
            rows.append(row)
        print_table(
            f"{name}: macro AUROC on {metrics.n} test images of {metrics.n_patients} patients, "
            f"mean of {len(result.seeds)} seeds [95 % interval over patients and seeds]",
            [
                "images",
                "labels",
                "AUROC",
                *([f"gain over {result.heads[0]}, paired"] if others else []),
            ],
            rows,
        )
    for warning in result.warnings:
        warn(warning)
    print_result(f"run: {target} (plot: {target / 'curve.png'})")


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"{text!r}: give numbers joined by commas, such as 16,128,1024", param_hint="--sizes"
        ) from None
