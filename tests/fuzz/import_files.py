"""Embeddings that other programs made: TFRecord files."""

from pathlib import Path

from hypothesis import strategies as st

from featurecache.errors import UsageError
from featurecache.importing.vectors import open_vectors
from tests.fuzz.changes import Changed, changed_bytes
from tests.fuzz.readers import Reader
from tests.importing.tfrecords import example, frame

_RECORDS = [
    example({"image/id": f"gs://b/{name}.png".encode(), "embedding": [0.5, -1.0, 2.0], "age": 50})
    for name in "abc"
]


def _tfrecord(folder: Path) -> Path:
    file = folder / "set.tfrecord"
    file.write_bytes(b"".join(map(frame, _RECORDS)))
    return file


def _read(file: Path) -> object:
    vectors = open_vectors(file)
    return vectors.ids, list(vectors.blocks())


def _changed(intact: bytes) -> Changed:
    """Change a message, under a checksum that matches, or any bytes of the file."""
    messages = changed_bytes(_RECORDS[1])
    return st.one_of(
        messages.map(lambda record: frame(_RECORDS[0]) + frame(record)), changed_bytes(intact)
    )


READERS = {"tfrecord": Reader(_tfrecord, _read, (UsageError,), _changed)}
