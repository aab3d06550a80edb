"""``predict``: a trained head, or a fine-tuned encoder, on new images."""

from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from featurecache.cli.options import Device
from featurecache.cli.output import Json, format_float, print_json, print_status, print_table
from featurecache.cli.reload_encoder import reload_encoder
from featurecache.errors import UsageError

if TYPE_CHECKING:
    from featurecache.runs.prediction import Prediction


def predict(
    run: Annotated[Path, typer.Argument(help="Run folder that train-head or finetune made.")],
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="The encoder, where its name in the run does not find it (a folder); of several "
            "encoders give it for each, in the run's order."
        ),
    ] = None,
    weights: Annotated[
        list[Path] | None,
        typer.Option(
            help="Local checkpoint of the encoder; of several, for each, in the run's order.",
            metavar="PATH",
        ),
    ] = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Print a trained head's probabilities for new images.

    A probability at or over the label's threshold, chosen on validation, is marked with *. The
    calibrated one, by Platt's correction fitted on validation, stands beside it in brackets.

    Example: featurecache predict runs/kermany-dinov2-minilm-baseline film.png
    """
    from featurecache.evaluation.trained_model import read_platt
    from featurecache.metrics.bootstrap import none_if_nan
    from featurecache.metrics.calibration import log_odds
    from featurecache.runs.folder import run_kind

    if run_kind(run) == "finetune":
        if model or weights:
            raise UsageError(f"{run} holds its own encoder: leave out --model and --weights")
        labels, thresholds, predictions = _with_finetuned(run, images, device)
    else:
        labels, thresholds, predictions = _with_head(run, images, model, weights, device)
    platt = read_platt(run)

    def calibrated(prediction: "Prediction") -> "list[float | None]":
        if platt is None or prediction.probability is None:
            return [None] * len(labels)
        return [none_if_nan(p) for p in platt(log_odds(prediction.probability))]

    if json:
        print_json(
            [
                {
                    "image": str(prediction.path),
                    "probabilities": None
                    if prediction.probability is None
                    else dict(zip(labels, prediction.probability.tolist(), strict=True)),
                    "calibrated": dict(zip(labels, calibrated(prediction), strict=True)),
                    "thresholds": dict(zip(labels, thresholds, strict=True)),
                    "reason": prediction.reason,
                }
                for prediction in predictions
            ]
        )
    else:
        rows = []
        for prediction in predictions:
            if prediction.probability is not None:
                cells = [
                    format_float(p)
                    + ("*" if p >= threshold else "")
                    + ("" if corrected is None else f" ({format_float(corrected)})")
                    for p, threshold, corrected in zip(
                        prediction.probability, thresholds, calibrated(prediction), strict=True
                    )
                ]
                rows.append([str(prediction.path), *cells])
        print_table(f"probabilities of {run} (calibrated)", ["image", *labels], rows)
    unusable = [prediction for prediction in predictions if prediction.reason is not None]
    for prediction in unusable:
        print_status(f"error: {prediction.reason}")
    if unusable:
        raise typer.Exit(2)


def _with_head(
    run: Path,
    images: list[Path],
    models: list[str] | None,
    weights: list[Path] | None,
    device: str,
) -> "tuple[tuple[str, ...], tuple[float, ...], list[Prediction]]":
    from featurecache.heads.io import read_head
    from featurecache.heads.prediction import predict_images

    head = read_head(run)
    number = len(head.encoders)
    for option, given in (("--model", models), ("--weights", weights)):
        if given and len(given) != number:
            raise UsageError(
                f"{run} takes {number} encoder{'s' if number > 1 else ''}, and {option} names "
                f"{len(given)}: give it once for each, in their order"
            )
    encoders = [
        reload_encoder(run, made.model, made.description, model=model, weights=path, device=device)
        for made, model, path in zip(
            head.encoders, models or repeat(None), weights or repeat(None), strict=False
        )
    ]
    return head.labels, head.thresholds, predict_images(head, encoders, images)


def _with_finetuned(
    run: Path, images: list[Path], device: str
) -> "tuple[tuple[str, ...], tuple[float, ...], list[Prediction]]":
    from featurecache.finetune.run import read_finetuned
    from featurecache.runs.prediction import classify_images

    found = read_finetuned(run, device=device)
    predictions = classify_images([found.encoder], found.probabilities, images)
    return found.labels, found.thresholds, predictions
