"""What an encoder or a head may have been trained on, and how image ids are named.

A collection is named ``nih``, or ``nih#<key fingerprint>`` when its ids are pseudonymized: two
collections share ids only where their names are equal.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from typing_extensions import TypedDict

from featurecache.errors import CheckpointError, UsageError
from featurecache.io import json as strict_json

PROVENANCE_FILE = "provenance.json"
"""Next to the ``config.json`` of a run that trained something."""

_MARK = "#"
"""No data set has it in its name."""


def hashed_collection(name: str, key: str) -> str:
    """The collection with its ids hashed by the key of this fingerprint."""
    return f"{name}{_MARK}{key}"


def base_name(collection: str) -> str:
    """The collection's name, however its ids are."""
    return collection.partition(_MARK)[0]


def key_fingerprint(collection: str) -> str:
    """The fingerprint of the key that ids are hashed with; "" where they are as they were."""
    return collection.partition(_MARK)[2]


def describe_id_scheme(collection: str) -> str:
    """How the ids of a collection are, in words."""
    key = key_fingerprint(collection)
    return f"hashed with the key {key}" if key else "not hashed"


def require_same_id_key(collection: str, trained_on: Iterable[str]) -> None:
    """Refuse films whose ids cannot be compared with those that something was trained on.

    Args:
        collection: of the films.
        trained_on: collections that it was trained on.

    Raises:
        UsageError: one of them is of the same films, with other ids.
    """
    for other in trained_on:
        if other != collection and base_name(other) == base_name(collection):
            raise UsageError(
                f"it was trained on films of {base_name(other)} whose ids were {describe_id_scheme(other)}, and "
                f"the ids here are {describe_id_scheme(collection)}, so that it cannot be told which films it "
                "knows: extract with the same --pseudonymize as in its training"
            )


class ProvenanceDocument(TypedDict):
    """``provenance.json``: collections, and ids by collection."""

    exposed_to: list[str]
    trained_on: dict[str, list[str]]


@dataclass(frozen=True)
class Provenance:
    """What is known of an encoder's training data.

    Attributes:
        exposed_to: collections that its published training may have seen; which of their images is
            not known.
        trained_on: collection to the ids of the images that fine-tuning learned from or chose its
            epoch by, those of earlier fine-tunings included.
    """

    exposed_to: tuple[str, ...] = ()
    trained_on: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def with_training(self, collection: str, ids: Iterable[str]) -> "Provenance":
        """The provenance after a further training on these images of a collection."""
        known = self.trained_on.get(collection, frozenset())
        return Provenance(self.exposed_to, {**self.trained_on, collection: known.union(ids)})

    def require_unseen(self, collection: str, ids: Collection[str]) -> None:
        """Refuse test images of a collection that the encoder was trained on.

        Raises:
            UsageError: there are some among these ids; or it was trained on films of the
                collection under ids that cannot be compared with these.
        """
        require_same_id_key(collection, self.trained_on)
        trained = self.trained_on.get(collection, frozenset())
        leaked = [image for image in ids if image in trained]
        if leaked:
            raise UsageError(
                f"it was trained on {len(leaked)} of the {len(ids)} test images of "
                f"{collection}, {leaked[0]!r} the first: give the split options that it was "
                "trained with"
            )

    def to_json(self) -> dict[str, object]:
        """As a JSON value that ``read_provenance`` reads."""
        trained = {name: sorted(ids) for name, ids in self.trained_on.items()}
        return {"exposed_to": list(self.exposed_to), "trained_on": trained}


def read_provenance(run: Path) -> Provenance:
    """The provenance that a run carries.

    Raises:
        CheckpointError: its file is missing or malformed.
    """
    path = run / PROVENANCE_FILE
    try:
        document = strict_json.validate(strict_json.read(path), ProvenanceDocument)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged ({error}): restore it, or train again") from error
    trained = {name: frozenset(ids) for name, ids in document["trained_on"].items()}
    return Provenance(tuple(document["exposed_to"]), trained)
