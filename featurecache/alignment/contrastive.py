"""Train an affine map from images to texts with a contrastive loss."""

import math
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from featurecache.alignment.captions import CaptionTargets
from featurecache.alignment.ridge import AffineMap
from featurecache.metrics.similarity import Directions

if TYPE_CHECKING:
    from torch import Tensor

LEARNING_RATES = (1e-5, 1e-4, 1e-3)
"""Learning rates to choose from."""

_MAX_LOG_SCALE = math.log(100)  # as in CLIP


@dataclass(frozen=True)
class ContrastiveSettings:
    """Settings of the training.

    Attributes:
        learning_rate: Learning rate of Adam.
        batch_size: Images per step.
        epochs: Maximum number of epochs.
        patience: Stop after this many epochs without a lower validation loss.
        seed: Seed of the order of the images.
    """

    learning_rate: float = 1e-4
    batch_size: int = 256
    epochs: int = 100
    patience: int = 10
    seed: int = 0


@dataclass(frozen=True)
class TrainedMap:
    """The map after the epoch with the lowest validation loss.

    Attributes:
        map: The affine map.
        settings: Settings of the training.
        epoch: The epoch; 0 is the map that training started from.
        loss: Validation loss after that epoch.
    """

    map: AffineMap
    settings: ContrastiveSettings
    epoch: int
    loss: float


def train_contrastive(
    start: AffineMap,
    scale: float,
    *,
    train: tuple[Directions, CaptionTargets],
    val: tuple[Directions, CaptionTargets],
    settings: ContrastiveSettings,
) -> TrainedMap:
    """Train an affine map with ``losses.multi_positive_info_nce``; texts are not changed.

    Each batch of images is contrasted with all captions. The scale is trained, too. Training uses
    one core: its steps are so small that several threads would mostly wait for each other.

    Args:
        start: Initial map.
        scale: Initial factor on the cosine.
        train: Normalized images (N, D) and their captions.
        val: Likewise, for early stopping.
        settings: Settings of the training.

    Returns:
        The map of the best epoch.
    """
    import torch

    from featurecache.concurrency import worker_threads

    with worker_threads("cpu", max_workers=torch.get_num_threads()) as pool:
        pool.submit(lambda: _train(start, scale, train, val, settings))
        trained: TrainedMap = next(pool.drain())
    return trained


def _train(
    start: AffineMap,
    scale: float,
    train: tuple[Directions, CaptionTargets],
    val: tuple[Directions, CaptionTargets],
    settings: ContrastiveSettings,
) -> TrainedMap:
    import torch

    from featurecache.losses import multi_positive_info_nce

    mean = train[0].mean(axis=0, dtype=np.float64)
    std = train[0].std(axis=0, dtype=np.float64)
    std[std == 0] = 1  # a constant feature becomes 0 when the mean is subtracted

    def standardize(images: Directions) -> "Tensor":
        # One temporary array only: there may be many images.
        values = images - mean.astype(np.float32)
        values /= std.astype(np.float32)
        return torch.from_numpy(values)

    texts = torch.from_numpy(train[1].texts.astype(np.float32))
    images, truth = standardize(train[0]), torch.from_numpy(train[1].truth)
    val_images, val_truth = standardize(val[0]), torch.from_numpy(val[1].truth)
    projection = torch.nn.Linear(images.shape[1], texts.shape[1])
    with torch.no_grad():
        projection.weight.copy_(torch.from_numpy((start.weight * std[:, np.newaxis]).T))
        projection.bias.copy_(torch.from_numpy(start.offset + mean @ start.weight))
    log_scale = torch.nn.Parameter(torch.tensor(min(math.log(scale), _MAX_LOG_SCALE)))
    optimizer = torch.optim.Adam([*projection.parameters(), log_scale], lr=settings.learning_rate)
    generator = torch.Generator().manual_seed(settings.seed)

    def loss(images: "Tensor", truth: "Tensor") -> "Tensor":
        return multi_positive_info_nce(projection(images), texts, truth, log_scale.exp())

    def validation_loss() -> float:
        with torch.no_grad():
            return float(loss(val_images, val_truth))

    best_epoch, best_loss = 0, validation_loss()
    best_state = deepcopy(projection.state_dict())
    for epoch in range(1, settings.epochs + 1):
        order = torch.randperm(len(images), generator=generator)
        for rows in torch.split(order, settings.batch_size):
            optimizer.zero_grad()
            loss(images[rows], truth[rows]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            with torch.no_grad():
                log_scale.clamp_(max=_MAX_LOG_SCALE)
        epoch_loss = validation_loss()
        if epoch_loss < best_loss:
            best_epoch, best_loss = epoch, epoch_loss
            best_state = deepcopy(projection.state_dict())
        if epoch - best_epoch >= settings.patience:
            break
    weight = best_state["weight"].numpy().astype(np.float64).T / std[:, np.newaxis]
    offset = best_state["bias"].numpy().astype(np.float64) - mean @ weight
    return TrainedMap(AffineMap(weight, offset), settings, best_epoch, best_loss)
