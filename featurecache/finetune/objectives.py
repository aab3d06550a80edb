"""The two objectives: what a batch's loss is, and how its gradient reaches the encoder."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from featurecache.errors import UsageError
from featurecache.finetune.captions import caption_films
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


FurtherLoss = Callable[[Tensor, NDArray[np.intp]], Tensor]
"""Of image embeddings (B, D) and their manifest rows, a scalar."""


def no_further_loss(embedding: Tensor, rows: NDArray[np.intp]) -> Tensor:
    """Zero."""
    return embedding.new_zeros(())


class Objective(ABC):
    """What is learned of a manifest by an encoder.

    Attributes:
        head: a module that is trained beside the encoder; None where the encoder is all.
    """

    head: nn.Module | None

    @abstractmethod
    def loss(self, embedding: Tensor, rows: NDArray[np.intp]) -> Tensor:
        """The loss of image embeddings (B, D) of these manifest rows, a scalar."""

    @abstractmethod
    def backward(
        self,
        images: Sequence[Chunk],
        rows: NDArray[np.intp],
        *,
        seed: tuple[int, ...],
        further: FurtherLoss = no_further_loss,
    ) -> Tensor:
        """Add the gradient of a batch's loss.

        Args:
            images: embeds the batch in chunks, see ``backward_in_chunks``.
            rows: the manifest rows of the batch.
            seed: of dropout.
            further: what else is lost on the embeddings of these rows.

        Returns:
            The loss, detached.
        """


class BceObjective(Objective):
    """A head on the image embedding, binary cross-entropy over the labels that are known."""

    def __init__(
        self,
        manifest: "Dataset",
        config: FinetuneConfig,
        *,
        train: NDArray[np.intp],
        dim: int,
    ) -> None:
        """Build the head and weigh the labels, for these training rows of the manifest.

        Raises:
            UsageError: no label has positives among the training images.
        """
        learned = manifest.label_values[train]
        if not (learned == 1).any():
            raise UsageError(
                f"no training image is positive for {', '.join(manifest.label_names)}: there is "
                "nothing to learn; check the labels and the split"
            )
        self.head = build_head(config.head, dim, len(manifest.label_names))
        self._targets = torch.from_numpy(manifest.label_values.astype(np.float32))
        self._weight = (
            balanced_pos_weight(torch.from_numpy(learned.astype(np.float32)))
            if config.pos_weight == "balanced"
            else None
        )

    def loss(self, embedding: Tensor, rows: NDArray[np.intp]) -> Tensor:
        """See ``Objective.loss``."""
        assert self.head is not None
        logits = self.head(embedding.float())
        weight = None if self._weight is None else self._weight.to(logits)
        return masked_bce(logits, self._targets[rows].to(logits), pos_weight=weight)

    def backward(
        self,
        images: Sequence[Chunk],
        rows: NDArray[np.intp],
        *,
        seed: tuple[int, ...],
        further: FurtherLoss = no_further_loss,
    ) -> Tensor:
        """See ``Objective.backward``."""
        return backward_in_chunks(
            lambda embedding: self.loss(embedding, rows) + further(embedding, rows),
            images,
            seed=seed,
        )


class ContrastiveObjective(Objective):
    """Images against the captions that are true of images in the batch."""

    head = None

    def __init__(
        self,
        manifest: "Dataset",
        config: FinetuneConfig,
        *,
        train: NDArray[np.intp],
        encoder: "TrainableEncoder",
    ) -> None:
        """Write the captions; ``train`` are the training rows of the manifest.

        Raises:
            UsageError: the encoder has no text tower, or no caption tells training images apart.
        """
        if encoder.contrastive is None:
            raise UsageError(
                "the contrastive objective needs a text tower, and this model has none: use "
                "--objective bce"
            )
        if config.pos_weight != "none":
            raise UsageError("--pos-weight balanced goes with --objective bce")
        self._encoder = encoder
        self._draw_words = config.augment
        self._captions = caption_films(
            manifest.label_values, manifest.label_names, load_prompts(config.prompts)
        )
        learned = self._captions.truth[train]
        if not ((learned == 1).any(axis=0) & (learned == 0).any(axis=0)).any():
            raise UsageError(
                "every caption is true of all training images or of none: there is nothing to "
                "tell apart; check the labels and the split"
            )

    def loss(self, embedding: Tensor, rows: NDArray[np.intp]) -> Tensor:
        """See ``Objective.loss``; captions are in the words of the first template."""
        present, truth = self._present(rows)
        texts = [self._captions.texts[caption][0] for caption in present]
        return self._compare(embedding, self._encoder.embed_texts(texts), truth)

    def backward(
        self,
        images: Sequence[Chunk],
        rows: NDArray[np.intp],
        *,
        seed: tuple[int, ...],
        further: FurtherLoss = no_further_loss,
    ) -> Tensor:
        """See ``Objective.backward``; with augmentation each caption's template is drawn."""
        present, truth = self._present(rows)
        n_bootstrap = np.random.default_rng(seed)
        texts = []
        for caption in present:
            words = self._captions.texts[caption]
            texts.append(words[n_bootstrap.integers(len(words)) if self._draw_words else 0])
        return backward_in_chunks(
            lambda embedding, encoded: (
                self._compare(embedding, encoded, truth) + further(embedding, rows)
            ),
            images,
            [partial(self._encoder.embed_texts, texts)],
            seed=seed,
        )

    def _present(self, rows: NDArray[np.intp]) -> tuple[NDArray[np.intp], Tensor]:
        """The captions that are true of one of these rows, and the truth of each for each row."""
        truth = self._captions.truth[rows]
        # Where nothing is known to be true there still has to be a text.
        present = np.flatnonzero((truth == 1).any(axis=0)) if (truth == 1).any() else np.array([0])
        return present, torch.from_numpy(truth[:, present])

    def _compare(self, images: Tensor, texts: Tensor, truth: Tensor) -> Tensor:
        images, texts = images.float(), texts.float()
        truth = truth.to(images.device)
        scale = self._encoder.scale()
        assert scale is not None
        if self._encoder.bias is not None:
            return pairwise_sigmoid(images, texts, truth, scale, self._encoder.bias)
        return multi_positive_info_nce(images, texts, truth, scale)
