"""``finetune``: train the encoder itself."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from featurecache.cli.config_options import takes_settings
from featurecache.cli.dataset_options import (
    DataRoot,
    DatasetName,
    DatasetOptions,
    load_dataset,
    takes_dataset_options,
)
from featurecache.cli.options import (
    DEFAULT_MODEL,
    BitDepth,
    Device,
    Log,
    NBootstrap,
    OperatingPointText,
    OptionValues,
    print_policy,
    takes_policy,
)
from featurecache.cli.output import (
    Json,
    print_json,
    print_result,
    print_run,
    print_status,
    progress_bar,
)
from featurecache.finetune.config import RECIPES, FinetuneConfig, make_config
from featurecache.wording import count_noun

if TYPE_CHECKING:
    from rich.progress import Progress

    from featurecache.datasets.dataset import Dataset
    from featurecache.encoders.encoder import Encoder


@takes_policy
@takes_dataset_options(without=("sex_column", "age_column", "metadata_column"))
@takes_settings(FinetuneConfig)
def finetune(
    *,
    model: Annotated[
        str, typer.Option(help="Encoder to start from: see 'featurecache models'.")
    ] = DEFAULT_MODEL,
    dataset: DatasetName = None,
    data_root: DataRoot = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Published settings, which other options override.", metavar="|".join(RECIPES)
        ),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(help="Encoder whose image embeddings to learn as well (distillation)."),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="Local checkpoint, instead of a download.", metavar="PATH"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Run folder to create. Default: runs/DATASET-MODEL-OBJECTIVE.", metavar="DIR"
        ),
    ] = None,
    n_bootstrap: NBootstrap = 1000,
    operating_point: OperatingPointText = "f1",
    workers: Annotated[int, typer.Option(help="Number of decoding threads.", min=1)] = 2,
    bit_depth: BitDepth = None,
    cache: Annotated[
        Path,
        typer.Option(
            envvar="FEATURECACHE_CACHE",
            help="Folder of caches: patients in a cache of the data set keep their split.",
            metavar="DIR",
        ),
    ] = Path("cache"),
    policy: OptionValues,
    device: Device = "auto",
    log: Log = None,
    settings: dict[str, Any],
    options: DatasetOptions,
    json: Json = False,
) -> None:
    """Train the encoder itself on images; the result is an encoder like any other.

    If the command is killed, the same command continues from there. The epoch is chosen by
    validation loss; test images are only evaluated. Give the run folder to extract --model, or to
    predict.

    Example: featurecache finetune --model dinov2-small --dataset kermany --objective bce
    --trainable last-2
    """
    from featurecache.finetune.finetune import run_finetuning
    from featurecache.metrics.thresholds import OperatingPoint

    config = make_config(recipe, settings)
    with ExitStack() as stack:
        # The bar appears when training begins; before, loading the data set may show its own.
        bars: list[Progress] = []

        def print_start(data: "Dataset", encoder: "Encoder", target: Path) -> None:
            print_status(
                f"{count_noun(len(data), 'image')} of {data.name}; {encoder.name} on "
                f"{encoder.device} in {config.precision}; {config.objective}, training "
                f"{config.trainable} from {config.init} weights; into {target}/"
            )
            print_policy(data)
            for note in data.notes:
                print_status(f"note: {note}")
            bars.append(stack.enter_context(progress_bar(hidden=json)))
            bars[0].add_task("finetune", total=None, detail="")

        def load() -> "Dataset":
            data = load_dataset(dataset, data_root, options, quiet=json)
            return data.with_policy(data.policy.override(**policy))

        run = run_finetuning(
            load,
            model,
            config,
            teacher=teacher,
            weights=weights,
            device=device,
            out=out,
            n_bootstrap=n_bootstrap,
            operating_point=OperatingPoint.parse(operating_point),
            workers=workers,
            bit_depth=bit_depth,
            cache_dir=cache,
            log=log or (),
            on_start=print_start,
            progress=lambda done, total, detail: bars[0].update(
                bars[0].task_ids[0], completed=done, total=total, detail=detail
            ),
        )
        best_epoch = run.config["best_epoch"]
        bars[0].update(
            bars[0].task_ids[0], detail=f"stopped at epoch {len(run.history)}, best {best_epoch}"
        )
    if json:
        print_json({"run": str(run.path), "best_epoch": best_epoch, **run.metrics.to_json()})
        return
    print_run(f"{config.objective} on {run.dataset_name}", run)
    print_result(f"run: {run.path} (best epoch {best_epoch})")
