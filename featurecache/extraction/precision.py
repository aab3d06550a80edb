"""Which precision a cache is made in: bf16 where it is fast and leaves embeddings as they are."""

from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from featurecache.device import has_fast_bf16
from featurecache.encoders.encoder import decode_and_preprocess
from featurecache.errors import ImageError
from featurecache.images.subprocess_decoder import IMAGE_TIMEOUT, SubprocessDecoder
from featurecache.store.builder import begun_description
from featurecache.store.layout import cache_path
from featurecache.store.merge import Shard

if TYPE_CHECKING:
    from featurecache.datasets.dataset import Dataset
    from featurecache.encoders.encoder import Encoder

LEAST_COSINE: Final = 0.999
"""Between an image's embeddings in bf16 and in fp32; below it a cache is made in fp32."""
PROBE_IMAGES: Final = 16


class Load(Protocol):
    """Gives an encoder in a precision."""

    def __call__(self, *, precision: str) -> "Encoder":
        """Load it."""


def choose_precision(
    load: Load,
    manifest: "Dataset",
    cache: Path,
    *,
    shard: Shard | None = None,
    image_timeout: float = IMAGE_TIMEOUT,
) -> "Encoder":
    """The encoder in the precision that suits the machine and the films.

    A cache, or what there is of one, goes on in the precision that it was begun in. Otherwise it is
    bf16 where the device has instructions for it and sixteen of the films, embedded both ways, have
    cosines of at least 0.999; else fp32. What was measured stands in ``Encoder.bf16_cosine``, and
    in the cache.

    Args:
        load: gives the encoder in ``fp32`` or ``bf16``.
        manifest: the films.
        cache: the folder of caches.
        shard: which part of the films is to be embedded; all are probed alike.
        image_timeout: that reading a film may take; one that takes longer is left out.
    """
    encoder = load(precision="fp32")
    path = cache_path(cache, manifest.name, encoder.name)
    begun = begun_description(path if shard is None else shard.path(path))
    if begun is not None:
        return load(precision=str(begun.get("precision", "fp32")))
    if not has_fast_bf16(encoder.device):
        return encoder
    pixels = _probe(encoder, manifest, SubprocessDecoder(seconds=image_timeout))
    if pixels is None:
        return encoder
    exact = encoder.embed_pixels(pixels)
    del encoder  # two sets of weights at once may be more than fits
    fast = load(precision="bf16")
    cosine = least_cosine(exact, fast.embed_pixels(pixels))
    chosen = fast if cosine >= LEAST_COSINE else load(precision="fp32")
    chosen.bf16_cosine = cosine
    return chosen


def least_cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """The least cosine between corresponding rows, (N, D) each; 0 where one has no direction."""
    products = (one.astype(np.float64) * other).sum(axis=1)
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.nan_to_num(products / lengths).min())


def _probe(
    encoder: "Encoder", manifest: "Dataset", reader: SubprocessDecoder
) -> NDArray[np.float32] | None:
    """Pixels of films from all over the data set; None where none of them can be read."""
    rows = np.unique(np.linspace(0, len(manifest) - 1, PROBE_IMAGES).astype(np.intp))
    pixels = []
    for path in manifest.images["path"].iloc[rows]:
        try:
            pixels += decode_and_preprocess(reader, manifest.root / path, [encoder])
        except ImageError:
            continue  # the extraction itself will say why
    return np.stack(pixels) if pixels else None
