"""Example images of each label: the most confident correct and wrong predictions."""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from featurecache.errors import ImageError, UsageError
from featurecache.evaluation.comparison import ScoredImages
from featurecache.extraction.decode import file_sha256
from featurecache.images.contact_sheet import read_thumbnail
from featurecache.images.subprocess_decoder import SubprocessDecoder

N_EXAMPLES: Final = 2
GROUPS: Final = (
    ("True positives", 1, True),
    ("False negatives", 1, False),
    ("False positives", 0, True),
    ("True negatives", 0, False),
)
"""Name, truth, and whether the label was predicted."""
_JPEG_QUALITY: Final = 72


@dataclass(frozen=True)
class Example:
    """A scored image: its row among the scored images, its id and its probability."""

    row: int
    id: str
    probability: float


def most_confident(
    scored: ScoredImages, label: int, *, n_examples: int = N_EXAMPLES
) -> dict[str, list[Example]]:
    """Return the most confident predictions of a label, by cell of the confusion matrix.

    Args:
        scored: predictions of a run.
        label: column of the label.
        n_examples: maximum number of images in each group.
    """
    truth, probability = scored.truth[:, label], scored.probability[:, label]
    predicted = probability >= scored.thresholds[label]
    examples = {}
    for name, group_truth, group_predicted in GROUPS:
        rows = np.flatnonzero((truth == group_truth) & (predicted == group_predicted))
        confidence = probability[rows] if group_predicted else -probability[rows]
        rows = rows[np.argsort(-confidence, kind="stable")[:n_examples]]
        examples[name] = [
            Example(int(row), str(scored.ids[row]), float(probability[row])) for row in rows
        ]
    return examples


class Thumbnails:
    """Thumbnails of a data set's images for an HTML page; each image is read once.

    Args:
        files: path of each image, by id.
    """

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files = files
        self._urls: dict[str, str | None] = {}
        self._decoder = SubprocessDecoder()

    def data_url(self, image_id: str, sha256: str = "") -> str | None:
        """Return a thumbnail as a ``data:`` URL: JPEG without metadata; None if unreadable.

        Args:
            image_id: the image.
            sha256: SHA-256 of the file that was scored, in hex; empty if unknown.

        Raises:
            UsageError: the data set has no such image, or another file for it.
        """
        if image_id not in self._files:
            raise UsageError(
                f"the data set has no image {image_id!r}, which the run predicted: give as `data` "
                "the data set that the run's cache was extracted from, with the same options"
            )
        if image_id not in self._urls:
            path = self._files[image_id]
            if sha256 and file_sha256(path) not in (sha256, None):
                raise UsageError(
                    f"the file of {image_id!r} is not the one that the run scored: make the run "
                    "again, or a report without example images"
                )
            self._urls[image_id] = _jpeg_data_url(path, self._decoder)
        return self._urls[image_id]


def _jpeg_data_url(path: Path, decoder: SubprocessDecoder) -> str | None:
    from PIL import Image

    try:
        pixels = read_thumbnail(decoder, path)
    except ImageError:
        return None
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=_JPEG_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
