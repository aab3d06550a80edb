"""WebDataset: tar files of each split, with an array and a JSON document per image."""

import tarfile
from io import BytesIO
from pathlib import Path

import numpy as np

from featurecache.export.beside import write_texts
from featurecache.export.shards import iter_shards
from featurecache.export.tables import MARKER, header
from featurecache.progress import Progress
from featurecache.store.cache import Cache


def write(cache: Cache, folder: Path, progress: Progress | None) -> None:
    """Write a cache: ``ROW.npy`` and ``ROW.json`` per image, in files such as train-00000.tar.

    The key of an image is its row in the cache, as WebDataset cuts keys at their first dot.
    """
    folder.mkdir()

    def open_shard(name: str) -> tarfile.TarFile:
        return tarfile.open(folder / f"{name}.tar", "w", format=tarfile.USTAR_FORMAT)

    for archive, block in iter_shards(cache, open_shard, progress):
        documents = block.table.to_json(
            orient="records", lines=True, force_ascii=False, double_precision=15
        )
        rows = zip(block.rows, documents.split("\n"), block.embedding, strict=False)
        for row, document, embedding in rows:
            array = BytesIO()
            np.save(array, embedding)
            _add(archive, f"{row:09d}.json", document.encode())
            _add(archive, f"{row:09d}.npy", array.getvalue())
        archive.getmembers().clear()  # an entry for each file, which nothing needs
    write_texts(cache, folder / "texts.csv")
    (folder / MARKER).write_text(header(cache), encoding="utf-8")


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, BytesIO(content))
