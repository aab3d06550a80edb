"""``align``: map the images of a cache into the space of its texts."""

from pathlib import Path
from typing import Annotated

import typer

from featurecache.cli.options import (
    UNITS,
    CacheFile,
    OptionValues,
    Prompts,
    describe_choice,
    print_policy,
    print_units,
    takes_policy,
    takes_units,
)
from featurecache.cli.output import (
    Json,
    format_float,
    print_json,
    print_result,
    print_status,
    print_table,
)


@takes_policy
@takes_units(UNITS)
def align(
    cache: CacheFile = Path("cache"),
    method: Annotated[
        str,
        typer.Option(help="Method: ridge, in closed form, or contrastive, trained from it."),
    ] = "ridge",
    prompts: Prompts = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="File to write. Default: MODEL.PROMPTS-METHOD.alignment.safetensors next to the "
            "cache.",
            metavar="FILE",
        ),
    ] = None,
    *,
    policy: OptionValues,
    units: OptionValues,
    json: Json = False,
) -> None:
    """Map images into the space of texts, for zero-shot and retrieve with --alignment.

    The map is fitted on training images, with their labels and prompts, and selected on validation
    images. Test images are never used.

    Example: featurecache align --cache cache/nih/dinov2-minilm.h5
    """
    import featurecache as fc
    from featurecache.alignment.alignment import require_absent_or_alignment
    from featurecache.store.layout import alignment_path

    opened = fc.open_cache(cache, **policy, **units)
    # Fail before the training, not after it.
    require_absent_or_alignment(
        out or alignment_path(opened.path, opened.text(prompts).name, method)
    )
    print_status(f"aligning {describe_choice(cache, opened)} (method {method})")
    print_policy(opened)
    print_units(opened)
    alignment = fc.align(opened, method=method, prompts=prompts)
    path = alignment.save(out)
    spec = alignment.spec
    if json:
        fields = ("model", "dataset", "method", "settings", "prompts", "labels", "validation")
        print_json(
            {
                "path": str(path),
                "fingerprint": alignment.fingerprint,
                "scale": alignment.scale,
                "bias": alignment.bias,
                **{name: spec[name] for name in fields},
            }
        )
        return
    validation = spec["validation"]
    print_table(
        f"{method} alignment on {spec['dataset']}",
        ["setting or metric", ""],
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
    print_result(f"alignment: {path}")
