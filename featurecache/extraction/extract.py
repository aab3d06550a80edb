"""``extract``: encode the images and prompts of a data set into caches."""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypedDict, Unpack, overload

from featurecache.encoders.encoder import Encoder
from featurecache.encoders.loading import as_encoder, check_model
from featurecache.encoders.registry import ENCODERS
from featurecache.errors import UnknownNameError, UsageError
from featurecache.extraction.bit_depth import with_bit_depth
from featurecache.extraction.choose_execution import choose_executions
from featurecache.extraction.encode import common_device
from featurecache.extraction.estimate import ExtractionEstimate, estimate_caches
from featurecache.extraction.gpu_engine import encode_on_gpus, visible_gpus
from featurecache.extraction.local_engine import encode_locally
from featurecache.extraction.pipeline import Engine
from featurecache.extraction.ray_cluster import require_ray
from featurecache.extraction.ray_engine import encode_on_ray
from featurecache.extraction.source import as_dataset
from featurecache.extraction.update import (
    ExtractionSummary,
    cache_paths,
    check_numbers,
    update_caches,
)
from featurecache.extraction.worker import load_same
from featurecache.images.gray_range import check_bit_depth
from featurecache.images.subprocess_decoder import IMAGE_TIMEOUT
from featurecache.io.lock import OnWait
from featurecache.progress import Progress
from featurecache.prompts import PROMPT_SETS, PromptSet, load_prompts
from featurecache.store.cache import Cache
from featurecache.store.merge import Shard
from featurecache.store.reader import read_cache

if TYPE_CHECKING:
    from featurecache.datasets.dataset import Dataset
    from featurecache.extraction.source import DatasetLike

ENGINES: Final = ("local", "ray")
DEFAULT_PROMPTS: Final = "signs"

ModelLike = str | os.PathLike[str] | Encoder
OnStart = Callable[["Dataset", Sequence[Encoder], PromptSet], None]
"""Called before the first image is read, with what is going to be extracted."""


class ExtractionOptions(TypedDict):
    """The arguments of ``extract`` by which its cost can be estimated, too."""

    weights: str | os.PathLike[str] | None
    device: str
    backend: str
    precision: str
    resize: str
    features: str | Sequence[str | None] | None
    views: int
    bit_depth: int | None
    batch_size: int
    workers: int | None
    image_timeout: float
    limit: int | None
    shard: str | Shard | None


_log = logging.getLogger(__name__)


@overload
def extract(data: "DatasetLike", model: ModelLike, **options: Any) -> Cache: ...


@overload
def extract(data: "DatasetLike", model: Sequence[ModelLike], **options: Any) -> list[Cache]: ...


