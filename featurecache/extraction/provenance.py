"""What an encoder has learned from, in the ids of a data set."""

from dataclasses import replace
from typing import TYPE_CHECKING

from featurecache.provenance import Provenance

if TYPE_CHECKING:
    from featurecache.datasets.dataset import Dataset
    from featurecache.encoders.encoder import Encoder


def provenance_for(manifest: "Dataset", encoder: "Encoder") -> Provenance:
    """An encoder's provenance; where a data set's ids are hashed, with hashes for its ids too.

    So they can be compared, and no id of an earlier training gets into a cache or a run.
    """
    known = encoder.provenance
    if manifest.key is None:
        return known
    return replace(known, trained_on=manifest.key.pseudonymize_provenance(known.trained_on))
