"""Training by gradient, the one loop of all heads that learn in epochs."""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featurecache.errors import UsageError
from featurecache.heads.adamw import AdamW
from featurecache.heads.config import HeadConfig, resolve_schedule
from featurecache.heads.constant_projection import parameter_groups
from featurecache.heads.layers import PooledNoise
from featurecache.heads.sampling import balanced_weights
from featurecache.heads.standardize import Standardize, targets
from featurecache.heads.types import TrainedHead, Training
from featurecache.losses import asymmetric, balanced_positive_weight, log_prior_odds, masked_bce
from featurecache.schedule import Epoch, warmup_cosine

if TYPE_CHECKING:
    from featurecache.heads.head import GradientHead


def fit_by_gradient(
    module: "GradientHead", training: Training, rows: NDArray[np.intp]
) -> TrainedHead:
    """Train a head: AdamW, warm-up and cosine, early stopping on validation loss.

    Raises:
        UsageError: validation loss is never finite.
    """
    supplied = [part for part in module.modules() if isinstance(part, PooledNoise)]
    # One of its own, for others may be trained at the same time.
    generator = torch.Generator().manual_seed(training.config.seed)
    for part in supplied:
        part.draw_from(generator)
    try:
        return _fit(module, training, rows)
    finally:
        for part in supplied:
            part.draw_from(None)


def _fit(module: "GradientHead", training: Training, rows: NDArray[np.intp]) -> TrainedHead:
    data, config = training.data, training.config
    chosen = resolve_schedule(config, len(rows))
    low = chosen.precision == "bf16"
    module.scaling.fit(data.embedding, rows)
    dtype = torch.bfloat16 if low else torch.float32
    inputs, val_inputs = (
        _inputs(module.scaling, data.embedding, of, dtype) for of in (rows, data.val)
    )
    y, y_val = (targets(data.labels, of) for of in (rows, data.val))
    autocast = partial(torch.autocast, "cpu", torch.bfloat16, enabled=low)
    loss_of = _loss_function(config, y)
    optimizer = AdamW(
        parameter_groups(
            module, learning_rate=chosen.learning_rate, weight_decay=config.weight_decay
        )
    )
    steps = max(1, math.ceil(len(rows) / chosen.batch_size))
    factor = partial(warmup_cosine, warmup=steps, total=steps * chosen.epochs)
    step = 0
    best_loss, best_epoch, best_state = math.inf, 0, copy.deepcopy(module.state_dict())
    history: list[Epoch] = []
    for epoch in range(1, chosen.epochs + 1):
        module.train()
        total, seen = 0.0, 0
        rate = chosen.learning_rate * factor(step)
        for batch in _batches(data.labels[rows], config, chosen.batch_size, epoch):
            with autocast():
                logits = module.logits(inputs(batch))
            loss = loss_of(logits.float(), y.index_select(0, batch))
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step(factor(step))
            step += 1
            total += loss.item() * len(batch)
            seen += len(batch)
        with autocast():
            val_loss = _mean_loss(module, val_inputs, y_val, loss_of)
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
    if config.resample == "weighted":
        order = generator.choice(len(labels), size=len(labels), p=balanced_weights(labels))
    else:
        order = generator.permutation(len(labels))
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        if len(batch) > 1:  # batch norm has no variance to take from a single row
            yield torch.from_numpy(batch)


LossFunction = Callable[[Tensor, Tensor], Tensor]
"""Logits and targets, (B, C) each, to the mean over the labels that are known."""


def _loss_function(config: HeadConfig, targets: Tensor) -> LossFunction:
    """The loss of a training on these targets, (N, C)."""
    if config.loss == "asymmetric":
        return asymmetric
    if config.loss == "logit_adjusted":
        prior = log_prior_odds(targets)
        return lambda logits, known: masked_bce(logits + prior, known)
    weight = balanced_positive_weight(targets) if config.pos_weight == "balanced" else None
    return partial(masked_bce, positive_weight=weight)


Inputs = Callable[[Tensor], Tensor]
"""Positions among the rows of a training, (B,), to what the head is given of them, (B, D)."""

MOST_HELD = 4 * 2**30
"""Bytes of standardised embeddings that are held in memory."""


_VALIDATED = 8192
"""As many rows are validated at once."""


def _inputs(
    scaling: Standardize,
    embedding: NDArray[np.floating],
    rows: NDArray[np.intp],
    dtype: torch.dtype,
) -> Inputs:
    """The rows standardised: once and for all, or where they are too many, batch by batch."""
    if len(rows) * embedding.shape[1] * dtype.itemsize <= MOST_HELD:
        held = scaling.scaled(embedding, rows, dtype)
        return lambda batch: held.index_select(0, batch)
    return lambda batch: scaling.scaled(embedding, rows[batch.numpy()], dtype)


def _mean_loss(module: "GradientHead", inputs: Inputs, y: Tensor, loss_of: LossFunction) -> float:
    """Of all rows, some at a time."""
    module.eval()
    total, known = 0.0, 0
    with torch.inference_mode():
        for start in range(0, len(y), _VALIDATED):
            batch = torch.arange(start, min(start + _VALIDATED, len(y)))
            targets = y[batch]
            number = int((targets >= 0).sum())
            logits = module.logits(inputs(batch))
            total += number * loss_of(logits.float(), targets).item()
            known += number
    return total / known
