"""``align``: bring the images and texts of an unaligned encoder into one space."""

from pathlib import Path
from typing import Annotated

import typer

from featurecache.cli.options import CacheFile, Prompts, choose_cache
from featurecache.cli.output import (
    Json,
    format_float,
    print_json,
    print_result,
    print_status,
    print_table,
)


def align(
    cache: CacheFile = Path("cache"),
    method: Annotated[
        str,
        typer.Option(help="ridge: in closed form; contrastive: goes on from there by training."),
    ] = "ridge",
    prompts: Prompts = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The file to make; <model>.<prompts>-<method>.alignment.safetensors beside the "
            "cache without it.",
            metavar="FILE",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Map images into the space of texts, so that zero-shot and retrieve work with --alignment.

    It learns from the training images' labels and prompts, chooses its strength on validation
    images, and never looks at test images.

    Example: featurecache align --cache cache/nih/dinov2-minilm.h5
    """
    from featurecache.alignment.alignment import write_alignment
    from featurecache.alignment.fit import fit_alignment
    from featurecache.io.atomic import require_absent
    from featurecache.store.layout import alignment_path
    from featurecache.store.reader import read_cache

    path, chosen = choose_cache(cache)
    found = read_cache(path)
    target = out or alignment_path(path, found.text(prompts).name, method)
    require_absent(target)
    print_status(f"cache {path}{' (the newest)' if chosen else ''}, {found.header.model}, {method}")
    alignment = fit_alignment(found, method=method, prompts=prompts)
    write_alignment(target, alignment)
    spec = alignment.spec
    if json:
        kept = ("model", "dataset", "method", "settings", "prompts", "labels", "validation")
        print_json(
            {
                "path": str(target),
                "fingerprint": alignment.fingerprint,
                "scale": alignment.scale,
                "bias": alignment.bias,
                **{name: spec[name] for name in kept},
            }
        )
        return
    validation = spec["validation"]
    print_table(
        f"{method} alignment on {spec['dataset']}",
        ["setting or figure", ""],
        [
            ["validation images", str(validation["n"])],
            *([name.replace("_", " "), f"{value:g}"] for name, value in spec["settings"].items()),
            ["scale and bias", f"{alignment.scale:.2f}, {alignment.bias:.2f}"],
            *(
                [f"validation {name.replace('_', ' ')}", format_float(value)]
                for name, value in validation.items()
                if name != "n"
            ),
        ],
    )
    print_result(f"alignment: {target}")
