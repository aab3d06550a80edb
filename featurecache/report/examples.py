"""Example images of each label: the most confident correct and wrong predictions."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.encoders.geometry import Geometry
from featurecache.errors import ImageError, UsageError
from featurecache.evaluation.comparison import ScoredImages
from featurecache.evaluation.heatmaps import draw_over
from featurecache.extraction.decode import file_sha256
from featurecache.images.contact_sheet import thumbnail
from featurecache.images.heatmap import size_and_thumbnail
from featurecache.images.subprocess_decoder import SubprocessDecoder
from featurecache.report.attention import Attention, attention_of
from featurecache.report.load_runs import ScoredRun

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
        self._sizes: dict[str, NDArray[np.int32]] = {}
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
            self._urls[image_id] = self._read(image_id)
        return self._urls[image_id]

    def map_url(
        self, image_id: str, values: NDArray[np.floating], geometry: Geometry
    ) -> str | None:
        """Return a thumbnail with a map drawn over it, as ``data_url`` does.

        Args:
            image_id: the image, which ``data_url`` has read.
            values: the map, (G, G); values below 0 have no color.
            geometry: which part of the image it is of.
        """
        if image_id not in self._sizes:
            return None
        _, colored = draw_over(self._sizes[image_id], values[np.newaxis], geometry)
        return _jpeg_data_url(colored)

    def _read(self, image_id: str) -> str | None:
        try:
            bit_depth = self._decoder.used_bits(self._files[image_id])
            square, self._sizes[image_id] = self._decoder.read(
                self._files[image_id], [thumbnail, size_and_thumbnail], bit_depth=bit_depth
            )
        except ImageError:
            return None
        return _jpeg_data_url(square)


class ExampleImages:
    """Example images of runs, with the attention of their heads where they have one.

    Args:
        files: path of each image, by id.
        caches: files in which the caches of the runs are looked for first.
    """

    def __init__(self, files: Mapping[str, Path], caches: Sequence[Path]) -> None:
        self._thumbnails = Thumbnails(files)
        self._caches = caches
        self._attention: dict[str, tuple[Attention | None, str | None]] = {}

    def of_label(self, run: ScoredRun, label: str) -> dict[str, Any]:
        """Return the most confident predictions of a label, as the page shows them.

        Args:
            run: the run.
            label: the label.
        """
        if run.name not in self._attention:
            self._attention[run.name] = attention_of(run, self._caches)
        attention, reason = self._attention[run.name]
        groups = most_confident(run.scored, run.scored.label_names.index(label))
        return {
            "groups": [
                (group, [self._shown(run, label, example, attention) for example in examples])
                for group, examples in groups.items()
            ],
            "has_attention": attention is not None,
            "no_attention": reason,
        }

    def _shown(
        self, run: ScoredRun, label: str, example: Example, attention: Attention | None
    ) -> dict[str, Any]:
        sha256 = str(run.scored.sha256[example.row])
        thumbnail = self._thumbnails.data_url(example.id, sha256)
        values = None if attention is None else attention.of_image(example.row, label)
        return {
            "id": example.id,
            "probability": f"{example.probability:.3f}",
            "thumbnail": thumbnail,
            "attention": None
            if attention is None or values is None
            else self._thumbnails.map_url(example.id, values, attention.geometry),
        }


def _jpeg_data_url(pixels: NDArray[np.uint8]) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=_JPEG_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
