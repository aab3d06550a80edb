"""The two objectives: the loss of a batch, and how its gradient reaches the encoder."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from featurecache.errors import UsageError
from featurecache.finetune.captions import write_captions
from featurecache.finetune.config import FinetuneConfig
from featurecache.finetune.gradient_cache import Chunk, backward_in_chunks
from featurecache.finetune.head import build_head
from featurecache.losses import (
    balanced_pos_weight,
    masked_bce,
    multi_positive_info_nce,
    pairwise_sigmoid,
)
from featurecache.prompts import load_prompts

if TYPE_CHECKING:
    from featurecache.datasets.dataset import Dataset
    from featurecache.encoders.trainable import TrainableEncoder


AuxiliaryLoss = Callable[[Tensor, NDArray[np.intp]], Tensor]
"""From image embeddings, (B, D), and their data set rows, (B,), to a scalar."""


def no_auxiliary_loss(embedding: Tensor, rows: NDArray[np.intp]) -> Tensor:
    """Return zero."""
    return embedding.new_zeros(())


class Objective(ABC):
    """What an encoder learns from a data set.

    Attributes:
        head: A module that is trained together with the encoder; None if there is none.
    """

    head: nn.Module | None = None

    @abstractmethod
    def loss(self, embedding: Tensor, rows: NDArray[np.intp]) -> Tensor:
        """Return the loss of image embeddings.

        Args:
            embedding: Image embeddings, (B, D).
            rows: Their data set rows, (B,).

        Returns:
            A scalar.
        """

    @abstractmethod
    def backward(
        self,
        images: Sequence[Chunk],
        rows: NDArray[np.intp],
        *,
        seed: tuple[int, ...],
        auxiliary: AuxiliaryLoss = no_auxiliary_loss,
    ) -> Tensor:
        """Accumulate the gradient of a batch's loss.

        Args:
            images: Embeds the batch in chunks, see ``backward_in_chunks``.
            rows: Data set rows of the batch, (B,).
            seed: Seed of dropout.
            auxiliary: A loss to add.

        Returns:
            The loss, detached.
        """


class BceObjective(Objective):
    """A head on the image embedding, trained by binary cross-entropy on the known labels."""

    head: nn.Module

    def __init__(
        self,
        dataset: "Dataset",
        config: FinetuneConfig,
        *,
        train: NDArray[np.intp],
        dim: int,
    ) -> None:
        """Build the head and the label weights.

        Args:
            dataset: The images and labels.
            config: Settings.
            train: Training rows.
            dim: Dimension of the image embedding.

        Raises:
            UsageError: No label has positives among the training images.
        """
        train_labels = dataset.label_values[train]
        if not (train_labels == 1).any():
            raise UsageError(
                f"no training image is positive for {', '.join(dataset.label_names)}, so there is "
                "nothing to learn: check the labels and the split"
            )
        self.head = build_head(config.head, dim, len(dataset.label_names))
        self._targets = torch.from_numpy(dataset.label_values.astype(np.float32))
        self._pos_weight = (
            balanced_pos_weight(torch.from_numpy(train_labels.astype(np.float32)))
            if config.pos_weight == "balanced"
            else None
        )

    def loss(self, embedding: Tensor, rows: NDArray[np.intp]) -> Tensor:
        """See ``Objective.loss``."""
        logits = self.head(embedding.float())
        weight = None if self._pos_weight is None else self._pos_weight.to(logits)
        return masked_bce(logits, self._targets[rows].to(logits), pos_weight=weight)

    def backward(
        self,
        images: Sequence[Chunk],
        rows: NDArray[np.intp],
        *,
        seed: tuple[int, ...],
        auxiliary: AuxiliaryLoss = no_auxiliary_loss,
    ) -> Tensor:
        """See ``Objective.backward``."""
        return backward_in_chunks(
            lambda embedding: self.loss(embedding, rows) + auxiliary(embedding, rows),
            images,
            seed=seed,
        )


class ContrastiveObjective(Objective):
    """Images against the captions that are true of some image in the batch."""

    def __init__(
        self,
        dataset: "Dataset",
        config: FinetuneConfig,
        *,
        train: NDArray[np.intp],
        encoder: "TrainableEncoder",
    ) -> None:
        """Write the captions.

        Args:
            dataset: The images and labels.
            config: Settings.
            train: Training rows.
            encoder: The encoder in training.

        Raises:
            UsageError: The encoder has no text tower, or no caption distinguishes training images.
        """
        if encoder.contrastive is None:
            raise UsageError(
                "the contrastive objective needs a text tower, and this model has none: give "
                "`objective` bce"
            )
        if config.pos_weight != "none":
            raise UsageError(
                "`pos_weight` balanced is for the bce objective: leave it out, or give `objective` "
                "bce"
            )
        self._encoder = encoder
        self._random_templates = config.augment
        self._captions = write_captions(
            dataset.label_values, dataset.label_names, load_prompts(config.prompts)
        )
        encoder.warn_of_cut_texts([text for texts in self._captions.texts for text in texts])
        truth = self._captions.truth[train]
        if not ((truth == 1).any(axis=0) & (truth == 0).any(axis=0)).any():
            raise UsageError(
                "every caption is true of all training images or of none, so there is nothing to "
                "learn: check the labels and the split"
            )

    def loss(self, embedding: Tensor, rows: NDArray[np.intp]) -> Tensor:
        """See ``Objective.loss``; captions are in the wording of the first template."""
        captions, truth = self._batch_captions(rows)
        texts = [self._captions.texts[caption][0] for caption in captions]
        return self._contrast(embedding, self._encoder.embed_texts(texts), truth)

    def backward(
        self,
        images: Sequence[Chunk],
        rows: NDArray[np.intp],
        *,
        seed: tuple[int, ...],
        auxiliary: AuxiliaryLoss = no_auxiliary_loss,
    ) -> Tensor:
        """See ``Objective.backward``; with augmentation each caption gets a random template."""
        captions, truth = self._batch_captions(rows)
        generator = np.random.default_rng(seed)
        texts = []
        for caption in captions:
            wordings = self._captions.texts[caption]
            template = generator.integers(len(wordings)) if self._random_templates else 0
            texts.append(wordings[template])
        return backward_in_chunks(
            lambda embedding, text_embedding: (
                self._contrast(embedding, text_embedding, truth) + auxiliary(embedding, rows)
            ),
            images,
            [partial(self._encoder.embed_texts, texts)],
            seed=seed,
        )

    def _batch_captions(self, rows: NDArray[np.intp]) -> tuple[NDArray[np.intp], Tensor]:
        """Return the captions that are true of any of these rows, and their truth for each row."""
        truth = self._captions.truth[rows]
        true_of_any = (truth == 1).any(axis=0)
        # If none is known to be true, there still has to be a text.
        captions = np.flatnonzero(true_of_any) if true_of_any.any() else np.array([0])
        return captions, torch.from_numpy(truth[:, captions])

    def _contrast(self, images: Tensor, texts: Tensor, truth: Tensor) -> Tensor:
        images, texts = images.float(), texts.float()
        truth = truth.to(images.device)
        scale = self._encoder.scale()
        assert scale is not None
        if self._encoder.bias is not None:
            return pairwise_sigmoid(images, texts, truth, scale, self._encoder.bias)
        return multi_positive_info_nce(images, texts, truth, scale)
