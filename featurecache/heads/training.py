"""Train heads: one, or several side by side."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from featurecache.concurrency import worker_threads
from featurecache.errors import UsageError
from featurecache.heads.config import MANY_ROWS, HeadConfig
from featurecache.heads.head import Head
from featurecache.heads.models.ensemble import LogitEnsemble
from featurecache.heads.registry import head_spec
from featurecache.heads.sampling import balanced_subset, random_subset
from featurecache.heads.text_features import LabelTexts, ablate_texts
from featurecache.heads.types import HeadData, TrainedHead, Training
from featurecache.schedule import Epoch


def train_head(
    data: HeadData,
    config: HeadConfig,
    *,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> TrainedHead:
    """Train one head: AdamW, warm-up and cosine, early stopping on validation loss.

    The same data and settings give the same head on the same machine. The test rows are not among
    the arguments.

    Raises:
        UsageError: too few rows, no known label in training or validation rows, or a setting that
            the head or the data cannot meet.
        UnknownNameError: there is no such head.
    """
    return train_heads([Training(data, config, on_epoch)])[0]


def train_heads(
    trainings: Sequence[Training], *, on_head: Callable[[], None] | None = None
) -> list[TrainedHead]:
    """Train several heads, each as ``train_head`` would alone.

    Those of few rows run side by side, on one core each: their matrices are too small to be shared
    out among cores. Those of many run one after another, on all cores.

    Args:
        trainings: what to train.
        on_head: called for each head that is trained, in the caller's thread.
    """
    begun = [_Begun(training) for training in trainings]
    with worker_threads("cpu", most=torch.get_num_threads()) as lanes:
        for one in begun:
            if one.small:
                lanes.submit(one.fit)
        small: deque[TrainedHead] = deque()
        for head in lanes.rest():
            small.append(head)
            if on_head is not None:
                on_head()
    heads = []
    for one in begun:
        heads.append(small.popleft() if one.small else one.fit())
        if on_head is not None and not one.small:
            on_head()
    return heads


class _Begun:
    """A training with its rows chosen and its head built."""

    def __init__(self, training: Training) -> None:
        data, given = training.data, training.config
        self.spec = head_spec(given.head)
        self.spec.check(given)
        config = replace(given, hidden=given.hidden or self.spec.hidden)
        self.training = replace(training, config=config)
        self.rows = training_rows(data, config)
        # Without known labels every loss is 0, and the first epoch would pass for the best one.
        for split, within in (("train", self.rows), ("val", data.val)):
            if not (data.labels[within] >= 0).any():
                raise UsageError(
                    f"no image of split {split!r} has a known label: a head learns from 'train' "
                    "and stops by 'val', so give both some labelled images"
                )
        # Seeding inside a fork leaves the caller's own random numbers as they were.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.module = self._head(data)

    def _head(self, data: HeadData) -> Head:
        config, dim = self.training.config, data.embedding.shape[1]
        if config.fusion == "late" and data.dims:
            return LogitEnsemble([self._head(part) for part in data.parts], data.dims)
        return self.spec.build(dim, data.labels.shape[1], self._texts(data, dim), config)

    def _texts(self, data: HeadData, dim: int) -> LabelTexts | None:
        texts, config = data.text, self.training.config
        if self.spec.text == "none":
            return None
        if texts is None:
            raise UsageError(f"head {config.head!r} needs text embeddings, and there are none")
        if self.spec.text == "aligned" and data.dims:
            raise UsageError(
                f"head {config.head!r} compares images with texts, and the embeddings of several "
                "encoders side by side share no space with any: give --fusion late, or another "
                "head"
            )
        if self.spec.text == "aligned" and not (texts.aligned and texts.positive.shape[1] == dim):
            raise UsageError(
                f"head {config.head!r} compares images with texts, and this encoder's texts do not "
                "share its images' space: take an aligned encoder, or another head"
            )
        return ablate_texts(texts, config.text_ablation, seed=config.seed)

    @property
    def small(self) -> bool:
        """Whether one core is enough."""
        return len(self.rows) < MANY_ROWS

    def fit(self) -> TrainedHead:
        """Train the head."""
        return self.module.fit(self.training, self.rows)


def training_rows(data: HeadData, config: HeadConfig) -> NDArray[np.intp]:
    """The rows a head learns from, by the settings ``train_size`` and ``resample``.

    Raises:
        UsageError: there are not that many, or fewer than two.
    """
    if config.resample == "undersample":
        rows = balanced_subset(data.labels, data.train, size=config.train_size, seed=config.seed)
    elif config.train_size is not None:
        rows = random_subset(data.train, config.train_size, seed=config.seed)
    else:
        rows = data.train
    if len(rows) < 2:
        raise UsageError(f"{len(rows)} training images: a head needs at least 2")
    return rows


def predict_probabilities(
    module: Head, embedding: NDArray[np.floating], *, batch_size: int = 8192
) -> NDArray[np.float64]:
    """A head's probabilities: (N, D) embeddings to (N, C), in [0, 1]."""
    module.eval()
    batches = []
    with torch.inference_mode():
        for start in range(0, len(embedding), batch_size):
            batch = np.asarray(embedding[start : start + batch_size], dtype=np.float32)
            # The sigmoid in double precision keeps apart what float32 would round to 1.
            batches.append(torch.sigmoid(module(torch.from_numpy(batch)).double()).numpy())
    return np.concatenate(batches)
