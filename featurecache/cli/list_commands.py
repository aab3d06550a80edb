"""``heads``: list what is registered, also by plugins."""

from featurecache.cli.output import Json, print_json, print_table
from featurecache.plugins import load_entry_points


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
