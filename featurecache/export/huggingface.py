"""Hugging Face: a folder that ``datasets.load_dataset`` reads, with a card."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from featurecache.export.card import cache_card
from featurecache.export.parquet import (
    EMBEDDING,
    image_schema,
    open_parquet,
    with_embedding,
    write_texts,
)
from featurecache.export.shards import iter_shards
from featurecache.export.tables import IMAGE_COLUMNS, MARKER, header
from featurecache.export.terms import Terms
from featurecache.progress import Progress
from featurecache.store.cache import Cache

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


def _card(cache: Cache, *, texts: bool) -> str:
    files = [
        {"split": split, "path": f"data/{split}-*.parquet"}
        for split in np.unique(cache.splits).tolist()
    ]
    configs: list[dict[str, object]] = [{"config_name": "default", "data_files": files}]
    load = [
        "from datasets import load_dataset",
        "",
        'images = load_dataset("FOLDER")  # this folder, or its repository on the hub',
    ]
    if texts:
        configs.append({"config_name": "texts", "data_files": _TEXTS})
        load.append('texts = load_dataset("FOLDER", "texts")')
    return cache_card(
        cache,
        f"""Embeddings of chest X-rays by a frozen encoder, exported by featurecache.
The columns are {", ".join(f"`{name}`" for name in IMAGE_COLUMNS)}, one column
per label (1 positive, 0 negative, -1 uncertain, null where blank) and `{EMBEDDING}`.
Path and hashes are those of the image file. `{MARKER}` has the encoder spec, and what other values
of labels mean.""",
        Terms.of_cache(cache),
        use="\n".join(["```python", *load, "```"]),
        front={"configs": configs},
    )
