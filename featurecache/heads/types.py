"""What a head is trained on, and what comes of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featurecache.heads.config import HeadConfig
from featurecache.heads.text_features import LabelTexts
from featurecache.schedule import Epoch

if TYPE_CHECKING:
    from featurecache.heads.head import Head


@dataclass(frozen=True)
class HeadData:
    """What a head is trained on.

    Attributes:
        embedding: (N, D) image embeddings, of any length and float type.
        labels: (N, C) int8 of 1, 0, -1 unknown.
        train: rows to learn from.
        val: rows to stop by, and to choose settings by.
        text: prompt ensembles of the C labels; None where there is no text.
        dims: where the embeddings of several encoders stand side by side, the length of each.
        part_texts: prompt ensembles as each of these encoders reads them, where there is text.
    """

    embedding: NDArray[np.floating]
    labels: NDArray[np.int8]
    train: NDArray[np.intp]
    val: NDArray[np.intp]
    text: LabelTexts | None
    dims: tuple[int, ...] = ()
    part_texts: tuple[LabelTexts, ...] = ()

    @property
    def parts(self) -> tuple["HeadData", ...]:
        """What each of several encoders alone gives to learn from; none for a single one."""
        ends = np.cumsum(self.dims, dtype=np.intp)
        texts = self.part_texts or (None,) * len(self.dims)
        return tuple(
            HeadData(self.embedding[:, end - dim : end], self.labels, self.train, self.val, text)
            for dim, end, text in zip(self.dims, ends, texts, strict=True)
        )


@dataclass(frozen=True)
class Candidate:
    """One line of the history of a head whose settings are chosen on validation.

    Attributes:
        label: the label it was tried for; empty where it is the same for all.
        setting: what was tried, such as ``C=0.1``.
        validation: what came of it.
        measure: ``loss``, the lower the better, or ``auroc``, the higher.
        chosen: whether it was the best.
    """

    label: str
    setting: str
    validation: float
    measure: str
    chosen: bool


@dataclass(frozen=True)
class Training:
    """One head to train.

    Attributes:
        on_epoch: told of every epoch, in the thread that trains.
    """

    data: HeadData
    config: HeadConfig
    on_epoch: Callable[[Epoch], None] | None = None


@dataclass(frozen=True)
class TrainedHead:
    """A head in evaluation mode, with the settings that did best on validation.

    Attributes:
        config: the settings that were used, with none left open.
        history: what was tried: epochs, or candidates; empty where nothing was to be chosen.
        best_epoch: the epoch whose weights these are; None for a head that has no epochs.
        train_rows: the rows it learned from.
        members: the heads whose logits it averages, where it is such a mean; it has no history of
            its own.
    """

    module: "Head"
    config: HeadConfig
    history: tuple[Epoch, ...] | tuple[Candidate, ...]
    best_epoch: int | None
    train_rows: NDArray[np.intp]
    members: tuple["TrainedHead", ...] = ()

    @property
    def chosen(self) -> str:
        """What validation chose, for people."""
        if self.members:
            return "; ".join(member.chosen for member in self.members)
        if self.best_epoch is not None:
            return f"best epoch {self.best_epoch}"
        settings = {one.setting for one in self.history if isinstance(one, Candidate) if one.chosen}
        return ", ".join(sorted(settings)) or "nothing to choose"
