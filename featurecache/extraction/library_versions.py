"""Continue a cache with other versions of the libraries than it was made with."""

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import CacheError, FeaturecacheWarning
from featurecache.extraction.pipeline import Job
from featurecache.extraction.probe import min_cosine
from featurecache.extraction.sample import evenly_spaced, read_pixels
from featurecache.extraction.texts import is_encoded
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
    compared, pixels = read_pixels(dataset, rows.tolist(), encoder, image_timeout=image_timeout)
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
