"""``extract``: embed the images of a data set."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from featurecache.cli.dataset_options import (
    DataRoot,
    DatasetName,
    DatasetOptions,
    load_dataset,
    takes_dataset_options,
)
from featurecache.cli.options import DEFAULT_MODEL, BitDepth, CacheFolder
from featurecache.cli.output import (
    Json,
    format_float,
    print_json,
    print_result,
    print_status,
    print_table,
    progress_bar,
)
from featurecache.wording import UNDEFINED, count_noun, format_size

if TYPE_CHECKING:
    from rich.progress import Progress

    from featurecache.datasets.dataset import Dataset
    from featurecache.encoders.encoder import Encoder
    from featurecache.extraction.estimate import ExtractionEstimate
    from featurecache.extraction.extract import ExtractionOptions
    from featurecache.extraction.update import ExtractionSummary
    from featurecache.prompts import PromptSet

MAX_FAILURES_PRINTED = 10


@takes_dataset_options(without=("metadata_column",))
def extract(
    *,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Encoder: see 'featurecache models'; repeat for more.",
            metavar="NAME",
            show_default=DEFAULT_MODEL,
        ),
    ] = None,
    dataset: DatasetName = None,
    data_root: DataRoot = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="Local checkpoint, instead of a download.", metavar="PATH"),
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(
            help="Prompt set: signs, showing, lungs, or a .json or .toml file.",
            show_default="signs",
        ),
    ] = None,
    cache: CacheFolder = Path("cache"),
    limit: Annotated[
        int | None,
        typer.Option(
            help="Number of images to encode, to try things out: a sample over splits and labels. "
            "Default: all.",
            min=1,
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Number of images per forward pass.", min=1)] = 32,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Number of decoding threads of each process. Default: 2 for a CPU, whose cores "
            "encode as well; for a GPU, one for each core, divided among the GPUs.",
            min=1,
        ),
    ] = None,
    image_timeout: Annotated[
        float,
        typer.Option(
            help="Maximum time to read one image, in seconds; one that takes longer is recorded as "
            "failed.",
            min=0.1,
        ),
    ] = 60.0,
    wait: Annotated[
        bool,
        typer.Option("--wait", help="Wait if another process is writing the cache."),
    ] = False,
    device: Annotated[
        str,
        typer.Option(
            help="Device of the encoder: auto, cpu, cuda or mps; or all: every CUDA device of this "
            "machine, with a process for each."
        ),
    ] = "auto",
    backend: Annotated[
        str,
        typer.Option(
            help="Library that executes the image network. auto: see --precision.",
            metavar="auto|torch|openvino",
        ),
    ] = "auto",
    precision: Annotated[
        str,
        typer.Option(
            help="Number format of the image network: fp32, bf16, bf16-weights, fp16 (on a GPU), "
            "int8 (with openvino), exact (fp32 by torch) or auto. auto keeps those of an existing "
            "cache; otherwise it measures, once for a machine, what is fastest and leaves the "
            "embeddings of 32 images as they are (cosine of at least 0.999)."
        ),
    ] = "auto",
    resize: Annotated[
        str,
        typer.Option(
            help="How an image becomes the square that the network sees: published (as the "
            "checkpoint says, which may crop), pad (whole, on a black square) or stretch (whole, "
            "without keeping its proportions).",
            metavar="published|pad|stretch",
        ),
    ] = "published",
    features: Annotated[
        list[str] | None,
        typer.Option(
            help="What of the image network to store: projected (the space of images and texts), "
            "pooled (before the projection), cls (class token), mean (of the patch tokens), "
            "cls+mean, layers:-1,-2 (class tokens of layers, from the last), layers:-1,-2+mean, or "
            "tokens:7 (7 x 7 patch tokens); repeat for more, each into a cache of its own. "
            "Default: the model's own embedding.",
            metavar="FEATURES",
        ),
    ] = None,
    views: Annotated[
        int,
        typer.Option(
            help="Views of each image whose embeddings are averaged: the image itself, and copies "
            "that are shifted, scaled and rotated a little. Each is a forward pass.",
            min=1,
            max=32,
        ),
    ] = 1,
    bit_depth: BitDepth = None,
    engine: Annotated[
        str,
        typer.Option(
            help="Engine: local, or ray for a pool of workers on the cluster at $RAY_ADDRESS, or "
            "on this machine."
        ),
    ] = "local",
    rehash: Annotated[
        bool,
        typer.Option(
            "--rehash",
            help="Read all files and compare their hashes, instead of trusting their paths, sizes "
            "and modification times.",
        ),
    ] = False,
    prune: Annotated[
        bool,
        typer.Option(
            "--prune", help="Drop cached images that the data set no longer has or has replaced."
        ),
    ] = False,
    shard: Annotated[
        str | None,
        typer.Option(
            help="Shard to encode: every Nth image, starting with the Ith, into a cache of its "
            "own; 'featurecache cache merge' merges all N.",
            metavar="I/N",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print the images, size and estimated time of each cache, and stop there.",
        ),
    ] = False,
    options: DatasetOptions,
    json: Json = False,
) -> None:
    """Run frozen encoders over a data set once and store the embeddings.

    Stored embeddings are not computed again: new prompts, labels or splits take seconds. If the
    command is killed, the same command continues from there.

    Example: featurecache extract --model xraysiglip --dataset nih --data-root ~/data/nih
    """
    from featurecache.execution import format_probe
    from featurecache.extraction.disk_space import embedding_bytes
    from featurecache.extraction.extract import estimate_extraction, run_extraction

    given: ExtractionOptions = {
        "weights": weights,
        "device": device,
        "backend": backend,
        "precision": precision,
        "resize": resize,
        "features": features,
        "views": views,
        "bit_depth": bit_depth,
        "batch_size": batch_size,
        "workers": workers,
        "image_timeout": image_timeout,
        "limit": limit,
        "shard": shard,
    }
    if dry_run:
        estimate = estimate_extraction(
            lambda: load_dataset(dataset, data_root, options, quiet=json),
            model or [DEFAULT_MODEL],
            cache_dir=cache,
            **given,
        )
        _print_estimate(estimate, json=json)
        return
    with ExitStack() as stack:
        # The bar appears when the images are read; before, loading the data set may show its own.
        bars: list[Progress] = []

        def print_start(
            data: "Dataset", encoders: "Sequence[Encoder]", prompt_set: "PromptSet"
        ) -> None:
            print_status(
                f"{_describe_images(data, limit)}; "
                f"{_describe_prompts(data, prompt_set)}; "
                f"{', '.join(map(_describe, encoders))}; into {cache}/"
            )
            n_images = min(len(data), limit or len(data))
            for encoder in encoders:
                if encoder.n_tokens is not None:
                    size = format_size(embedding_bytes(encoder, n_images))
                    print_status(
                        f"{encoder.cache_name}: {encoder.n_tokens} tokens of "
                        f"{encoder.dim // encoder.n_tokens} for each of "
                        f"{count_noun(n_images, 'image')}: {size}"
                    )
            for encoder in encoders:
                if encoder.probe is not None:
                    print_status(f"{encoder.name}: {format_probe(encoder.probe)}")
            for note in data.notes:
                print_status(f"note: {note}")
            bars.append(stack.enter_context(progress_bar(hidden=json)))

        def progress(finished: int, total: int, *, name: str = "extract") -> None:
            (bar,) = bars
            if name not in {task.description for task in bar.tasks}:
                bar.add_task(name, total=None, detail="")
            (task,) = (task for task in bar.tasks if task.description == name)
            rate = f"{finished / task.elapsed:.1f} images/s" if finished and task.elapsed else ""
            bar.update(task.id, completed=finished, total=total, detail=rate)

        summaries = run_extraction(
            lambda: load_dataset(dataset, data_root, options, quiet=json),
            model or [DEFAULT_MODEL],
            prompts=prompts,
            cache_dir=cache,
            engine=engine,
            rehash=rehash,
            prune=prune,
            on_wait=_print_wait if wait else None,
            on_start=print_start,
            progress=progress,
            hash_progress=partial(progress, name="hash files"),
            **given,
        )
    if json:
        print_json([{**asdict(summary), "path": str(summary.path)} for summary in summaries])
    else:
        _print_summaries(summaries)


def _print_estimate(estimate: "ExtractionEstimate", *, json: bool) -> None:
    if json:
        caches = [{**asdict(one), "path": str(one.path)} for one in estimate.caches]
        print_json({"caches": caches, "seconds": estimate.seconds})
        return
    print_table(
        "",
        ["cache", "features", "images", "to encode", "size", "time", "estimated from"],
        [
            [
                str(one.path),
                one.features,
                str(one.images),
                str(one.to_encode),
                format_size(one.bytes),
                _format_time(one.seconds),
                one.basis,
            ]
            for one in estimate.caches
        ],
        optional=1,
    )
    if len(estimate.caches) > 1:
        print_result(f"all together: {_format_time(estimate.seconds)}")


def _format_time(seconds: float | None) -> str:
    """Return a duration such as "40 s", "12 min" or "3.5 h"."""
    if seconds is None:
        return UNDEFINED
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _print_summaries(summaries: "Sequence[ExtractionSummary]") -> None:
    from featurecache.extraction.table import format_changes

    columns = ["cache", "images", "done", "reused", "failed", "prompts"]
    print_table(
        "",
        [*columns, "images/s", "read", "encode", "write"],
        [
            [
                str(summary.path),
                str(summary.images),
                str(summary.done),
                str(summary.reused + sum(summary.reused_by_content.values())),
                str(len(summary.failed)),
                summary.prompts,
                format_float(summary.images_per_second, digits=1),
                *(
                    UNDEFINED if share is None else f"{share:.0%}"
                    for share in (summary.read_share, summary.encode_share, summary.write_share)
                ),
            ]
            for summary in summaries
        ],
        optional=4,
    )
    for summary in summaries:
        if summary.changed:
            print_status(f"changed: {format_changes(summary.changed)}")
        for path, number in summary.reused_by_content.items():
            print_status(f"reused by content: {count_noun(number, 'embedding')} of {path}")
        for image_id, reason in list(summary.failed.items())[:MAX_FAILURES_PRINTED]:
            print_status(f"failed: {image_id}: {reason}")
        if len(summary.failed) > MAX_FAILURES_PRINTED:
            print_status(
                f"and {len(summary.failed) - MAX_FAILURES_PRINTED} more: "
                f"featurecache cache info {summary.path} --json"
            )


def _describe_images(data: "Dataset", limit: int | None) -> str:
    from featurecache.datasets.splits import SPLITS
    from featurecache.extraction.sample import sample_rows

    everything = f"{count_noun(len(data), 'image')} of {data.name}"
    if limit is None or limit >= len(data):
        return everything
    # The notes of the data set have the sizes of the whole splits.
    sizes = data.images["split"].iloc[sample_rows(data, limit)].value_counts()
    splits = ", ".join(f"{sizes[split]} {split}" for split in SPLITS if split in sizes)
    return f"a sample of {limit} ({splits}) of {everything}"


def _describe_prompts(data: "Dataset", prompt_set: "PromptSet") -> str:
    if not data.label_names:
        return "no prompts, because there are no labels"
    return f"prompts {prompt_set.name!r}"


def _print_wait(cache: Path) -> None:
    print_status(f"another process is writing {cache}: waiting for it to finish")


def _describe(encoder: "Encoder") -> str:
    reason = f" ({encoder.execution_reason})" if encoder.execution_reason else ""
    return f"{encoder.cache_name} on {encoder.device}, {encoder.execution}{reason}"
