"""Collection names, and the record of what an encoder or a head may have been trained on.

A collection is named ``nih``, or ``nih#<key fingerprint>`` if its ids are pseudonymized. Two
collections have ids in common only if their names are equal.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from featurecache.errors import CheckpointError, UsageError
from featurecache.io import json as strict_json

PROVENANCE_FILE = "provenance.json"
"""Beside the ``config.json`` of a run that trained something."""

_SEPARATOR = "#"
"""Not allowed in the name of a data set."""


def pseudonymized_collection(name: str, fingerprint: str) -> str:
    """Return the name of a collection whose ids are pseudonymized with the key of a fingerprint."""
    return f"{name}{_SEPARATOR}{fingerprint}"


def base_name(collection: str) -> str:
    """Return the name of a collection without the fingerprint of its key."""
    return collection.partition(_SEPARATOR)[0]


def key_fingerprint(collection: str) -> str:
    """Return the fingerprint of the key that ids are pseudonymized with; "" for original ids."""
    return collection.partition(_SEPARATOR)[2]


def describe_id_scheme(collection: str) -> str:
    """Describe the ids of a collection in words."""
    key = key_fingerprint(collection)
    return f"pseudonymized with the key {key}" if key else "not pseudonymized"


def require_same_id_key(collection: str, trained_on: Iterable[str]) -> None:
    """Check that the ids of images can be compared with those of training images.

    Args:
        collection: Collection of the images.
        trained_on: Collections that a model was trained on.

    Raises:
        UsageError: One of them has the same images under other ids.
    """
    for other in trained_on:
        if other != collection and base_name(other) == base_name(collection):
            raise UsageError(
                f"it was trained on images of {base_name(other)} whose ids were "
                f"{describe_id_scheme(other)}, but the ids here are "
                f"{describe_id_scheme(collection)}, so leakage cannot be ruled out: extract with "
                "the same `pseudonymize` as for its training"
            )


class ProvenanceDocument(TypedDict):
    """The content of ``provenance.json``."""

    exposed_to: list[str]
    trained_on: dict[str, list[str]]


class Source(TypedDict):
    """How a data set was loaded; see ``Dataset.source``."""

    dataset: str
    root: str | None
    options: dict[str, Any]
    pseudonymized: bool


@dataclass(frozen=True)
class Provenance:
    """What is known about the training data of an encoder.

    Attributes:
        exposed_to: Collections that its published training may have seen; which of their images is
            not known.
        trained_on: For each collection, the ids of the images that fine-tuning trained on or chose
            its epoch by, those of earlier fine-tunings included.
    """

    exposed_to: tuple[str, ...] = ()
    trained_on: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def __repr__(self) -> str:
        # Numbers instead of ids: ids may be confidential, and there can be 100,000.
        numbers = {collection: len(ids) for collection, ids in self.trained_on.items()}
        return f"Provenance(exposed_to={self.exposed_to!r}, trained_on={numbers!r} images)"

    def with_training(self, collection: str, ids: Iterable[str]) -> "Provenance":
        """Return the provenance after another training on these images of a collection."""
        earlier = self.trained_on.get(collection, frozenset())
        return Provenance(self.exposed_to, {**self.trained_on, collection: earlier.union(ids)})

    def require_unseen(self, collection: str, ids: Collection[str]) -> None:
        """Check that the encoder was not trained on the images of a collection to score.

        Args:
            collection: Collection of the images.
            ids: Ids of the images.

        Raises:
            UsageError: It was trained on some of them, or on images of the collection under ids
                that cannot be compared with these.
        """
        require_same_id_key(collection, self.trained_on)
        trained = self.trained_on.get(collection, frozenset())
        leaked = [image_id for image_id in ids if image_id in trained]
        if leaked:
            raise UsageError(
                f"it was trained on {len(leaked)} of the {len(ids)} images of {collection} to "
                f"score, {leaked[0]!r} the first: use the split that it was trained with"
            )

    def to_json(self) -> dict[str, object]:
        """Return the content of ``provenance.json``."""
        trained = {collection: sorted(ids) for collection, ids in self.trained_on.items()}
        return {"exposed_to": list(self.exposed_to), "trained_on": trained}


def read_provenance(folder: Path) -> Provenance:
    """Read the provenance in a run folder.

    Raises:
        CheckpointError: The file is missing or malformed.
    """
    path = folder / PROVENANCE_FILE
    try:
        document = strict_json.validate(strict_json.read(path), ProvenanceDocument)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged ({error}): restore it, or train again") from error
    trained = {collection: frozenset(ids) for collection, ids in document["trained_on"].items()}
    return Provenance(tuple(document["exposed_to"]), trained)
