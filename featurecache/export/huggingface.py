"""Hugging Face: a folder that ``datasets.load_dataset`` reads, with a card."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from featurecache.export.parquet import image_schema, open_parquet, with_embedding, write_texts
from featurecache.export.shards import iter_shards
from featurecache.export.tables import MARKER, header
from featurecache.progress import Progress
from featurecache.store.cache import Cache
from featurecache.wording import count_noun

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetWriter

_TEXTS: Final = "texts.parquet"


def write(cache: Cache, folder: Path, progress: Progress | None) -> None:
    """Write a cache: parquet files of each split, the texts, and a card that lists them."""
    schema = image_schema(cache)
    (folder / "data").mkdir(parents=True)

    def open_shard(name: str) -> "ParquetWriter":
        return open_parquet(folder / "data" / f"{name}.parquet", schema)

    for writer, block in iter_shards(cache, open_shard, progress):
        writer.write_table(with_embedding(block.table, block.embedding, schema))
    write_texts(cache, folder / _TEXTS)
    (folder / MARKER).write_text(header(cache), encoding="utf-8")
    card = _card(cache, texts=(folder / _TEXTS).exists())
    (folder / "README.md").write_text(card, encoding="utf-8")


def _numbers(cache: Cache) -> str:
    if cache.n_tokens is None:
        return f"{cache.dim} numbers"
    return f"{cache.n_tokens} tokens of {cache.dim // cache.n_tokens} numbers, one after the other,"


def _card(cache: Cache, *, texts: bool) -> str:
    # JSON is YAML, whatever a name holds.
    files = [
        {"split": split, "path": f"data/{split}-*.parquet"}
        for split in np.unique(cache.splits).tolist()
    ]
    configs: list[dict[str, object]] = [{"config_name": "default", "data_files": files}]
    if texts:
        configs.append({"config_name": "texts", "data_files": _TEXTS})
    title = f"Embeddings of {cache.header.dataset} by {cache.header.model}"
    return f"""---
configs: {json.dumps(configs)}
---

# {title}

{count_noun(len(cache), "image")}, embedded by a frozen encoder and exported by featurecache: id,
patient, study, split, view, sex, age, path and SHA-256 of the image file, one column per label (1
positive, 0 negative, -1 uncertain, null where blank) and the embedding ({_numbers(cache)} of
float16, not normalized). `{MARKER}` has the encoder spec, and what other values of labels mean.

The terms of the data set and of the encoder apply to these embeddings.
"""
