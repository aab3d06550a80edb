"""``extract``: stage 1."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from featurecache.cli.dataset_options import (
    DEFAULT_DATASET,
    DataRoot,
    DatasetName,
    DatasetOptions,
    load_dataset,
    takes_dataset_options,
)
from featurecache.cli.options import DEFAULT_MODEL, CacheFolder, Device
from featurecache.cli.output import (
    Json,
    format_float,
    print_json,
    print_status,
    print_table,
    progress_bar,
)
from featurecache.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from featurecache.encoders.encoder import Encoder
    from featurecache.extraction.pipeline import Engine
    from featurecache.store.merge import Shard

ENGINES = ("local", "ray")
FAILURES_SHOWN = 10


@takes_dataset_options()
def extract(
    *,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Encoder, tiny without it; give it again for more. See 'featurecache models'."
        ),
    ] = None,
    dataset: DatasetName = DEFAULT_DATASET,
    data_root: DataRoot = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="Local checkpoint of the model, in place of the hub.", metavar="PATH"),
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(help="Prompt set signs, showing or lungs, or a .json or .toml file."),
    ] = None,
    cache: CacheFolder = Path("cache"),
    limit: Annotated[
        int | None, typer.Option(help="Only the first N images, by id.", min=1)
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images an encoder sees at once.", min=1)] = 32,
    workers: Annotated[int, typer.Option(help="Decoding threads of each process.", min=1)] = 2,
    image_timeout: Annotated[
        float,
        typer.Option(
            help="That reading an image may take; one that takes longer is recorded as failed.",
            min=0.1,
        ),
    ] = 60.0,
    wait: Annotated[
        bool,
        typer.Option(
            "--wait", help="Wait for another process that is at work on the cache; else refuse."
        ),
    ] = False,
    device: Device = "auto",
    precision: Annotated[
        str,
        typer.Option(
            help="auto, fp32 or bf16. auto: bf16 where the machine is fast in it and embeddings "
            "keep a cosine of 0.999 to fp32; a cache that is there goes on as it was begun."
        ),
    ] = "auto",
    engine: Annotated[
        str,
        typer.Option(
            help="local, or ray: a pool of workers on the cluster that $RAY_ADDRESS names, or on "
            "this machine."
        ),
    ] = "local",
    prune: Annotated[
        bool, typer.Option("--prune", help="Drop cached images that the data set lacks now.")
    ] = False,
    shard: Annotated[
        str | None,
        typer.Option(
            help="I/N: only every Nth image, from the Ith on, into a cache of its own; 'cache "
            "merge' puts all N together.",
            metavar="I/N",
        ),
    ] = None,
    options: DatasetOptions,
    json: Json = False,
) -> None:
    """Run frozen encoders over a data set once, and store what they give.

    Killed at any moment, the same command goes on where it was. What is stored is not encoded
    again: new prompts, labels or splits cost seconds.

    Example: featurecache extract --model xraysiglip --dataset nih --data-root ~/data/nih
    """
    from featurecache.encoders.loading import load_encoder
    from featurecache.extraction.extract import extract as run
    from featurecache.extraction.precision import choose_precision
    from featurecache.prompts import load_prompts

    _check_engine(engine)
    model = model or [DEFAULT_MODEL]
    if weights is not None and len(model) > 1:
        raise UsageError("--weights names one checkpoint: give it with a single --model")
    part = None if shard is None else _parse_shard(shard)
    prompt_set = load_prompts(prompts or "signs")
    loaders = [
        partial(
            load_encoder,
            _absolute(name),
            weights=None if weights is None else weights.absolute(),
            device=device,
        )
        for name in model
    ]
    # A mistaken name is told before any film is read, drawn or written about.
    encoders = [load(precision=precision) for load in loaders]
    for encoder in encoders:
        if prompts is not None and not encoder.has_text:
            raise UsageError(f"model {encoder.name} reads no text: leave out --prompts")
    manifest = load_dataset(dataset, data_root, options, quiet=json)
    if precision == "auto":
        encoders = [
            choose_precision(load, manifest, cache, shard=part, image_timeout=image_timeout)
            for load in loaders
        ]
    print_status(
        f"{len(manifest)} images of {manifest.name}; prompts {prompt_set.name!r}; "
        f"{', '.join(map(_how, encoders))}; into {cache}/"
    )
    for note in manifest.notes:
        print_status(f"note: {note}")
    with progress_bar(hidden=json) as bar:
        task = bar.add_task("extract", total=None, detail="")

        def progress(finished: int, total: int) -> None:
            elapsed = bar.tasks[task].elapsed or 0.0
            rate = f"{finished / elapsed:.1f} images/s" if finished and elapsed else ""
            bar.update(task, completed=finished, total=total, detail=rate)

        summaries = run(
            manifest,
            encoders,
            cache=cache,
            engine=_engine(engine, loaders, encoders),
            prompts=prompt_set,
            limit=limit,
            batch_size=batch_size,
            workers=workers,
            image_timeout=image_timeout,
            prune=prune,
            shard=part,
            on_wait=_tell_waiting if wait else None,
            progress=progress,
        )
    if json:
        print_json(
            [
                {**summary.__dict__, "path": str(summary.path), "failed": dict(summary.failed)}
                for summary in summaries
            ]
        )
        return
    print_table(
        "",
        [
            *("cache", "images", "done", "reused", "failed", "images/s"),
            *("read", "encode", "write", "prompts"),
        ],
        [
            [
                str(summary.path),
                *(str(n) for n in (summary.images, summary.done, summary.reused)),
                str(len(summary.failed)),
                format_float(summary.images_per_second, digits=1),
                *(
                    "-" if share is None else f"{share:.0%}"
                    for share in (summary.read_share, summary.encode_share, summary.write_share)
                ),
                summary.prompts,
            ]
            for summary in summaries
        ],
    )
    for summary in summaries:
        for image, reason in list(summary.failed.items())[:FAILURES_SHOWN]:
            print_status(f"failed: {image}: {reason}")
        if len(summary.failed) > FAILURES_SHOWN:
            print_status(
                f"and {len(summary.failed) - FAILURES_SHOWN} more: "
                f"featurecache cache info {summary.path} --json"
            )


def _tell_waiting(cache: Path) -> None:
    print_status(f"another process is at work on {cache}: waiting until it is done")


def _check_engine(name: str) -> None:
    from featurecache.extraction.ray_engine import require_ray

    if name not in ENGINES:
        raise UnknownNameError("engine", name, ENGINES)
    if name == "ray":
        require_ray()


def _engine(
    name: str, loaders: "Sequence[partial[Encoder]]", encoders: "Sequence[Encoder]"
) -> "Engine":
    from featurecache.extraction.local_engine import encode_locally
    from featurecache.extraction.ray_engine import encode_on_ray

    if name == "local":
        return encode_locally
    # What was settled here holds there.
    loads = [
        partial(load, device=encoder.device, precision=encoder.precision)
        for load, encoder in zip(loaders, encoders, strict=True)
    ]
    return partial(encode_on_ray, loads=loads)


def _absolute(model: str) -> str:
    """A model's name as it is understood in any folder."""
    from featurecache.encoders.registry import SPECS

    folder = Path(model).expanduser()
    return str(folder.absolute()) if model not in SPECS and folder.is_dir() else model


def _parse_shard(text: str) -> "Shard":
    from featurecache.store.merge import Shard

    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal()):
        raise typer.BadParameter(f"{text!r}: write I/N, such as 1/8", param_hint="--shard")
    return Shard(int(number), int(count))


def _how(encoder: "Encoder") -> str:
    measured = ""
    if encoder.bf16_cosine is not None:
        measured = f" (in bf16 a cosine of {encoder.bf16_cosine:.5f} to fp32 at the least)"
    return f"{encoder.name} on {encoder.device} in {encoder.precision}{measured}"
