"""``train-head``: train a head on a cache."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from featurecache.cli.config_options import takes_settings
from featurecache.cli.options import (
    UNITS,
    CacheFiles,
    Join,
    Log,
    NBootstrap,
    OperatingPointText,
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
    format_float,
    print_json,
    print_result,
    print_run,
    print_status,
    progress_bar,
)
from featurecache.heads.config import HeadConfig

if TYPE_CHECKING:
    from featurecache.runs.run import Run
    from featurecache.schedule import Epoch
    from featurecache.store.cache import Cache


@takes_policy
@takes_units(UNITS)
@takes_settings(HeadConfig, without=("head",))
def train_head(
    head: Annotated[
        list[str],
        typer.Option(
            help="Name of the head, such as weighted_sum: see 'featurecache heads'; repeat for "
            "several heads.",
            metavar="NAME",
        ),
    ],
    cache: CacheFiles = None,
    join: Join = "features",
    seeds: Annotated[
        int,
        typer.Option(
            help="Number of trainings with different seeds, for the mean and standard deviation of "
            "the metrics; the first head is saved.",
            min=1,
        ),
    ] = 1,
    ensemble: Annotated[
        int,
        typer.Option(
            help="Number of heads with different seeds that are saved as one model, which predicts "
            "their mean probability. 'predict' adds their standard deviation (n - 1).",
            min=1,
        ),
    ] = 1,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Run folder to create; for several heads, a folder with a run folder for each, "
            "named after the head. Default: runs/DATASET-MODEL-HEAD, with a number appended if it "
            "exists.",
            metavar="DIR",
        ),
    ] = None,
    coverage: Annotated[
        float,
        typer.Option(
            help="Minimum share of positive images that are not answered absent, and of negative "
            "images that are not answered present; what lies between is answered unsure. The "
            "limits of the answers are chosen on validation patients."
        ),
    ] = 0.9,
    n_bootstrap: NBootstrap = 1000,
    operating_point: OperatingPointText = "f1",
    controls: Annotated[
        bool,
        typer.Option(
            help="Train negative controls, too: on shuffled labels, random features and permuted "
            "texts, where there is nothing to learn."
        ),
    ] = True,
    log: Log = None,
    *,
    policy: OptionValues,
    units: OptionValues,
    json: Json = False,
    settings: dict[str, Any],
) -> None:
    """Train a head on cached embeddings and evaluate it on the test images.

    The epoch is chosen by validation loss and the thresholds on validation images; the test images
    are only scored.

    Example: featurecache train-head --head weighted_sum --seeds 5
    """
    import featurecache as fc

    targets = [out if out is None or len(head) == 1 else out / name for name in head]
    for target in targets:
        require_free(target)
    paths = cache or [Path("cache")]
    opened = fc.open_cache(
        paths,
        join=join,
        **policy,
        **units,
    )
    first = settings.get("seed", 0)
    last = first + max(seeds, ensemble) - 1
    seeds_used = f"seeds {first} to {last}" if last > first else f"seed {first}"
    if ensemble > 1:
        seeds_used = f"an ensemble of {seeds_used}"
    print_status(
        f"training {', '.join(head)} on {describe_choice(paths, opened)} with {seeds_used}"
    )
    print_policy(opened)
    print_joined_rows(opened)
    print_units(opened)
    # Before torch is imported, which takes seconds, because this checks the names of the heads.
    epochs = {
        name: _total_epochs(opened, HeadConfig(head=name, **settings), seeds * ensemble)
        for name in head
    }
    with progress_bar(hidden=json) as bar:
        stops = _Stops()

        def end_task() -> None:
            for task in bar.task_ids[-1:]:
                bar.update(task, detail=stops.describe())
            stops.clear()

        def on_start(name: str) -> None:
            end_task()
            bar.add_task(f"train {name}", total=epochs[name] or None, detail="")

        def on_epoch(seed: int, epoch: "Epoch") -> None:
            stops.add(seed, epoch)
            detail = f"seed {seed} validation loss {epoch.val_loss:.4f}"
            bar.update(bar.task_ids[-1], advance=1, detail=detail)

        def on_control(done: int, total: int) -> None:
            if not done:
                end_task()
                bar.add_task("train controls", total=total, detail="")
            bar.update(bar.task_ids[-1], completed=done)

        runs = fc.train_head(
            opened,
            head,
            seeds=seeds,
            ensemble=ensemble,
            coverage=coverage,
            n_bootstrap=n_bootstrap,
            operating_point=operating_point,
            controls=controls,
            log=log or (),
            on_start=on_start,
            on_epoch=on_epoch,
            on_control=on_control,
            **settings,
        )
        end_task()
    saved = [run.save(target) for run, target in zip(runs, targets, strict=True)]
    for run, path in zip(runs, saved, strict=True):
        print_kept(path, run.default_name)
    if json:
        documents = [
            {"run": str(target), **run.metrics.to_json()}
            for run, target in zip(runs, saved, strict=True)
        ]
        print_json(documents[0] if len(documents) == 1 else documents)
        return
    printed: set[str] = set()
    for run, target in zip(runs, saved, strict=True):
        _print(run, target, printed)


class _Stops:
    """The last and the best epoch of each training of a head."""

    def __init__(self) -> None:
        self._trainings: list[list[Epoch]] = []
        self._running: dict[int, list[Epoch]] = {}

    def clear(self) -> None:
        """Begin with another head."""
        self._trainings.clear()
        self._running.clear()

    def add(self, seed: int, epoch: "Epoch") -> None:
        """Add an epoch; the first of another training with the same seed starts again from 1."""
        if epoch.epoch == 1:
            self._running[seed] = []
            self._trainings.append(self._running[seed])
        self._running[seed].append(epoch)

    def describe(self) -> str:
        """Return "stopped at epoch 27, best 17", or ranges over several trainings."""
        if not self._trainings:
            return ""
        last = {epochs[-1].epoch for epochs in self._trainings}
        best = {min(epochs, key=lambda e: e.val_loss).epoch for epochs in self._trainings}
        return f"stopped at epoch {_range(last)}, best {_range(best)}"


def _range(numbers: set[int]) -> str:
    first, last = min(numbers), max(numbers)
    return str(first) if first == last else f"{first} to {last}"


def _print(run: "Run", target: Path, printed: set[str]) -> None:
    n_members = run.config["ensemble"]
    kind = f"ensemble of {n_members}, " if n_members > 1 else ""
    print_run(f"{kind}{run.config['settings']['head']} on {run.dataset_name}", run, printed)
    if run.metrics.seeds is not None:
        spread = run.metrics.seeds.macro["auroc"]
        print_result(
            f"macro AUROC over {run.config['seeds']} seeds: {format_float(spread.mean, digits=4)} "
            f"± {format_float(spread.sd, digits=4)} (standard deviation between seeds); seed "
            f"{run.metrics.seeds.seeds[0]} is saved"
        )
    print_result(f"run: {target} (chosen: {run.config['chosen']})")


def _total_epochs(cache: "Cache", config: HeadConfig, seeds: int) -> int:
    """Return the maximum number of epochs in total; 0 for a head without epochs."""
    from featurecache.heads.config import resolve_schedule
    from featurecache.heads.registry import head_spec

    if not head_spec(config.head).has_epochs:
        return 0
    images = config.train_size or len(cache.learning_rows("train"))
    heads = len(cache.members) if config.fusion == "late" else 1
    return resolve_schedule(config, images).epochs * seeds * heads