def extract(  # type: ignore[misc]  # the options of both overloads are these
    data: "DatasetLike",
    model: ModelLike | Sequence[ModelLike],
    *,
    prompts: str | os.PathLike[str] | PromptSet | None = None,
    cache_dir: str | os.PathLike[str] = "cache",
    weights: str | os.PathLike[str] | None = None,
    device: str = "auto",
    backend: str = "auto",
    precision: str = "auto",
    resize: str = "published",
    features: str | Sequence[str | None] | None = None,
    views: int = 1,
    bit_depth: int | None = None,
    engine: str = "local",
    batch_size: int = 32,
    workers: int | None = None,
    image_timeout: float = IMAGE_TIMEOUT,
    limit: int | None = None,
    shard: str | Shard | None = None,
    rehash: bool = False,
    prune: bool = False,
    wait: bool | OnWait = False,
    progress: Progress | None = None,
) -> Cache | list[Cache]:
    """Run frozen encoders over a data set and store the embeddings.

    Stored embeddings are not computed again: new prompts, labels or splits take seconds, and only
    new images are encoded. An image that is cached under another id, path or data set name, by the
    same encoder in the same ``cache_dir``, is recognized by its content. If the process is killed,
    at any moment, the same call continues from there and ends with the same cache.

    Args:
        data: The data set: a ``Dataset``, or what ``load_dataset`` takes, such as a name, a path,
            or a tuple of both; or a ``Cache``, for the data set that it was extracted from.
        model: The encoder: a name (see ``featurecache models``), the path of a checkpoint folder or
            of a fine-tuning run, or an ``Encoder``. For a list of them, each image is decoded once
            and every encoder gets a cache of its own.
        prompts: Prompt set to encode for the labels: a name ("signs", "showing", "lungs"), a .json
            or .toml file, or a ``PromptSet``. The default is "signs". Models without a text encoder
            and data sets without labels get none; naming a prompt set is an error only if no model
            has a text encoder.
        cache_dir: Directory of the caches; the cache is ``CACHE_DIR/DATASET/MODEL.h5``.
        weights: Local checkpoint to use for the model instead of downloading it.
        device: "auto", "cpu", "cuda" or "mps"; or "all" for all CUDA devices of this machine, with
            a process for each. An ``Encoder`` keeps its own.
        backend: Library that executes the image network: "torch", "openvino" or "auto". See
            ``precision``. Texts are always encoded by torch, in fp32.
        precision: Numbers that the image network computes with: "fp32"; "bf16", for matrix
            products; "bf16-weights"; on a GPU "fp16"; with OpenVINO "int8"; "exact", which is fp32
            by torch; or "auto". Where ``backend`` and ``precision`` leave a choice, an existing
            cache keeps its own, and otherwise the fastest is taken with which the embeddings of 32
            images have a cosine of at least 0.999 to the exact ones. That is measured once for a
            machine, and not for so few images that measuring would take longer. An ``Encoder``
            keeps its own.
        resize: How an image becomes the square that the network sees: "published", as the
            checkpoint says, which may crop; "pad", whole, on a black square; or "stretch", whole,
            without keeping its proportions. The last two get caches of their own,
            ``MODEL.pad.h5`` and ``MODEL.stretch.h5``. An ``Encoder`` keeps its own.
        features: What of the image network is stored: "projected", "pooled", "cls", "mean",
            "cls+mean", "layers:-1,-2,-3,-4", "layers:-1,-2+mean" or "tokens:7"; see
            ``load_encoder``. None, the default, is the model's own embedding. Others get caches of
            their own, such as ``MODEL.cls+mean.h5``. An ``Encoder`` keeps its own.
        views: Number of views of each image whose embeddings are averaged: the image itself, and
            copies that are shifted, scaled and rotated a little, never mirrored. Each is a forward
            pass. They get a cache of their own, ``MODEL.views-4.h5``. An ``Encoder`` keeps its own.
        bit_depth: Number of bits in use, 8 to 16, in files that do not define the range of their
            gray values: 16-bit PNG and TIFF, DICOM without a window. By default that of an existing
            cache, or else the fewest that hold the values of a random sample of the files; a
            ``FeaturecacheWarning`` and a note in the cache say so. An image whose values need more
            bits, or that uses less than a sixteenth of the range, is recorded as failed.
        engine: "local", or "ray" for a pool of workers on the cluster that the environment variable
            RAY_ADDRESS names, or else on this machine.
        batch_size: Number of images per forward pass.
        workers: Number of decoding threads in each process that decodes. By default 2 for a CPU,
            whose cores encode as well; for a GPU, one for each core, divided among the GPUs.
        image_timeout: Maximum time to read one image, in seconds; one that takes longer is recorded
            as failed.
        limit: Encode only a sample of this many images, stratified by split and label, to try
            things out. A larger limit, or none, keeps it and adds to it.
        shard: Encode only shard I of N, given as "I/N", into a cache of its own; ``merge_caches``
            combines all N.
        rehash: Read all files and compare their hashes with those in the cache. Otherwise a file
            is taken to be unchanged if its path, size and modification time are.
        prune: Drop cached images that the data set does not have any more, and accept that most
            others have changed.
        wait: Wait for another process that is writing the cache instead of raising an error. A
            function is called with the file of the cache before waiting for it.
        progress: Called with the number of finished images and of all images to read.

    Returns:
        The cache; or a list of caches for a list of models or of features. Images that could not be
        used are in ``Cache.failures``.

    Raises:
        UnknownNameError: There is no such model, data set, prompt set or engine.
        UsageError: The arguments contradict each other, another process is writing the cache, or it
            would lose most of its images.
        CacheError: A cache is damaged, was made with other settings, or holds images that the data
            set does not have.
        FeaturecacheError: No image could be used.

    Example:
        >>> import featurecache as fc
        >>> data = fc.load_dataset("phantom", "phantom")
        >>> cache = fc.extract(data, "tiny", cache_dir="first", limit=8)
        >>> len(cache.ids)
        8
    """
    is_single = isinstance(model, str | os.PathLike | Encoder)
    if not is_single and not isinstance(model, Sequence):
        raise UsageError(f"`model` is {model!r}: give a name, a path, an Encoder or a list of them")
    models: Sequence[ModelLike] = [model] if is_single else model  # type: ignore[list-item, assignment]
    summaries = run_extraction(
        data,
        models,
        prompts=prompts,
        cache_dir=cache_dir,
        weights=weights,
        device=device,
        backend=backend,
        precision=precision,
        resize=resize,
        features=features,
        views=views,
        bit_depth=bit_depth,
        engine=engine,
        batch_size=batch_size,
        workers=workers,
        image_timeout=image_timeout,
        limit=limit,
        shard=shard,
        rehash=rehash,
        prune=prune,
        on_wait=_log_wait if wait is True else wait or None,
        progress=progress,
    )
    caches = [read_cache(summary.path) for summary in summaries]
    return caches[0] if is_single and isinstance(features, str | None) else caches


