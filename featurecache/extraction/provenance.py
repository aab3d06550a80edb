"""Compare an encoder's training images with the images of a data set."""

from contextlib import suppress
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import ImageError
from featurecache.images.subprocess_decoder import SubprocessDecoder
from featurecache.provenance.leaks import require_unseen
from featurecache.provenance.names import base_name, may_share_images
from featurecache.provenance.perceptual_hash import perceptual_hash
from featurecache.provenance.provenance import Provenance
from featurecache.provenance.records import ImageRecords

if TYPE_CHECKING:
    from featurecache.datasets.dataset import Dataset
    from featurecache.encoders.encoder import Encoder

N_PROBED: Final = 16
"""Images that are read before an extraction, where ids alone suggest a leak."""


def provenance_for(dataset: "Dataset", encoder: "Encoder") -> Provenance:
    """Return an encoder's provenance, pseudonymized like the data set's ids.

    Only then can the two be compared, and no original id of an earlier training ends up in a cache
    or a run.
    """
    provenance = encoder.provenance
    return provenance if dataset.key is None else dataset.key.pseudonymize_provenance(provenance)


def is_exposed(dataset: "Dataset", provenance: Provenance) -> bool:
    """Return whether published training may have seen images of a data set, going by its names."""
    names = {dataset.name, base_name(dataset.collection)}
    return any(
        name == exposed or may_share_images(name, exposed)
        for name in names
        for exposed in provenance.exposed_to
    )


def require_unseen_images(dataset: "Dataset", encoder: "Encoder", rows: NDArray[np.intp]) -> None:
    """Require that an encoder was trained on none of the images to score, by their ids.

    Images without labels are not scored. The content of the others is compared when they have been
    read (``require_unseen_content``). But where an id is the same, a few images are read here,
    because two data sets may have the same names for different images.

    Args:
        dataset: The data set.
        encoder: The encoder.
        rows: Rows of the images to score.

    Raises:
        UsageError: It was trained on some of them, or on images whose ids cannot be compared.
    """
    if not dataset.label_names:
        return
    records = dataset.records(rows)
    trained = provenance_for(dataset, encoder).trained_on.get(records.collection)
    if trained is not None:
        shared = np.flatnonzero(np.isin(records.id, trained.id))
        files, decoder = dataset.files(), SubprocessDecoder()
        for row in shared[:: len(shared) // N_PROBED + 1].tolist():
            with suppress(ImageError):  # the extraction will report it
                path = files[records.id[row].decode()]
                (records.perceptual_hash[row],) = decoder.read(
                    path, [perceptual_hash], bit_depth=dataset.bit_depth
                )
    require_unseen_content(dataset, encoder, records)


def require_unseen_content(
    dataset: "Dataset", encoder: "Encoder", images: ImageRecords
) -> list[str]:
    """Require that an encoder was trained on none of the images to score.

    Args:
        dataset: The data set.
        encoder: The encoder.
        images: The images to score, with what is known of their content.

    Returns:
        Warnings about what may be a leak.

    Raises:
        UsageError: See ``require_unseen_images``.
    """
    return require_unseen(
        images,
        provenance_for(dataset, encoder).trained_on,
        by=encoder.name,
        by_patient=not dataset.image_level_split,
    )
