"""TFRecord files of ``tf.train.Example`` messages, read without TensorFlow.

A record is the length of its data (uint64), the checksum of the length (uint32), the data and their
checksum, little-endian: https://www.tensorflow.org/tutorials/load_data/tfrecord. A file may be
compressed as a whole with gzip.
"""

import gzip
import re
import struct
from collections.abc import Iterable, Iterator
from functools import cache
from io import BufferedReader
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import DatasetError, UsageError
from featurecache.wording import count_noun

Features = dict[str, NDArray[np.float32] | list[bytes] | list[int]]
"""Values by the name of their feature."""

SUFFIX: Final = re.compile(r"\.tfrecords?(?:-\d+-of-\d+)?(?:\.gz)?$", re.IGNORECASE)
"""Ends of the names of TFRecord files."""

_SHARD: Final = re.compile(r"-(\d+)-of-(\d+)(?!\d)")
_HEADER: Final = struct.Struct("<QI")
_CHECKSUM: Final = struct.Struct("<I")
_LARGEST_RECORD: Final = 2**24
"""Room for an image of 1024 x 1024, too; a malicious record takes many times its own memory."""
_MOST_FEATURES: Final = 10_000
"""Per record; millions of empty ones fit into it, and each takes microseconds to look at."""
_GZIP: Final = b"\x1f\x8b"
_DAMAGED: Final = "the file is damaged, or no TFRecord file: copy or download it again"

# tensorflow/core/example/example.proto and feature.proto. A map is written like a list of entries.
_SCHEMA: Final = """
name: "example.proto"
syntax: "proto3"
message_type {
  name: "BytesList"
  field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_BYTES }
}
message_type {
  name: "FloatList"
  field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_FLOAT }
}
message_type {
  name: "Int64List"
  field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_INT64 }
}
message_type {
  name: "Feature"
  field { name: "bytes" number: 1 type_name: "BytesList" }
  field { name: "floats" number: 2 type_name: "FloatList" }
  field { name: "ints" number: 3 type_name: "Int64List" }
}
message_type {
  name: "Entry"
  field { name: "key" number: 1 type: TYPE_STRING }
  field { name: "value" number: 2 type_name: "Feature" }
}
message_type {
  name: "Features"
  field { name: "feature" number: 1 label: LABEL_REPEATED type_name: "Entry" }
}
message_type {
  name: "Example"
  field { name: "features" number: 1 type_name: "Features" }
}
"""


def read_examples(file: Path) -> Iterator[Features]:
    """Read the records of a TFRecord file one after the other, each of at most 16 MiB.

    Args:
        file: A file of ``tf.train.Example`` messages, as it is or compressed with gzip.

    Yields:
        The features of each message.

    Raises:
        DatasetError: The file is damaged, incomplete or empty, or of other messages. The message
            names the record.
        UsageError: The extra ``tfrecord`` is not installed.
        OSError: The file cannot be read.
    """
    from google.protobuf.message import DecodeError

    example = _example_type()
    for number, record in enumerate(_read_records(file), 1):
        try:
            entries = example.FromString(record).features.feature
        except (DecodeError, UnicodeDecodeError) as error:  # the latter by pure Python
            raise DatasetError(
                f"{file}, record {number}, is no tf.train.Example: save the embeddings in another "
                "format"
            ) from error
        if len(entries) > _MOST_FEATURES:
            raise DatasetError(
                f"{file}, record {number}, has {len(entries):,} features, more than the "
                f"{_MOST_FEATURES:,} that are read: save the embeddings in another format"
            )
        features = {entry.key: entry.value for entry in entries}
        yield {name: _values(feature) for name, feature in features.items()}


def require_all_shards(files: Iterable[Path]) -> None:
    """Check that files named like ``NAME-00000-of-00010`` are complete.

    Raises:
        DatasetError: Some of them are missing.
    """
    shards: dict[tuple[Path, int], set[int]] = {}
    for file in files:
        if match := _SHARD.search(file.name):
            common = file.with_name(_SHARD.sub("-*", file.name, count=1))
            shards.setdefault((common, int(match[2])), set()).add(int(match[1]))
    for (common, total), numbers in shards.items():
        if len(numbers) != total:
            raise DatasetError(
                f"{common}: {len(numbers)} of {count_noun(total, 'file')} are there: copy or "
                "download all of them"
            )


def _read_records(file: Path) -> Iterator[bytes]:
    crc = _crc32c()
    number = 0
    with _open(file, crc) as opened:
        while header := opened.read(_HEADER.size):
            number += 1
            where = f"{file}, record {number}"
            length = _parse_length(header, crc, where)
            record, checksum = opened.read(length), opened.read(_CHECKSUM.size)
            if len(record) < length or len(checksum) < _CHECKSUM.size:
                raise DatasetError(f"{where}, is cut off: copy or download the file again")
            if _CHECKSUM.unpack(checksum)[0] != _masked(crc(record)):
                raise DatasetError(f"{where}, has another checksum than stated: {_DAMAGED}")
            yield record
    if not number:
        raise DatasetError(f"{file} is empty: copy or download it again, or remove it")


def _open(file: Path, crc: Any) -> BufferedReader | gzip.GzipFile:
    """Open a file, decompressed if it has been compressed."""
    with file.open("rb") as opened:
        head = opened.read(_HEADER.size)
    # A record of 35,615 bytes starts like a gzip file, but with the right checksum.
    if head.startswith(_GZIP) and not _has_valid_length(head, crc):
        return gzip.open(file)
    return file.open("rb")


def _has_valid_length(header: bytes, crc: Any) -> bool:
    if len(header) < _HEADER.size:
        return False
    return bool(_HEADER.unpack(header)[1] == _masked(crc(header[:8])))


def _parse_length(header: bytes, crc: Any, where: str) -> int:
    if not _has_valid_length(header, crc):
        raise DatasetError(f"{where}, has no valid header: {_DAMAGED}")
    length: int = _HEADER.unpack(header)[0]
    if length > _LARGEST_RECORD:
        raise DatasetError(
            f"{where}, has {length:,} bytes, more than the {_LARGEST_RECORD:,} that are read: save "
            "the embeddings without their images"
        )
    return length


def _crc32c() -> Any:
    try:
        import google_crc32c
    except ImportError as error:
        raise UsageError(
            "reading TFRecord files needs google-crc32c: pip install 'featurecache[tfrecord]'"
        ) from error
    return google_crc32c.value


def _masked(checksum: int) -> int:
    return (((checksum >> 15) | (checksum << 17)) + 0xA282EAD8) & 0xFFFFFFFF


@cache
def _example_type() -> Any:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

    pool = descriptor_pool.DescriptorPool()
    pool.Add(text_format.Parse(_SCHEMA, descriptor_pb2.FileDescriptorProto()))
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("Example"))


def _values(feature: Any) -> NDArray[np.float32] | list[bytes] | list[int]:
    if feature.HasField("floats"):
        return np.array(feature.floats.value, dtype=np.float32)
    return list(feature.ints.value if feature.HasField("ints") else feature.bytes.value)
