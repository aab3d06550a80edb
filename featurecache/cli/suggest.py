"""``suggest``: choose the images to label next."""

from pathlib import Path
from typing import Annotated

import typer

from featurecache.cli.options import (
    CacheFile,
    OptionValues,
    Views,
    describe_choice,
    print_policy,
    print_units,
    takes_policy,
)
from featurecache.cli.output import (
    Json,
    format_float,
    print_json,
    print_result,
    print_status,
    print_table,
)
from featurecache.wording import UNDEFINED, count_noun

MAX_ROWS = 20
"""Number of images printed; the file and --json have all."""


@takes_policy
def suggest(
    *,
    n: Annotated[int, typer.Option("--n", help="Number of images.", min=1)] = 200,
    cache: CacheFile = Path("cache"),
    run: Annotated[
        Path | None,
        typer.Option(
            help="Run folder of a head on the same encoder, to prefer images that it is uncertain "
            "of. Default: by the embeddings alone.",
            metavar="DIR",
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Split to choose from, or all.")] = "train",
    seed: Annotated[
        int, typer.Option(help="Seed of the order of images that are equally uncertain or far.")
    ] = 0,
    out: Annotated[
        Path, typer.Option(help="File to write, .csv or .parquet.", metavar="FILE")
    ] = Path("suggestions.csv"),
    views: Views = None,
    policy: OptionValues,
    json: Json = False,
) -> None:
    """Suggest images to label next: uncertain ones that differ, of different patients.

    The file has an empty column for each label. Fill it in, and give it back as a data set or as
    --corrections of the same one: embeddings are kept.

    Example: featurecache suggest --n 200 --run runs/ward-tiny-linear --out next.csv
    """
    import featurecache as fc
    from featurecache.io.table import check_table_file, write_table

    check_table_file(out)
    opened = fc.open_cache(cache, views=views, **policy)
    print_status(f"choosing from {describe_choice(cache, opened)}")
    print_policy(opened)
    print_units(opened)
    images = fc.suggest(opened, n, run=run, split=split, seed=seed)
    write_table(images, out)
    if json:
        print_json(images.astype(object).where(images.notna(), None).to_dict("records"))
        return
    patient = ["patient"] if opened.patients_known else []
    print_table(
        f"{count_noun(len(images), 'image')} to label"
        + (f" ({MAX_ROWS} of them; {out} has all)" if len(images) > MAX_ROWS else ""),
        ["", "image", *patient, "split", "uncertainty", "distance"],
        [
            [
                str(image["rank"]),
                image["id"],
                *(image[name] for name in patient),
                image["split"],
                *(
                    UNDEFINED if image[name] != image[name] else format_float(image[name])
                    for name in ("uncertainty", "distance")
                ),
            ]
            for image in images[:MAX_ROWS].to_dict("records")
        ],
    )
    if len(images) < n:
        print_status(f"there are no more than {count_noun(len(images), 'image')} to choose from")
    print_result(f"images to label: {out}")
