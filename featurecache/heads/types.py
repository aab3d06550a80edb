"""What a head is trained on, the base class of all heads, and the result of a training."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from featurecache.heads.config import HeadConfig
from featurecache.heads.standardize import l2_normalize
from featurecache.heads.text_features import LabelTexts
from featurecache.schedule import Epoch

_MAX_BATCH: Final = 8192
_MAX_VALUES: Final = 2**24


def rows_at_once(shape: tuple[int, ...]) -> int:
    """Return how many rows of embeddings or tokens, (N, ...), are computed at a time."""
    return max(1, min(_MAX_BATCH, _MAX_VALUES // math.prod(shape[1:])))


@dataclass(frozen=True)
class TrainingData:
    """Embeddings, labels and texts to train a head on.

    Attributes:
        embedding: (N, D) image embeddings of any floating type, or (N, T, D) tokens for a head that
            takes them; they need not be normalized. They may be memory-mapped.
        labels: (N, C) int8: 1 positive, 0 negative, -1 unknown.
        train: Rows to learn from.
        val: Rows for early stopping and for choosing settings.
        texts: Prompt embeddings of the C labels; None without text.
        encoder_dims: For concatenated embeddings of several encoders, the dimension of each.
        encoder_texts: For several encoders and a head that uses text, the prompt embeddings of
            each.
        patient: (N,) index of each row's patient, for heads that choose settings by
            cross-validation; None if rows are independent.
    """

    embedding: NDArray[np.floating]
    labels: NDArray[np.int8]
    train: NDArray[np.intp]
    val: NDArray[np.intp]
    texts: LabelTexts | None = None
    encoder_dims: tuple[int, ...] = ()
    encoder_texts: tuple[LabelTexts, ...] = ()
    patient: NDArray[np.intp] | None = None

    @property
    def per_encoder(self) -> tuple["TrainingData", ...]:
        """The data of each of several encoders alone; empty for a single encoder."""
        ends = np.cumsum(self.encoder_dims, dtype=np.intp)
        texts = self.encoder_texts or (None,) * len(self.encoder_dims)
        return tuple(
            TrainingData(
                self.embedding[:, end - dim : end],
                self.labels,
                self.train,
                self.val,
                text,
                patient=self.patient,
            )
            for dim, end, text in zip(self.encoder_dims, ends, texts, strict=True)
        )

    def normalized(self, rows: NDArray[np.intp]) -> Tensor:
        """Return the embeddings of n rows at unit length, (n, D) float32."""
        return l2_normalize(torch.from_numpy(np.array(self.embedding[rows])))

    def targets(self, rows: NDArray[np.intp]) -> Tensor:
        """Return the labels of n rows as losses take them, (n, C) float32: 1, 0 or -1."""
        return torch.from_numpy(self.labels[rows].astype(np.float32))


CROSS_VALIDATION: Final = "cross-validation on training patients"


@dataclass(frozen=True)
class Candidate:
    """One line of the history of a head that chooses its settings.

    Attributes:
        label: Index of the label that the setting was tried for; empty if it is shared by all.
        setting: The setting, such as ``C=0.1``.
        validation: Its score on what ``chosen_by`` says.
        measure: ``loss`` (lower is better) or ``auroc`` (higher is better).
        chosen: Whether it was the best.
        chosen_by: How the settings are chosen: ``validation``, or ``CROSS_VALIDATION``.
    """

    label: str
    setting: str
    validation: float
    measure: str
    chosen: bool
    chosen_by: str = "validation"


@dataclass(frozen=True)
class TrainingJob:
    """One head to train.

    Attributes:
        data: The data.
        config: The settings.
        on_epoch: Called after every epoch, in the thread that trains.
    """

    data: TrainingData
    config: HeadConfig
    on_epoch: Callable[[Epoch], None] | None = None


class Head(nn.Module):
    """Base class of heads: maps (B, D) image embeddings of any length to (B, C) logits.

    A head that takes tokens maps (B, T, D), and also (B, T * D).
    """

    def fit(self, job: TrainingJob) -> "TrainedHead":
        """Learn from the rows ``job.data.train``, choosing settings on ``job.data.val``.

        Returns:
            This head, in evaluation mode.
        """
        raise NotImplementedError

    def resize_buffers_for(self, state: Mapping[str, Tensor]) -> None:
        """Resize buffers whose size depends on the training images, before a state is loaded.

        Args:
            state: The state dict that will be loaded.

        Raises:
            ValueError: The state cannot belong to this head.
        """


@dataclass(frozen=True)
class TrainedHead:
    """A trained head.

    Attributes:
        module: The head, in evaluation mode, with the weights that did best on validation.
        config: The settings that were used, with all defaults resolved.
        train_rows: The rows that it learned from.
        history: The epochs or candidates that were tried; empty if there was nothing to choose.
        best_epoch: The epoch that the weights come from; None for a head without epochs.
        members: The heads of an ensemble of encoders or seeds, which has no history of its own.
        converged: Whether a fit without epochs reached its optimum.
    """

    module: Head
    config: HeadConfig
    train_rows: NDArray[np.intp]
    history: tuple[Epoch, ...] | tuple[Candidate, ...] = ()
    best_epoch: int | None = None
    members: tuple["TrainedHead", ...] = ()
    converged: bool = True

    @property
    def chosen(self) -> str:
        """What was chosen and how, such as "best epoch 7 by validation"."""
        if self.members:
            return "; ".join(dict.fromkeys(member.chosen for member in self.members))
        if self.best_epoch is not None:
            return f"best epoch {self.best_epoch} by validation"
        chosen = [c for c in self.history if isinstance(c, Candidate) and c.chosen]
        if not chosen:
            return "only thresholds, by validation"
        settings = ", ".join(sorted({candidate.setting for candidate in chosen}))
        return f"{settings} by {chosen[0].chosen_by}"
