"""What a training may have seen, so that no figure is taken for one on unseen films."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from featurecache import strict_json
from featurecache.collection import refuse_other_key
from featurecache.encoders.checkpoint import read_json
from featurecache.errors import CheckpointError, UsageError
from featurecache.run_documents import ProvenanceDocument

PROVENANCE_FILE = "provenance.json"
"""Beside the ``config.json`` of a run that trained something."""


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

    def refuse_trained(self, collection: str, ids: Collection[str]) -> None:
        """Refuse test images of a collection that the encoder was trained on.

        Raises:
            UsageError: there are some among these ids; or it was trained on films of the
                collection under ids that cannot be compared with these.
        """
        refuse_other_key(collection, self.trained_on)
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
        document = strict_json.conforming(read_json(path), ProvenanceDocument)
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged ({error}): restore it, or train again") from error
    trained = {name: frozenset(ids) for name, ids in document["trained_on"].items()}
    return Provenance(tuple(document["exposed_to"]), trained)
