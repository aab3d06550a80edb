"""What is trained: the encoder with its objective, its heads, and a teacher's targets."""

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from featurecache.errors import FeaturecacheError, UsageError
from featurecache.finetune.config import FinetuneConfig
from featurecache.finetune.dataloader import ImageLoader
from featurecache.finetune.distillation import Distillation
from featurecache.finetune.objectives import (
    AuxiliaryLoss,
    BceObjective,
    ContrastiveObjective,
    Objective,
    no_auxiliary_loss,
)
from featurecache.wording import count_noun

if TYPE_CHECKING:
    from featurecache.datasets.dataset import Dataset
    from featurecache.encoders.encoder import Encoder


class Learner:
    """An encoder in training, with everything that is trained together with it.

    Attributes:
        encoder: The encoder in training.
        objective: The loss, with its head if it has one.
        n_trainable: Number of parameters that are trained.
    """

    def __init__(
        self,
        dataset: "Dataset",
        encoder: "Encoder",
        config: FinetuneConfig,
        *,
        images: ImageLoader,
        train_rows: NDArray[np.intp],
        val_rows: NDArray[np.intp],
    ) -> None:
        """Prepare the encoder for training.

        Args:
            dataset: Images, labels and splits.
            encoder: The encoder to start from.
            config: Settings.
            images: Loads the images of the data set.
            train_rows: Rows to train on.
            val_rows: Rows of the validation split.

        Raises:
            UsageError: The encoder cannot be trained with these settings.
            FeaturecacheError: No validation image can be read.
        """
        self._config = config
        self._images = images
        self._val_rows = val_rows
        self._device = encoder.device
        self.encoder = encoder.trainable()
        self.n_trainable = self.encoder.set_trainable(config.trainable, seed=config.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.objective = self._make_objective(dataset, train_rows)
        self._heads: dict[str, nn.Module] = {}
        if self.objective.head is not None:
            self._heads["head"] = self.objective.head
            self.n_trainable += sum(p.numel() for p in self.objective.head.parameters())
        if self.n_trainable == 0:
            raise UsageError(f"`trainable` {config.trainable} leaves nothing to train")
        self._auxiliary: AuxiliaryLoss = no_auxiliary_loss

    def add_teacher(self, embeddings: NDArray[np.float32]) -> None:
        """Also learn from a teacher's embeddings, (N, D), one for each row of the data set."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._config.seed)
            distillation = Distillation(
                embeddings, dim=self._dimension(), weight=self._config.teacher_weight
            )
        self._heads["teacher"] = distillation.projection.to(self._device)
        self._auxiliary = distillation.loss

    def backward(self, pixels: Tensor, rows: NDArray[np.intp], *, seed: tuple[int, ...]) -> Tensor:
        """Accumulate the gradient of a batch's loss.

        Args:
            pixels: Preprocessed images, (B, 3, H, W).
            rows: Their data set rows, (B,).
            seed: Seed of dropout.

        Returns:
            The loss, detached.
        """
        chunks = torch.split(pixels, self._config.micro_batch_size)
        with self._autocast():
            return self.objective.backward(
                [partial(self.encoder.embed_images, chunk) for chunk in chunks],
                rows,
                seed=seed,
                auxiliary=self._auxiliary,
            )

    def embed(self, rows: NDArray[np.intp]) -> tuple[NDArray[np.intp], Tensor]:
        """Embed images in evaluation mode, without gradients.

        Args:
            rows: Data set rows.

        Returns:
            The N rows that can be read, and their embeddings, (N, D).

        Raises:
            FeaturecacheError: None of the images can be read.
        """
        self.encoder.module.eval()
        readable, embeddings = [], []
        for usable, pixels in self._images.batches(rows, self._config.micro_batch_size):
            if len(usable) == 0:
                continue
            with torch.inference_mode(), self._autocast():
                embedding = self.encoder.embed_images(pixels.to(self._device))
                embeddings.append(embedding.float())
            readable.append(usable)
        if not readable:
            raise FeaturecacheError(
                f"none of {count_noun(len(rows), 'image')} can be read: check the data set"
            )
        return np.concatenate(readable), torch.cat(embeddings)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the parameters to train, grouped by learning rate, as an optimizer takes them."""
        config = self._config
        groups: list[dict[str, Any]] = []
        if trained := [p for p in self.encoder.module.parameters() if p.requires_grad]:
            groups.append({"params": trained, "lr": config.learning_rate})
        for module in self._heads.values():
            groups.append({"params": list(module.parameters()), "lr": config.head_learning_rate})
        return groups

    def train(self, mode: bool = True) -> None:
        """Switch to training or evaluation mode."""
        for module in self._modules().values():
            module.train(mode)

    def state_dict(self) -> dict[str, Tensor]:
        """Return all weights by name."""
        return {
            f"{name}.{key}": value
            for name, module in self._modules().items()
            for key, value in module.state_dict().items()
        }

    def load_state_dict(self, weights: dict[str, Tensor]) -> None:
        """Load the weights that ``state_dict`` returned."""
        for name, module in self._modules().items():
            prefix = f"{name}."
            module.load_state_dict(
                {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
            )

    def _modules(self) -> dict[str, nn.Module]:
        return {"encoder": self.encoder.module, **self._heads}

    def _make_objective(self, dataset: "Dataset", train_rows: NDArray[np.intp]) -> Objective:
        if self._config.objective == "contrastive":
            return ContrastiveObjective(
                dataset, self._config, train=train_rows, encoder=self.encoder
            )
        objective = BceObjective(dataset, self._config, train=train_rows, dim=self._dimension())
        objective.head.to(self._device)
        return objective

    def _dimension(self) -> int:
        """Return the dimension of the image embedding."""
        for rows, pixels in self._images.batches(self._val_rows, 1):
            if len(rows) == 0:
                continue
            with torch.inference_mode():
                return int(self.encoder.embed_images(pixels.to(self._device)).shape[1])
        raise FeaturecacheError("no validation image can be read: check the data set")

    def _autocast(self) -> torch.autocast:
        device = torch.device(self._device).type
        return torch.autocast(device, torch.bfloat16, enabled=self._config.precision == "bf16")
