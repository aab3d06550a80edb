"""Compare an encoder's training images with the images of a data set."""

from dataclasses import replace
from typing import TYPE_CHECKING

from featurecache.provenance import Provenance

if TYPE_CHECKING:
    from featurecache.datasets.dataset import Dataset
    from featurecache.encoders.encoder import Encoder


def provenance_for(dataset: "Dataset", encoder: "Encoder") -> Provenance:
    """Return an encoder's provenance, pseudonymized like the data set's ids.

    Only then can the two be compared, and no original id of an earlier training ends up in a cache
    or a run.
    """
    provenance = encoder.provenance
    if dataset.key is None:
        return provenance
    trained_on = dataset.key.pseudonymize_provenance(provenance.trained_on)
    return replace(provenance, trained_on=trained_on)


def require_unseen_test_images(dataset: "Dataset", encoder: "Encoder") -> Provenance:
    """Require that the encoder was trained on none of the data set's test images.

    Returns:
        The encoder's provenance, see ``provenance_for``.

    Raises:
        UsageError: It was trained on some of them, or on images whose ids cannot be compared.
    """
    provenance = provenance_for(dataset, encoder)
    test_ids = dataset.images["id"].iloc[dataset.rows("test")].tolist()
    provenance.require_unseen(dataset.collection, test_ids)
    return provenance
