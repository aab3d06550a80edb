"""What identifies the images of a collection: ids, patients, and hashes of their content."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import TypedDict

from featurecache.provenance.perceptual_hash import HASH_BYTES
from featurecache.wording import count_noun

Utf8 = NDArray[np.bytes_]
_COLUMNS = ("id", "patient", "sha256", "perceptual_hash")


class ImageRecordsDocument(TypedDict):
    """The records as JSON: columns of texts, hashes in hex, "" where unknown."""

    id: list[str]
    patient: list[str]
    sha256: list[str]
    perceptual_hash: list[str]


@dataclass(frozen=True, eq=False, repr=False)
class ImageRecords:
    """What identifies N images of one collection.

    Attributes:
        collection: The collection, which ids and patients belong to.
        id: Ids, UTF-8, (N,).
        patient: Patients, UTF-8, (N,); empty where unknown.
        sha256: SHA-256 of the files, in hex, (N,); empty where unknown.
        perceptual_hash: Hashes of the decoded images, (N, 32); zeros where there is none.
    """

    collection: str
    id: Utf8
    patient: Utf8
    sha256: Utf8
    perceptual_hash: NDArray[np.uint8]

    @classmethod
    def of(
        cls,
        collection: str,
        ids: Sequence[str],
        *,
        patients: Sequence[str] | None = None,
        sha256: Sequence[str] | None = None,
        perceptual_hash: NDArray[np.uint8] | None = None,
    ) -> "ImageRecords":
        """Return the records of these images; None where something is not known of any."""
        unknown = [""] * len(ids)
        no_hashes = np.zeros((len(ids), HASH_BYTES), dtype=np.uint8)
        return cls(
            collection,
            _utf8(ids),
            _utf8(unknown if patients is None else patients),
            _utf8(unknown if sha256 is None else sha256),
            no_hashes if perceptual_hash is None else perceptual_hash,
        )

    def __len__(self) -> int:
        return len(self.id)

    def __repr__(self) -> str:
        # Without ids, which may be confidential, and of which there can be 100,000.
        return f"ImageRecords({count_noun(len(self), 'image')} of {self.collection!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ImageRecords) and all(
            np.array_equal(getattr(self, field.name), getattr(other, field.name))
            for field in fields(self)
        )

    __hash__ = None  # type: ignore[assignment]  # arrays have no hash

    @property
    def has_content(self) -> NDArray[np.bool_]:
        """Which images can be recognized under another id: those with a hash, (N,)."""
        known: NDArray[np.bool_] = (self.sha256 != b"") | self.perceptual_hash.any(axis=1)
        return known

    def take(self, rows: NDArray[Any]) -> "ImageRecords":
        """Return the records of these rows, given as indices or as a mask."""
        return ImageRecords(self.collection, *(getattr(self, name)[rows] for name in _COLUMNS))

    def union(self, other: "ImageRecords") -> "ImageRecords":
        """Return the images of both, of this collection, sorted by id and each once."""
        both = [np.concatenate([getattr(self, name), getattr(other, name)]) for name in _COLUMNS]
        rows: dict[tuple[bytes, ...], int] = {}
        for row, image in enumerate(zip(*(column.tolist() for column in both[:3]), strict=True)):
            rows.setdefault(image, row)
        order = [rows[image] for image in sorted(rows)]
        return ImageRecords(self.collection, *(column[order] for column in both))

    def to_json(self) -> ImageRecordsDocument:
        """Return the records as a JSON value."""
        id, patient, sha256 = (
            np.char.decode(getattr(self, name), "utf-8").tolist() for name in _COLUMNS[:3]
        )
        hashes = [row.tobytes().hex() if row.any() else "" for row in self.perceptual_hash]
        return {"id": id, "patient": patient, "sha256": sha256, "perceptual_hash": hashes}

    @classmethod
    def from_json(cls, collection: str, document: ImageRecordsDocument) -> "ImageRecords":
        """Return records from a JSON value.

        Raises:
            ValueError: The columns differ in length, or a hash is malformed.
        """
        lengths = {len(document[name]) for name in _COLUMNS}  # type: ignore[literal-required]
        if len(lengths) > 1:
            raise ValueError(f"the columns of {collection} differ in length")
        hashes = [bytes.fromhex(text or "00" * HASH_BYTES) for text in document["perceptual_hash"]]
        if set(map(len, hashes)) - {HASH_BYTES}:
            raise ValueError(f"a perceptual hash of {collection} has not {HASH_BYTES} bytes")
        return cls.of(
            collection,
            document["id"],
            patients=document["patient"],
            sha256=document["sha256"],
            perceptual_hash=np.frombuffer(b"".join(hashes), dtype=np.uint8).reshape(-1, HASH_BYTES),
        )


def _utf8(texts: Sequence[str]) -> Utf8:
    if not len(texts):
        return np.empty(0, dtype="S1")
    return np.char.encode(np.asarray(texts, dtype=np.str_), "utf-8")
