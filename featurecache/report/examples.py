"""The images that a run was most certain of, rightly and wrongly, by label."""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from featurecache.errors import ImageError, UsageError
from featurecache.evaluation.comparison import ScoredImages
from featurecache.images.contact_sheet import thumbnail
from featurecache.images.subprocess_decoder import SubprocessDecoder

EACH: Final = 2
GROUPS: Final = (
    ("Found", 1, True),
    ("Missed", 1, False),
    ("False alarm", 0, True),
    ("Rightly absent", 0, False),
)
"""Name, truth, and whether the label was predicted."""
_QUALITY: Final = 72


@dataclass(frozen=True)
class Example:
    """An image of a group, by its row among the scored images."""

    row: int
    id: str
    probability: float


def most_certain(scored: ScoredImages, label: int, *, each: int = EACH) -> dict[str, list[Example]]:
    """Images of a label by group, those first whose probability is most extreme.

    Args:
        scored: what was predicted.
        label: the column.
        each: at most this many of a group.
    """
    truth, probability = scored.truth[:, label], scored.probability[:, label]
    predicted = probability >= scored.thresholds[label]
    found = {}
    for name, true, called in GROUPS:
        rows = np.flatnonzero((truth == true) & (predicted == called))
        extreme = probability[rows] if called else -probability[rows]
        rows = rows[np.argsort(-extreme, kind="stable")[:each]]
        found[name] = [
            Example(int(row), str(scored.ids[row]), float(probability[row])) for row in rows
        ]
    return found


class Films:
    """The films of a data set as small pictures for a page; each is read once."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files = files
        self._pictures: dict[str, str | None] = {}
        self._reader = SubprocessDecoder()

    def picture(self, image: str) -> str | None:
        """A film as a ``data:`` address, JPEG without metadata; None where it cannot be read.

        Raises:
            UsageError: the data set has no such image.
        """
        if image not in self._files:
            raise UsageError(
                f"the data set has no image {image!r} that the run predicted: give the --dataset, "
                "--data-root and options that its cache was extracted with"
            )
        if image not in self._pictures:
            self._pictures[image] = _as_address(self._files[image], self._reader)
        return self._pictures[image]


def _as_address(path: Path, reader: SubprocessDecoder) -> str | None:
    from PIL import Image

    try:
        (small,) = reader.read(path, [thumbnail])
    except ImageError:
        return None
    buffer = io.BytesIO()
    Image.fromarray(small).save(buffer, format="JPEG", quality=_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
