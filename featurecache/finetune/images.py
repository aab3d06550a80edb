"""Training images, decoded and preprocessed ahead of the encoder, in the order asked for."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featurecache.extraction.decode import Item, decode_ahead

if TYPE_CHECKING:
    import PIL.Image

    from featurecache.datasets.manifest import Manifest


@dataclass
class ImageStream:
    """Reads the films of a manifest.

    Attributes:
        manifest: the films.
        preprocess: one image to (3, H, W) float32.
        workers: decoding threads.
        failures: image id to the reason why it could not be used; filled while reading. Such an
            image is left out of every batch, so it is left out of every run alike.
    """

    manifest: "Manifest"
    preprocess: "Callable[[PIL.Image.Image], NDArray[np.float32]]"
    workers: int
    failures: dict[str, str] = field(default_factory=dict)

    def batches(
        self, rows: NDArray[np.intp], size: int
    ) -> Iterator[tuple[NDArray[np.intp], Tensor]]:
        """The rows in batches of ``size``: those that could be used, and their (B, 3, H, W).

        There are as many batches as sizes fit into the rows, so that a step has its number whatever
        could be read; one of which nothing could be used is empty.
        """
        paths = self.manifest.images["path"]
        ids = self.manifest.images["id"]
        items = (
            Item(int(row), str(ids.iloc[row]), self.manifest.root / paths.iloc[row], {0: ""})
            for row in rows
        )
        decoded = decode_ahead(
            items, {0: self.preprocess}, workers=self.workers, window=size + 2 * self.workers
        )
        with closing(decoded):
            for start in range(0, len(rows), size):
                batch = [next(decoded) for _ in rows[start : start + size]]
                for image in batch:
                    if image.reason is not None:
                        self.failures[str(ids.iloc[image.row])] = image.reason
                usable = [image for image in batch if image.reason is None]
                pixels = [torch.from_numpy(image.pixels[0]) for image in usable]
                yield (
                    np.array([image.row for image in usable], dtype=np.intp),
                    torch.stack(pixels) if pixels else torch.empty(0),
                )
