"""``cache import``: make a cache of embeddings from elsewhere."""

from pathlib import Path
from typing import Annotated

import typer

from featurecache.cli.dataset_options import DatasetOptions, takes_dataset_options
from featurecache.cli.options import CacheFolder
from featurecache.cli.output import Json, print_json, print_result, print_status, progress_bar
from featurecache.wording import count_noun


@takes_dataset_options(
    without=(
        *("split", "subset", "section", "labeler", "n_images", "n_views", "path_column"),
        *("metadata_column", "images_root", "patient_level", "follow_links", "pseudonymize"),
        *("corrections", "only_labels"),
    ),
    of_table=True,
)
def import_(
    source: Annotated[
        Path,
        typer.Argument(
            help="File or folder with embeddings: an export, .parquet, .npy, .npz, .csv, the "
            "output folder of clip-retrieval, .tfrecord, or a folder with an .npz or .npy file per "
            "image or with TFRecord files.",
            metavar="SOURCE",
        ),
    ],
    *,
    model: Annotated[
        str | None,
        typer.Option(
            help="Name of the encoder that made the embeddings. Default: that of an export.",
            metavar="NAME",
        ),
    ] = None,
    cache: CacheFolder = Path("cache"),
    table: Annotated[
        Path | None,
        typer.Option(
            help="Table of the images, with a row for each embedding, in the same order or by id. "
            "Default: the one in or beside SOURCE.",
            metavar="FILE",
        ),
    ] = None,
    embedding: Annotated[
        list[str] | None,
        typer.Option(
            help="Column of the embeddings, columns of numbers such as 'emb_*', array of an "
            ".npz file, or feature of a TFRecord file; repeat for more columns.",
            metavar="NAME",
        ),
    ] = None,
    texts: Annotated[
        Path | None,
        typer.Option(
            help="Embeddings of prompts by the same encoder, for zero-shot classification: a "
            "parquet file, or an .npy file with a table beside it.",
            metavar="FILE",
        ),
    ] = None,
    json: Json = False,
    options: DatasetOptions,
) -> None:
    """Make a cache of embeddings that another program made, or of an export.

    All commands that do not read images work on it. 'extract' cannot add to it.

    Example: featurecache cache import vectors.npy --table labels.csv --model my-encoder
    --patient-column pid --label-column Effusion
    """
    import featurecache as fc

    with progress_bar(hidden=json) as bar:
        task = bar.add_task("import", total=None, detail="")
        imported = fc.import_cache(
            source,
            model=model,
            name=options.name,
            cache_dir=cache,
            table=table,
            embedding=embedding or (),
            texts=texts,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
            **options.for_loader("csv"),
        )
    if json:
        print_json(
            {
                "path": str(imported.path),
                "images": len(imported),
                "dim": imported.dim,
                "labels": list(imported.labels.names),
                "prompts": sorted(imported.texts),
                "notes": list(imported.header.notes),
            }
        )
        return
    for note in imported.header.notes:
        print_status(f"note: {note}")
    print_result(
        f"{imported.path}: {count_noun(len(imported), 'image')}, {imported.dim}-d embeddings, "
        f"{count_noun(len(imported.labels.names), 'label')}"
    )
