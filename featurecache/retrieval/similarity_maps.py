"""Pictures of where images fit a text: the similarity of their patches to it, drawn over them."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.encoders.encoder import Encoder, decode_and_preprocess
from featurecache.encoders.loading import reload_encoder
from featurecache.errors import UsageError
from featurecache.evaluation.heatmaps import draw_over
from featurecache.features import parse_features
from featurecache.images.bit_depth import judge_bit_depth, sample_files
from featurecache.images.contact_sheet import contact_sheet, save_png
from featurecache.images.heatmap import size_and_thumbnail
from featurecache.images.subprocess_decoder import SubprocessDecoder
from featurecache.io.atomic import require_absent
from featurecache.metrics.similarity import Embeddings, cosine_similarity
from featurecache.store.cache import Cache

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS: Final = 3
"""Images in a row, each beside its map."""


def check_map_query(path: str | os.PathLike[str], *, by_image: bool, aligned: bool) -> None:
    """Check that a query can be compared with patches of images.

    Args:
        path: The picture that is going to be written.
        by_image: Whether the query is an image.
        aligned: Whether images and texts are compared by an alignment.

    Raises:
        UsageError: It cannot, or the picture exists.
    """
    require_absent(Path(path), argument="heatmap")
    if by_image:
        raise UsageError("`heatmap` shows where images fit a text: give `text` or `label`")
    if aligned:
        raise UsageError(
            "`heatmap` compares patches with a text, but an `alignment` is of whole images: leave "
            "out one of them"
        )


def load_map_encoder(
    cache: Cache,
    *,
    model: Encoder | str | os.PathLike[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    device: str = "auto",
) -> Encoder:
    """Load the encoder of a cache, to compare the patches of its images with a text.

    Args:
        cache: The cache.
        model: See ``retrieve``.
        weights: See ``retrieve``.
        device: See ``retrieve``.

    Raises:
        UsageError: The encoder cannot compare patches with texts.
        RunError: The encoder does not belong to the cache.
    """
    cache.require_text_space()
    encoder = reload_encoder(
        cache.header.model,
        cache.header.encoder_spec,
        model=model,
        weights=weights,
        device=device,
        source=cache.path,
    )
    if not encoder.aligned:
        reason = "its images and texts do not share a space"
    elif encoder.n_views > 1:
        reason = "it averages several views of an image: use a cache that was extracted without"
    elif encoder.finest_grid is None:
        reason = "only its embedding of a whole image can be had"
    elif encoder.geometry is None:
        reason = "it is not known which part of an image it sees"
    else:
        return encoder
    raise UsageError(f"`heatmap` cannot be drawn with {encoder.name}: {reason}")


def map_similarity(encoder: Encoder, pixels: NDArray[np.float32], text: Embeddings) -> Embeddings:
    """Return the cosine of each patch of an image with a text, by row and column, (G, G).

    Patches are brought into the space of texts one by one, on the finest grid of the encoder.

    Args:
        encoder: See ``load_map_encoder``.
        pixels: The image, preprocessed, (3, H, W).
        text: Embedding of the text, (D,).
    """
    features = parse_features(f"tokens:{encoder.finest_grid}")
    # The mean is as long as one token.
    mean, tokens = encoder.embed_features(pixels[np.newaxis], [parse_features("mean"), features])
    (projected,) = encoder.project_tokens(tokens.reshape(1, -1, mean.shape[1]))
    return features.on_grid(cosine_similarity(text.astype(np.float32), projected))


def save_similarity_maps(
    path: str | os.PathLike[str],
    images: "pd.DataFrame",
    text: Embeddings,
    files: Mapping[str, Path],
    *,
    encoder: Encoder,
    bit_depth: int | None,
    title: str,
) -> None:
    """Draw images and, beside each, how well its patches fit a text, to a PNG file.

    Patches are colored where they fit the text better than those of the same image do on average,
    the more so the nearer they are to the best.

    Args:
        path: The file to write.
        images: The images, one or more, as ``retrieve`` returns them.
        text: Embedding of the text, (D,).
        files: File of each image by its id.
        encoder: See ``load_map_encoder``.
        bit_depth: See ``decode_image``; None to judge it from the files.
        title: Line above the images.

    Raises:
        ImageError: An image cannot be read.
    """
    assert encoder.geometry is not None
    decoder = SubprocessDecoder()
    ids = images["id"].tolist()
    bit_depth = bit_depth or judge_bit_depth(sample_files([files[name] for name in ids]))
    tiles = []
    for rank, name, cosine in zip(images["rank"], ids, images["cosine"], strict=True):
        pixels, thumbnail = decode_and_preprocess(
            decoder,
            files[name],
            [encoder],
            bit_depth=bit_depth,
            also=[size_and_thumbnail],
            name=name,
        )
        similarity = map_similarity(encoder, pixels, text)
        plain, colored = draw_over(
            thumbnail, (similarity - similarity.mean())[np.newaxis], encoder.geometry
        )
        tiles += [
            (f"{rank}: cosine {cosine:.3f}\n{name}", plain),
            (f"patches {similarity.min():.3f} to {similarity.max():.3f}", colored),
        ]
    rows = [tiles[start : start + 2 * _COLUMNS] for start in range(0, len(tiles), 2 * _COLUMNS)]
    save_png(contact_sheet(rows, title=title), Path(path))
