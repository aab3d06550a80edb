"""Training images, decoded and preprocessed ahead of the encoder, in the order asked for."""

import logging
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featurecache.extraction.crash_journal import CrashJournal
from featurecache.extraction.decode import ImageTask, decode_ahead

if TYPE_CHECKING:
    from featurecache.datasets.dataset import Dataset
    from featurecache.encoders.encoder import Encoder


_log = logging.getLogger(__name__)


@dataclass
class ImageStream:
    """Reads the films of a manifest.

    Attributes:
        manifest: the films.
        encoder: whose ``preprocess`` gives their pixels.
        workers: decoding threads.
        bookmarks: which of them are being decoded; those that killed a process are decoded apart.
        failures: image id to the reason why it could not be used; filled while reading. Such an
            image is left out of every batch from then on, so it is left out of every run alike, and
            one that hangs is waited for once.
    """

    manifest: "Dataset"
    encoder: "Encoder"
    workers: int
    bookmarks: CrashJournal
    failures: dict[str, str] = field(default_factory=dict)

    def _fail(self, image: str, reason: str) -> None:
        if image not in self.failures:
            _log.warning(f"failed: {image}: {reason}")
        self.failures[image] = reason

    def batches(
        self, rows: NDArray[np.intp], size: int
    ) -> Iterator[tuple[NDArray[np.intp], Tensor]]:
        """The rows in batches of ``size``: those that could be used, and their (B, 3, H, W).

        There are as many batches as sizes fit into the rows, so that a step has its number whatever
        could be read; one of which nothing could be used is empty.
        """
        paths = self.manifest.images["path"]
        ids = self.manifest.images["id"]
        asked_for = ~ids.isin(self.failures).to_numpy()[rows]

        def item(row: np.intp) -> ImageTask:
            image = str(ids.iloc[row])
            apart = self.bookmarks.is_suspect(image)
            return ImageTask(int(row), image, self.manifest.root / paths.iloc[row], {0: ""}, apart)

        decoded = decode_ahead(
            map(item, rows[asked_for]),
            {0: self.encoder},
            workers=self.workers,
            window=size + 2 * self.workers,
            journal_entry=self.bookmarks.entry,
        )
        with closing(decoded):
            for start in range(0, len(rows), size):
                batch = list(islice(decoded, int(asked_for[start : start + size].sum())))
                for image in batch:
                    if image.reason is not None:
                        self._fail(str(ids.iloc[image.row]), image.reason)
                usable = [image for image in batch if image.reason is None]
                pixels = [torch.from_numpy(image.pixels[0]) for image in usable]
                yield (
                    np.array([image.row for image in usable], dtype=np.intp),
                    torch.stack(pixels) if pixels else torch.empty(0),
                )
