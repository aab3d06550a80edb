"""``cache ls``, ``info``, ``verify``, ``merge``, ``export``, ``import``, ``push``, ``pull``."""

from pathlib import Path
from typing import Annotated

import typer

from featurecache.cli.cache_import import import_
from featurecache.cli.errors import with_exit_code
from featurecache.cli.extract import extract
from featurecache.cli.option_names import running, with_option_names
from featurecache.cli.options import (
    UNITS_OF_EXPORT,
    CacheFile,
    CacheFolder,
    OptionValues,
    print_units,
    takes_units,
)
from featurecache.cli.output import (
    Json,
    format_known,
    join_counts,
    label_rows,
    print_json,
    print_result,
    print_status,
    print_table,
    progress_bar,
)
from featurecache.cli.push_options import (
    KeepIds,
    Key,
    Permission,
    Public,
    Repository,
    Revision,
    Yes,
    print_push,
)
from featurecache.cli.strict_command import StrictCommand
from featurecache.cli.train_head import train_head
from featurecache.wording import UNDEFINED, count_noun, format_size

app = typer.Typer(
    help="List, describe, verify, merge, export, import, push and pull caches.",
    no_args_is_help=True,
)

File = Annotated[Path, typer.Argument(help="Cache file.", metavar="FILE")]


@app.command("ls", cls=StrictCommand)
@with_exit_code
def ls(cache: CacheFolder = Path("cache"), json: Json = False) -> None:
    """List the caches in a folder, including unfinished and unreadable ones.

    Example: featurecache cache ls
    """
    from featurecache.store.describe import list_caches

    entries = list_caches(cache)
    if json:
        print_json([{**entry.__dict__, "path": str(entry.path)} for entry in entries])
        return
    print_table(
        f"Caches in {cache}/",
        ["file", "images", "labels", "prompts", "failed", "state", "size", "dim"],
        [
            [
                str(entry.path),
                *(UNDEFINED if n is None else str(n) for n in (entry.images, entry.labels)),
                ", ".join(entry.prompts) or UNDEFINED,
                UNDEFINED if entry.failed is None else str(entry.failed),
                entry.state,
                format_size(entry.bytes),
                UNDEFINED if entry.dim is None else _dimensions(entry.dim, entry.tokens),
            ]
            for entry in entries
        ],
        optional=2,
        prose=("state",),
    )


def _dimensions(dim: int, tokens: int | None) -> str:
    return str(dim) if tokens is None else f"{tokens} x {dim // tokens}"


@app.command("info", cls=StrictCommand)
@with_exit_code
def info(file: File, json: Json = False) -> None:
    """Describe what a cache holds and how it was made.

    Example: featurecache cache info cache/kermany/dinov2-minilm.h5
    """
    from featurecache.datasets.splits import SPLITS
    from featurecache.execution import Execution, format_probe
    from featurecache.store.describe import describe_cache
    from featurecache.store.records import format_counts

    document = describe_cache(file)
    if json:
        print_json(document)
        return
    fields = ["path", "dataset", "model", "fingerprint", "created", "images", "dim", "memory"]
    fields += [key for key in ("features", "tokens") if document[key] is not None]
    rows = [[key, str(document[key])] for key in fields]
    rows[fields.index("dim")][1] = _dimensions(document["dim"], document["tokens"])
    splits = {name: document["splits"][name] for name in SPLITS if name in document["splits"]}
    rows += [["splits", join_counts(splits)]]
    rows += [[name, format_known(document[name])] for name in ("patients", "studies")]
    rows += [["prompts", ", ".join(document["prompts"]) or "none"]]
    if document["imported"]:
        rows += [["imported from", ", ".join(document["imported"])]]
    else:
        rows += [["execution", str(Execution.of_spec(document["spec"]))]]
    if document["probe"] is not None:
        rows += [["speed", format_probe(document["probe"])]]
    rows += [["excluded", format_counts(document["excluded"])]]
    with running(extract):  # The notes are about how the images were read.
        rows += [["note", with_option_names(note)] for note in document["notes"]]
    print_table("", ["field", "value"], rows, prose=("value",))
    if document["labels"]:
        print_table(
            "Labels",
            *label_rows(document["labels"]),
        )
        with running(train_head):  # This command has no options for the policy.
            for decision in document["label_decisions"].values():
                print_result(with_option_names(decision))
    else:
        print_result("no labels")
    for image, reason in list(document["failures"].items())[:10]:
        print_status(f"failed: {image}: {reason}")


