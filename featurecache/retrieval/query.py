"""What a cache holds that is nearest to a text, a label's prompts or an image."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from featurecache.alignment.alignment import Alignment
from featurecache.alignment.apply import (
    align_images,
    align_texts,
    alignment_warnings,
    require_unseen,
)
from featurecache.errors import CacheError, ImageError, UnknownNameError, UsageError
from featurecache.metrics.similarity import Embeddings, l2_normalize, nearest, normalize_rows
from featurecache.store.cache import Cache
from featurecache.store.records import NON_FINITE_EMBEDDING, TextSet, to_float16_checked

if TYPE_CHECKING:
    from PIL.Image import Image

    from featurecache.encoders.encoder import Array, Encoder


@dataclass(frozen=True)
class Hit:
    """One image found: what the cache knows of it, and its cosine with the query."""

    id: str
    cosine: float
    patient: str
    split: str
    view: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """What a query found.

    Attributes:
        query: in words, for a title.
        hits: the nearest images, the nearest first.
        descriptions: of a query by image, every label with the cosine of its prompt ensemble, the
            best first; empty for other queries, and where texts and images share no space.
        picture: of a query by image file, the image.
    """

    query: str
    hits: tuple[Hit, ...]
    descriptions: tuple[tuple[str, float], ...] = ()
    picture: "Image | None" = None

    def document(self) -> dict[str, Any]:
        """The answer as JSON has it."""
        return {
            "query": self.query,
            "images": [asdict(hit) for hit in self.hits],
            "descriptions": dict(self.descriptions) or None,
        }


def images_for_text(
    cache: Cache,
    encoder: "Encoder",
    text: str,
    *,
    split: str | None = None,
    top: int,
    alignment: Alignment | None = None,
) -> Answer:
    """The images that fit a text best.

    Args:
        cache: where to look.
        encoder: the one that made the cache; the caller has seen to that.
        text: what is looked for.
        split: whose images; None for all.
        top: how many.
        alignment: for an unaligned encoder.

    Raises:
        UsageError: the encoder's texts and images share no space, the text is empty, or the
            alignment learned from images of that split.
        RunError: the alignment is of other encoders or settings; the message names the field.
        CacheError: there are no images of that split.
    """
    if alignment is not None:
        alignment_warnings(alignment, cache.header.encoder_spec, encoder.text_spec)
    elif not encoder.aligned:
        raise _unaligned(encoder.name)
    if not text.strip():
        raise UsageError("the text to look for is empty")
    query = l2_normalize(encoder.encode_texts([text]), "text")[0]
    hits = _hits(cache, query, _rows(cache, split), top, alignment)
    return Answer(f"text {text!r}", hits)


def images_for_label(
    cache: Cache,
    label: str,
    *,
    prompts: str | None = None,
    split: str | None = None,
    top: int,
    alignment: Alignment | None = None,
) -> Answer:
    """The images that fit a label's prompt ensemble best; needs no encoder.

    Raises:
        UnknownNameError: the cache has no such label, or no such prompt set.
        UsageError: texts and images share no space, or the alignment learned from images of that
            split.
        RunError: the alignment is of other encoders or settings; the message names the field.
        CacheError: there are no images of that split, no texts, or several sets and none is named.
    """
    if label not in cache.labels.names:
        raise UnknownNameError("label", label, cache.labels.names)
    text = _text(cache, prompts, alignment)
    if not text.aligned:
        raise _unaligned(cache.header.model)
    row = cache.labels.names.index(label)
    query = l2_normalize(text.positive.ensemble, "text")[row]
    hits = _hits(cache, query, _rows(cache, split), top, alignment)
    return Answer(f"label {label}", hits)


def neighbours_of_image(
    cache: Cache,
    encoder: "Encoder",
    pixels: "Array",
    *,
    name: str,
    picture: "Image",
    prompts: str | None = None,
    split: str | None = None,
    top: int,
    alignment: Alignment | None = None,
) -> Answer:
    """The images most like one that the cache need not hold, and how well each label fits it.

    Images are compared with images as they are; an alignment serves the labels' texts alone.

    Args:
        cache: where to look.
        encoder: the one that made the cache; the caller has seen to that.
        pixels: what its ``preprocess`` gives of the image.
        name: of the image, for a title.
        picture: the image itself, for a contact sheet.
        prompts: needed only where the cache holds several sets.
        split: whose images; None for all.
        top: how many.
        alignment: for an unaligned encoder.

    Raises:
        RunError: the alignment is of other encoders or settings; the message names the field.
        ImageError: its embedding is one that no cache would store.
        CacheError: there are no images of that split, or several prompt sets and none is named.
    """
    embedding = encoder.embed_pixels(pixels[np.newaxis])
    half, usable = to_float16_checked(embedding)
    if not usable[0]:
        raise ImageError(f"{name}: {NON_FINITE_EMBEDDING}")
    query = l2_normalize(half, "image")[0]
    hits = _hits(cache, query, _rows(cache, split), top)
    return Answer(f"image {name}", hits, _describe(cache, half, prompts, alignment), picture)


def neighbours_of_cached(
    cache: Cache,
    image: str,
    *,
    prompts: str | None = None,
    split: str | None = None,
    top: int,
    alignment: Alignment | None = None,
) -> Answer:
    """The images most like a cached one, which is itself left out; needs no encoder.

    Images are compared with images as they are; an alignment serves the labels' texts alone.

    Raises:
        UsageError: the alignment learned from the image.
        RunError: the alignment is of other encoders or settings; the message names the field.
        CacheError: it holds no image of that id, no other image of that split, or several prompt
            sets and none is named.
    """
    found = np.flatnonzero(cache.ids == image)
    if len(found) == 0:
        raise CacheError(
            f"{image!r} is neither a file nor the id of an image in {cache.path}: give one of them"
        )
    rows = _rows(cache, split)
    rows = rows[rows != found[0]]
    if len(rows) == 0:
        raise CacheError(f"{cache.path} has no other image to find")
    if alignment is not None:
        require_unseen(alignment, cache, found)
    embedding = cache.read_rows(int(found[0]), int(found[0]) + 1)
    hits = _hits(cache, l2_normalize(embedding, "image")[0], rows, top)
    return Answer(f"image {image}", hits, _describe(cache, embedding, prompts, alignment))


def _rows(cache: Cache, split: str | None) -> npt.NDArray[np.intp]:
    rows = np.arange(len(cache.images)) if split is None else cache.rows(split)
    if len(rows) == 0:
        raise CacheError(f"{cache.path} has no images of the split {split!r}")
    return rows


def _text(cache: Cache, prompts: str | None, alignment: Alignment | None) -> TextSet:
    if alignment is None:
        return cache.text(prompts)
    return align_texts(alignment, cache, prompts)[0]


def _hits(
    cache: Cache,
    query: Embeddings,
    rows: npt.NDArray[np.intp],
    top: int,
    alignment: Alignment | None = None,
) -> tuple[Hit, ...]:
    embedding: Embeddings = cache.embedding[rows]
    if alignment is not None:
        require_unseen(alignment, cache, rows)
        embedding = align_images(alignment, embedding)
    gallery = normalize_rows(embedding)
    places, cosines = nearest(query.astype(np.float32), gallery, top=top)
    labels = cache.labels
    return tuple(
        Hit(
            id=str(cache.ids[row]),
            cosine=float(cosine),
            patient=str(cache.patients[row]),
            split=str(cache.splits[row]),
            view=str(cache.views[row]),
            labels=tuple(
                name
                for name, value in zip(labels.names, labels.values[row], strict=True)
                if value == 1
            ),
        )
        for row, cosine in zip(rows[places], cosines, strict=True)
    )


def _describe(
    cache: Cache, embedding: Embeddings, prompts: str | None, alignment: Alignment | None
) -> tuple[tuple[str, float], ...]:
    if not cache.texts:
        return ()
    text = _text(cache, prompts, alignment)
    if not text.aligned:
        return ()
    if alignment is not None:
        embedding = align_images(alignment, embedding)
    cosines = l2_normalize(text.positive.ensemble, "text") @ l2_normalize(embedding, "image")[0]
    order = np.argsort(-cosines, kind="stable")
    return tuple((text.labels[row], float(cosines[row])) for row in order)


def _unaligned(model: str) -> UsageError:
    return UsageError(
        f"the texts and images of {model} share no space, so no text can find an image: make an "
        "alignment with 'featurecache align' and give it with --alignment, give --image, or use an "
        "aligned model such as xraysiglip"
    )
