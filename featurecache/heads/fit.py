"""Fit heads: one, or several in parallel."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featurecache.concurrency import worker_threads
from featurecache.errors import UsageError
from featurecache.heads.config import MANY_IMAGES, HeadConfig
from featurecache.heads.models.ensemble import LogitEnsemble, SeedEnsemble
from featurecache.heads.registry import head_spec
from featurecache.heads.sampling import balanced_subset, random_subset
from featurecache.heads.text_features import LabelTexts, ablate_texts
from featurecache.heads.types import Head, TrainedHead, TrainingData, TrainingJob, rows_at_once
from featurecache.schedule import Epoch


def fit_head(
    data: TrainingData,
    config: HeadConfig,
    *,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> TrainedHead:
    """Fit one head. The same data and settings give the same head on the same machine.

    Args:
        data: The data; test rows are not part of it.
        config: The settings.
        on_epoch: Called after every epoch.

    Raises:
        UsageError: There are too few rows, no known labels in training or validation, or a setting
            that the head or the data cannot meet.
        UnknownNameError: There is no such head.
    """
    return fit_heads([TrainingJob(data, config, on_epoch)])[0]


def fit_heads(
    jobs: Sequence[TrainingJob], *, on_head: Callable[[], None] | None = None
) -> list[TrainedHead]:
    """Fit several heads, each with the same result as ``fit_head``.

    Heads with few training rows are fitted in parallel, on one core each, because their matrices
    are too small to be split among cores. The others are fitted one after another, on all cores.

    Args:
        jobs: The heads to fit.
        on_head: Called after every head, in the caller's thread.

    Returns:
        The fitted heads, in the order of the jobs.
    """
    prepared = [_PreparedTraining(job) for job in jobs]
    with worker_threads("cpu", max_workers=torch.get_num_threads()) as pool:
        for training in prepared:
            if training.fits_on_one_core:
                pool.submit(training.fit)
        fitted: deque[TrainedHead] = deque()
        for head in pool.drain():
            fitted.append(head)
            if on_head is not None:
                on_head()
    heads = []
    for training in prepared:
        if training.fits_on_one_core:
            heads.append(fitted.popleft())
            continue
        heads.append(training.fit())
        if on_head is not None:
            on_head()
    return heads


class _PreparedTraining:
    """A training whose rows are chosen and whose head is built.

    Args:
        job: The job, with the data of all training images.
    """

    def __init__(self, job: TrainingJob) -> None:
        self.spec = head_spec(job.config.head)
        self.spec.check(job.config)
        if self.spec.takes_tokens != (job.data.embedding.ndim == 3):
            needs = "the tokens of each image" if self.spec.takes_tokens else "one vector per image"
            raise UsageError(f"head {job.config.head!r} takes {needs}: choose another head")
        config = replace(job.config, hidden=job.config.hidden or self.spec.hidden)
        data = replace(job.data, train=training_rows(job.data, config))
        self.job = replace(job, data=data, config=config)
        # Without known labels every loss is 0, and the first epoch would pass for the best one.
        for split, rows in (("train", data.train), ("val", data.val)):
            if not (data.labels[rows] >= 0).any():
                raise UsageError(
                    f"no image of split {split!r} has a known label: heads learn from 'train' and "
                    "are selected on 'val', so both need labeled images"
                )
        # Seeding inside a fork leaves the caller's random state unchanged.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.module = self._build(data)

    @property
    def fits_on_one_core(self) -> bool:
        """Whether the training rows are few enough for a single core."""
        return len(self.job.data.train) < MANY_IMAGES

    def fit(self) -> TrainedHead:
        """Fit the head."""
        return self.module.fit(self.job)

    def _build(self, data: TrainingData) -> Head:
        config, dim = self.job.config, data.embedding.shape[-1]
        if config.fusion == "late" and data.encoder_dims:
            members = [self._build(part) for part in data.per_encoder]
            return LogitEnsemble(members, data.encoder_dims)
        return self.spec.build(dim, data.labels.shape[1], self._texts(data, dim), config)

    def _texts(self, data: TrainingData, dim: int) -> LabelTexts | None:
        texts, config = data.texts, self.job.config
        if not self.spec.uses_text:
            return None
        if texts is None:
            raise UsageError(f"head {config.head!r} needs text embeddings, and there are none")
        if self.spec.text == "aligned" and data.encoder_dims:
            raise UsageError(
                f"head {config.head!r} compares images with texts, but the concatenated embeddings "
                "of several encoders share no space with texts: use late `fusion`, or another head"
            )
        if self.spec.text == "aligned" and not (texts.aligned and texts.positive.shape[1] == dim):
            raise UsageError(
                f"head {config.head!r} compares images with texts, but this encoder does not embed "
                "them in one space: use an aligned encoder, or another head"
            )
        return ablate_texts(texts, config.text_ablation, seed=config.seed)


def training_rows(data: TrainingData, config: HeadConfig) -> NDArray[np.intp]:
    """Return the rows that a head learns from, as ``train_size`` and ``resample`` choose them.

    Raises:
        UsageError: There are fewer rows than ``train_size``, or fewer than two.
    """
    if config.resample == "undersample":
        rows = balanced_subset(data.labels, data.train, size=config.train_size, seed=config.seed)
    elif config.train_size is not None:
        rows = random_subset(data.train, config.train_size, seed=config.seed)
    else:
        rows = data.train
    if len(rows) < 2:
        raise UsageError(
            f"{len(rows)} training images: a head needs at least 2. If the cache was extracted "
            "with a limit, raise it"
        )
    return rows


def predict_probabilities(
    module: Head, embedding: NDArray[np.floating], rows: NDArray[np.intp] | None = None
) -> NDArray[np.float64]:
    """Return a head's probabilities, computed in batches.

    Args:
        module: The head.
        embedding: (N, D) embeddings of any length, or tokens.
        rows: The M rows to predict; None for all.

    Returns:
        (M, C) probabilities.
    """
    return _in_batches(module, module, embedding, rows)


def predict_members(
    module: SeedEnsemble, embedding: NDArray[np.floating], rows: NDArray[np.intp] | None = None
) -> NDArray[np.float64]:
    """Return the probabilities of each of the K members of an ensemble, (M, K, C).

    The arguments are those of ``predict_probabilities``.
    """

    def logits(batch: Tensor) -> Tensor:
        return module.member_logits(batch).transpose(0, 1)

    return _in_batches(module, logits, embedding, rows)


def _in_batches(
    module: Head,
    logits_of: Callable[[Tensor], Tensor],
    embedding: NDArray[np.floating],
    rows: NDArray[np.intp] | None,
) -> NDArray[np.float64]:
    """Return the sigmoid of the logits of each row, computed in batches."""
    module.eval()
    batch_size = rows_at_once(embedding.shape)
    batches = []
    with torch.inference_mode():
        for start in range(0, len(embedding if rows is None else rows), batch_size):
            positions = slice(start, start + batch_size)
            batch = embedding[positions if rows is None else rows[positions]]
            logits = logits_of(torch.from_numpy(np.asarray(batch, dtype=np.float32)))
            # In float32 the sigmoid would round different large logits to the same 1.
            batches.append(torch.sigmoid(logits.double()).numpy())
    return np.concatenate(batches)
