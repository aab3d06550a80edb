"""Distillation: in addition to its objective, an encoder learns to reproduce a larger encoder.

Hinton, Vinyals and Dean 2015, "Distilling the knowledge in a neural network" (arXiv 1503.02531), in
the form for embeddings (Romero et al. 2015, "FitNets", arXiv 1412.6550): a linear layer on the
student's embedding is fitted to the teacher's embedding by least squares. The teacher embeds each
original image once; the student sees it augmented.
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
from featurecache.finetune.dataloader import ImageLoader
from featurecache.io.atomic import new_file
from featurecache.io.fingerprint import fingerprint
from featurecache.io.system_errors import raise_if_inaccessible
from featurecache.wording import count_noun

if TYPE_CHECKING:
    from featurecache.datasets.dataset import Dataset
    from featurecache.encoders.encoder import Encoder
    from featurecache.progress import DetailedProgress

BATCH_SIZE = 32


@dataclass(frozen=True, eq=False)
class Teacher:
    """An encoder to learn from.

    Attributes:
        encoder: An encoder of images.
        rows: Training rows of the data set that it embeds; None for all.
    """

    encoder: "Encoder"
    rows: NDArray[np.intp] | None = None

    @property
    def fingerprint(self) -> str:
        """Fingerprint of everything that decides its embeddings."""
        rows = None if self.rows is None else self.rows.tolist()
        return fingerprint({"encoder": dict(self.encoder.image_spec), "rows": rows})


class Distillation:
    """The teacher's embeddings of some rows of a data set, and the layer that is fitted to them.

    Attributes:
        projection: Maps embeddings of the student, (B, dim), to standardized embeddings of the
            teacher, (B, D).
    """

    def __init__(self, targets: NDArray[np.float32], *, dim: int, weight: float) -> None:
        """Standardize the targets.

        Args:
            targets: (N, D), one row for each row of the data set; NaN for rows without a target.
            dim: Dimension of the student's embedding.
            weight: Weight of the loss.
        """
        known = targets[np.isfinite(targets).all(axis=1)]
        std = known.std(axis=0)
        standardized = (targets - known.mean(axis=0)) / np.where(std > 0, std, 1)
        self._targets = torch.from_numpy(standardized.astype(np.float32))
        self._weight = weight
        self.projection = nn.Linear(dim, targets.shape[1])

    def loss(self, embedding: Tensor, rows: NDArray[np.intp]) -> Tensor:
        """Return the weighted mean squared error over the rows that have a target.

        A constant prediction scores about 1. Without any target the loss is 0.

        Args:
            embedding: Embeddings of the student, (B, dim).
            rows: Their rows in the data set, (B,).
        """
        targets = self._targets[rows].to(embedding.device)
        known = torch.isfinite(targets).all(dim=1)
        fitted = self.projection(nn.functional.normalize(embedding[known].float(), dim=1))
        error = nn.functional.mse_loss(fitted, targets[known], reduction="sum")
        return self._weight * error / max(1, known.sum().item() * targets.shape[1])


def teacher_embeddings(
    teacher: Teacher,
    dataset: "Dataset",
    train: NDArray[np.intp],
    *,
    file: Path,
    workers: int,
    journal: CrashJournal,
    progress: "DetailedProgress | None" = None,
) -> NDArray[np.float32]:
    """Embed the training images with the teacher.

    Args:
        teacher: The teacher.
        dataset: The N images.
        train: Training rows.
        file: Where the embeddings are kept; if it exists, they are read from it.
        workers: Number of decoding threads.
        journal: Records which images are being decoded.
        progress: Called with the number of finished and of all images.

    Returns:
        (N, D); NaN for rows that the teacher does not embed.

    Raises:
        RunError: The file is damaged.
        FeaturecacheError: No image can be read.
    """
    if file.is_file():
        return read_embeddings(file, len(dataset))
    rows = train if teacher.rows is None else teacher.rows
    embeddings: NDArray[np.float32] | None = None
    done = 0
    images = ImageLoader(dataset, teacher.encoder, workers, journal)
    for usable, pixels in images.batches(rows, BATCH_SIZE):
        done += BATCH_SIZE
        if len(usable) == 0:
            continue
        batch = teacher.encoder.embed_pixels(pixels.numpy())
        if embeddings is None:
            embeddings = np.full((len(dataset), batch.shape[1]), np.nan, dtype=np.float32)
        embeddings[usable] = batch
        if progress is not None:
            progress(min(done, len(rows)), len(rows), f"images through {teacher.encoder.name}")
    if embeddings is None:
        raise FeaturecacheError(
            f"none of {count_noun(len(rows), 'image')} can be read: check the data set"
        )
    with new_file(file) as temporary, temporary.open("wb") as stream:
        np.save(stream, embeddings)
    return embeddings


def read_embeddings(file: Path, rows: int) -> NDArray[np.float32]:
    """Read the embeddings that ``teacher_embeddings`` kept, of shape (rows, D).

    Raises:
        RunError: The file is damaged.
        OSError: The file cannot be accessed.
    """
    try:
        # Memory-mapped first, so that the claimed shape is checked against the size of the file.
        stored = np.load(file, mmap_mode="r", allow_pickle=False)
        if stored.dtype != np.float32 or stored.ndim != 2 or len(stored) != rows:
            raise ValueError(f"it holds {stored.dtype} {stored.shape}")
    except (OSError, ValueError, EOFError) as error:
        raise_if_inaccessible(error, file)
        raise RunError(f"{file} is damaged: delete {file.parent} to start again") from error
    return np.array(stored)
