"""``predict``: predict new images with a trained model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from featurecache.cli.options import Device
from featurecache.cli.output import Json, format_float, print_json, print_status, print_table

if TYPE_CHECKING:
    import pandas as pd


def predict(
    run: Annotated[Path, typer.Argument(help="Run folder of train-head or finetune.")],
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of images.")],
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Name or folder of the encoder, if its name in the run is not found; repeat "
            "for a run on several encoders, in its order."
        ),
    ] = None,
    weights: Annotated[
        list[Path] | None,
        typer.Option(
            help="Local checkpoint of the encoder; repeat for a run on several encoders, in its "
            "order.",
            metavar="PATH",
        ),
    ] = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Predict new images with a trained head or a fine-tuned encoder.

    Probabilities that reach the threshold of their label, chosen on validation images, are marked
    with *. Calibrated probabilities, by Platt scaling on validation images, are in parentheses.

    Example: featurecache predict runs/kermany-dinov2-minilm-baseline image.png
    """
    import featurecache as fc

    loaded = fc.load_run(run)
    table = loaded.predict(images, models=model, weights=weights, device=device)
    labels = list(loaded.scored.label_names)
    readable = table["error"].isna()
    if json:
        thresholds = {label: loaded.metrics.per_label[label].threshold for label in labels}
        print_json(
            [
                {
                    "image": row["image"],
                    "probabilities": _values(row, labels, "probability") if ok else None,
                    "calibrated": _values(row, labels, "calibrated"),
                    "thresholds": thresholds,
                    "reason": None if ok else row["error"],
                }
                for ok, (_, row) in zip(readable, table.iterrows(), strict=True)
            ]
        )
    elif readable.any():
        print_table(
            f"probabilities of {run} (calibrated)",
            ["image", *labels],
            [
                [row["image"], *(_cell(row, label) for label in labels)]
                for _, row in table[readable].iterrows()
            ],
        )
    for error in table["error"][~readable]:
        print_status(f"error: {error}")
    if not readable.all():
        raise typer.Exit(2)


def _values(row: "pd.Series[Any]", labels: list[str], column: str) -> dict[str, float | None]:
    values = {label: float(row[f"{label} {column}"]) for label in labels}
    return {label: None if value != value else value for label, value in values.items()}


def _cell(row: "pd.Series[Any]", label: str) -> str:
    mark = "*" if row[f"{label} positive"] else ""
    calibrated = float(row[f"{label} calibrated"])
    suffix = "" if calibrated != calibrated else f" ({format_float(calibrated)})"  # NaN
    return f"{format_float(row[f'{label} probability'])}{mark}{suffix}"
