"""Load training images, decoded and preprocessed ahead of the encoder, in a given order."""

import logging
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featurecache.extraction.crash_journal import CrashJournal
from featurecache.extraction.decode import DecodedImage, ImageTask, decode_ahead
from featurecache.provenance.perceptual_hash import HASH_BYTES
from featurecache.provenance.records import ImageRecords

if TYPE_CHECKING:
    from featurecache.datasets.dataset import Dataset
    from featurecache.encoders.encoder import Encoder


_log = logging.getLogger(__name__)


@dataclass
class ImageLoader:
    """Loads the images of a data set in batches.

    Attributes:
        dataset: The images.
        encoder: Preprocesses them.
        workers: Number of decoding threads.
        journal: Records which images are being decoded. Images that crashed a process are decoded
            in a subprocess.
        failures: Reason why an image could not be used, by image id; filled while loading. Such an
            image is left out of every later batch, so that all epochs and continued trainings agree
            and an image that hangs is waited for only once.
    """

    dataset: "Dataset"
    encoder: "Encoder"
    workers: int
    journal: CrashJournal
    failures: dict[str, str] = field(default_factory=dict)

    def batches(
        self, rows: NDArray[np.intp], size: int
    ) -> Iterator[tuple[NDArray[np.intp], Tensor]]:
        """Yield the images in batches.

        The number of batches depends only on the number of rows, so that a step keeps its number
        whatever could be read; a batch of which no image can be used is empty.

        Args:
            rows: Data set rows to load, in order.
            size: Number of rows in each batch.

        Yields:
            The rows of a batch that could be used, (B,), and their pixels, (B, 3, H, W).
        """
        requested = ~self.dataset.images["id"].isin(self.failures).to_numpy()[rows]
        with closing(self._decode(rows[requested], window=size + 2 * self.workers)) as images:
            for start in range(0, len(rows), size):
                batch = list(islice(images, int(requested[start : start + size].sum())))
                for image in batch:
                    if image.reason is not None:
                        self._record_failure(image)
                usable = [image for image in batch if image.reason is None]
                pixels = [torch.from_numpy(image.pixels[0]) for image in usable]
                yield (
                    np.array([image.row for image in usable], dtype=np.intp),
                    torch.stack(pixels) if pixels else torch.empty(0),
                )

    def read_records(self) -> ImageRecords:
        """Read every image once, and return what identifies it; unknown where it is unreadable."""
        rows = np.arange(len(self.dataset))
        sha256 = [""] * len(rows)
        hashes = np.zeros((len(rows), HASH_BYTES), dtype=np.uint8)
        with closing(self._decode(rows, window=4 * self.workers)) as images:
            for image in images:
                if image.reason is not None:
                    self._record_failure(image)
                elif image.perceptual_hash is not None:
                    sha256[image.row] = image.sha256
                    hashes[image.row] = image.perceptual_hash
        return self.dataset.records(rows, sha256=sha256, perceptual_hash=hashes)

    def _decode(
        self, rows: NDArray[np.intp], *, window: int
    ) -> Generator[DecodedImage, None, None]:
        paths = self.dataset.images["path"]
        ids = self.dataset.images["id"]

        def task(row: np.intp) -> ImageTask:
            image_id = str(ids.iloc[row])
            return ImageTask(
                row=int(row),
                id=image_id,
                path=self.dataset.root / paths.iloc[row],
                encoders=(0,),
                isolated=self.journal.is_suspect(image_id),
                bit_depth=self.dataset.bit_depth,
            )

        return decode_ahead(
            map(task, rows),
            {0: self.encoder},
            workers=self.workers,
            window=window,
            journal_entry=self.journal.entry,
        )

    def _record_failure(self, image: DecodedImage) -> None:
        image_id = str(self.dataset.images["id"].iloc[image.row])
        if image_id not in self.failures:
            _log.warning(f"failed: {image_id}: {image.reason}")
        self.failures[image_id] = str(image.reason)