def run_extraction(
    data: "DatasetLike | Callable[[], Dataset]",
    models: Sequence[ModelLike],
    *,
    prompts: str | os.PathLike[str] | PromptSet | None,
    cache_dir: str | os.PathLike[str],
    engine: str,
    rehash: bool,
    prune: bool,
    on_wait: OnWait | None = None,
    on_start: OnStart | None = None,
    progress: Progress | None = None,
    hash_progress: Progress | None = None,
    **options: Unpack[ExtractionOptions],
) -> list[ExtractionSummary]:
    """Do what ``extract`` does, and return what was done for each cache.

    Args:
        data: As in ``extract``, or a function that loads the data set. It is called after all names
            were checked, because loading may take long, and before the encoders are loaded,
            because importing their libraries takes seconds.
        models: The encoders.
        prompts: See ``extract``.
        cache_dir: See ``extract``.
        engine: See ``extract``.
        rehash: See ``extract``.
        prune: See ``extract``.
        on_wait: Called with a cache that another process is writing, before waiting for it. None
            raises an error instead of waiting.
        on_start: Called before the first image is read.
        progress: See ``extract``.
        hash_progress: Called before the first image is encoded, with the number of hashed files and
            of all files to hash, whose embeddings may be stored under other ids.
        **options: See ``extract``.

    Returns:
        One summary for each model and kind of features.
    """
    prepared = _prepare(
        data, models, prompts=prompts, cache_dir=Path(cache_dir), engine=engine, **options
    )
    dataset, encoders, shard = prepared.dataset, prepared.encoders, prepared.shard
    prompt_set = prepared.prompts
    weights = options["weights"]
    return update_caches(
        dataset,
        encoders,
        cache_dir=Path(cache_dir),
        engine=_engine(engine, prepared),
        prompts=prompt_set,
        limit=options["limit"],
        batch_size=options["batch_size"],
        workers=prepared.workers,
        image_timeout=options["image_timeout"],
        rehash=rehash,
        prune=prune,
        shard=shard,
        on_wait=on_wait,
        on_start=None if on_start is None else lambda data: on_start(data, encoders, prompt_set),
        progress=progress,
        hash_progress=hash_progress,
        extractions=[
            {
                "data": dataset.source,
                "model": None if isinstance(model, Encoder) else os.fspath(model),
                "weights": None if weights is None else os.fspath(weights),
                "prompts": (
                    {prompt_set.name: _name_or_file(prompts)}
                    if encoder.has_text and dataset.label_names
                    else {}
                ),
                "device": encoder.device,
                "backend": encoder.backend,
                "precision": encoder.precision,
                "resize": encoder.resize,
                "features": encoder.image_spec.get("features"),
                "views": encoder.image_spec.get("views"),
                "bit_depth": dataset.bit_depth,
                "batch_size": options["batch_size"],
                "limit": options["limit"],
                "shard": None if shard is None else f"{shard.number}/{shard.count}",
            }
            for model, encoder in zip(prepared.models, encoders, strict=True)
        ],
    )


@dataclass(frozen=True)
class _Prepared:
    """An extraction whose arguments are checked.

    Attributes:
        dataset: The images.
        models: What was asked for, for each cache.
        loaders: Functions that load an encoder in a given execution, likewise.
        encoders: The encoders in their executions, likewise.
        gpus: GPUs that encode at the same time, if several were asked for.
        prompts: The prompt set.
        shard: The shard to extract.
        workers: Number of decoding threads in each process that decodes.
    """

    dataset: "Dataset"
    models: Sequence[ModelLike]
    loaders: Sequence[Callable[..., Encoder]]
    encoders: Sequence[Encoder]
    gpus: Sequence[str]
    prompts: PromptSet
    shard: Shard | None
    workers: int


