"""``train-head``: train a head on a cache."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from featurecache.cli.config_options import takes_settings
from featurecache.cli.options import CacheFiles, NBootstrap, describe_choice, require_free
from featurecache.cli.output import (
    Json,
    format_float,
    print_json,
    print_result,
    print_run,
    print_status,
    progress_bar,
)
from featurecache.heads.config import HeadConfig

if TYPE_CHECKING:
    from featurecache.store.cache import Cache


@takes_settings(HeadConfig, without=("head",))
def train_head(
    head: Annotated[
        str,
        typer.Option(help="Head, such as weighted_sum: see 'featurecache heads'.", metavar="NAME"),
    ],
    cache: CacheFiles = None,
    seeds: Annotated[
        int, typer.Option(help="Number of trainings, for a mean and standard deviation.", min=1)
    ] = 1,
    out: Annotated[
        Path | None,
        typer.Option(help="Run folder to create. Default: runs/DATASET-MODEL-HEAD.", metavar="DIR"),
    ] = None,
    n_bootstrap: NBootstrap = 1000,
    controls: Annotated[
        bool,
        typer.Option(
            help="Train negative controls, too: on shuffled labels, random features and permuted "
            "texts, where there is nothing to learn."
        ),
    ] = True,
    json: Json = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Train a head on cached embeddings and evaluate it on the test images.

    The epoch is chosen by validation loss and the thresholds by validation F1; the test images are
    only scored.

    Example: featurecache train-head --head weighted_sum --seeds 5
    """
    import featurecache as fc

    require_free(out)
    paths = cache or [Path("cache")]
    opened = fc.open_cache(paths)
    seed = settings.get("seed", 0)
    print_status(f"cache {describe_choice(paths, opened)}, head {head}, seed {seed}")
    with progress_bar(hidden=json) as bar:
        epochs = _total_epochs(opened, HeadConfig(head=head, **settings), seeds)
        task = bar.add_task("train", total=epochs, detail="")
        run = fc.train_head(
            opened,
            head,
            seeds=seeds,
            n_bootstrap=n_bootstrap,
            controls=controls,
            on_epoch=lambda seed, epoch: bar.update(
                task, advance=1, detail=f"seed {seed} validation loss {epoch.val_loss:.4f}"
            ),
            **settings,
        )
    target = run.save(out)
    if json:
        print_json({"run": str(target), **run.metrics.to_json()})
        return
    print_run(f"{head} on {run.dataset_name}", run)
    if run.metrics.seeds is not None:
        spread = run.metrics.seeds.macro["auroc"]
        print_result(
            f"macro AUROC over {seeds} seeds: {format_float(spread.mean, digits=4)} "
            f"± {format_float(spread.sd, digits=4)} (standard deviation)"
        )
    print_result(f"run: {target} (chosen on validation: {run.config['chosen']})")


def _total_epochs(cache: "Cache", config: HeadConfig, seeds: int) -> int | None:
    """Return the maximum number of epochs in total; None for a head without epochs."""
    from featurecache.heads.config import resolve_schedule
    from featurecache.heads.registry import head_spec

    if not head_spec(config.head).has_epochs:
        return None
    images = config.train_size or len(cache.rows("train"))
    heads = len(cache.members) if config.fusion == "late" else 1
    return resolve_schedule(config, images).epochs * seeds * heads
