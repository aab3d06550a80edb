"""Ids and patients that tell nobody anything: keyed hashes in place of names.

A hash is HMAC-SHA256 (RFC 2104) of the name in UTF-8, cut to 128 bits: equal names stay equal, and
without the key nobody can tell a name, nor test a guess. The chance that two of a hundred million
names get one hash is some 1e-23; they would be refused as one id.
"""

import hmac
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from featurecache.datasets.dataset import Dataset
from featurecache.errors import DatasetError, UsageError
from featurecache.provenance import hashed_collection, key_fingerprint

FEWEST_BYTES: Final = 16
MOST_BYTES: Final = 65_536
"""More is some other file."""

_DIGITS: Final = 32
_MAKE_ONE: Final = "make one with 'head -c 32 /dev/urandom > KEYFILE', and keep it as a secret"


@dataclass(frozen=True)
class IdKey:
    """The secret that ids are hashed with.

    Attributes:
        fingerprint: tells two keys apart and gives neither away.
    """

    secret: bytes = field(repr=False)

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits."""
        return self._digest("key")[:16]

    def hash(self, name: str) -> str:
        """A name's hash, 32 hexadecimal digits."""
        return self._digest(f"name {name}")

    def pseudonymize_provenance(
        self, learned: Mapping[str, frozenset[str]]
    ) -> dict[str, frozenset[str]]:
        """By collection, ids that something was trained on; those that are hashed stay as they are.

        One that comes both hashed by this key and as it was is one collection afterwards.
        """
        hashed: dict[str, frozenset[str]] = {}
        for collection, ids in learned.items():
            if not key_fingerprint(collection):
                collection = hashed_collection(collection, self.fingerprint)
                ids = frozenset(map(self.hash, ids))
            hashed[collection] = hashed.get(collection, frozenset()) | ids
        return hashed

    def _digest(self, text: str) -> str:
        return hmac.digest(self.secret, text.encode(), "sha256").hex()[:_DIGITS]


def read_key(path: Path) -> IdKey:
    """The key in a file: all its bytes, whatever they are.

    Raises:
        UsageError: there is no such file, it cannot be read, or its size is no key's.
    """
    if not path.is_file():
        raise UsageError(f"--pseudonymize: no file {path}: {_MAKE_ONE}")
    try:
        with path.open("rb") as file:
            secret = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"--pseudonymize: {path} cannot be read: {error.strerror}") from error
    if not FEWEST_BYTES <= len(secret) <= MOST_BYTES:
        size = f"over {MOST_BYTES:,}" if len(secret) > MOST_BYTES else f"{len(secret)}"
        raise UsageError(
            f"--pseudonymize: {path} has {size} bytes, and a key has {FEWEST_BYTES} to "
            f"{MOST_BYTES:,}: {_MAKE_ONE}"
        )
    return IdKey(secret)


def pseudonymize_dataset(manifest: Dataset, key: IdKey) -> Dataset:
    """The data set with hashes for ids and patients, in the order of the hashed ids.

    Its paths stay, for the films are read by them; nothing that is written holds them. Splits were
    drawn before and stay too.
    """
    hashed = {
        column: manifest.images[column].map(key.hash).astype(manifest.images[column].dtype)
        for column in ("id", "patient")
    }
    return replace(
        manifest,
        images=manifest.images.assign(**hashed),
        labels=manifest.labels.set_axis(hashed["id"], axis="index"),
        collection=hashed_collection(manifest.collection, key.fingerprint),
        key=key,
    )


@contextmanager
def redact_errors(dataset: str) -> Iterator[None]:
    """While the body loads a data set, no error says more than that there is one.

    Its message may name an image, a patient or a file.

    Raises:
        DatasetError: in place of any that the body raises, and of errors of the system.
    """
    try:
        yield
    except (DatasetError, OSError):
        raise DatasetError(
            f"the data set {dataset} cannot be read, and what is wrong may name an image or a "
            "patient, so it is not told: the same command without --pseudonymize tells, and writes "
            "nothing until it is mended"
        ) from None
