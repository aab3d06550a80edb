"""Search a cache for the images that are nearest to a text, a label's prompts or an image."""

import hashlib
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.alignment.alignment import Alignment, as_alignment
from featurecache.alignment.apply import (
    align_images,
    align_texts,
    alignment_warnings,
    check_alignment,
)
from featurecache.encoders.encoder import Encoder, decode_and_preprocess
from featurecache.encoders.loading import reload_encoder
from featurecache.errors import (
    CacheError,
    FeaturecacheWarning,
    ImageError,
    UnknownNameError,
    UsageError,
)
from featurecache.images.bit_depth import judge_bit_depth, sample_files
from featurecache.images.gray_range import check_bit_depth
from featurecache.images.subprocess_decoder import SubprocessDecoder
from featurecache.metrics.similarity import Embeddings, cosine_similarity, highest, l2_normalize
from featurecache.prompts import PromptSet
from featurecache.provenance.names import key_fingerprint
from featurecache.provenance.perceptual_hash import PerceptualHash, is_copy, perceptual_hash
from featurecache.retrieval.similarity_maps import (
    check_map_query,
    load_map_encoder,
    save_similarity_maps,
)
from featurecache.store.cache import Cache
from featurecache.store.open import open_cache
from featurecache.store.records import (
    NON_FINITE_EMBEDDING,
    TextSet,
    from_utf8,
    positions,
    to_float16_checked,
)

if TYPE_CHECKING:
    import pandas as pd
    from PIL.Image import Image

    from featurecache.datasets.dataset import Dataset

StrPath = str | os.PathLike[str]

_SENTENCE_END: Final = re.compile(r"(?<=[.!?;])\s+|\n+")


