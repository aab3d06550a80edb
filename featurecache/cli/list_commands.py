"""``models`` and ``heads``: list what is registered, also by plugins."""

from dataclasses import asdict

from featurecache.cli.output import Json, print_json, print_table
from featurecache.plugins import load_entry_points
from featurecache.wording import UNDEFINED


def models(json: Json = False) -> None:
    """List the encoders that --model accepts.

    Example: featurecache models --json
    """
    from featurecache.encoders.registry import ENCODERS

    load_entry_points()

    if json:
        print_json([asdict(spec) for spec in ENCODERS.values()])
        return
    print_table(
        "Models (also hf:ORG/NAME or a folder, for any CLIP- or SigLIP-like model)",
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


def heads(json: Json = False) -> None:
    """List the heads that --head accepts.

    Example: featurecache heads
    """
    from featurecache.heads.registry import HEADS

    load_entry_points()

    if json:
        print_json(
            [
                {
                    "name": spec.name,
                    "summary": spec.summary,
                    "uses_text": spec.uses_text,
                    "text": spec.text,
                }
                for spec in HEADS.values()
            ]
        )
        return
    print_table(
        "Heads",
        ["name", "text", "description"],
        [[spec.name, _TEXT[spec.text], spec.summary] for spec in HEADS.values()],
        prose=("text", "description"),
    )


_TEXT = {
    "none": "none",
    "constant": "constant: the same for every image",
    "aligned": "compared with each image; needs an encoder with a shared space",
}
