"""``retrieve``: search a cache by text, label or image, or measure retrieval."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Annotated, Final

import typer

from featurecache.cli.dataset_options import (
    DataRoot,
    DatasetOptions,
    load_dataset_again,
    takes_dataset_options,
)
from featurecache.cli.options import (
    AlignmentFile,
    BitDepth,
    CacheFile,
    Device,
    EncoderOfCache,
    EncoderWeights,
    NBootstrap,
    OptionValues,
    Prompts,
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
    progress_bar,
    warn,
    with_interval,
)
from featurecache.errors import UsageError
from featurecache.wording import UNDEFINED, count_noun

if TYPE_CHECKING:
    from featurecache.datasets.dataset import Dataset
    from featurecache.encoders.encoder import Encoder
    from featurecache.retrieval.metrics import QueryMetrics, RetrievalIntervals, RetrievalMetrics
    from featurecache.retrieval.query import SearchResult


MAX_TEXT: Final = 60
"""Characters of a text that are printed, such as a report; ``--out`` and ``--json`` have all."""


@takes_dataset_options(
    without=(
        "split",
        "subset",
        "patient_column",
        "study_column",
        "split_column",
        "view_column",
        "sex_column",
        "age_column",
        "corrections",
        "only_labels",
    )
)
@takes_policy
def retrieve(
    *,
    text: Annotated[str | None, typer.Argument(help="Query text.")] = None,
    image: Annotated[
        str | None,
        typer.Option(
            help="Query image: a file, or the id of an image in the cache. The labels that match "
            "it best are printed as well."
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(help="Query label: search by the embeddings of its prompts."),
    ] = None,
    top: Annotated[
        int,
        typer.Option(
            help="Number of images to return; without a query, the K of precision and recall at K.",
            min=1,
        ),
    ] = 10,
    cache: CacheFile = Path("cache"),
    split: Annotated[
        str | None,
        typer.Option(help="Split to search. Default: all images, or test if there is no query."),
    ] = None,
    prompts: Prompts = None,
    alignment: AlignmentFile = None,
    out: Annotated[
        Path | None,
        typer.Option(help="File to write the list of retrieved images to, .csv or .parquet."),
    ] = None,
    contact_sheet: Annotated[
        Path | None,
        typer.Option(
            help="File to write a contact sheet of the retrieved images to.", metavar="PNG"
        ),
    ] = None,
    heatmap: Annotated[
        Path | None,
        typer.Option(
            "--map",
            help="File to write a picture to, of the images that a text or --label retrieved, and "
            "of the similarity of their patches to it.",
            metavar="PNG",
        ),
    ] = None,
    model: EncoderOfCache = None,
    weights: EncoderWeights = None,
    device: Device = "auto",
    bit_depth: BitDepth = None,
    n_bootstrap: NBootstrap = 1000,
    views: Views = None,
    policy: OptionValues,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Data set with the image files for --contact-sheet and --map, if it cannot be "
            "loaded as it was for the cache.",
            metavar="NAME",
        ),
    ] = None,
    data_root: DataRoot = None,
    options: DatasetOptions,
    json: Json = False,
) -> None:
    """Search a cache by cosine similarity; without a query, measure how well retrieval works.

    A text, or an image that is not in the cache, is embedded with the encoder of the cache. Options
    of the data set are for the image files of a contact sheet or map and the table of
    --metadata-column: give others only if the data set has moved or its ids are pseudonymized. Long
    texts such as reports are shortened here, but not in --out and --json.

    Example: featurecache retrieve "signs of cardiomegaly" --contact-sheet sheet.png
    """
    import featurecache as fc
    from featurecache.io.atomic import require_absent
    from featurecache.io.table import check_table_file, write_table

    if contact_sheet is not None:
        require_absent(contact_sheet, argument="contact_sheet")
    if out is not None:
        check_table_file(out)
    opened = fc.open_cache(cache, views=views, **policy)
    print_status(f"searching {describe_choice(cache, opened)}")
    print_policy(opened)
    print_units(opened)
    if text is None and image is None and label is None:
        for option, value in (
            ("--contact-sheet", contact_sheet),
            ("--map", heatmap),
            ("--out", out),
            ("--metadata-column", options.metadata_column),
        ):
            if value:
                raise UsageError(
                    f"{option} shows the result of a query: give a text, --image or --label"
                )
        from featurecache.retrieval.metrics import measure_retrieval

        with progress_bar(hidden=json) as bar:
            task = bar.add_task("rank images", total=None, detail="")
            metrics = measure_retrieval(
                opened,
                prompts=prompts,
                split=split or "test",
                k=top,
                n_bootstrap=n_bootstrap,
                alignment=alignment,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
        if json:
            print_json(metrics.to_json())
        else:
            _print_metrics(metrics, opened.header.dataset)
        return
    map_encoder: Encoder | None = None
    if heatmap is not None:
        from featurecache.retrieval.similarity_maps import check_map_query, load_map_encoder

        check_map_query(heatmap, by_image=image is not None, aligned=alignment is not None)
        map_encoder = load_map_encoder(opened, model=model, weights=weights, device=device)
    data: Dataset | None = None
    if contact_sheet is not None or heatmap is not None or options.metadata_column:
        # Loading data sets takes as long to import as a search.
        from featurecache.extraction.source import source_of_cache

        data = load_dataset_again(
            source_of_cache(opened), dataset, data_root, options, used_by=opened.path, quiet=json
        )
    from featurecache.retrieval.query import add_metadata, search

    result = search(
        opened,
        text,
        image=image,
        label=label,
        top=top,
        split=split,
        prompts=prompts,
        alignment=alignment,
        model=map_encoder or model,
        weights=None if map_encoder else weights,
        device=device,
        bit_depth=bit_depth,
        # The name of a file may identify a patient.
        image_name=None if options.pseudonymize is None else "given",
    )
    if data is not None:
        result = replace(result, images=add_metadata(result.images, data))
    if data is not None and contact_sheet is not None:
        from featurecache.extraction.source import cached_files
        from featurecache.retrieval.contact_sheet import save_contact_sheet

        shown = result.images["id"].tolist()
        if image in opened.ids:
            shown.append(image)
        files = cached_files(opened, data, list(dict.fromkeys(shown)))
        save_contact_sheet(contact_sheet, result, files, query_image=image)
    if data is not None and heatmap is not None and map_encoder is not None:
        from featurecache.extraction.source import cached_files
        from featurecache.retrieval.similarity_maps import save_similarity_maps

        assert result.direction is not None
        files = cached_files(opened, data, result.images["id"].tolist())
        save_similarity_maps(
            heatmap,
            result.images,
            result.direction,
            files,
            encoder=map_encoder,
            bit_depth=opened.header.bit_depth,
            title=f"query: {result.query}",
        )
    if out is not None:
        write_table(result.images, out)
    if json:
        print_json(result.to_json())
        return
    _print_result(result, () if data is None else data.metadata)
    for name, path in (("images", out), ("contact sheet", contact_sheet), ("map", heatmap)):
        if path is not None:
            print_result(f"{name}: {path}")


def _print_result(result: "SearchResult", metadata: Sequence[str]) -> None:
    if result.descriptions:
        print_table(
            f"{result.query}: best matching labels",
            ["label", "cosine"],
            [[name, format_float(cosine)] for name, cosine in result.descriptions.items()],
        )

    def any_known(*names: str) -> list[str]:
        return [name for name in names if (result.images[name] != "").any()]

    patient, known = any_known("patient"), any_known("study", "view", "sex", "age")
    print_table(
        f"{result.query}: images",
        ["rank", "cosine", "image", *patient, "split", "labels", *metadata, *known],
        [
            [
                str(image["rank"]),
                format_float(image["cosine"]),
                image["id"],
                *(image[name] for name in patient),
                image["split"],
                ", ".join(image["labels"]) or UNDEFINED,
                *(
                    shorten(image[name], MAX_TEXT, placeholder="...") or UNDEFINED
                    for name in metadata
                ),
                *(image[name] or UNDEFINED for name in known),
            ]
            for image in result.images.to_dict("records")
        ],
        optional=len(known),
        prose=("labels",),
    )
    if result.copies:
        print_status(f"left out, as it is the query image: {', '.join(result.copies)}")


def _print_metrics(metrics: "RetrievalMetrics", dataset_name: str) -> None:
    def row(
        name: str, scores: "QueryMetrics", ci95: "RetrievalIntervals | None" = None
    ) -> list[str]:
        cells = [
            with_interval(getattr(scores, metric), getattr(ci95, metric, None))
            for metric in ("precision", "average_precision", "recall")
        ]
        return [name, cells[0], format_float(scores.chance), *cells[1:]]

    rows = []
    for name, scores in (
        ("texts to images", metrics.text_to_image),
        ("images to texts", metrics.image_to_text),
        ("images to images of other patients", metrics.image_to_image),
    ):
        if scores is not None:
            rows.append(
                row(f"{name} ({count_noun(scores.n_queries, 'query')})", scores, scores.ci95)
            )
            rows += [row(f"  {label}", of) for label, of in (scores.per_label or {}).items()]
    print_table(
        f"retrieval on {count_noun(metrics.n, f'{metrics.split} image')} of {dataset_name} "
        "[95 % interval over patients]",
        ["", f"precision@{metrics.k}", "chance", "mean average precision", f"recall@{metrics.k}"],
        rows,
        optional=2,
        prose=("",),
    )
    if metrics.text_to_image is None:
        print_status("note: images and texts of this cache do not share an embedding space")
    for warning in metrics.warnings:
        warn(warning)
