"""A trained head on new images."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from featurecache.encoders.compatibility import library_difference
from featurecache.heads.io import SavedHead
from featurecache.heads.training import predict_probabilities
from featurecache.runs.prediction import Prediction, classify_images

if TYPE_CHECKING:
    from featurecache.encoders.encoder import Encoder


def predict_images(
    head: SavedHead, encoders: "Sequence[Encoder]", paths: Sequence[Path]
) -> list[Prediction]:
    """Probabilities of each label for each image, in the order given.

    Args:
        head: the head.
        encoders: those it was trained on, in their order.
        paths: image files.

    Raises:
        RunError: they are not the encoders that the head was trained on.
    """
    for trained, encoder in zip(head.encoders, encoders, strict=True):
        library_difference(trained.description, encoder.image_spec, run=head.path)
    return classify_images(
        encoders, lambda embedding: predict_probabilities(head.module, embedding), paths
    )
