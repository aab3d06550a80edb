"""Measure how fast, and how exactly, a network is executed in several ways on this machine."""

import logging
import math
import time
from collections.abc import Sequence
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.concurrency import OrderedThreadPool, worker_count, worker_threads
from featurecache.execution import Execution, Measurement, Probe
from featurecache.extraction.encode import MAX_ENCODER_THREADS
from featurecache.oom import ran_out_of_memory

if TYPE_CHECKING:
    from featurecache.encoders.encoder import Encoder
    from featurecache.features import Features

MIN_COSINE: Final = 0.999
"""Smallest accepted cosine between an image's embeddings by an execution and by ``EXACT``."""
NOISE: Final = 0.03
"""Relative difference of two rates below which the more exact execution is preferred."""
PROBE_IMAGES: Final = 32
ROUNDS: Final = 3
"""Number of rounds in which every execution is timed once."""
MIN_SECONDS: Final = 0.5
"""Shortest time of a round for one execution."""
HOPELESS: Final = 0.7
"""An execution that is slower than this share of the fastest is not timed again."""
MAX_GAIN: Final = 2.0
"""How many times faster than ``EXACT`` the fastest execution is assumed to be at most."""

_log = logging.getLogger(__name__)


def is_worthwhile(n_images: int, n_executions: int, *, batch_size: int, device: str) -> bool:
    """Return whether a probe costs less time than the fastest execution can save.

    Args:
        n_images: Number of images to embed.
        n_executions: Number of executions to compare.
        batch_size: Number of images per forward pass.
        device: ``cpu``, ``cuda`` or ``mps``.
    """
    round_images = batch_size * worker_count(device, max_workers=MAX_ENCODER_THREADS)
    return n_images * (1 - 1 / MAX_GAIN) > (1 + ROUNDS) * n_executions * round_images


def measure(
    encoders: "Sequence[Encoder]",
    pixels: NDArray[np.float32],
    *,
    batch_size: int,
    features: "Sequence[Features] | None" = None,
) -> Probe:
    """Embed the same images by every execution, in turn, in the threads of an extraction.

    Args:
        encoders: The same encoder in different executions, ``EXACT`` first.
        pixels: Preprocessed images, (n, 3, H, W).
        batch_size: Number of images per forward pass.
        features: The features that it computes together, of which the smallest cosine counts; by
            default its own.

    Returns:
        The measurements, in the order of ``encoders``.
    """
    features = features or [encoders[0].features]
    batch = np.ascontiguousarray(pixels[np.arange(batch_size) % len(pixels)])
    cosines: dict[Encoder, float] = {encoders[0]: 1.0}
    with worker_threads(encoders[0].device, max_workers=MAX_ENCODER_THREADS) as threads:
        reference = _embed(threads, encoders[0], features, pixels, batch_size)
        seconds = _run(threads, encoders[0], features, batch, threads.workers)
        n_batches = threads.workers * math.ceil(MIN_SECONDS / seconds)
        for encoder in encoders[1:]:
            try:
                embedded = _embed(threads, encoder, features, pixels, batch_size)
                cosines[encoder] = min(map(min_cosine, reference, embedded))
            except Exception as error:  # noqa: BLE001  # what a network cannot do varies
                reason = "out of memory" if ran_out_of_memory(error) else error
                _log.warning(f"{encoder.name} cannot run as {encoder.execution}: {reason}")
        exact_enough = [one for one, cosine in cosines.items() if cosine >= MIN_COSINE]
        rates = _rates(threads, exact_enough, features, batch, n_batches)
    return Probe(
        images=len(pixels),
        measurements=[
            Measurement(
                backend=encoder.backend,
                precision=encoder.precision,
                images_per_second=rates.get(encoder),
                min_cosine=cosines.get(encoder),
            )
            for encoder in encoders
        ],
    )


def fastest_execution(probe: Probe, candidates: Sequence[Execution]) -> Execution:
    """Return the fastest candidate whose smallest cosine is at least ``MIN_COSINE``.

    Within ``NOISE`` of the fastest, the most exact one is taken; if none is exact enough, the first
    candidate.

    Args:
        probe: Measurements of these executions, and perhaps of others.
        candidates: The executions to choose from, the most exact first.
    """
    rates = {
        Execution(one["backend"], one["precision"]): one["images_per_second"]
        for one in probe["measurements"]
        if one["images_per_second"] is not None and (one["min_cosine"] or 0) >= MIN_COSINE
    }
    rates = {one: rates[one] for one in candidates if one in rates}
    fast = (one for one, rate in rates.items() if rate >= (1 - NOISE) * max(rates.values()))
    return next(fast, candidates[0])


def min_cosine(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Return the smallest cosine between corresponding rows of two (N, D) arrays.

    A row of zeros, or with a value that is not finite, counts as a cosine of 0.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        dot_products = (a * b).sum(axis=1)
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        return float(np.nan_to_num(dot_products / norms).min())


def _rates(
    threads: "OrderedThreadPool[list[NDArray[np.float32]]]",
    encoders: "Sequence[Encoder]",
    features: "Sequence[Features]",
    batch: NDArray[np.float32],
    n_batches: int,
) -> "dict[Encoder, float]":
    """Return the median images per second of each encoder; the rounds of all are interleaved."""
    rates: dict[Encoder, list[float]] = {encoder: [] for encoder in encoders}
    running = list(encoders)
    for _ in range(ROUNDS):
        for encoder in running:
            seconds = _run(threads, encoder, features, batch, n_batches)
            rates[encoder].append(n_batches * len(batch) / seconds)
        fastest = max((median(rates[encoder]) for encoder in running), default=0.0)
        running = [one for one in running if median(rates[one]) > HOPELESS * fastest]
    return {encoder: median(measured) for encoder, measured in rates.items()}


def _embed(
    threads: "OrderedThreadPool[list[NDArray[np.float32]]]",
    encoder: "Encoder",
    features: "Sequence[Features]",
    pixels: NDArray[np.float32],
    batch_size: int,
) -> list[NDArray[np.float32]]:
    """Embed images, (n, 3, H, W) to (n, D) for each kind of features.

    Each thread has at least one batch.

    The first batch of a thread takes longer, so that none of the later ones does.
    """
    starts = list(range(0, len(pixels), batch_size))
    for start in starts + starts[:1] * (threads.workers - len(starts)):
        batch = pixels[start : start + batch_size]
        threads.submit(partial(encoder.embed_features, batch, features))
    batches = list(threads.drain())[: len(starts)]
    return [np.concatenate(kind) for kind in zip(*batches, strict=True)]


def _run(
    threads: "OrderedThreadPool[list[NDArray[np.float32]]]",
    encoder: "Encoder",
    features: "Sequence[Features]",
    batch: NDArray[np.float32],
    n_batches: int,
) -> float:
    """Embed a batch so many times in threads; return the seconds that it took."""
    start = time.perf_counter()
    for _ in range(n_batches):
        threads.submit(partial(encoder.embed_features, batch, features))
    for _ in threads.drain():
        pass
    return time.perf_counter() - start
