"""Choose the precision of a cache: bf16 where it is fast and leaves the embeddings unchanged."""

from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from featurecache.device import has_fast_bf16
from featurecache.encoders.encoder import decode_and_preprocess
from featurecache.errors import ImageError
from featurecache.images.subprocess_decoder import IMAGE_TIMEOUT, SubprocessDecoder
from featurecache.store.builder import stored_encoder_spec
from featurecache.store.layout import cache_path
from featurecache.store.merge import Shard

if TYPE_CHECKING:
    from featurecache.datasets.dataset import Dataset
    from featurecache.encoders.encoder import Encoder

MIN_COSINE: Final = 0.999
"""Smallest accepted cosine between an image's embeddings in bf16 and in fp32."""
PROBE_IMAGES: Final = 16


class EncoderLoader(Protocol):
    """Loads an encoder in a given precision."""

    def __call__(self, *, precision: str) -> "Encoder":
        """Load the encoder."""


def choose_precision(
    load: EncoderLoader,
    dataset: "Dataset",
    cache_dir: Path,
    *,
    shard: Shard | None = None,
    image_timeout: float = IMAGE_TIMEOUT,
) -> "Encoder":
    """Load an encoder in the precision that suits the machine and the images.

    A cache that exists, or that was started, keeps its precision. Otherwise the precision is bf16
    if the device has instructions for it and 16 images of the data set, embedded in both
    precisions, have cosines of at least 0.999; else fp32. The measured cosine is recorded in
    ``Encoder.bf16_cosine`` and in the cache.

    Args:
        load: Loads the encoder in ``fp32`` or ``bf16``.
        dataset: The images.
        cache_dir: Directory of the caches.
        shard: The shard that will be extracted. The images that are compared do not depend on it.
        image_timeout: Maximum time to read one image, in seconds; an image that takes longer is
            left out of the comparison.

    Returns:
        The encoder.
    """
    encoder = load(precision="fp32")
    path = cache_path(cache_dir, dataset.name, encoder.cache_name)
    description = stored_encoder_spec(path if shard is None else shard.path(path))
    if description is not None:
        return load(precision=str(description.get("precision", "fp32")))
    if not has_fast_bf16(encoder.device):
        return encoder
    pixels = _probe_pixels(encoder, dataset, SubprocessDecoder(timeout=image_timeout))
    if pixels is None:
        return encoder
    reference = encoder.embed_pixels(pixels)
    del encoder  # both sets of weights may not fit into memory together
    bf16_encoder = load(precision="bf16")
    cosine = min_cosine(reference, bf16_encoder.embed_pixels(pixels))
    chosen = bf16_encoder if cosine >= MIN_COSINE else load(precision="fp32")
    chosen.bf16_cosine = cosine
    return chosen


def min_cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Return the smallest cosine between corresponding rows of two (N, D) arrays.

    A row of zeros counts as a cosine of 0.
    """
    dot_products = (a.astype(np.float64) * b).sum(axis=1)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.nan_to_num(dot_products / norms).min())


def _probe_pixels(
    encoder: "Encoder", dataset: "Dataset", decoder: SubprocessDecoder
) -> NDArray[np.float32] | None:
    """Return pixels of images from all over the data set; None if none of them can be read."""
    rows = np.unique(np.linspace(0, len(dataset) - 1, PROBE_IMAGES).astype(np.intp))
    pixels = []
    for path in dataset.images["path"].iloc[rows]:
        try:
            pixels += decode_and_preprocess(
                decoder, dataset.root / path, [encoder], bit_depth=dataset.bit_depth
            )
        except ImageError:
            continue  # the extraction records the reason
    return np.stack(pixels) if pixels else None