@dataclass(frozen=True, eq=False)
class SearchResult:
    """The answer to one query.

    Attributes:
        query: The query in words, for a title.
        images: The nearest images, as ``retrieve`` returns them.
        copies: Ids of images that are the query image, by id or content; they are not among the
            results.
        descriptions: For a query by image, the cosine of each label's prompt ensemble with the
            image, highest first; empty for other queries, and where texts and images do not share
            a space.
        direction: The query, (D,), of unit length, where it is a text or a label's prompts; None
            for a query by image.
    """

    query: str
    images: "pd.DataFrame"
    copies: tuple[str, ...] = ()
    descriptions: Mapping[str, float] = field(default_factory=dict)
    direction: Embeddings | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the result as a JSON value."""
        return {
            "query": self.query,
            "images": self.images.to_dict("records"),
            "copies": list(self.copies),
            "descriptions": dict(self.descriptions) or None,
        }


def retrieve(
    cache: Cache | StrPath,
    text: str | None = None,
    *,
    image: "StrPath | Image | None" = None,
    label: str | None = None,
    top: int = 10,
    split: str | None = None,
    prompts: str | PromptSet | None = None,
    alignment: Alignment | StrPath | None = None,
    model: Encoder | StrPath | None = None,
    weights: StrPath | None = None,
    device: str = "auto",
    bit_depth: int | None = None,
    heatmap: StrPath | None = None,
    data: "Dataset | None" = None,
) -> "pd.DataFrame":
    """Find the images of a cache that are nearest to a text, a label or an image.

    The search is exact, by cosine similarity. A text, or an image that is not in the cache, is
    embedded with the encoder that the cache was made with.

    Args:
        cache: A cache, or its path.
        text: Find the images that this text describes best.
        image: Find the images most similar to this one: an image file, a PIL image, or the id of a
            cached image. The image itself and its copies, by file or content, are not among the
            results.
        label: Find the images that the prompts of this label describe best.
        top: Number of images to return.
        split: Search only the images of this split; all splits if None.
        prompts: Prompt set, or its name; may be None if the cache holds only one.
        alignment: An alignment or its file, for an encoder whose images and texts do not share a
            space. Images are compared with images without it.
        model: The encoder, or the name or folder to load it from, where the model name in the
            cache does not find it.
        weights: Local checkpoint of the encoder.
        device: "auto", "cpu", "cuda" or "mps".
        bit_depth: Number of bits in use, 8 to 16, in the image file, if it does not define the
            range of its gray values; by default that of the cache, or judged from the file.
        heatmap: PNG file to write, of the result of a query by text or label: the images, and over
            each the similarity of its patches to the query, as far as it is above their mean.
        data: The data set of the cache, loaded with ``metadata``, to add these columns, such as
            reports, to the result; and for the images of ``heatmap``, where they are no longer
            found where the cache was made from.

    Returns:
        One row per image, nearest first, with the columns ``rank`` (from 1), ``id``, ``cosine``,
        ``patient``, ``study``, ``split``, ``labels`` (a tuple of the positive labels), ``view``,
        ``sex`` and ``age`` (texts, "" where unknown).

    Raises:
        UsageError: Not exactly one of ``text``, ``image`` and ``label`` is given; the text is
            empty, or a sentence of it has more tokens than the encoder reads; texts and images do
            not share a space; the alignment was fitted to images that would be searched;
            ``bit_depth`` is out of range, or given without an image file; or ``heatmap`` exists,
            is of a query by image or by an alignment, or the encoder cannot compare patches with
            texts.
        UnknownNameError: The cache has no such label, prompt set or split.
        CacheError: The cache has no such image, or several prompt sets and none is named.
        ImageError: The image cannot be read, or its embedding is not finite.
        RunError: The encoder or the alignment does not belong to the cache; the message names the
            field that differs.

    Example:
        >>> import featurecache as fc
        >>> images = fc.retrieve("cache/phantom/tiny.h5", "signs of cardiomegaly", top=3)
        >>> images.columns.tolist()
        ['rank', 'id', 'cosine', 'patient', 'study', 'split', 'labels', 'view', 'sex', 'age']
        >>> fc.retrieve("cache/phantom/tiny.h5", image=images["id"][0], top=5)["rank"].tolist()
        [1, 2, 3, 4, 5]
    """
    cache = open_cache(cache)
    if heatmap is not None:
        by_image, aligned = image is not None, alignment is not None
        check_map_query(heatmap, by_image=by_image, aligned=aligned)
        model = load_map_encoder(cache, model=model, weights=weights, device=device)
        weights = None
    result = search(
        cache,
        text,
        image=image,
        label=label,
        top=top,
        split=split,
        prompts=prompts,
        alignment=alignment,
        model=model,
        weights=weights,
        device=device,
        bit_depth=bit_depth,
    )
    images = result.images if data is None else add_metadata(result.images, data)
    if heatmap is not None:
        assert isinstance(model, Encoder)
        assert result.direction is not None
        # Loading data sets takes as long to import as a search.
        from featurecache.extraction.source import as_dataset, cached_files

        files = cached_files(cache, data or as_dataset(cache), images["id"].tolist())
        save_similarity_maps(
            heatmap,
            images,
            result.direction,
            files,
            encoder=model,
            bit_depth=cache.header.bit_depth,
            title=f"query: {result.query}",
        )
    return images


def add_metadata(images: "pd.DataFrame", data: "Dataset") -> "pd.DataFrame":
    """Add the metadata of a data set to a result.

    Args:
        images: The images, with their ids in the column ``id``.
        data: Their data set.

    Raises:
        UsageError: A column has the name of one in the result, or the data set lacks an image.
    """
    if taken := [name for name in data.metadata if name in images.columns]:
        raise UsageError(
            f"the column {taken[0]!r} of `metadata` is in the result already: rename it"
        )
    table = data.images.set_index("id")
    if lacking := images["id"][~images["id"].isin(table.index)].tolist():
        raise lacks_image(lacking[0])
    rows = table.loc[images["id"].tolist()]
    return images.assign(**{name: rows[name].to_numpy(dtype=object) for name in data.metadata})


def lacks_image(image_id: str) -> UsageError:
    """Return the error for an image of a cache that its data set does not have."""
    return UsageError(
        f"the data set lacks the image {image_id!r} of the cache: give the data set, with the "
        "options, that the cache was extracted from; if its images have moved, extract it again, "
        "which finds them by content"
    )


def search(
    cache: Cache,
    text: str | None = None,
    *,
    image: "StrPath | Image | None" = None,
    label: str | None = None,
    top: int = 10,
    split: str | None = None,
    prompts: str | PromptSet | None = None,
    alignment: Alignment | StrPath | None = None,
    model: Encoder | StrPath | None = None,
    weights: StrPath | None = None,
    device: str = "auto",
    bit_depth: int | None = None,
    image_name: str | None = None,
) -> SearchResult:
    """Search as ``retrieve`` does, and return the label similarities of a query image, too.

    Args:
        cache: See ``retrieve``.
        text: See ``retrieve``.
        image: See ``retrieve``.
        label: See ``retrieve``.
        top: See ``retrieve``.
        split: See ``retrieve``.
        prompts: See ``retrieve``.
        alignment: See ``retrieve``.
        model: See ``retrieve``.
        weights: See ``retrieve``.
        device: See ``retrieve``.
        bit_depth: See ``retrieve``.
        image_name: Name of an image file in titles and messages, where its path must not be
            shown; None for the path.

    Returns:
        The result.

    Raises:
        FeaturecacheError: See ``retrieve``.
    """
    if sum(query is not None for query in (text, image, label)) != 1:
        raise UsageError("give exactly one of `text`, `image` and `label`")
    cache.require_images()
    cache.require_vectors()
    check_bit_depth(bit_depth)
    image_file = _as_file(image)
    if bit_depth is not None and image_file is None:
        raise UsageError("`bit_depth` is that of an image file: give one as `image`")
    alignment = as_alignment(alignment)
    rows = np.arange(len(cache)) if split is None else cache.require_rows(split)
    load_encoder = partial(
        reload_encoder,
        cache.header.model,
        cache.header.encoder_spec,
        model=model,
        weights=weights,
        device=device,
        source=cache.path,
    )
    if label is not None:
        if not cache.labels.names:
            cache.require_labels()
        if label not in cache.labels.names:
            raise UnknownNameError("label", label, cache.labels.names)
        text_set = _prompt_set(cache, prompts, alignment)
        if alignment is None:
            cache.require_text_space()
        if not text_set.aligned:
            raise _no_shared_space(cache.header.model)
        query = l2_normalize(text_set.positive.ensemble, "text")[cache.labels.names.index(label)]
        images = nearest_images(cache, query, rows, top, alignment)
        return SearchResult(f"label {label}", images, direction=query)
    if text is not None:
        if not text.strip():
            raise UsageError("`text` is empty")
        encoder = load_encoder()
        if alignment is not None:
            alignment_warnings(alignment, cache.header.encoder_spec, encoder.text_spec)
        else:
            cache.require_text_space()
            if not encoder.aligned:
                raise _no_shared_space(encoder.name)
        query = _embed_text(encoder, text)[0]
        images = nearest_images(cache, query, rows, top, alignment)
        return SearchResult(f"text {text!r}", images, direction=query)
    assert image is not None
    name = os.fspath(image) if isinstance(image, str | os.PathLike) else "given"
    embedding: Embeddings
    if isinstance(image, str | os.PathLike) and image_file is None:
        row = _row_of(cache, name, is_secret=image_name is not None)
        if alignment is not None:
            check_alignment(alignment, cache, np.array([row]))
        embedding = cache.read_rows(row, row + 1)
        sha256, content = cache.images.sha256[row], cache.images.perceptual_hash[row]
    else:
        name = image_name or name
        encoder = load_encoder()
        bit_depth = bit_depth or cache.header.bit_depth
        if bit_depth is None and image_file is not None:
            bit_depth = judge_bit_depth(sample_files([image_file]))
        embedding = _embed_image(encoder, image, name, bit_depth)
        sha256, content = _content_of(image, name, bit_depth)
    is_same = (cache.images.sha256[rows] == sha256) & (sha256 != b"")
    is_same |= is_copy(cache.images.perceptual_hash[rows], content[np.newaxis])
    is_same |= cache.images.id[rows] == name.encode(errors="surrogateescape")
    copies, rows = rows[is_same], rows[~is_same]
    if len(rows) == 0:
        raise CacheError(f"{cache.path} has no other image to search")
    # Images are compared without the alignment, which serves the label similarities only.
    images = nearest_images(cache, l2_normalize(embedding, "image")[0], rows, top)
    cosines = _label_cosines(cache, embedding, prompts, alignment)
    return SearchResult(
        f"image {name}", images, tuple(from_utf8(cache.images.id[copies]).tolist()), cosines
    )


def _content_of(
    image: "StrPath | Image", name: str, bit_depth: int | None
) -> tuple[bytes, PerceptualHash]:
    """Return the sha256 of an image file, b"" without one, and the hash of its content."""
    if not isinstance(image, str | os.PathLike):
        return b"", perceptual_hash(image.convert("RGB"))
    data = Path(image).expanduser().read_bytes()
    (content,) = SubprocessDecoder().read(data, [perceptual_hash], bit_depth=bit_depth, name=name)
    return hashlib.sha256(data).hexdigest().encode(), content


def _as_file(image: "StrPath | Image | None") -> Path | None:
    """Return the path of an image file; None for the id of a cached image, and for pixels."""
    if not isinstance(image, str | os.PathLike):
        return None
    path = Path(image).expanduser()
    return path if path.is_file() else None


def _embed_text(encoder: Encoder, text: str) -> Embeddings:
    """Embed a query, normalized, (1, D); one that is too long is the mean of its sentences.

    Raises:
        UsageError: A sentence is too long.
    """
    if not encoder.too_long([text]):
        return l2_normalize(encoder.encode_texts([text]), "text")
    sentences = [part.strip() for part in _SENTENCE_END.split(text) if part.strip()]
    if cut := encoder.too_long(sentences):
        raise UsageError(
            f"`text` has a sentence of more than {encoder.max_tokens} tokens, which "
            f"{encoder.name} cannot read whole: shorten {shorten(cut[0], 80)!r}, or divide it into "
            "sentences"
        )
    warnings.warn(
        f"{encoder.name} reads {encoder.max_tokens} tokens, fewer than `text` has: the query is "
        f"the mean of the embeddings of its {len(sentences)} sentences",
        FeaturecacheWarning,
        stacklevel=2,
    )
    unit = l2_normalize(encoder.encode_texts(sentences), "text")
    return l2_normalize(unit.mean(axis=0, keepdims=True), "text")


def _row_of(cache: Cache, image_id: str, *, is_secret: bool) -> int:
    row = positions(cache.images.id, np.array([image_id.encode(errors="surrogateescape")]))[0]
    if row < 0:
        # It may be the original id of a pseudonymized image.
        is_secret = is_secret or key_fingerprint(cache.header.collection) != ""
        raise CacheError(
            f"{'the query image' if is_secret else repr(image_id)} is neither a file nor the id of "
            f"an image in {cache.path}: give `image` as one of them"
        )
    return int(row)


def _embed_image(
    encoder: Encoder, image: "StrPath | Image", name: str, bit_depth: int | None
) -> NDArray[np.float16]:
    """Embed an image as a cache of this bit depth would store it, (1, D)."""
    if isinstance(image, str | os.PathLike):
        path = Path(image).expanduser()
        (pixels,) = decode_and_preprocess(
            SubprocessDecoder(), path, [encoder], bit_depth=bit_depth, name=name
        )
        embedding = encoder.embed_pixels(pixels[np.newaxis])
    else:
        embedding = encoder.encode_images([image])
    half, usable = to_float16_checked(np.asarray(embedding, dtype=np.float32))
    if not usable[0]:
        raise ImageError(f"{name}: {NON_FINITE_EMBEDDING}")
    return half


def _prompt_set(
    cache: Cache, prompts: str | PromptSet | None, alignment: Alignment | None
) -> TextSet:
    if alignment is None:
        return cache.text(prompts)
    return align_texts(alignment, cache, prompts)[0]


def nearest_images(
    cache: Cache,
    query: Embeddings,
    rows: NDArray[np.intp],
    top: int,
    alignment: Alignment | None = None,
) -> "pd.DataFrame":
    """Return the nearest images as ``retrieve`` does.

    Args:
        cache: The cache.
        query: Direction to compare images with, (D,), of unit length.
        rows: Rows of the images to search, (M,).
        top: Number of images to return.
        alignment: Alignment that is applied to images; None for none.
    """
    import pandas as pd

    if alignment is not None:
        check_alignment(alignment, cache, rows)
    direction = query.astype(np.float32)
    cosines = np.empty(len(rows), dtype=np.float32)
    for block, stored in cache.iter_embeddings(rows):
        embedding = stored if alignment is None else align_images(alignment, stored)
        cosines[block] = cosine_similarity(direction, embedding, first=block.start)
    indices = highest(cosines, top=top)
    result = rows[indices]
    names = np.array(cache.labels.names, dtype=object)
    return pd.DataFrame(
        {
            "rank": np.arange(1, len(result) + 1),
            "id": from_utf8(cache.images.id[result]),
            "cosine": cosines[indices].astype(np.float64),
            "patient": from_utf8(cache.images.patient[result]) if cache.patients_known else "",
            "study": from_utf8(cache.images.study[result]),
            "split": from_utf8(cache.images.split[result]),
            "labels": [tuple(names[values == 1]) for values in cache.labels.values[result]],
            "view": from_utf8(cache.images.view[result]),
            "sex": from_utf8(cache.images.sex[result]),
            "age": from_utf8(cache.images.age[result]),
        }
    )


def _label_cosines(
    cache: Cache,
    embedding: Embeddings,
    prompts: str | PromptSet | None,
    alignment: Alignment | None,
) -> dict[str, float]:
    if not cache.texts or not cache.labels.names:
        return {}
    text = _prompt_set(cache, prompts, alignment)
    if not text.aligned:
        return {}
    if alignment is not None:
        embedding = align_images(alignment, embedding)
    cosines = l2_normalize(text.positive.ensemble, "text") @ l2_normalize(embedding, "image")[0]
    order = np.argsort(-cosines, kind="stable")
    return {text.labels[row]: float(cosines[row]) for row in order}


def _no_shared_space(model: str) -> UsageError:
    return UsageError(
        f"the images and texts of {model} do not share an embedding space, so a text cannot find "
        "an image: fit an `alignment` to the cache and give it, search by `image`, or use an "
        "aligned model such as xraysiglip"
    )
