"""Pseudonymized ids: keyed hashes in place of image ids, patients and studies.

A hash is the HMAC-SHA256 (RFC 2104) of the UTF-8 name, truncated to 128 bits. Equal names have
equal hashes, and without the key a name can neither be recovered nor a guess be verified. The
probability that two of a hundred million names share a hash is about 1e-23; they would be refused
as a repeated id.
"""

import hmac
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from featurecache.errors import (
    DatasetError,
    FeaturecacheError,
    FeaturecacheWarning,
    UsageError,
)
from featurecache.provenance.names import (
    key_fingerprint,
    patient_key,
    pseudonymized_collection,
)
from featurecache.provenance.provenance import Provenance
from featurecache.provenance.records import ImageRecords

MIN_KEY_BYTES: Final = 16
MAX_KEY_BYTES: Final = 65_536
"""A larger file is something else than a key."""

_HEX_DIGITS: Final = 32
_ADVICE: Final = "create one with 'head -c 32 /dev/urandom > KEYFILE', and keep it secret"


@dataclass(frozen=True)
class IdKey:
    """Secret key that ids and patients are hashed with.

    Attributes:
        secret: The bytes of the key.
    """

    secret: bytes = field(repr=False)

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that identify the key without revealing it."""
        return self._digest("key")[:16]

    def hash(self, name: str) -> str:
        """Return the hash of a name, as 32 hexadecimal digits."""
        return self._digest(f"name {name}")

    def hash_path(self, path: str) -> str:
        """Return the hash of the path of an image file."""
        return self._digest(f"path {path}")

    def hash_study(self, study: str) -> str:
        """Return the hash of a study; "" if unknown."""
        return self._digest(f"study {study}") if study else ""

    def hash_patient(self, patient: str) -> str:
        """Return the hash of a patient, equal for all spellings; "" if unknown."""
        return self.hash(patient_key(patient)) if patient else ""

    def pseudonymize_provenance(self, provenance: Provenance) -> Provenance:
        """Hash the ids and patients of training images; those already hashed are kept.

        Args:
            provenance: What was trained on. A collection that is present both in plain text and
                hashed with this key becomes one collection.

        Returns:
            The provenance with hashed ids.
        """
        hashed = Provenance(provenance.exposed_to)
        for collection, images in provenance.trained_on.items():
            if not key_fingerprint(collection):
                document = images.to_json()
                images = ImageRecords.of(
                    pseudonymized_collection(collection, self.fingerprint),
                    list(map(self.hash, document["id"])),
                    patients=list(map(self.hash_patient, document["patient"])),
                    sha256=document["sha256"],
                    perceptual_hash=images.perceptual_hash,
                )
            hashed = hashed.with_training(images)
        return hashed

    def _digest(self, text: str) -> str:
        return hmac.digest(self.secret, text.encode(), "sha256").hex()[:_HEX_DIGITS]


def read_key(path: str | os.PathLike[str]) -> IdKey:
    """Read a key file: the key is all of its bytes.

    Args:
        path: The file, of 16 to 65,536 bytes.

    Raises:
        UsageError: If there is no such file, it cannot be read, or its size is out of range.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UsageError(f"`pseudonymize`: no key file {path}. To have a key, {_ADVICE}")
    try:
        with path.open("rb") as file:
            secret = file.read(MAX_KEY_BYTES + 1)
    except OSError as error:
        raise UsageError(f"`pseudonymize`: cannot read {path}: {error.strerror}") from error
    if not MIN_KEY_BYTES <= len(secret) <= MAX_KEY_BYTES:
        size = f"over {MAX_KEY_BYTES:,}" if len(secret) > MAX_KEY_BYTES else f"{len(secret)}"
        raise UsageError(
            f"`pseudonymize`: {path} has {size} bytes, but a key has {MIN_KEY_BYTES} to "
            f"{MAX_KEY_BYTES:,}. To have a key, {_ADVICE}"
        )
    return IdKey(secret)


@contextmanager
def redact_errors(dataset_name: str) -> Iterator[None]:
    """Replace errors raised in the body by one that cannot name an image, a patient or a file.

    Args:
        dataset_name: Name of the data set that the body loads.

    Other errors of this library, such as an unknown option value, and MemoryError are not changed.

    Raises:
        DatasetError: Instead of any other exception that the body raises.
    """
    try:
        with warnings.catch_warnings():
            # Warnings about spellings show some; the notes of the data set count them.
            warnings.simplefilter("ignore", FeaturecacheWarning)
            yield
    except Exception as error:
        harmless = isinstance(error, FeaturecacheError | MemoryError)
        if harmless and not isinstance(error, DatasetError):
            raise
        raise DatasetError(
            f"the data set {dataset_name} cannot be read. The reason is not reported because it "
            "may name an image or a patient: run the same without `pseudonymize` to see it; "
            "nothing is written until it is corrected"
        ) from None
