"""``models``: list the encoders, show what one offers, and convert published weights for one."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from featurecache.cli.errors import with_exit_code
from featurecache.cli.listing import Listing
from featurecache.cli.options import EncoderWeights
from featurecache.cli.output import Json, print_json, print_result, print_table
from featurecache.cli.strict_command import StrictCommand
from featurecache.plugins import load_entry_points
from featurecache.wording import UNDEFINED


class _Models(Listing):
    describing = "show"


app = typer.Typer(cls=_Models, invoke_without_command=True)


@app.callback()
@with_exit_code
def models(context: typer.Context, json: Json = False) -> None:
    """List the encoders that --model accepts, show one, or convert published weights for one.

    Example: featurecache models --json
    """
    from featurecache.encoders.registry import ENCODERS

    if context.invoked_subcommand is not None:
        if json:
            raise typer.BadParameter(f"give it after {context.invoked_subcommand}")
        return
    load_entry_points()
    if json:
        print_json([asdict(spec) for spec in ENCODERS.values()])
        return
    print_table(
        "Models (also hf:ORG/NAME, timm:NAME or a folder, for any supported type of network)",
        ["name", "dim", "pixels", "aligned", "license", "note"],
        [
            [
                spec.name,
                str(spec.dim),
                UNDEFINED if spec.pixels is None else str(spec.pixels),
                "yes" if spec.aligned else "no",
                spec.license,
                spec.note,
            ]
            for spec in ENCODERS.values()
        ],
        prose=("license", "note"),
    )


@app.command("show", cls=StrictCommand)
@with_exit_code
def show(
    model: Annotated[
        str,
        typer.Argument(
            help="Model: a name of the list, hf:ORG/NAME, timm:NAME or a folder.", metavar="NAME"
        ),
    ],
    weights: EncoderWeights = None,
    json: Json = False,
) -> None:
    """Show what a model offers, --features above all, as the configuration of its checkpoint says.

    A checkpoint that is not on this machine is downloaded, as for extract.

    Example: featurecache models show tiny
    """
    import featurecache as fc

    load_entry_points()
    encoder = fc.load_encoder(model, weights=weights, device="cpu")
    default = str(encoder.features) if encoder.has_images else None
    if json:
        print_json(
            {
                "model": encoder.name,
                "dim": encoder.dim,
                "images": encoder.has_images,
                "texts": encoder.has_text,
                "aligned": encoder.aligned,
                "features": list(encoder.offered_features),
                "default_features": default,
                "finest_grid": encoder.finest_grid,
            }
        )
        return
    takes = [
        name for name, on in (("images", encoder.has_images), ("texts", encoder.has_text)) if on
    ]
    print_table(
        "",
        ["field", "value"],
        [
            ["model", encoder.name],
            ["dim", str(encoder.dim)],
            ["takes", " and ".join(takes)],
            ["aligned", "yes" if encoder.aligned else "no"],
            ["features", " ".join(encoder.offered_features) or UNDEFINED],
            ["default", default or UNDEFINED],
        ],
        prose=("value",),
    )


@app.command("convert", cls=StrictCommand)
@with_exit_code
def convert(
    source: Annotated[Path, typer.Argument(help="The published file.", metavar="SRC")],
    folder: Annotated[Path, typer.Argument(help="Folder to create.", metavar="OUT")],
    model: Annotated[
        str,
        typer.Option(
            help="Model of the weights: a name such as eva-x-base, or timm:NAME.", metavar="NAME"
        ),
    ],
    json: Json = False,
) -> None:
    """Convert weights that authors publish as a file into safetensors with a config, once.

    No code in the file is run. Then give OUT as --weights.

    Example: featurecache models convert eva_x_base_patch16_merged520k_mim.pt eva-x-base --model
    eva-x-base
    """
    from featurecache.encoders.convert import convert_checkpoint

    converted = convert_checkpoint(source, folder, model=model)
    if json:
        print_json({"model": model, "folder": str(converted)})
    else:
        print_result(f"{model}: {converted}")
