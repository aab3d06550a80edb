"""``train-head``: stage 2."""

from pathlib import Path
from typing import Annotated

import typer

from featurecache.cli.options import CacheFiles, Draws, Fusion, Prompts, open_caches
from featurecache.cli.output import (
    Json,
    format_float,
    print_json,
    print_metrics,
    print_result,
    print_status,
    progress_bar,
    warn,
)
from featurecache.heads.config import HeadConfig, resolve_schedule

_TRAINING = "Training"
_DEFAULTS = HeadConfig(head="baseline")
_BY_SIZE = "Without it as suits the number of training images."


def train_head(
    head: Annotated[
        str,
        typer.Option(help="weighted_sum, linear ...: see featurecache heads."),
    ],
    cache: CacheFiles = None,
    fusion: Fusion = _DEFAULTS.fusion,
    seeds: Annotated[int, typer.Option(help="Train this many, for mean and spread.", min=1)] = 1,
    seed: Annotated[int, typer.Option(help="The first seed.")] = 0,
    train_size: Annotated[
        int | None, typer.Option(help="Train on N images; all without it.", metavar="N")
    ] = None,
    resample: Annotated[
        str,
        typer.Option(
            help="none; undersample: as many images of each label; weighted: draw them as often."
        ),
    ] = "none",
    pos_weight: Annotated[
        str, typer.Option(help="none; balanced: weigh a label's positives by their rarity.")
    ] = "none",
    text_ablation: Annotated[
        str, typer.Option(help="none, or permuted, random or zero: text that can carry no meaning.")
    ] = "none",
    prompts: Prompts = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Run folder to make; runs/DATASET-MODEL-HEAD without it.", metavar="DIR"),
    ] = None,
    n_bootstrap: Draws = 1000,
    controls: Annotated[
        bool,
        typer.Option(
            help="Train anew on shuffled labels, five times, and on random features, to show what "
            "the head scores where there is nothing to learn."
        ),
    ] = True,
    hidden: Annotated[
        str | None,
        typer.Option(
            help="Sizes of the hidden layers, such as 512,256. Without it as suits the head.",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    loss: Annotated[
        str,
        typer.Option(
            help="bce; asymmetric, for rare findings; logit_adjusted, for findings of very "
            "different frequency.",
            rich_help_panel=_TRAINING,
        ),
    ] = _DEFAULTS.loss,
    dropout: Annotated[
        float, typer.Option(help="Dropout probability.", rich_help_panel=_TRAINING)
    ] = _DEFAULTS.dropout,
    noise: Annotated[
        float, typer.Option(help="Gaussian noise on the inputs.", rich_help_panel=_TRAINING)
    ] = _DEFAULTS.noise,
    learning_rate: Annotated[
        float | None,
        typer.Option(help=f"Highest learning rate. {_BY_SIZE}", rich_help_panel=_TRAINING),
    ] = None,
    weight_decay: Annotated[
        float, typer.Option(help="Weight decay.", rich_help_panel=_TRAINING)
    ] = _DEFAULTS.weight_decay,
    epochs: Annotated[
        int | None, typer.Option(help=f"The most epochs. {_BY_SIZE}", rich_help_panel=_TRAINING)
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help=f"Images a step. {_BY_SIZE}", rich_help_panel=_TRAINING)
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="fp32 or bf16. Without it bf16 where training images are many and the processor "
            "has instructions for it, else fp32.",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    patience: Annotated[
        int,
        typer.Option(
            help="Epochs without a better validation loss to stop after.",
            rich_help_panel=_TRAINING,
        ),
    ] = _DEFAULTS.patience,
    json: Json = False,
) -> None:
    """Train a head on cached embeddings and measure it on the test images.

    The epoch is chosen by validation loss, thresholds by validation F1; test is only measured.

    Example: featurecache train-head --head weighted_sum --seeds 5
    """
    from featurecache.heads.registry import head_spec
    from featurecache.heads.train import train_head
    from featurecache.io.atomic import require_absent

    spec = head_spec(head)
    config = HeadConfig(
        head=head,
        hidden=None if hidden is None else _sizes(hidden),
        dropout=dropout,
        noise=noise,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        epochs=epochs,
        batch_size=batch_size,
        precision=precision,  # type: ignore[arg-type]
        patience=patience,
        loss=loss,  # type: ignore[arg-type]
        pos_weight=pos_weight,  # type: ignore[arg-type]  # HeadConfig checks its value
        resample=resample,  # type: ignore[arg-type]
        train_size=train_size,
        text_ablation=text_ablation,  # type: ignore[arg-type]
        prompts=prompts,
        fusion=fusion,  # type: ignore[arg-type]
        seed=seed,
    )
    if out is not None:
        require_absent(out)
    found, called = open_caches(cache)
    print_status(f"cache {called}, head {head}, seed {seed}")
    with progress_bar(hidden=json) as bar:
        epochs_in_all = None
        if spec.has_epochs:
            epochs_in_all = (
                resolve_schedule(config, train_size or len(found.rows("train"))).epochs * seeds
            )
            epochs_in_all *= len(found.members) if fusion == "late" else 1
        task = bar.add_task("train", total=epochs_in_all, detail="")
        run = train_head(
            found,
            **vars(config),
            seeds=seeds,
            n_bootstrap=n_bootstrap,
            controls=controls,
            on_epoch=lambda seed, epoch: bar.update(
                task, advance=1, detail=f"seed {seed} validation loss {epoch.val_loss:.4f}"
            ),
        )
    target, metrics = run.save(out), run.metrics
    if json:
        print_json({"run": str(target), **metrics.to_json()})
        return
    print_metrics(f"{head} on {found.header.dataset}", metrics.to_json())
    if metrics.seeds is not None:
        spread = metrics.seeds.macro["auroc"]
        print_result(
            f"macro AUROC over {seeds} seeds: {format_float(spread.mean, digits=4)} "
            f"± {format_float(spread.sd, digits=4)} (standard deviation)"
        )
    for warning in run.warnings:
        warn(warning)
    print_result(f"run: {target} ({run.config['chosen']})")


def _sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(
            f"{text!r}: give sizes joined by commas, such as 512,256", param_hint="--hidden"
        ) from None
