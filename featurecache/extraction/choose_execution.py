"""Choose how an encoder is executed in an extraction."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from featurecache.encoders.openvino import OPENVINO_LIBRARIES
from featurecache.errors import CacheError
from featurecache.execution import EXACT, Execution, automatic_executions, is_allowed
from featurecache.extraction.plan import file_states
from featurecache.extraction.probe import (
    PROBE_IMAGES,
    fastest_execution,
    is_worthwhile,
    measure,
)
from featurecache.extraction.remembered_probe import ProbeMemory
from featurecache.extraction.reuse import FileHashes
from featurecache.extraction.sample import evenly_spaced, read_pixels
from featurecache.io.fingerprint import first_difference
from featurecache.store.builder import stored_encoder_spec
from featurecache.store.content import StoredContent
from featurecache.store.layout import cache_path
from featurecache.store.merge import Shard
from featurecache.store.reader import read_cache
from featurecache.store.records import to_utf8

if TYPE_CHECKING:
    from featurecache.datasets.dataset import Dataset
    from featurecache.encoders.encoder import Encoder
    from featurecache.features import Features

SAMPLE_FILES: Final = 64
"""Number of files whose content is looked for in other caches of the model."""

_log = logging.getLogger(__name__)


class EncoderLoader(Protocol):
    """Loads an encoder in a given execution."""

    def __call__(self, *, backend: str, precision: str) -> "Encoder":
        """Load the encoder."""


def choose_executions(
    loads: Sequence[EncoderLoader],
    encoders: "Sequence[Encoder]",
    dataset: "Dataset",
    cache_dir: Path,
    *,
    shard: Shard | None,
    **options: Any,
) -> "list[Encoder]":
    """Return encoders of one network, with different features, in the executions that suit them.

    A cache that exists keeps its execution. All others get the same one, so that they share a
    forward pass; see ``choose_execution``.

    Args:
        loads: Loads the encoders.
        encoders: The encoders, as they are loaded with ``backend`` and ``precision``.
        dataset: See ``choose_execution``.
        cache_dir: See ``choose_execution``.
        shard: See ``choose_execution``.
        options: The other arguments of ``choose_execution``.
    """
    features = [encoder.features for encoder in encoders]
    chosen: list[Encoder] = []
    shared: Encoder | None = None
    for load, encoder in zip(loads, encoders, strict=True):
        is_stored = _stored_spec(encoder, dataset, cache_dir, shard) is not None
        if shared is not None and not is_stored:
            chosen.append(load(backend=shared.backend, precision=shared.precision))
            chosen[-1].probe, chosen[-1].execution_reason = shared.probe, shared.execution_reason
            continue
        one = choose_execution(
            load, encoder, dataset, cache_dir, features=features, shard=shard, **options
        )
        chosen.append(one)
        shared = shared if is_stored else one
    return chosen


def choose_execution(
    load: EncoderLoader,
    encoder: "Encoder",
    dataset: "Dataset",
    cache_dir: Path,
    *,
    features: "Sequence[Features] | None" = None,
    backend: str,
    precision: str,
    batch_size: int,
    limit: int | None,
    shard: Shard | None,
    image_timeout: float,
) -> "Encoder":
    """Return an encoder in the execution that suits its cache, the images and the machine.

    A cache that exists, or that was started, keeps its execution. Otherwise that of a cache is
    taken that holds embeddings of the same images. Without one, the fastest is taken that leaves
    embeddings as they are, which is measured once for a machine, an encoder and a batch size; see
    ``measure``. Where measuring would take longer than it can save, the most exact one is taken.

    Args:
        load: Loads the encoder.
        encoder: The encoder, as it is loaded with ``backend`` and ``precision``.
        dataset: The images.
        cache_dir: Directory of the caches.
        features: Features that the network will compute together, those of the encoder among them;
            by default these alone.
        backend: See ``extract``.
        precision: See ``extract``.
        batch_size: Number of images per forward pass.
        limit: Number of images that will be embedded at most; None for all.
        shard: The shard that will be extracted.
        image_timeout: Maximum time to read one image, in seconds; an image that takes longer is
            left out of the measurement.

    Returns:
        The encoder. ``Encoder.execution_reason`` says why it is executed so.
    """

    def take(execution: Execution, reason: str) -> "Encoder":
        chosen = encoder
        if execution != encoder.execution:
            chosen = load(backend=execution.backend, precision=execution.precision)
        chosen.execution_reason = reason
        return chosen

    features = features or [encoder.features]
    stored = _stored_spec(encoder, dataset, cache_dir, shard)
    if stored is not None:
        execution = Execution.of_spec(stored)
        if is_allowed(execution, backend, precision):
            return take(execution, "as its cache")
        return encoder  # refused when the cache is opened
    candidates = automatic_executions(encoder.executions, backend, precision)
    if len(candidates) < 2:
        return encoder
    allowed = [one for one in encoder.executions if is_allowed(one, backend, precision)]
    reusable = _reusable_execution(
        encoder, allowed, dataset, cache_dir, image_timeout=image_timeout
    )
    if reusable is not None:
        execution, source = reusable
        return take(execution, f"as {source}, which holds embeddings of these images")
    memory = ProbeMemory(encoder, features, candidates, batch_size=batch_size)
    probe = memory.recall()
    if probe is None:
        n_images = min(len(dataset), limit or len(dataset)) // (1 if shard is None else shard.count)
        if not is_worthwhile(
            n_images, len(candidates), batch_size=batch_size, device=encoder.device
        ):
            return take(encoder.execution, "not measured: too few images")
        rows = evenly_spaced(len(dataset), PROBE_IMAGES).tolist()
        _, pixels = read_pixels(dataset, rows, encoder, image_timeout=image_timeout)
        if not pixels:
            return take(encoder.execution, "not measured: no image can be read")
        _log.info(f"measuring the fastest way to run {encoder.name} on this machine")
        compared = [EXACT, *(one for one in candidates if one != EXACT)]
        encoders = [
            encoder
            if execution == encoder.execution
            else load(backend=execution.backend, precision=execution.precision)
            for execution in compared
        ]
        probe = measure(encoders, np.stack(pixels), batch_size=batch_size, features=features)
        memory.remember(probe)
    chosen = take(fastest_execution(probe, candidates), "")
    chosen.probe = probe
    return chosen


def _stored_spec(
    encoder: "Encoder", dataset: "Dataset", cache_dir: Path, shard: Shard | None
) -> Mapping[str, Any] | None:
    """Return the encoder spec of a cache that exists or was started; None without one."""
    path = cache_path(cache_dir, dataset.name, encoder.cache_name)
    return stored_encoder_spec(path if shard is None else shard.path(path))


def _reusable_execution(
    encoder: "Encoder",
    allowed: Sequence[Execution],
    dataset: "Dataset",
    cache_dir: Path,
    *,
    image_timeout: float,
) -> tuple[Execution, Path] | None:
    """Return the execution of the cache that holds most of a sample of the images, and the cache.

    None if no cache of the encoder under ``cache_dir`` holds any of them.
    """
    caches = list(_caches_of(encoder, allowed, cache_dir))
    if not caches:
        return None
    sample = dataset.take(evenly_spaced(len(dataset), SAMPLE_FILES))
    rows = np.arange(len(sample))
    hashes = FileHashes(
        sample,
        to_utf8(sample.images["id"]),
        file_states(sample),
        workers=2,
        image_timeout=image_timeout,
    )
    found = [int((hashes.look_up(content, rows) >= 0).sum()) for _, content in caches]
    most = int(np.argmax(found))
    execution, content = caches[most]
    return (execution, content.path) if found[most] else None


def _caches_of(
    encoder: "Encoder", allowed: Sequence[Execution], cache_dir: Path
) -> Iterator[tuple[Execution, StoredContent]]:
    """Yield the content of each readable cache of an encoder in any of some executions."""
    spec = _without_execution(encoder.image_spec)
    for file in sorted(cache_dir.glob(f"*/{encoder.cache_name}.h5")):
        try:
            cache = read_cache(file)
        except (CacheError, OSError):
            continue  # the extraction warns of it
        stored = cache.header.encoder_spec
        execution = Execution.of_spec(stored)
        if execution in allowed and not first_difference(_without_execution(stored), spec):
            yield execution, StoredContent.of_cache(cache)


def _without_execution(spec: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in spec.items() if key not in ("backend", "precision")}
    versions = spec.get("libraries", {})
    libraries = {name: versions[name] for name in versions if name not in OPENVINO_LIBRARIES}
    return kept | {"libraries": libraries}
