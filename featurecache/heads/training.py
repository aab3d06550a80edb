"""The one training loop of all heads."""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featurecache.errors import UsageError
from featurecache.heads.config import MANY_ROWS, HeadConfig, pace
from featurecache.heads.fixed_input import parameter_groups
from featurecache.heads.head import Head
from featurecache.heads.inputs import InputScaling
from featurecache.heads.noise import Supplied
from featurecache.heads.registry import head_spec
from featurecache.heads.sampling import balanced_subset, balanced_weights, random_subset
from featurecache.heads.text import controlled_text
from featurecache.lanes import open_lanes
from featurecache.losses import balanced_positive_weight, masked_bce
from featurecache.prompts import mega_vector
from featurecache.schedule import warmup_cosine


@dataclass(frozen=True)
class HeadData:
    """What a head is trained on.

    Attributes:
        embedding: (N, D) image embeddings, of any length and float type.
        labels: (N, C) int8 of 1, 0, -1 unknown.
        train: rows to learn from.
        val: rows to stop by.
        text: (C, D_text) prompt ensembles, one a label; None where there is no text.
    """

    embedding: NDArray[np.floating]
    labels: NDArray[np.int8]
    train: NDArray[np.intp]
    val: NDArray[np.intp]
    text: NDArray[np.float32] | None


@dataclass(frozen=True)
class Epoch:
    """One line of a training's history."""

    epoch: int
    learning_rate: float
    train_loss: float
    val_loss: float


@dataclass(frozen=True)
class TrainedHead:
    """A head at its best epoch by validation loss, in evaluation mode.

    ``config`` holds the settings that were used, with none left open.
    """

    module: Head
    config: HeadConfig
    history: tuple[Epoch, ...]
    best_epoch: int
    train_rows: NDArray[np.intp]


@dataclass(frozen=True)
class Training:
    """One head to train.

    Attributes:
        on_epoch: told of every epoch, in the thread that trains.
    """

    data: HeadData
    config: HeadConfig
    on_epoch: Callable[[Epoch], None] | None = None


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


def train_heads(trainings: Sequence[Training]) -> list[TrainedHead]:
    """Train several heads, each as ``train_head`` would alone.

    Those of few rows run side by side, on one core each: their matrices are too small to be shared
    out among cores. Those of many run one after another, on all cores.
    """
    begun = [_Begun(training) for training in trainings]
    with open_lanes("cpu", most=torch.get_num_threads()) as lanes:
        for one in begun:
            if one.small:
                lanes.submit(one.fit)
        small = list(lanes.rest())
    small.reverse()
    return [small.pop() if one.small else one.fit() for one in begun]


class _Begun:
    """A training with its rows chosen and its head built."""

    def __init__(self, training: Training) -> None:
        data, config = training.data, training.config
        spec = head_spec(config.head)
        self.training = training
        self.rows = training_rows(data, config)
        # Without known labels every loss is 0, and the first epoch would pass for the best one.
        for split, within in (("train", self.rows), ("val", data.val)):
            if not (data.labels[within] >= 0).any():
                raise UsageError(
                    f"no image of split {split!r} has a known label: a head learns from 'train' "
                    "and stops by 'val', so give both some labelled images"
                )
        text = None
        if spec.uses_text:
            if data.text is None:
                raise UsageError(f"head {config.head!r} needs text embeddings, and there are none")
            chosen = controlled_text(data.text, config.text_control, seed=config.seed)
            text = torch.from_numpy(mega_vector(chosen))
        elif config.text_control != "real":
            raise UsageError(
                f"head {config.head!r} uses no text, so --text-control {config.text_control} would "
                "change nothing: leave it out, or choose a head that uses text"
            )
        # Seeding inside a fork leaves the caller's own random numbers as they were.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.module = spec.build(data.embedding.shape[1], data.labels.shape[1], text, config)

    @property
    def small(self) -> bool:
        """Whether one core is enough."""
        return len(self.rows) < MANY_ROWS

    def fit(self) -> TrainedHead:
        """Train the head."""
        supplied = [part for part in self.module.modules() if isinstance(part, Supplied)]
        # One of its own, for others may be trained at the same time.
        generator = torch.Generator().manual_seed(self.training.config.seed)
        for part in supplied:
            part.draw_from(generator)
        try:
            return _fit(self.module, self.training, self.rows)
        finally:
            for part in supplied:
                part.draw_from(None)


