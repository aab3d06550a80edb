"""``finetune``: train the encoder itself."""

from pathlib import Path
from typing import Annotated, Any

import typer

from featurecache.cli.dataset_options import (
    DataRoot,
    DatasetName,
    DatasetOptions,
    load_dataset,
    takes_dataset_options,
)
from featurecache.cli.options import DEFAULT_MODEL, Device, Draws
from featurecache.cli.output import (
    Json,
    print_json,
    print_metrics,
    print_result,
    print_status,
    progress_bar,
    warn,
)

_TRAINING = "Training (a recipe's or a default where not given)"


def _setting(help_text: str) -> Any:
    return typer.Option(help=help_text, rich_help_panel=_TRAINING)


@takes_dataset_options(without=("sex_column", "age_column"))
def finetune(
    *,
    model: Annotated[
        str, typer.Option(help="Encoder to start from. See 'featurecache models'.")
    ] = DEFAULT_MODEL,
    dataset: DatasetName = None,
    objective: Annotated[
        str | None, typer.Option(help="bce (a head on the labels) or contrastive (captions).")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Published settings: nih-bce, pediatric-clip, pediatric-clip-ucsd, "
            "pediatric-medclip, pediatric-medclip-ucsd."
        ),
    ] = None,
    trainable: Annotated[
        str | None,
        typer.Option(
            help="What moves of the encoder: all, vision, last-N (blocks), lora-R (adapters of "
            "rank R) or head (projections)."
        ),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            help="pretrained, or random: weights drawn by --seed; a folder then needs only its "
            "config, image processor and tokenizer."
        ),
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(help="An encoder whose image embeddings it learns from as well.")
    ] = None,
    train_size: Annotated[
        int | None, typer.Option(help="Train on N images; all without it.", metavar="N")
    ] = None,
    data_root: DataRoot = None,
    weights: Annotated[
        Path | None, typer.Option(help="Local checkpoint of the model.", metavar="PATH")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Run folder to make; runs/DATASET-MODEL-OBJECTIVE without it.", metavar="DIR"
        ),
    ] = None,
    n_bootstrap: Draws = 1000,
    workers: Annotated[int, typer.Option(help="Decoding threads.", min=1)] = 2,
    device: Device = "auto",
    head: Annotated[str | None, _setting("Of bce: linear or mlp.")] = None,
    prompts: Annotated[
        str | None, _setting("Of contrastive: showing, lungs, signs or a file.")
    ] = None,
    teacher_weight: Annotated[float | None, _setting("Of the teacher's loss.")] = None,
    optimizer: Annotated[str | None, _setting("adam or adamw.")] = None,
    learning_rate: Annotated[float | None, _setting("Highest, of the encoder.")] = None,
    head_learning_rate: Annotated[float | None, _setting("Highest, of the head.")] = None,
    weight_decay: Annotated[float | None, _setting("Weight decay.")] = None,
    epochs: Annotated[int | None, _setting("The most epochs.")] = None,
    batch_size: Annotated[int | None, _setting("Images a step.")] = None,
    micro_batch_size: Annotated[
        int | None, _setting("Images in memory at once; changes no gradient.")
    ] = None,
    patience: Annotated[
        int | None, _setting("Epochs without a better validation loss to stop after.")
    ] = None,
    warmup_ratio: Annotated[float | None, _setting("Share of the steps to warm up over.")] = None,
    max_grad_norm: Annotated[float | None, _setting("The longest gradient of a step.")] = None,
    pos_weight: Annotated[str | None, _setting("none or balanced.")] = None,
    augment: Annotated[
        bool | None, typer.Option("--augment/--no-augment", rich_help_panel=_TRAINING)
    ] = None,
    precision: Annotated[str | None, _setting("fp32 or bf16.")] = None,
    seed: Annotated[int | None, _setting("Seed.")] = None,
    options: DatasetOptions,
    json: Json = False,
) -> None:
    """Train the encoder itself on images; the result is an encoder like any other.

    Killed at any moment, the same command goes on. The epoch is chosen by validation loss; test
    images are only measured. Give the run folder to extract --model, or to predict.

    Example: featurecache finetune --model dinov2-small --dataset kermany --objective bce
    --trainable last-2
    """
    from featurecache.encoders.loading import load_encoder
    from featurecache.finetune.checkpoint import unfinished
    from featurecache.finetune.config import configure
    from featurecache.finetune.distillation import Teacher
    from featurecache.finetune.random_init import load_source, randomly_initialized
    from featurecache.finetune.run import finetune as run
    from featurecache.finetune.run import require_unfinished
    from featurecache.store.layout import to_file_name

    settings = {
        "objective": objective,
        "trainable": trainable,
        "init": init,
        "train_size": train_size,
        "head": head,
        "prompts": prompts,
        "teacher_weight": teacher_weight,
        "optimizer": optimizer,
        "learning_rate": learning_rate,
        "head_learning_rate": head_learning_rate,
        "weight_decay": weight_decay,
        "epochs": epochs,
        "batch_size": batch_size,
        "micro_batch_size": micro_batch_size,
        "patience": patience,
        "warmup_ratio": warmup_ratio,
        "max_grad_norm": max_grad_norm,
        "pos_weight": pos_weight,
        "augment": augment,
        "precision": precision,
        "seed": seed,
    }
    config = configure(recipe, {k: v for k, v in settings.items() if v is not None})
    # What stands in the way is told before any film is read, drawn or written about.
    if out is not None:
        require_unfinished(out)
    load = load_source if config.init == "random" else load_encoder
    encoder = load(model, weights=weights, device=device, precision=config.precision)
    taught_by = (
        None
        if teacher is None
        else Teacher(load_encoder(teacher, device=device, precision=config.precision))
    )
    manifest = load_dataset(dataset, data_root, options, quiet=json)
    name = to_file_name(f"{manifest.name}-{encoder.name}-{config.objective}")
    target = Path("runs") / name if out is None else out
    require_unfinished(target)
    if config.init == "random":
        encoder = randomly_initialized(
            encoder,
            folder=unfinished(target) / "start",
            seed=config.seed,
            precision=config.precision,
        )
    print_status(
        f"{len(manifest)} images of {manifest.name}; {encoder.name} on {encoder.device} in "
        f"{config.precision}; {config.objective}, training {config.trainable} from "
        f"{config.init} weights; into {target}/"
    )
    for note in manifest.notes:
        print_status(f"note: {note}")
    with progress_bar(hidden=json) as bar:
        task = bar.add_task("finetune", total=None, detail="")
        result = run(
            manifest,
            encoder,
            config,
            target=target,
            workers=workers,
            n_bootstrap=n_bootstrap,
            teacher=taught_by,
            progress=lambda done, total, detail: bar.update(
                task, completed=done, total=total, detail=detail
            ),
        )
    if json:
        print_json(
            {"run": str(target), "best_epoch": result.best_epoch, **result.metrics.to_json()}
        )
        return
    print_metrics(f"{config.objective} on {manifest.name}", result.metrics)
    for warning in result.metrics.warnings:
        warn(warning)
    print_result(f"run: {target} (best epoch {result.best_epoch})")
