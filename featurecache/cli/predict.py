"""``predict``: a trained head, or a fine-tuned encoder, on new images."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from featurecache.cli.options import Device
from featurecache.cli.output import Json, format_float, print_json, print_status, print_table

if TYPE_CHECKING:
    import pandas as pd


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
    import numpy as np

    from featurecache.runs.run import load_run

    loaded = load_run(run)
    table = loaded.predict(images, models=model, weights=weights, device=device)
    labels = list(loaded.scored.label_names)
    thresholds = {label: loaded.metrics.per_label[label].threshold for label in labels}
    if json:

        def values(row: "pd.Series[Any]", column: str) -> "dict[str, float | None]":
            cells = {label: float(row[f"{label} {column}"]) for label in labels}
            return {label: None if np.isnan(value) else value for label, value in cells.items()}

        print_json(
            [
                {
                    "image": row["image"],
                    "probabilities": None if row["error"] else values(row, "probability"),
                    "calibrated": values(row, "calibrated"),
                    "thresholds": thresholds,
                    "reason": row["error"],
                }
                for _, row in table.iterrows()
            ]
        )
    else:

        def cell(row: "pd.Series[Any]", label: str) -> str:
            mark = "*" if row[f"{label} positive"] else ""
            calibrated = row[f"{label} calibrated"]
            suffix = "" if np.isnan(calibrated) else f" ({format_float(calibrated)})"
            return f"{format_float(row[f'{label} probability'])}{mark}{suffix}"

        print_table(
            f"probabilities of {run} (calibrated)",
            ["image", *labels],
            [
                [row["image"], *(cell(row, label) for label in labels)]
                for _, row in table.iterrows()
                if not row["error"]
            ],
        )
    errors = [error for error in table["error"] if error]
    for error in errors:
        print_status(f"error: {error}")
    if errors:
        raise typer.Exit(2)
