"""Distillation: beside its objective, an encoder learns to say what a larger one says.

Hinton, Vinyals and Dean 2015, "Distilling the knowledge in a neural network" (arXiv 1503.02531), in
the form for embeddings (Romero et al. 2015, "FitNets", arXiv 1412.6550): a linear layer on the
student's embedding is fitted to the teacher's by least squares. The teacher sees each image once,
as it is; the student sees it augmented.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from featurecache.errors import FeaturecacheError, RunError
from featurecache.extraction.crash_journal import CrashJournal
from featurecache.finetune.dataloader import ImageStream
from featurecache.io.atomic import new_file
from featurecache.io.fingerprint import fingerprint

if TYPE_CHECKING:
    from featurecache.datasets.dataset import Dataset
    from featurecache.encoders.encoder import Encoder
    from featurecache.progress import DetailedProgress

BATCH_SIZE = 32


@dataclass(frozen=True, eq=False)
class Teacher:
    """An encoder to learn from.

    Attributes:
        encoder: reads images.
        rows: the training rows of the manifest that it sees; None for all.
    """

    encoder: "Encoder"
    rows: NDArray[np.intp] | None = None

    @property
    def fingerprint(self) -> str:
        """Of all that decides its embeddings."""
        rows = None if self.rows is None else self.rows.tolist()
        return fingerprint({"encoder": dict(self.encoder.image_spec), "rows": rows})


class Distillation:
    """The teacher's embeddings of some rows of a manifest, and the layer that is fitted to them.

    Attributes:
        projection: (B, dim) embeddings of the student to (B, D) standardised ones of the teacher.
    """

    def __init__(self, targets: NDArray[np.float32], *, dim: int, weight: float) -> None:
        """Standardise the targets.

        Args:
            targets: (N, D) for each row of the manifest; NaN for those without a target.
            dim: of the student's embedding.
            weight: of the loss.
        """
        known = targets[np.isfinite(targets).all(axis=1)]
        spread = known.std(axis=0)
        standard = (targets - known.mean(axis=0)) / np.where(spread > 0, spread, 1)
        self._targets = torch.from_numpy(standard.astype(np.float32))
        self._weight = weight
        self.projection = nn.Linear(dim, targets.shape[1])

    def loss(self, embedding: Tensor, rows: NDArray[np.intp]) -> Tensor:
        """The mean square error over the rows with a target, times the weight.

        A constant would score 1; where no row has a target it is 0.
        """
        targets = self._targets[rows].to(embedding.device)
        known = torch.isfinite(targets).all(dim=1)
        fitted = self.projection(nn.functional.normalize(embedding[known].float(), dim=1))
        error = nn.functional.mse_loss(fitted, targets[known], reduction="sum")
        return self._weight * error / max(1, known.sum().item() * targets.shape[1])


def teacher_embeddings(
    teacher: Teacher,
    manifest: "Dataset",
    train: NDArray[np.intp],
    *,
    file: Path,
    workers: int,
    bookmarks: CrashJournal,
    progress: "DetailedProgress | None" = None,
) -> NDArray[np.float32]:
    """The teacher's embeddings (N, D) of the training rows that it sees, NaN for other rows.

    They are kept in ``file``, and read from there if it is there.

    Raises:
        RunError: the file is damaged.
        FeaturecacheError: none of the images can be read.
    """
    if file.is_file():
        return read_embeddings(file, len(manifest))
    rows = train if teacher.rows is None else teacher.rows
    encoder = teacher.encoder
    embeddings: NDArray[np.float32] | None = None
    done = 0
    images = ImageStream(manifest, encoder, workers, bookmarks)
    for usable, pixels in images.batches(rows, BATCH_SIZE):
        done += BATCH_SIZE
        if len(usable) == 0:
            continue
        found = encoder.embed_pixels(pixels.numpy())
        if embeddings is None:
            embeddings = np.full((len(manifest), found.shape[1]), np.nan, dtype=np.float32)
        embeddings[usable] = found
        if progress is not None:
            progress(min(done, len(rows)), len(rows), f"images through {encoder.name}")
    if embeddings is None:
        raise FeaturecacheError(f"none of {len(rows)} images can be read: check the data set")
    with new_file(file) as temporary, temporary.open("wb") as stream:
        np.save(stream, embeddings)
    return embeddings


def read_embeddings(file: Path, rows: int) -> NDArray[np.float32]:
    """A teacher's kept embeddings, (rows, D).

    Raises:
        RunError: the file is damaged.
    """
    try:
        # Mapped first: what the file claims to hold is held against its size.
        stored = np.load(file, mmap_mode="r", allow_pickle=False)
        if stored.dtype != np.float32 or stored.ndim != 2 or len(stored) != rows:
            raise ValueError(f"it holds {stored.dtype} {stored.shape}")
    except (OSError, ValueError, EOFError) as error:
        raise RunError(f"{file} is damaged: delete {file.parent} to start anew") from error
    return np.array(stored)
