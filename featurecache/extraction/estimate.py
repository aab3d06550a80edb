"""Estimate what an extraction would store, and how long it would take, without starting it."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.execution import Execution
from featurecache.extraction.disk_space import embedding_bytes
from featurecache.extraction.encode import networks_of
from featurecache.extraction.plan import current_rows, file_states
from featurecache.extraction.sample import evenly_spaced, read_image, sample_rows
from featurecache.extraction.update import cache_paths, header_for
from featurecache.images.subprocess_decoder import SubprocessDecoder
from featurecache.store.builder import CacheBuilder
from featurecache.store.records import to_utf8
from featurecache.wording import count_noun

if TYPE_CHECKING:
    from featurecache.datasets.dataset import Dataset
    from featurecache.encoders.encoder import Encoder
    from featurecache.execution import Probe
    from featurecache.features import Features
    from featurecache.store.merge import Shard

SAMPLE_IMAGES: Final = 8
"""Images that are read, and embedded, to measure how long that takes."""


@dataclass(frozen=True)
class CacheEstimate:
    """What an extraction would do for one cache.

    Attributes:
        path: The cache file.
        features: The features that it would hold.
        images: Number of images that the cache would hold.
        to_encode: Number of them that have no embedding yet, as far as the paths, sizes and times
            of their files say. Moved files are not looked up here, and would be recognized.
        bytes: Size of all its embeddings.
        seconds: Time of an extraction for this cache alone; None if no image can be read.
        basis: What the time follows from, in words.
    """

    path: Path
    features: str
    images: int
    to_encode: int
    bytes: int
    seconds: float | None
    basis: str


@dataclass(frozen=True)
class ExtractionEstimate:
    """What an extraction would do.

    Attributes:
        caches: An estimate for each cache.
        seconds: Time of the whole extraction, which reads each image once and computes all features
            of a network together; None if no image can be read.
    """

    caches: list[CacheEstimate]
    seconds: float | None


def estimate_caches(
    dataset: "Dataset",
    encoders: "Sequence[Encoder]",
    *,
    cache_dir: Path,
    limit: int | None,
    shard: "Shard | None",
    batch_size: int,
    workers: int,
    image_timeout: float,
    n_devices: int,
) -> ExtractionEstimate:
    """Estimate an extraction; nothing is written.

    Args:
        dataset: The images.
        encoders: One for each cache.
        cache_dir: See ``extract``.
        limit: See ``extract``.
        shard: See ``extract``.
        batch_size: See ``extract``.
        workers: See ``extract``.
        image_timeout: See ``extract``.
        n_devices: Number of devices that encode at the same time.

    Raises:
        CacheError: A cache is damaged, or was made with other settings.
    """
    paths = cache_paths(dataset, encoders, cache_dir, shard)
    if shard is not None:
        dataset = dataset.take(np.arange(shard.number - 1, len(dataset), shard.count))
    ids, states = to_utf8(dataset.images["id"]), file_states(dataset)
    requested = np.zeros(len(ids), dtype=np.bool_)
    requested[slice(None) if limit is None else sample_rows(dataset, limit)] = True
    missing, n_images = [], []
    for path, encoder in zip(paths, encoders, strict=True):
        stored = CacheBuilder(path, header_for(dataset, encoder, {}), ids).stored
        missing.append(requested & ~current_rows(states, stored))
        n_images.append(int((stored.present() | requested).sum()))
    networks = networks_of(encoders)
    unique = list(dict.fromkeys(networks))
    rows = np.flatnonzero(np.any(missing, axis=0))
    on_cpu = any(network.device == "cpu" for network in unique)
    reading, encoding, basis = _measure(
        dataset,
        rows[evenly_spaced(len(rows), SAMPLE_IMAGES)] if len(rows) else rows,
        {
            network: [
                e.features for e, its in zip(encoders, networks, strict=True) if its is network
            ]
            for network in unique
        },
        batch_size=batch_size,
        image_timeout=image_timeout,
    )

    def seconds(masks: Mapping["Encoder", NDArray[np.bool_]]) -> float | None:
        """Return the time to embed the images of masks, (N,), by these networks."""
        if reading is None:
            return None
        to_read = int(np.any(list(masks.values()), axis=0).sum()) * reading
        to_encode = sum(int(mask.sum()) * encoding[network] for network, mask in masks.items())
        if on_cpu:  # both share its cores
            return to_read / (os.cpu_count() or 1) + to_encode
        return max(to_read / workers, to_encode / n_devices)

    estimates = [
        CacheEstimate(
            path=path,
            features=str(encoder.features),
            images=images,
            to_encode=int(mask.sum()),
            bytes=embedding_bytes(encoder, images),
            seconds=seconds({network: mask}),
            basis=basis[network],
        )
        for path, encoder, network, mask, images in zip(
            paths, encoders, networks, missing, n_images, strict=True
        )
    ]
    of_networks = {
        network: np.any(
            [mask for mask, its in zip(missing, networks, strict=True) if its is network], axis=0
        )
        for network in unique
    }
    return ExtractionEstimate(estimates, seconds(of_networks))


def _measure(
    dataset: "Dataset",
    rows: NDArray[np.intp],
    networks: "Mapping[Encoder, Sequence[Features]]",
    *,
    batch_size: int,
    image_timeout: float,
) -> "tuple[float | None, dict[Encoder, float], dict[Encoder, str]]":
    """Return seconds to read an image in one thread, and to embed one by each network, and how.

    The first is None if no image can be read.
    """
    decoder = SubprocessDecoder(timeout=image_timeout)
    durations, pixels = [], []
    for row in rows.tolist():
        start = time.perf_counter()
        if (of_networks := read_image(dataset, row, list(networks), decoder)) is not None:
            durations.append(time.perf_counter() - start)
            pixels.append(of_networks)
    if not pixels:
        reason = "no image can be read" if len(rows) else "nothing to encode"
        nothing = dict.fromkeys(networks, 0.0), dict.fromkeys(networks, reason)
        return (None if len(rows) else 0.0, *nothing)
    encoding, basis = {}, {}
    for network, of_network in zip(networks, zip(*pixels, strict=True), strict=True):
        rate = None if network.probe is None else _probed_rate(network.probe, network.execution)
        if rate is not None:
            encoding[network], basis[network] = 1 / rate, "the measurement of its execution"
            continue
        batch = np.stack(of_network[:batch_size])
        for _ in range(2):  # the first one loads the weights
            start = time.perf_counter()
            network.embed_features(batch, networks[network])
        encoding[network] = (time.perf_counter() - start) / len(batch)
        basis[network] = f"{count_noun(len(batch), 'image')}, measured now"
    # The first image waits for the subprocess to start.
    return median(durations[1:] or durations), encoding, basis


def _probed_rate(probe: "Probe", execution: "Execution") -> float | None:
    """Return the images per second of an execution in a probe; None if it was not timed."""
    rates = (
        one["images_per_second"]
        for one in probe["measurements"]
        if Execution(one["backend"], one["precision"]) == execution
    )
    return next(rates, None)
