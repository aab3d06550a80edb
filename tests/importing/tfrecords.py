"""TFRecord files written by hand, from the descriptions of the format alone."""

import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

Values = Sequence[float] | bytes | int


def crc32c(data: bytes) -> int:
    """Bit by bit: the reflected polynomial of Castagnoli, 0x1EDC6F41."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> bytes:
    crc = crc32c(data)
    rotated = (crc >> 15 | crc << 17) % 2**32
    return struct.pack("<I", (rotated + 0xA282EAD8) % 2**32)


def frame(record: bytes) -> bytes:
    length = struct.pack("<Q", len(record))
    return length + masked(length) + record + masked(record)


def varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def field(number: int, content: bytes) -> bytes:
    """A protobuf field of wire type 2: bytes, text, a message or packed numbers."""
    return bytes([number << 3 | 2]) + varint(len(content)) + content


def value(values: Values) -> bytes:
    if isinstance(values, bytes):
        return field(1, field(1, values))
    if isinstance(values, int):
        return field(3, field(1, varint(values)))
    return field(2, field(1, struct.pack(f"<{len(values)}f", *values)))


def example(features: Mapping[str, Values]) -> bytes:
    entries = (
        field(1, name.encode()) + field(2, value(values)) for name, values in features.items()
    )
    return field(1, b"".join(field(1, entry) for entry in entries))


def write(path: Path | str, examples: Iterable[Mapping[str, Values]]) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(b"".join(frame(example(features)) for features in examples))
