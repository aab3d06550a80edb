"""Continue a cache with other versions of the libraries than it was made with."""

import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.encoders.encoder import decode_and_preprocess
from featurecache.errors import CacheError, FeaturecacheWarning, ImageError
from featurecache.extraction.pipeline import Job
from featurecache.extraction.probe import min_cosine
from featurecache.extraction.sample import evenly_spaced
from featurecache.extraction.texts import is_encoded
from featurecache.images.subprocess_decoder import SubprocessDecoder
from featurecache.prompts import PromptSet
from featurecache.store.records import positions

if TYPE_CHECKING:
    from featurecache.datasets.dataset import Dataset

MIN_COSINE: Final = 0.9999
"""Smallest accepted cosine between an image's embeddings under two versions of the libraries."""
SAMPLE_IMAGES: Final = 8


def accept_library_versions(
    dataset: "Dataset",
    job: Job,
    readable: NDArray[np.bool_],
    prompts: PromptSet | None,
    *,
    image_timeout: float,
) -> None:
    """Require that the installed libraries embed cached images as those of the cache did.

    This is needed only where the encoder is: labels, splits, removed images and prompts that are
    encoded already can be updated with any version. Versions that pass are recorded in the header.

    Args:
        dataset: The N images.
        job: The encoder and its cache.
        readable: Which images have a file that is unchanged since it was embedded, (N,).
        prompts: Prompt set to encode, if any.
        image_timeout: Maximum time to read one image, in seconds.

    Raises:
        CacheError: The embeddings differ, or no cached image can be read.
    """
    builder, encoder = job.builder, job.encoder
    difference, cache = builder.library_difference, builder.cache
    if difference is None or cache is None:
        return
    texts_are_encoded = (
        prompts is None
        or not encoder.has_text
        or is_encoded(cache.texts.get(prompts.name), encoder, prompts, dataset.label_names)
    )
    if texts_are_encoded and not len(job.plan.rows):
        return
    cached = positions(cache.images.id, builder.stored.id)
    is_same = cache.images.sha256[cached] == builder.stored.sha256
    rows = np.flatnonzero(readable & (cached >= 0) & is_same)
    rows = rows[evenly_spaced(len(rows), SAMPLE_IMAGES)]
    pixels, compared = _read(dataset, job, rows, image_timeout)
    cosine = None
    if pixels:
        stored = [cache.read_rows(row, row + 1)[0] for row in cached[compared].tolist()]
        embedded = encoder.embed_pixels(np.stack(pixels))
        cosine = min_cosine(np.stack(stored).astype(np.float32), embedded)
    if cosine is None or cosine < MIN_COSINE:
        reason = (
            "none of its images can be read to compare their embeddings"
            if cosine is None
            else f"they change its embeddings (lowest cosine {cosine:.5f})"
        )
        raise CacheError(
            f"{builder.path} was made with other versions of the libraries ({difference}), and "
            f"{reason}: install the former versions, or give another `cache_dir`"
        )
    libraries = dict(encoder.image_spec["libraries"])
    builder.header = replace(builder.header, libraries=(*builder.header.libraries, libraries))
    warnings.warn(
        f"{builder.path} was made with other versions of the libraries ({difference}); "
        f"{len(compared)} of its images were embedded again, with a lowest cosine of {cosine:.6f}, "
        "so new ones are added",
        FeaturecacheWarning,
        stacklevel=2,
    )


def _read(
    dataset: "Dataset", job: Job, rows: NDArray[np.intp], image_timeout: float
) -> tuple[Sequence[NDArray[np.float32]], list[int]]:
    """Return the pixels of those rows whose images can be read, and these rows."""
    decoder = SubprocessDecoder(timeout=image_timeout)
    pixels, read = [], []
    for row in rows.tolist():
        path = dataset.root / dataset.images["path"].iloc[row]
        with suppress(ImageError):
            pixels += decode_and_preprocess(
                decoder, path, [job.encoder], bit_depth=dataset.bit_depth
            )
            read.append(row)
    return pixels, read
