"""Heads that are trained by gradient descent, and their training loop."""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featurecache.errors import UsageError
from featurecache.heads.adamw import AdamW
from featurecache.heads.config import HeadConfig, resolve_precision, resolve_schedule
from featurecache.heads.constant_projection import parameter_groups
from featurecache.heads.layers import GaussianNoise, PooledNoise
from featurecache.heads.sampling import balanced_weights
from featurecache.heads.standardize import Standardize
from featurecache.heads.types import Head, TrainedHead, TrainingJob, rows_at_once
from featurecache.losses import asymmetric_loss, balanced_pos_weight, log_prior_odds, masked_bce
from featurecache.schedule import Epoch, warmup_cosine

MAX_INPUT_BYTES = 4 * 2**30
"""Standardized embeddings up to this size are kept in memory; tokens are not."""


class GradientHead(Head):
    """Base class of heads that are trained in epochs, on standardized embeddings.

    Args:
        dim: Dimension of the embeddings, or of each token.
        config: The settings.
    """

    def __init__(self, dim: int, config: HeadConfig) -> None:
        super().__init__()
        self.scaling = Standardize(dim)
        self.noise = GaussianNoise(config.noise)

    def logits(self, scaled: Tensor) -> Tensor:
        """Return the logits (B, C) of standardized embeddings; add noise in training."""
        raise NotImplementedError

    def forward(self, embedding: Tensor) -> Tensor:
        """Return the logits (B, C) of embeddings (B, D) of any length."""
        return self.logits(self.scaling(embedding))

    def fit(self, job: TrainingJob) -> TrainedHead:
        """Train with AdamW, a warm-up and cosine schedule, and early stopping on validation loss.

        Raises:
            UsageError: The validation loss is never finite.
        """
        noise_layers = [layer for layer in self.modules() if isinstance(layer, PooledNoise)]
        # A generator of its own, because other heads may be trained at the same time.
        generator = torch.Generator().manual_seed(job.config.seed)
        for layer in noise_layers:
            layer.set_generator(generator)
        try:
            return self._train(job)
        finally:
            for layer in noise_layers:
                layer.set_generator(None)

    def _train(self, job: TrainingJob) -> TrainedHead:
        data, config = job.data, job.config
        largest = max((p for p in self.parameters() if p.ndim == 2), key=Tensor.numel)
        n_outputs, n_inputs = largest.shape
        schedule = resolve_schedule(config, len(data.train))
        precision = resolve_precision(config, len(data.train), layer=(n_inputs, n_outputs))
        is_bf16 = precision == "bf16"
        self.scaling.fit(data.embedding, data.train)
        dtype = torch.bfloat16 if is_bf16 else torch.float32
        inputs, val_inputs = (
            _standardized_inputs(self.scaling, data.embedding, rows, dtype)
            for rows in (data.train, data.val)
        )
        y, y_val = data.targets(data.train), data.targets(data.val)
        autocast = partial(torch.autocast, "cpu", torch.bfloat16, enabled=is_bf16)
        loss_function = _choose_loss(config, y)
        optimizer = AdamW(
            parameter_groups(
                self, learning_rate=schedule.learning_rate, weight_decay=config.weight_decay
            )
        )
        steps_per_epoch = max(1, math.ceil(len(data.train) / schedule.batch_size))
        factor = partial(
            warmup_cosine, warmup=steps_per_epoch, total=steps_per_epoch * schedule.epochs
        )
        step = 0
        best_loss, best_epoch, best_state = math.inf, 0, copy.deepcopy(self.state_dict())
        history: list[Epoch] = []
        for epoch in range(1, schedule.epochs + 1):
            self.train()
            loss_sum, n_seen = 0.0, 0
            learning_rate = schedule.learning_rate * factor(step)
            for batch in _batches(data.labels[data.train], config, schedule.batch_size, epoch):
                with autocast():
                    logits = self.logits(inputs(batch))
                loss = loss_function(logits.float(), y.index_select(0, batch))
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step(factor(step))
                step += 1
                loss_sum += loss.item() * len(batch)
                n_seen += len(batch)
            with autocast():
                val_loss = self._mean_loss(
                    val_inputs, y_val, loss_function, rows_at_once(data.embedding.shape)
                )
            history.append(Epoch(epoch, learning_rate, loss_sum / n_seen, val_loss))
            if job.on_epoch is not None:
                job.on_epoch(history[-1])
            if val_loss < best_loss:
                best_loss, best_epoch = val_loss, epoch
                best_state = copy.deepcopy(self.state_dict())
            elif epoch - best_epoch >= config.patience:
                break
        if best_epoch == 0:
            raise UsageError(
                f"the validation loss was never finite with a `learning_rate` of "
                f"{schedule.learning_rate}: lower it"
            )
        self.load_state_dict(best_state)
        resolved = replace(config, precision=precision, **asdict(schedule))
        return TrainedHead(self.eval(), resolved, data.train, tuple(history), best_epoch)

    def _mean_loss(
        self, inputs: "Inputs", targets: Tensor, loss_function: "LossFunction", batch_size: int
    ) -> float:
        """Return the mean loss over the known labels of all rows, computed in batches."""
        self.eval()
        loss_sum, n_known = 0.0, 0
        with torch.inference_mode():
            for start in range(0, len(targets), batch_size):
                batch = torch.arange(start, min(start + batch_size, len(targets)))
                batch_targets = targets[batch]
                known = int((batch_targets >= 0).sum())
                logits = self.logits(inputs(batch))
                loss_sum += known * loss_function(logits.float(), batch_targets).item()
                n_known += known
        return loss_sum / n_known


Inputs = Callable[[Tensor], Tensor]
"""Maps positions (B,) among the rows of a training to the head's inputs, (B, D) or (B, T, D)."""

LossFunction = Callable[[Tensor, Tensor], Tensor]
"""Maps logits and targets, (B, C) each, to the mean over the known labels."""


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
        if len(batch) > 1:  # batch norm cannot compute the variance of a single row
            yield torch.from_numpy(batch)


def _choose_loss(config: HeadConfig, targets: Tensor) -> LossFunction:
    """Return the loss function of a training on targets (N, C)."""
    if config.loss == "asymmetric":
        return asymmetric_loss
    if config.loss == "logit_adjusted":
        prior = log_prior_odds(targets)
        return lambda logits, targets: masked_bce(logits + prior, targets)
    weight = balanced_pos_weight(targets) if config.pos_weight == "balanced" else None
    return partial(masked_bce, pos_weight=weight)


def _standardized_inputs(
    scaling: Standardize,
    embedding: NDArray[np.floating],
    rows: NDArray[np.intp],
    dtype: torch.dtype,
) -> Inputs:
    """Standardize the rows once if they fit in memory, else, and tokens always, batch by batch."""
    if embedding.ndim == 2 and len(rows) * embedding.shape[1] * dtype.itemsize <= MAX_INPUT_BYTES:
        standardized = scaling.transform(embedding, rows, dtype)
        return lambda batch: standardized.index_select(0, batch)
    return lambda batch: scaling.transform(embedding, rows[batch.numpy()], dtype)
