"""An affine map of images into the space of texts, trained contrastively."""

import math
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from featurecache.alignment.captions import Captions
from featurecache.alignment.ridge import AffineMap
from featurecache.metrics.similarity import Directions

if TYPE_CHECKING:
    from torch import Generator, Tensor

LEARNING_RATES = (1e-5, 1e-4, 1e-3)
"""Those that are tried."""

_MOST = math.log(100)  # of the log scale, as CLIP bounds it


@dataclass(frozen=True)
class ContrastiveSettings:
    """Adam's steps, and when to stop: after ``patience`` epochs without a lower validation loss."""

    learning_rate: float = 1e-4
    batch_size: int = 256
    epochs: int = 100
    patience: int = 10
    seed: int = 0


@dataclass(frozen=True)
class Trained:
    """The map at the best epoch.

    Attributes:
        map: images to the space of texts.
        epoch: which one it was; 0 is the map that the training started from.
        loss: of validation at that epoch.
    """

    map: AffineMap
    epoch: int
    loss: float


def train_contrastive(
    start: AffineMap,
    scale: float,
    *,
    train: tuple[Directions, Captions],
    val: tuple[Directions, Captions],
    settings: ContrastiveSettings,
) -> Trained:
    """Train an affine map by ``losses.multi_positive_info_nce``; the texts stay as they are.

    Each batch of images stands against all texts. The scale is trained along. It runs on one core:
    a step is so small that several would mostly wait for each other.

    Args:
        start: the map to start from.
        scale: the factor on the cosine to start from.
        train: images (N, D) at unit length and their captions.
        val: likewise; they choose the epoch.
        settings: of the training.
    """
    import torch

    from featurecache.concurrency import worker_threads

    with worker_threads("cpu", most=torch.get_num_threads()) as lanes:
        lanes.submit(lambda: _train(start, scale, train, val, settings))
        trained: Trained = next(lanes.rest())
    return trained


def _train(
    start: AffineMap,
    scale: float,
    train: tuple[Directions, Captions],
    val: tuple[Directions, Captions],
    settings: ContrastiveSettings,
) -> Trained:
    import torch

    from featurecache.losses import multi_positive_info_nce

    mean = train[0].mean(axis=0, dtype=np.float64)
    width = train[0].std(axis=0, dtype=np.float64)
    width[width == 0] = 1  # a value that all images share, moved to 0 by the mean

    def standardised(images: Directions) -> "Tensor":
        # In place where it can be: there may be many images.
        values = images - mean.astype(np.float32)
        values /= width.astype(np.float32)
        return torch.from_numpy(values)

    texts = torch.from_numpy(train[1].texts.astype(np.float32))
    images, truth = standardised(train[0]), torch.from_numpy(train[1].truth)
    val_images, val_truth = standardised(val[0]), torch.from_numpy(val[1].truth)
    projection = torch.nn.Linear(images.shape[1], texts.shape[1])
    with torch.no_grad():
        projection.weight.copy_(torch.from_numpy((start.weight * width[:, np.newaxis]).T))
        projection.bias.copy_(torch.from_numpy(start.offset + mean @ start.weight))
    log_scale = torch.nn.Parameter(torch.tensor(min(math.log(scale), _MOST)))
    optimizer = torch.optim.Adam([*projection.parameters(), log_scale], lr=settings.learning_rate)
    generator = torch.Generator().manual_seed(settings.seed)

    def loss(images: "Tensor", truth: "Tensor") -> "Tensor":
        return multi_positive_info_nce(projection(images), texts, truth, log_scale.exp())

    def validation_loss() -> float:
        with torch.no_grad():
            return float(loss(val_images, val_truth))

    best, best_loss, best_state = 0, validation_loss(), deepcopy(projection.state_dict())
    for epoch in range(1, settings.epochs + 1):
        for rows in _batches(len(images), settings.batch_size, generator):
            optimizer.zero_grad()
            loss(images[rows], truth[rows]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            with torch.no_grad():
                log_scale.clamp_(max=_MOST)
        found = validation_loss()
        if found < best_loss:
            best, best_loss, best_state = epoch, found, deepcopy(projection.state_dict())
        if epoch - best >= settings.patience:
            break
    weight = best_state["weight"].numpy().astype(np.float64).T / width[:, np.newaxis]
    offset = best_state["bias"].numpy().astype(np.float64) - mean @ weight
    return Trained(AffineMap(weight, offset), best, best_loss)


def _batches(rows: int, size: int, generator: "Generator") -> "Iterator[Tensor]":
    import torch

    order = torch.randperm(rows, generator=generator)
    return (order[start : start + size] for start in range(0, rows, size))
