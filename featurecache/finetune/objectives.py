"""The two objectives: what a batch's loss is, and how its gradient reaches the encoder."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from featurecache.errors import UsageError
from featurecache.finetune.captions import captions_of
from featurecache.finetune.config import FinetuneConfig
from featurecache.finetune.gradient_cache import Chunk, backward_in_chunks
from featurecache.finetune.head import build_head
from featurecache.losses import (
    balanced_positive_weight,
    masked_bce,
    multi_positive_info_nce,
    pairwise_sigmoid,
)
from featurecache.prompts import load_prompts

if TYPE_CHECKING:
    from featurecache.datasets.manifest import Manifest
    from featurecache.encoders.trainable import Trainable


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
        self, images: Sequence[Chunk], rows: NDArray[np.intp], *, seed: tuple[int, ...]
    ) -> Tensor:
        """Add the gradient of a batch's loss.

        Args:
            images: embeds the batch in chunks, see ``backward_in_chunks``.
            rows: the manifest rows of the batch.
            seed: of dropout.

        Returns:
            The loss, detached.
        """


class BceObjective(Objective):
    """A head on the image embedding, binary cross-entropy over the labels that are known."""

    def __init__(
        self,
        manifest: "Manifest",
        config: FinetuneConfig,
        *,
        train: NDArray[np.intp],
        dim: int,
    ) -> None:
        """Build the head and weigh the labels, for these training rows of the manifest.

        Raises:
            UsageError: no label has positives among the training images.
        """
        learned = manifest.labels[train]
        if not (learned == 1).any():
            raise UsageError(
                f"no training image is positive for {', '.join(manifest.label_names)}: there is "
                "nothing to learn; check the labels and the split"
            )
        self.head = build_head(config.head, dim, len(manifest.label_names))
        self._targets = torch.from_numpy(manifest.labels.astype(np.float32))
        self._weight = (
            balanced_positive_weight(torch.from_numpy(learned.astype(np.float32)))
            if config.loss_weight == "balanced"
            else None
        )

    def loss(self, embedding: Tensor, rows: NDArray[np.intp]) -> Tensor:
        """See ``Objective.loss``."""
        assert self.head is not None
        logits = self.head(embedding.float())
        weight = None if self._weight is None else self._weight.to(logits)
        return masked_bce(logits, self._targets[rows].to(logits), positive_weight=weight)

    def backward(
        self, images: Sequence[Chunk], rows: NDArray[np.intp], *, seed: tuple[int, ...]
    ) -> Tensor:
        """See ``Objective.backward``."""
        return backward_in_chunks(lambda embedding: self.loss(embedding, rows), images, seed=seed)


class ContrastiveObjective(Objective):
    """Images against the captions of their labels; images that share one are all its positives."""

    head = None

    def __init__(
        self,
        manifest: "Manifest",
        config: FinetuneConfig,
        *,
        train: NDArray[np.intp],
        encoder: "Trainable",
    ) -> None:
        """Write the captions; ``train`` are the training rows of the manifest.

        Raises:
            UsageError: the encoder has no text tower, a label is unknown, or all training images
                have the same caption.
        """
        if encoder.contrastive is None:
            raise UsageError(
                "the contrastive objective needs a text tower, and this model has none: use "
                "--objective bce"
            )
        if config.loss_weight != "none":
            raise UsageError("--loss-weight balanced goes with --objective bce")
        self._encoder = encoder
        captions = captions_of(manifest.labels, manifest.label_names, load_prompts(config.prompts))
        if len(np.unique(captions[train])) < 2:
            raise UsageError(
                "all training images have the same caption: there is nothing to tell apart"
            )
        self._texts, self._caption = np.unique(captions, return_inverse=True)

    def loss(self, embedding: Tensor, rows: NDArray[np.intp]) -> Tensor:
        """See ``Objective.loss``; texts are the different captions of these rows."""
        texts, caption = self._captions(rows)
        return self._compare(embedding, self._encoder.embed_texts(texts), caption)

    def backward(
        self, images: Sequence[Chunk], rows: NDArray[np.intp], *, seed: tuple[int, ...]
    ) -> Tensor:
        """See ``Objective.backward``."""
        texts, caption = self._captions(rows)
        return backward_in_chunks(
            lambda embedding, encoded: self._compare(embedding, encoded, caption),
            images,
            [partial(self._encoder.embed_texts, texts)],
            seed=seed,
        )

    def _captions(self, rows: NDArray[np.intp]) -> tuple[list[str], Tensor]:
        """The different captions of these rows, and which of them each row has."""
        present, caption = np.unique(self._caption[rows], return_inverse=True)
        return [str(text) for text in self._texts[present]], torch.from_numpy(caption)

    def _compare(self, images: Tensor, texts: Tensor, caption: Tensor) -> Tensor:
        images, texts = images.float(), texts.float()
        caption = caption.to(images.device)
        scale = self._encoder.scale()
        assert scale is not None
        if self._encoder.bias is not None:
            return pairwise_sigmoid(images, texts, caption, scale, self._encoder.bias)
        return multi_positive_info_nce(images, texts, caption, scale)