def training_rows(data: HeadData, config: HeadConfig) -> NDArray[np.intp]:
    """The rows a head learns from, by the settings ``train_size`` and ``balance``.

    Raises:
        UsageError: there are not that many, or fewer than two.
    """
    if config.balance == "subset":
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


def _fit(module: Head, training: Training, rows: NDArray[np.intp]) -> TrainedHead:
    data, config = training.data, training.config
    chosen = pace(config, len(rows))
    low = chosen.precision == "bf16"
    module.scaling.fit(data.embedding, rows)
    inputs = _inputs(module.scaling, data.embedding, rows, torch.bfloat16 if low else torch.float32)
    val_inputs = _inputs(module.scaling, data.embedding, data.val, torch.float32)
    y, y_val = (torch.from_numpy(data.labels[of].astype(np.float32)) for of in (rows, data.val))
    weight = balanced_positive_weight(y) if config.loss_weight == "balanced" else None
    optimizer = torch.optim.AdamW(
        parameter_groups(
            module, learning_rate=chosen.learning_rate, weight_decay=config.weight_decay
        ),
        fused=True,
    )
    steps = max(1, math.ceil(len(rows) / chosen.batch_size))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: warmup_cosine(step, warmup=steps, total=steps * chosen.epochs)
    )
    best_loss, best_epoch, best_state = math.inf, 0, copy.deepcopy(module.state_dict())
    history: list[Epoch] = []
    for epoch in range(1, chosen.epochs + 1):
        module.train()
        total, seen = 0.0, 0
        rate = float(schedule.get_last_lr()[0])
        for batch in _batches(data.labels[rows], config, chosen.batch_size, epoch):
            with torch.autocast("cpu", torch.bfloat16, enabled=low):
                logits = module.logits(inputs(batch))
            loss = masked_bce(logits.float(), y[batch], positive_weight=weight)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            total += loss.item() * len(batch)
            seen += len(batch)
        val_loss = _loss(module, val_inputs, y_val, weight)
        history.append(Epoch(epoch, rate, total / seen, val_loss))
        if training.on_epoch is not None:
            training.on_epoch(history[-1])
        if val_loss < best_loss:
            best_loss, best_epoch = val_loss, epoch
            best_state = copy.deepcopy(module.state_dict())
        elif epoch - best_epoch >= config.patience:
            break
    if best_epoch == 0:
        raise UsageError(
            f"validation loss was never finite at learning rate {chosen.learning_rate}: lower it"
        )
    module.load_state_dict(best_state)
    settled = replace(config, **asdict(chosen))
    return TrainedHead(module.eval(), settled, tuple(history), best_epoch, rows)


def _batches(
    labels: NDArray[np.int8], config: HeadConfig, batch_size: int, epoch: int
) -> Iterator[Tensor]:
    generator = np.random.default_rng([config.seed, epoch])
    if config.balance == "sampling":
        order = generator.choice(len(labels), size=len(labels), p=balanced_weights(labels))
    else:
        order = generator.permutation(len(labels))
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        if len(batch) > 1:  # batch norm has no variance to take from a single row
            yield torch.from_numpy(batch)


Inputs = Callable[[Tensor], Tensor]
"""Positions among the rows of a training, (B,), to what the head is given of them, (B, D)."""

MOST_HELD = 4 * 2**30
"""Bytes of standardised embeddings that are held in memory."""


_VALIDATED = 8192
"""As many rows are validated at once."""


def _inputs(
    scaling: InputScaling,
    embedding: NDArray[np.floating],
    rows: NDArray[np.intp],
    dtype: torch.dtype,
) -> Inputs:
    """The rows standardised: once and for all, or where they are too many, batch by batch."""
    if len(rows) * embedding.shape[1] * dtype.itemsize <= MOST_HELD:
        held = scaling.scaled(embedding, rows, dtype)
        return lambda batch: held.index_select(0, batch)
    return lambda batch: scaling.scaled(embedding, rows[batch.numpy()], dtype)


def _loss(module: Head, inputs: Inputs, y: Tensor, weight: Tensor | None) -> float:
    """Of all rows, some at a time."""
    module.eval()
    total, known = 0.0, 0
    with torch.inference_mode():
        for start in range(0, len(y), _VALIDATED):
            batch = torch.arange(start, min(start + _VALIDATED, len(y)))
            targets = y[batch]
            number = int((targets >= 0).sum())
            logits = module.logits(inputs(batch))
            total += number * masked_bce(logits, targets, positive_weight=weight).item()
            known += number
    return total / known