def _prepare(
    data: "DatasetLike | Callable[[], Dataset]",
    models: Sequence[ModelLike],
    *,
    prompts: str | os.PathLike[str] | PromptSet | None,
    cache_dir: Path,
    engine: str,
    **options: Unpack[ExtractionOptions],
) -> _Prepared:
    """Check the arguments of an extraction, load its encoders and choose their executions."""
    weights, device, features = options["weights"], options["device"], options["features"]
    backend, precision, views = options["backend"], options["precision"], options["views"]
    resize, bit_depth, shard = options["resize"], options["bit_depth"], options["shard"]
    batch_size, workers, limit = options["batch_size"], options["workers"], options["limit"]
    image_timeout = options["image_timeout"]
    check_numbers(limit=limit, batch_size=batch_size, workers=workers, image_timeout=image_timeout)
    check_bit_depth(bit_depth)
    if engine not in ENGINES:
        raise UnknownNameError("engine", engine, ENGINES)
    if engine == "ray":
        require_ray()
    if not models:
        raise UsageError("there is no model: give at least one `model`")
    if weights is not None and len(models) > 1:
        raise UsageError("`weights` is the checkpoint of one model: give a single `model` with it")
    if device == "all" and engine != "local":
        raise UsageError("`device` all is for the engine local: ray uses all devices anyway")
    if shard is not None and not isinstance(shard, Shard):
        shard = Shard.parse(shard)
    prompt_set = load_prompts(prompts or DEFAULT_PROMPTS)
    kinds = [features] if isinstance(features, str | None) else list(features)
    if not kinds:
        raise UsageError("`features` is empty: leave it out for the model's own embedding")
    models = [model for model in models for _ in kinds]
    n_kinds = len(kinds)
    kinds *= len(models) // n_kinds
    for model, kind in zip(models, kinds, strict=True):
        check_model(
            model,
            weights=weights,
            backend=backend,
            precision=precision,
            resize=resize,
            features=kind,
            views=views,
        )
    dataset = data() if callable(data) else as_dataset(data)
    gpus: list[str] = []
    if device == "all":  # torch is imported to count them
        gpus, device = visible_gpus(), "cuda"
    loaders = [
        _loader(model, weights=weights, device=device, resize=resize, features=kind, views=views)
        for model, kind in zip(models, kinds, strict=True)
    ]
    encoders = [load(backend=backend, precision=precision) for load in loaders]
    if prompts is not None and not any(encoder.has_text for encoder in encoders):
        names = list(dict.fromkeys(encoder.name for encoder in encoders))
        has = "has" if len(names) == 1 else "have"
        raise UsageError(f"{' and '.join(names)} {has} no text encoder: leave out `prompts`")
    dataset = with_bit_depth(
        dataset,
        bit_depth,
        caches=cache_paths(dataset, encoders, cache_dir, shard),
        image_timeout=image_timeout,
    )
    for start in range(0, len(models), n_kinds):
        of_model = slice(start, start + n_kinds)
        if not isinstance(models[start], Encoder):
            encoders[of_model] = choose_executions(
                loaders[of_model],
                encoders[of_model],
                dataset,
                cache_dir,
                backend=backend,
                precision=precision,
                batch_size=batch_size,
                limit=limit,
                shard=shard,
                image_timeout=image_timeout,
            )
    if workers is None:
        workers = _decoding_threads(encoders, len(gpus))
    return _Prepared(dataset, models, loaders, encoders, gpus, prompt_set, shard, workers)