@app.command("verify", cls=StrictCommand)
@with_exit_code
def verify(file: File, json: Json = False) -> None:
    """Check a cache for damage: structure, checksums, embeddings, splits and texts.

    Example: featurecache cache verify cache/kermany/dinov2-minilm.h5
    """
    from featurecache.store.verify import verify_cache

    problems = verify_cache(file)
    if json:
        print_json({"path": str(file), "problems": problems})
    else:
        for problem in problems:
            print_result(problem)
        print_result(
            f"{file}: {count_noun(len(problems), 'problem') if problems else 'no problems'}"
        )
    if problems:
        raise typer.Exit(1)


@app.command("merge", cls=StrictCommand)
@with_exit_code
def merge(
    files: Annotated[list[Path], typer.Argument(help="Caches of one data set.", metavar="FILE...")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Cache file to write. Default: the whole cache of the shards.", metavar="FILE"
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Merge caches that hold different images of one data set, such as shards.

    Example: featurecache cache merge cache/nih/xraysiglip.*-of-2.h5
    """
    from featurecache.store.merge import merge_caches

    path, images = merge_caches(files, out)
    if json:
        print_json({"path": str(path), "images": images})
        return
    print_result(
        f"{path}: {count_noun(images, 'image')} of {count_noun(len(files), 'cache')}, which were "
        "kept"
    )


@app.command("export", cls=StrictCommand)
@with_exit_code
@takes_units(UNITS_OF_EXPORT)
def export(
    file: File,
    out: Annotated[Path, typer.Argument(help="File or folder to write.", metavar="OUT")],
    to: Annotated[
        str | None,
        typer.Option(
            help="Format: parquet, npy, faiss, anndata (.h5ad), zarr, huggingface or webdataset; "
            "the last two are folders of any name. Default: by the suffix of OUT.",
            metavar="FORMAT",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing export.")
    ] = False,
    *,
    units: OptionValues,
    json: Json = False,
) -> None:
    """Write a cache in the format of another library: embeddings, ids, metadata, labels, texts.

    Labels are written as the data set states them: 1 positive, 0 negative, -1 uncertain, empty
    where blank.

    Example: featurecache cache export cache/kermany/dinov2-minilm.h5 kermany.parquet
    """
    import featurecache as fc

    cache = fc.open_cache(file, **units)
    print_units(cache)
    with progress_bar(hidden=json) as bar:
        task = bar.add_task("export", total=len(cache), detail="")
        fc.export_cache(
            cache,
            out,
            to=to,
            overwrite=overwrite,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if json:
        print_json(
            {
                "path": str(out),
                "level": cache.units.level,
                "n": len(cache),
                "dim": cache.dim,
                "tokens": cache.n_tokens,
            }
        )
        return
    what = (
        f"{cache.dim}-d embeddings"
        if cache.n_tokens is None
        else f"{cache.n_tokens} tokens of {cache.dim // cache.n_tokens}, one after the other"
    )
    print_result(f"{out}: {count_noun(len(cache), cache.units.level)}, {what}")


app.command("import", cls=StrictCommand)(with_exit_code(import_))


@app.command("push", cls=StrictCommand)
@with_exit_code
def push(
    repo_id: Repository,
    cache: CacheFile = Path("cache"),
    yes: Yes = False,
    keep_ids: KeepIds = False,
    key: Key = None,
    permission: Permission = None,
    public: Public = False,
    json: Json = False,
) -> None:
    """Send a cache to the Hugging Face hub, with pseudonyms instead of ids and without paths.

    Without --yes, nothing is sent: the command only prints what it would send.

    Example: featurecache cache push my-lab/kermany-dinov2
    """
    import featurecache as fc

    print_push(
        fc.push_cache(
            cache,
            repo_id,
            yes=yes,
            keep_ids=keep_ids,
            key=key,
            permission=permission,
            public=public,
        ),
        json=json,
    )


@app.command("pull", cls=StrictCommand)
@with_exit_code
def pull(
    repo_id: Repository,
    cache: CacheFolder = Path("cache"),
    revision: Revision = None,
    json: Json = False,
) -> None:
    """Fetch a cache from the Hugging Face hub, which 'cache push' has sent there.

    Example: featurecache cache pull my-lab/kermany-dinov2
    """
    import featurecache as fc

    pulled = fc.pull_cache(repo_id, cache_dir=cache, revision=revision)
    if json:
        print_json({"path": str(pulled.path), "images": len(pulled), "dim": pulled.dim})
        return
    print_result(f"{pulled.path}: {count_noun(len(pulled), 'image')}, {pulled.dim}-d embeddings")
