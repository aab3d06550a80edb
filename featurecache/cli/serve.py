"""``serve``: predict images that arrive over HTTP."""

from pathlib import Path
from typing import Annotated, Any

import typer

from featurecache.cli.config_options import takes_settings
from featurecache.cli.options import BitDepth, Device
from featurecache.cli.output import Json, print_address
from featurecache.serve.limits import Limits


@takes_settings(Limits, panel="Limits")
def serve(
    *,
    runs: Annotated[
        list[Path], typer.Argument(help="Run folders of train-head or finetune.", metavar="RUN...")
    ],
    cache: Annotated[
        Path | None,
        typer.Option(
            help="Cache made with the encoder of a run; answers then include its nearest images. "
            "Default: none.",
            metavar="FILE",
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen on. One that other machines can reach needs --token-file."
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="Port to listen on; 0 for any that is free.", min=0, max=65535)
    ] = 8000,
    token_file: Annotated[
        Path | None,
        typer.Option(
            help="File with a token that clients have to send, as Authorization: Bearer TOKEN.",
            metavar="FILE",
        ),
    ] = None,
    share_ids: Annotated[
        bool,
        typer.Option(
            "--share-ids",
            help="Include ids of nearest images that are not pseudonymized in answers to clients "
            "with the token.",
        ),
    ] = False,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Name or folder of the encoder, if the one recorded in the runs cannot be found; "
            "repeat for runs on several encoders, in their order."
        ),
    ] = None,
    weights: Annotated[
        list[Path] | None,
        typer.Option(
            help="Local checkpoint of the encoder; repeat for runs on several encoders, in their "
            "order.",
            metavar="PATH",
        ),
    ] = None,
    device: Device = "auto",
    bit_depth: BitDepth = None,
    settings: dict[str, Any],
    json: Json = False,
) -> None:
    """Serve predictions over HTTP until Ctrl-C; for research, not a medical device.

    POST an image file (also DICOM) to /predict to get probabilities, answers, familiarity and the
    nearest cached images as JSON. GET / describes what is served, /health says whether the server
    runs, and /metrics is for Prometheus. No image is stored or logged.

    Example: featurecache serve runs/kermany-dinov2-minilm-baseline
    """
    import featurecache as fc

    def announce(address: str) -> None:
        print_address(address, "server", json=json)

    fc.serve(
        runs,
        cache=cache,
        host=host,
        port=port,
        token_file=token_file,
        share_ids=share_ids,
        models=model,
        weights=weights,
        device=device,
        bit_depth=bit_depth,
        announce=announce,
        **settings,
    )
