"""The record of what an encoder or a head may have been trained on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from featurecache.errors import CheckpointError
from featurecache.io import json as strict_json
from featurecache.provenance.records import ImageRecords, ImageRecordsDocument

PROVENANCE_FILE = "provenance.json"
"""Beside the ``config.json`` of a run that trained something."""


class Source(TypedDict):
    """How a data set was loaded; see ``Dataset.source``."""

    dataset: str
    root: str | None
    options: dict[str, Any]
    pseudonymized: bool


TrainingImages = Mapping[str, ImageRecords]
"""The images that something was trained on, by collection."""


class ProvenanceDocument(TypedDict):
    """The content of ``provenance.json``."""

    exposed_to: list[str]
    trained_on: dict[str, ImageRecordsDocument]


@dataclass(frozen=True)
class Provenance:
    """What is known about the training data of an encoder.

    Attributes:
        exposed_to: Collections that its published training may have seen; which of their images is
            not known.
        trained_on: The images, by collection, that fine-tuning trained on or chose its epoch by,
            those of earlier fine-tunings included.
    """

    exposed_to: tuple[str, ...] = ()
    trained_on: TrainingImages = field(default_factory=dict)

    def __repr__(self) -> str:
        # Numbers instead of ids: ids may be confidential, and there can be 100,000.
        numbers = {collection: len(images) for collection, images in self.trained_on.items()}
        return f"Provenance(exposed_to={self.exposed_to!r}, trained_on={numbers!r} images)"

    def with_training(self, images: ImageRecords) -> "Provenance":
        """Return the provenance after another training, on these images."""
        earlier = self.trained_on.get(images.collection, images)
        return Provenance(
            self.exposed_to, {**self.trained_on, images.collection: earlier.union(images)}
        )

    def union(self, other: "Provenance") -> "Provenance":
        """Return the provenance of what learned from both, as a student does from its teacher."""
        both = Provenance(tuple(dict.fromkeys(self.exposed_to + other.exposed_to)), self.trained_on)
        for images in other.trained_on.values():
            both = both.with_training(images)
        return both

    def to_json(self) -> dict[str, object]:
        """Return the content of ``provenance.json``."""
        return {
            "exposed_to": list(self.exposed_to),
            "trained_on": training_images_to_json(self.trained_on),
        }


def training_images_to_json(trained_on: TrainingImages) -> dict[str, ImageRecordsDocument]:
    """Return training images as a JSON value."""
    return {collection: images.to_json() for collection, images in trained_on.items()}


def training_images_from_json(document: object) -> dict[str, ImageRecords]:
    """Return training images from a JSON value.

    Raises:
        ValueError: It has another shape.
    """
    shape = dict[str, ImageRecordsDocument]
    return {
        collection: ImageRecords.from_json(collection, images)
        for collection, images in strict_json.validate(document, shape).items()
    }


def read_provenance(folder: Path) -> Provenance:
    """Read the provenance in a run folder.

    Raises:
        CheckpointError: The file is missing or malformed.
    """
    path = folder / PROVENANCE_FILE
    try:
        document = strict_json.validate(strict_json.read(path), ProvenanceDocument)
        trained_on = training_images_from_json(document["trained_on"])
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged ({error}): restore it, or train again") from error
    return Provenance(tuple(document["exposed_to"]), trained_on)
