"""``predict``: a trained head on new images."""

from pathlib import Path
from typing import Annotated

import typer

from featurecache.cli.options import Device
from featurecache.cli.output import Json, number, print_json, print_table, say


def predict(
    run: Annotated[Path, typer.Argument(help="Run folder that train-head made.")],
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    model: Annotated[
        str | None,
        typer.Option(help="The encoder, where its name in the run does not find it (a folder)."),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Local checkpoint of the encoder.", metavar="PATH")
    ] = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Print a trained head's probabilities for new images.

    A probability at or over the label's threshold, chosen on validation, is marked with *.

    Example: featurecache predict runs/kermany-dinov2-minilm-baseline film.png
    """
    from featurecache.encoders.loading import load_encoder
    from featurecache.heads.prediction import library_difference, predict_images
    from featurecache.heads.saving import read_head

    head = read_head(run)
    encoder = load_encoder(
        model or head.model,
        weights=weights,
        device=device,
        precision=str(head.description.get("precision", "auto")),
    )
    if difference := library_difference(head, encoder):
        say(f"warning: the head was trained with other library versions ({difference})")
    predictions = predict_images(head, encoder, images)
    if json:
        print_json(
            [
                {
                    "image": str(prediction.path),
                    "probabilities": None
                    if prediction.probability is None
                    else dict(zip(head.labels, prediction.probability.tolist(), strict=True)),
                    "thresholds": dict(zip(head.labels, head.thresholds, strict=True)),
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
                    number(p) + ("*" if p >= threshold else "")
                    for p, threshold in zip(prediction.probability, head.thresholds, strict=True)
                ]
                rows.append([str(prediction.path), *cells])
        print_table(f"{head.config.head} of {run}", ["image", *head.labels], rows)
    unusable = [prediction for prediction in predictions if prediction.reason is not None]
    for prediction in unusable:
        say(f"error: {prediction.reason}")
    if unusable:
        raise typer.Exit(2)