def estimate_extraction(
    data: "DatasetLike | Callable[[], Dataset]",
    model: ModelLike | Sequence[ModelLike],
    *,
    cache_dir: str | os.PathLike[str] = "cache",
    weights: str | os.PathLike[str] | None = None,
    device: str = "auto",
    backend: str = "auto",
    precision: str = "auto",
    resize: str = "published",
    features: str | Sequence[str | None] | None = None,
    views: int = 1,
    bit_depth: int | None = None,
    batch_size: int = 32,
    workers: int | None = None,
    image_timeout: float = IMAGE_TIMEOUT,
    limit: int | None = None,
    shard: str | Shard | None = None,
) -> ExtractionEstimate:
    """Estimate what ``extract`` would store, and how long it would take on this machine.

    No cache is written. As in ``extract``, the fastest execution is measured first where that is
    worthwhile.

    Args:
        data: See ``extract``, as for all arguments; or a function that loads the data set.
        model: See ``extract``.
        cache_dir: See ``extract``.
        weights: See ``extract``.
        device: See ``extract``.
        backend: See ``extract``.
        precision: See ``extract``.
        resize: See ``extract``.
        features: See ``extract``.
        views: See ``extract``.
        bit_depth: See ``extract``.
        batch_size: See ``extract``.
        workers: See ``extract``.
        image_timeout: See ``extract``.
        limit: See ``extract``.
        shard: See ``extract``.

    Raises:
        UnknownNameError: See ``extract``.
        UsageError: See ``extract``.
        CacheError: See ``extract``.

    Example:
        >>> import featurecache as fc
        >>> data = fc.load_dataset("phantom", "phantom")
        >>> estimate = fc.estimate_extraction(data, "tiny", features="tokens:4", cache_dir="new")
        >>> estimate.caches[0].bytes == len(data) * 16 * 512 * 2
        True
    """
    is_single = isinstance(model, str | os.PathLike | Encoder)
    prepared = _prepare(
        data,
        [model] if is_single else model,  # type: ignore[list-item, arg-type]
        prompts=None,
        cache_dir=Path(cache_dir),
        weights=weights,
        device=device,
        backend=backend,
        precision=precision,
        resize=resize,
        features=features,
        views=views,
        bit_depth=bit_depth,
        engine="local",
        batch_size=batch_size,
        workers=workers,
        image_timeout=image_timeout,
        limit=limit,
        shard=shard,
    )
    return estimate_caches(
        prepared.dataset,
        prepared.encoders,
        cache_dir=Path(cache_dir),
        limit=limit,
        shard=prepared.shard,
        batch_size=batch_size,
        workers=prepared.workers,
        image_timeout=image_timeout,
        n_devices=max(1, len(prepared.gpus)),
    )


def _decoding_threads(encoders: Sequence[Encoder], n_gpus: int) -> int:
    import torch

    if common_device(encoders) == "cpu":
        return 2
    return max(2, torch.get_num_threads() // max(1, n_gpus))


def _name_or_file(prompts: str | os.PathLike[str] | PromptSet | None) -> str | None:
    """Return what a prompt set can be given by later; None for one that was made in Python."""
    if isinstance(prompts, PromptSet):
        return prompts.name if PROMPT_SETS.get(prompts.name) == prompts else None
    return os.fspath(prompts or DEFAULT_PROMPTS)


def _loader(
    model: ModelLike,
    *,
    weights: str | os.PathLike[str] | None,
    device: str,
    resize: str,
    features: str | None,
    views: int,
) -> Callable[..., Encoder]:
    """Return a function that loads an encoder in a given execution."""
    if not isinstance(model, Encoder) and os.fspath(model) not in ENCODERS:
        # Absolute, because a worker of a cluster may run in another folder.
        folder = Path(model).expanduser()
        model = folder.absolute() if folder.is_dir() else model
    weights = None if weights is None else Path(weights).absolute()
    return partial(
        as_encoder,
        model,
        weights=weights,
        device=device,
        resize=resize,
        features=features,
        views=views,
    )


def _engine(name: str, prepared: _Prepared) -> Engine:
    if name == "local" and len(prepared.gpus) < 2:
        return encode_locally
    if any(isinstance(model, Encoder) for model in prepared.models):
        raise UsageError(
            "an Encoder cannot be sent to other processes: give `model` as a name or a path"
        )
    # The workers use the device and execution that were chosen here.
    loads = [
        partial(
            load_same,
            partial(
                load,
                device=encoder.device,
                backend=encoder.backend,
                precision=encoder.precision,
            ),
            dict(encoder.image_spec),
        )
        for load, encoder in zip(prepared.loaders, prepared.encoders, strict=True)
    ]
    if name == "local":
        return partial(encode_on_gpus, loads=loads, gpus=prepared.gpus)
    return partial(encode_on_ray, loads=loads)


def _log_wait(cache: Path) -> None:
    _log.info(f"another process is writing {cache}: waiting for it to finish")
