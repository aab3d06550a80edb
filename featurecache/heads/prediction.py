"""A trained head on new images."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from featurecache.errors import RunError
from featurecache.fingerprint import first_difference
from featurecache.heads.saving import SavedHead
from featurecache.heads.training import predict_probabilities
from featurecache.prediction import Prediction, classify_images

if TYPE_CHECKING:
    from featurecache.encoders.encoder import Encoder


def library_difference(head: SavedHead, encoder: "Encoder") -> str | None:
    """Where the encoder differs from the one the head was trained on by library versions alone.

    Other versions of the libraries may decode or resize a pixel differently; that is worth a
    warning. Anything else that differs makes the head's inputs mean something else.

    Raises:
        RunError: the weights, the preprocessing or the precision differ; the message names the
            field.
    """
    trained, present = dict(head.description), dict(encoder.image_description)
    libraries = first_difference(trained.pop("libraries", {}), present.pop("libraries", {}))
    if difference := first_difference(trained, present):
        raise RunError(
            f"the head in {head.path} was trained on embeddings of another encoder "
            f"({difference}): give the one it was trained on with --model or --weights"
        )
    return libraries


def predict_images(head: SavedHead, encoder: "Encoder", paths: Sequence[Path]) -> list[Prediction]:
    """Probabilities of each label for each image, in the order given.

    Raises:
        RunError: the encoder is not the one that the head was trained on.
    """
    library_difference(head, encoder)
    return classify_images(
        encoder, lambda embedding: predict_probabilities(head.module, embedding), paths
    )
