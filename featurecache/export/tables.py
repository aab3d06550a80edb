"""What every format gets to write: the images block by block, the texts, and a header."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, NotRequired

import numpy as np
from numpy.typing import NDArray
from typing_extensions import TypedDict

from featurecache.io.fingerprint import canonical_json, fingerprint
from featurecache.label_cells import BLANK, names_of_codes
from featurecache.progress import Progress
from featurecache.store.cache import BLOCK_ROWS, Cache
from featurecache.store.join_rows import row_join_of
from featurecache.store.records import METADATA, TextSet, from_utf8, label_columns

if TYPE_CHECKING:
    import pandas as pd

IMAGE_COLUMNS: Final = (*METADATA, "path", "sha256", "perceptual_hash")
"""Columns of the table of images, before those of its labels."""
MARKER: Final = "featurecache.json"
"""File of the header, in formats that are folders of files."""


EXPORT_FORMAT: Final = "featurecache export"
EXPORT_VERSION: Final = 1


class ExportedTexts(TypedDict):
    """What an export says of a prompt set; see ``TextSet``."""

    fingerprint: str
    templates: list[str]
    aligned: bool
    scale: float | None
    bias: float | None
    n_cut: int
    max_tokens: int | None
    spec: dict[str, Any] | None


class ExportHeader(TypedDict):
    """What an export says of itself; see ``Header`` and ``Cache``.

    Attributes:
        images: Number of images.
        ids_sha256: Hash of their ids in the order of the cache; see ``hash_ids``. Older exports
            lack it.
        trained_on: Number of images of each collection that the encoder was fine-tuned on.
        labels: Label names.
        label_columns: The column of each label.
        label_values: The codes of cells by name, None for blank ones.
        label_policy: Only of a single data set.
        label_policies: Only of joined data sets, by collection.
        prompts_sha256: Hash of the rows of ``text_table``, in their order; see ``hash_prompts``.
            Older exports lack it.
        spec: The encoder spec.
    """

    format: str
    version: int
    dataset: str
    collection: str
    model: str
    revision: str | None
    fingerprint: str
    created: str
    images: int
    ids_sha256: NotRequired[str]
    dim: int
    image_level_split: bool
    exposed: bool
    trained_on: dict[str, int]
    bit_depth: int | None
    excluded: dict[str, int]
    labels: list[str]
    label_columns: list[str]
    label_values: dict[str, int | None]
    label_policy: NotRequired[dict[str, str]]
    label_policies: NotRequired[dict[str, dict[str, str]]]
    units: dict[str, str]
    texts: dict[str, ExportedTexts]
    prompts_sha256: NotRequired[str]
    notes: list[str]
    spec: dict[str, Any]


@dataclass(frozen=True)
class Block:
    """Some images of a cache, in its order.

    Attributes:
        rows: Their rows in the cache, (n,).
        table: ``IMAGE_COLUMNS`` and one column per label, n rows. Age is in years; unknown values
            are NaN. Labels are cells as the data set states them, of type Int8: 1 positive, 0
            negative, -1 uncertain, and NA where blank.
        embedding: (n, D) float16, as stored.
    """

    rows: NDArray[np.intp]
    table: "pd.DataFrame"
    embedding: NDArray[np.float16]

    def select(self, mask: NDArray[np.bool_]) -> "Block":
        """Return the images where a mask (n,) is true."""
        return Block(self.rows[mask], self.table[mask], self.embedding[mask])


def iter_blocks(cache: Cache, progress: Progress | None) -> Iterator[Block]:
    """Yield the images of a cache block by block, so that few are in memory at a time.

    Args:
        cache: The cache.
        progress: Called with the number of images done and the total after each block.

    Raises:
        CacheError: The file is gone, damaged, or not the one that was opened.
    """
    import pandas as pd

    columns = label_columns(cache.labels.names)
    for start in range(0, len(cache), BLOCK_ROWS):
        stop = min(start + BLOCK_ROWS, len(cache))
        images, cells = cache.images.take(slice(start, stop)), cache.cells[start:stop]
        table = images.to_pandas()
        files = {
            "path": from_utf8(images.path),
            "sha256": from_utf8(images.sha256),
            "perceptual_hash": [
                row.tobytes().hex() if row.any() else "" for row in images.perceptual_hash
            ],
        }
        for name, values in files.items():
            column = pd.Series(values, dtype=str)
            table[name] = column.mask(column == "")
        labels = {
            name: pd.arrays.IntegerArray(cells[:, c].copy(), cells[:, c] == BLANK)
            for c, name in enumerate(columns)
        }
        table = pd.concat([table, pd.DataFrame(labels, index=table.index)], axis=1)
        yield Block(np.arange(start, stop), table, cache.read_rows(start, stop))
        if progress is not None:
            progress(stop, len(cache))


def text_sets(cache: Cache) -> list[TextSet]:
    """Return the encoded prompt sets of a cache, by name."""
    return [
        cache.texts[name] if name in cache.texts else cache.text(name)
        for name in sorted(cache.prompt_sets)
    ]


def text_table(cache: Cache) -> "tuple[pd.DataFrame, NDArray[np.float32]]":
    """Return the prompts of all sets and their embeddings.

    Returns:
        A table with P rows and the columns ``set``, ``label``, ``statement`` ("positive" or
        "negative") and ``prompt``, which is None for the mean of a label's prompts on the unit
        sphere; and the embeddings, (P, D) float32, as stored. Their D is that of the encoder, also
        where frontal and lateral embeddings of images are side by side.
    """
    import pandas as pd

    rows: list[tuple[str, str, str, str | None]] = []
    vectors: list[NDArray[np.float32]] = []
    for text in text_sets(cache):
        for statement, texts in (("positive", text.positive), ("negative", text.negative)):
            if texts is None:
                continue
            for c, label in enumerate(text.labels):
                prompts = (*texts.prompts[c], None)
                rows += [(text.name, label, statement, prompt) for prompt in prompts]
                vectors += [texts.embedding[c], texts.ensemble[c : c + 1]]
    table = pd.DataFrame(rows, columns=["set", "label", "statement", "prompt"])
    return table, np.concatenate(vectors or [np.empty((0, cache.dim), dtype=np.float32)])


def hash_ids(ids: Iterable[bytes]) -> str:
    """Return the SHA-256, in hex, of ids in UTF-8, each followed by a zero byte."""
    digest = hashlib.sha256()
    for image in ids:
        digest.update(image + b"\0")
    return digest.hexdigest()


def hash_prompts(table: "pd.DataFrame") -> str:
    """Return the fingerprint of the columns of ``text_table``, "" where there is no prompt."""
    columns = ("set", "label", "statement", "prompt")
    return fingerprint({name: table[name].fillna("").tolist() for name in columns})


def header(cache: Cache, columns: Sequence[str] | None = None) -> str:
    """Return what the embeddings and columns are, as a canonical JSON document.

    Args:
        cache: The cache.
        columns: The columns of its labels. By default ``label_columns``.
    """
    joined = row_join_of(cache)
    document: ExportHeader = {
        "format": EXPORT_FORMAT,
        "version": EXPORT_VERSION,
        "dataset": cache.header.dataset,
        "collection": cache.header.collection,
        "model": cache.header.model,
        "revision": cache.header.revision,
        "fingerprint": cache.fingerprint,
        "created": cache.created,
        "images": len(cache),
        "ids_sha256": hash_ids(cache.images.id.tolist()),
        "dim": cache.dim,
        "image_level_split": cache.header.image_level_split,
        "exposed": cache.header.exposed,
        "trained_on": {name: len(images) for name, images in cache.header.trained_on.items()},
        "bit_depth": cache.header.bit_depth,
        "excluded": cache.excluded,
        "labels": list(cache.labels.names),
        "label_columns": list(columns or label_columns(cache.labels.names)),
        "label_values": {**names_of_codes(cache.cells), "blank": None},
        "units": cache.units.to_config(),
        "texts": {
            text.name: {
                "fingerprint": text.fingerprint,
                "templates": list(text.templates),
                "aligned": text.aligned,
                "scale": text.scale,
                "bias": text.bias,
                "n_cut": text.n_cut,
                "max_tokens": text.max_tokens,
                "spec": None if text.encoder_spec is None else dict(text.encoder_spec),
            }
            for text in text_sets(cache)
        },
        "prompts_sha256": hash_prompts(text_table(cache)[0]),
        "notes": list(cache.header.notes),
        "spec": dict(cache.header.encoder_spec),
    }
    if joined is None:
        document["label_policy"] = asdict(cache.policy)
    else:  # whose cells are labels by the policy of each data set
        document["label_policies"] = {
            source.header.collection: asdict(source.policy) for source in joined.caches
        }
    return canonical_json(document)
