"""``retrieve``: images for a text or an image, descriptions for an image; or how good that is."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from featurecache.cli.dataset_options import (
    DataRoot,
    DatasetOptions,
    load_dataset,
    takes_dataset_options,
)
from featurecache.cli.options import (
    AlignmentFile,
    CacheFile,
    Device,
    Draws,
    Prompts,
    choose_cache,
)
from featurecache.cli.output import (
    Json,
    format_float,
    print_json,
    print_result,
    print_status,
    print_table,
    warn,
    with_interval,
)
from featurecache.cli.reload_encoder import reload_encoder
from featurecache.errors import UsageError

if TYPE_CHECKING:
    from featurecache.alignment.alignment import Alignment
    from featurecache.encoders.encoder import Encoder
    from featurecache.images.contact_sheet import Captioned
    from featurecache.retrieval.query import Answer
    from featurecache.store.cache import Cache

_DIRECTIONS = {
    "text_to_image": "label descriptions to images",
    "image_to_text": "images to label descriptions",
    "image_to_image": "images to images of other patients",
}


@takes_dataset_options(
    without=(
        "split",
        "subset",
        "patient_column",
        "split_column",
        "view_column",
        "sex_column",
        "age_column",
    )
)
def retrieve(
    *,
    text: Annotated[
        str | None, typer.Argument(help="Find the images that fit this text best.")
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(
            help="An image file, or the id of a cached image: the images most like it, and how "
            "well each label's description fits it."
        ),
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="Find the images that fit this label's prompts best.")
    ] = None,
    top: Annotated[
        int, typer.Option(help="How many images; K of precision and recall at K.", min=1)
    ] = 10,
    cache: CacheFile = Path("cache"),
    split: Annotated[
        str | None, typer.Option(help="Only images of this split; test, where it is measured.")
    ] = None,
    prompts: Prompts = None,
    alignment: AlignmentFile = None,
    contact_sheet: Annotated[
        Path | None,
        typer.Option(help="Write the images found to this contact sheet.", metavar="PNG"),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="The encoder, where its name in the cache does not find it (a folder)."),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Local checkpoint of the encoder.", metavar="PATH")
    ] = None,
    device: Device = "auto",
    n_bootstrap: Draws = 1000,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="For --contact-sheet: table or folder, if the cache is of one.", metavar="NAME"
        ),
    ] = None,
    data_root: DataRoot = None,
    options: DatasetOptions,
    json: Json = False,
) -> None:
    """Search a cache: exact, by cosine. Without a text, image or label, measure how good it is.

    A text, or an image that is not in the cache, needs the encoder that made the cache; all else
    needs the cache alone. A contact sheet needs the films: --data-root.

    Example: featurecache retrieve "signs of cardiomegaly" --contact-sheet found.png
    """
    from featurecache.alignment.alignment import read_alignment
    from featurecache.retrieval.metrics import measure_retrieval
    from featurecache.store.reader import read_cache

    if sum(query is not None for query in (text, image, label)) > 1:
        raise UsageError("give one of a text, --image and --label")
    path, chosen = choose_cache(cache)
    found = read_cache(path)
    aligned = None if alignment is None else read_alignment(alignment)
    print_status(f"cache {path}{' (the newest)' if chosen else ''}, {found.header.model}")
    if text is None and image is None and label is None:
        if contact_sheet is not None:
            raise UsageError(
                "--contact-sheet shows what one query found: give a text, --image or --label"
            )
        document = measure_retrieval(
            found,
            prompts=prompts,
            split=split or "test",
            at=top,
            n_bootstrap=n_bootstrap,
            alignment=aligned,
        )
        _show_measured(found, document, json=json)
        return
    if contact_sheet is not None and contact_sheet.exists():
        raise UsageError(f"{contact_sheet} is there already: give another --contact-sheet")
    encoder = partial(
        reload_encoder,
        path,
        found.header.model,
        found.header.encoder_spec,
        model=model,
        weights=weights,
        device=device,
    )
    answer = _ask(
        found,
        encoder,
        text=text,
        image=image,
        # A file's name may be a patient's.
        called=image if options.pseudonymize is None else "of the file given",
        label=label,
        prompts=prompts,
        split=split,
        top=top,
        alignment=aligned,
    )
    if contact_sheet is not None:
        manifest = load_dataset(dataset or found.header.dataset, data_root, options, quiet=json)
        _write_sheet(contact_sheet, answer, manifest.files())
    if json:
        print_json(answer.document())
        return
    if answer.descriptions:
        print_table(
            f"{answer.query}: label descriptions",
            ["label", "cosine"],
            [[name, format_float(cosine)] for name, cosine in answer.descriptions],
        )
    print_table(
        f"{answer.query}: images",
        ["", "cosine", "image", "patient", "split", "labels"],
        [
            [
                str(place),
                format_float(hit.cosine),
                hit.id,
                hit.patient,
                hit.split,
                ", ".join(hit.labels) or "-",
            ]
            for place, hit in enumerate(answer.hits, start=1)
        ],
    )
    if contact_sheet is not None:
        print_result(f"contact sheet: {contact_sheet}")


def _ask(
    cache: "Cache",
    encoder: "Callable[[], Encoder]",
    *,
    text: str | None,
    image: str | None,
    called: str | None,
    label: str | None,
    prompts: str | None,
    split: str | None,
    top: int,
    alignment: "Alignment | None",
) -> "Answer":
    from featurecache.encoders.encoder import decode_and_preprocess
    from featurecache.images.subprocess_decoder import SubprocessDecoder
    from featurecache.retrieval.query import (
        images_for_label,
        images_for_text,
        neighbours_of_cached,
        neighbours_of_image,
    )

    if label is not None:
        return images_for_label(
            cache, label, prompts=prompts, split=split, top=top, alignment=alignment
        )
    if text is not None:
        return images_for_text(cache, encoder(), text, split=split, top=top, alignment=alignment)
    assert image is not None
    assert called is not None
    if Path(image).is_file():
        reader = SubprocessDecoder()
        # Before the encoder is loaded: a file that cannot be used is told at once.
        picture = reader.image(Path(image), called=called)
        made_by = encoder()
        (pixels,) = decode_and_preprocess(reader, Path(image), [made_by], called=called)
        return neighbours_of_image(
            cache,
            made_by,
            pixels,
            name=called,
            picture=picture,
            prompts=prompts,
            split=split,
            top=top,
            alignment=alignment,
        )
    return neighbours_of_cached(
        cache, image, prompts=prompts, split=split, top=top, alignment=alignment
    )


def _show_measured(cache: "Cache", document: dict[str, Any], *, json: bool) -> None:
    from featurecache.retrieval.metrics import METRICS

    if json:
        print_json(document)
        return

    def row(name: str, figures: dict[str, Any], bounds: dict[str, Any]) -> list[str]:
        cells = [with_interval(figures[metric], bounds.get(metric)) for metric in METRICS]
        return [name, *cells, format_float(figures["chance"])]

    at, rows = document["at"], []
    for key, name in _DIRECTIONS.items():
        if (figures := document[key]) is None:
            continue
        rows.append(row(f"{name} ({figures['n_queries']} queries)", figures, figures["ci95"]))
        rows += [row(f"  {label}", of, {}) for label, of in figures.get("per_label", {}).items()]
    print_table(
        f"retrieval on {document['n']} {document['split']} images of {cache.header.dataset} "
        "[95 % interval over patients]",
        [
            "",
            f"precision@{at}",
            f"recall@{at}",
            "mean average precision",
            "chance",
        ],
        rows,
    )
    if document["text_to_image"] is None:
        print_status("note: this cache's texts and images share no space: images to images only")
    for warning in document["warnings"]:
        warn(warning)


def _write_sheet(target: Path, answer: "Answer", paths: dict[str, Path]) -> None:
    from featurecache.images.contact_sheet import contact_sheet, thumbnail
    from featurecache.images.subprocess_decoder import SubprocessDecoder
    from featurecache.io.atomic import new_file

    reader = SubprocessDecoder()
    films: list[Captioned] = []
    if answer.picture is not None:
        films.append((answer.query, thumbnail(answer.picture)))
    for place, hit in enumerate(answer.hits, start=1):
        if hit.id not in paths:
            raise UsageError(
                f"the data set has no image {hit.id!r} that the cache holds: give the --data-root "
                "and the options that it was extracted with"
            )
        caption = f"{place} {hit.cosine:.3f} {', '.join(hit.labels)}"
        (film,) = reader.read(paths[hit.id], [thumbnail], called=hit.id)
        films.append((caption, film))
    with new_file(target) as unfinished:
        contact_sheet(_rows(films)).save(unfinished, format="PNG")


def _rows(films: Sequence[Any], columns: int = 5) -> list[Sequence[Any]]:
    return [films[start : start + columns] for start in range(0, len(films), columns)]
