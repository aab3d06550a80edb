"""The training loop of a fine-tuning; it reads images, never a cache."""

import math
import time
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from featurecache.errors import FeaturecacheError, UsageError
from featurecache.finetune.augmentation import augment
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
from featurecache.finetune.training_state import TrainingState
from featurecache.oom import ran_out_of_memory
from featurecache.progress import DetailedProgress
from featurecache.schedule import Epoch, warmup_cosine

if TYPE_CHECKING:
    from featurecache.datasets.dataset import Dataset
    from featurecache.encoders.encoder import Encoder
    from featurecache.encoders.trainable import TrainableEncoder

SAVE_SECONDS = 120.0
"""Maximum time between saved states, and so the most work that a kill can cost."""


@dataclass(frozen=True)
class FinetunedEncoder:
    """An encoder at its best epoch by validation loss.

    Attributes:
        encoder: The encoder, in evaluation mode.
        head: Head of the BCE objective; None for the contrastive one.
        history: One entry for each epoch.
        best_epoch: Number of the best epoch.
        n_trainable: Number of parameters that were trained.
    """

    encoder: "TrainableEncoder"
    head: nn.Module | None
    history: tuple[Epoch, ...]
    best_epoch: int
    n_trainable: int


@dataclass
class LoopState:
    """Where the training loop is.

    Attributes:
        epoch: Number of the current epoch, from 1.
        step: Number of finished steps of the epoch.
        loss_sum: Sum of the losses of these steps.
        learning_rate: Learning rate at the start of the epoch.
        history: Finished epochs.
        best_loss: Lowest validation loss so far.
        best_epoch: Epoch that it was reached in; 0 for none.
    """

    epoch: int = 1
    step: int = 0
    loss_sum: float = 0.0
    learning_rate: float = 0.0
    history: list[Epoch] = field(default_factory=list)
    best_loss: float = math.inf
    best_epoch: int = 0


class Trainer:
    """One fine-tuning: the encoder in training, the objective, the optimizer, and the loop."""

    def __init__(
        self,
        dataset: "Dataset",
        encoder: "Encoder",
        config: FinetuneConfig,
        *,
        images: ImageLoader,
    ) -> None:
        """Prepare the encoder for training.

        Args:
            dataset: Images, labels and splits.
            encoder: The encoder to start from.
            config: Settings.
            images: Loads the images of the data set.

        Raises:
            UsageError: The encoder cannot be trained with these settings, a split is missing, or
                the batch is larger than the training split.
        """
        self.config = config
        self.images = images
        self.train_rows, self.val_rows = training_rows(dataset, config), dataset.rows("val")
        if len(self.val_rows) == 0:
            raise UsageError(
                "there are no validation images to stop training by: assign images to the split "
                "'val'"
            )
        if config.batch_size > len(self.train_rows):
            raise UsageError(
                f"`batch_size` {config.batch_size} is more than the {len(self.train_rows)} "
                "training images"
            )
        self.steps_per_epoch = len(self.train_rows) // config.batch_size
        self.device = encoder.device
        self.encoder = encoder.trainable()
        self.n_trainable = self.encoder.set_trainable(config.trainable, seed=config.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.objective = self._make_objective(dataset)
        self.heads: dict[str, nn.Module] = {}
        """Modules that are trained together with the encoder."""
        if self.objective.head is not None:
            self.heads["head"] = self.objective.head
            self.n_trainable += sum(p.numel() for p in self.objective.head.parameters())
        if self.n_trainable == 0:
            raise UsageError(f"`trainable` {config.trainable} leaves nothing to train")
        self.auxiliary: AuxiliaryLoss = no_auxiliary_loss
        self.state = LoopState()

    def add_teacher(self, embeddings: NDArray[np.float32]) -> None:
        """Also learn from a teacher's embeddings, (N, D), one for each row of the data set."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            distillation = Distillation(
                embeddings, dim=self._dimension(), weight=self.config.teacher_weight
            )
        self.heads["teacher"] = distillation.projection.to(self.device)
        self.auxiliary = distillation.loss

    def _make_objective(self, dataset: "Dataset") -> Objective:
        if self.config.objective == "contrastive":
            return ContrastiveObjective(
                dataset, self.config, train=self.train_rows, encoder=self.encoder
            )
        objective = BceObjective(dataset, self.config, train=self.train_rows, dim=self._dimension())
        objective.head.to(self.device)
        return objective

    def _dimension(self) -> int:
        """Return the dimension of the image embedding."""
        for rows, pixels in self.images.batches(self.val_rows, 1):
            if len(rows) == 0:
                continue
            with torch.inference_mode():
                return int(self.encoder.embed_images(pixels.to(self.device)).shape[1])
        raise FeaturecacheError("no validation image can be read: check the data set")

    def run(
        self, training_state: TrainingState, progress: DetailedProgress | None = None
    ) -> FinetunedEncoder:
        """Train to the end, continuing from the state of a killed process if there is one.

        Args:
            training_state: Where states are saved.
            progress: Called with the number of finished steps, their maximum, and the epoch or the
                validation loss.

        Returns:
            The encoder at its best epoch.

        Raises:
            RunError: The saved state is damaged.
            FeaturecacheError: No training or validation image can be read, memory runs out, or the
                validation loss was never finite.
        """
        self._make_optimizer()
        saved = training_state.load()
        if saved is not None:
            try:
                self._load_state(saved)
            except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
                raise training_state.damaged("last.pt") from error
        with torch.random.fork_rng(devices=[]):
            try:
                while self.state.epoch <= self.config.epochs and not self._out_of_patience():
                    self._train_epoch(training_state, progress)
            except (RuntimeError, MemoryError) as error:  # torch raises the former
                if not ran_out_of_memory(error):
                    raise
                raise FeaturecacheError(
                    f"out of memory with {self.config.micro_batch_size} images at once: give a "
                    "smaller `micro_batch_size` (the batch and its gradient stay the same), or "
                    "`trainable` last-2; the same call continues from the last saved step"
                ) from error
        if self.state.best_epoch == 0:
            raise UsageError(
                f"validation loss was never finite at `learning_rate` {self.config.learning_rate}: "
                "give a lower one"
            )
        self._load_weights(training_state.load_best())
        self.encoder.merge_lora()
        self._set_training(False)
        return FinetunedEncoder(
            encoder=self.encoder,
            head=self.objective.head,
            history=tuple(self.state.history),
            best_epoch=self.state.best_epoch,
            n_trainable=self.n_trainable,
        )

    def embed(self, rows: NDArray[np.intp]) -> tuple[NDArray[np.intp], Tensor]:
        """Embed images without gradients.

        Args:
            rows: Data set rows.

        Returns:
            The N rows that can be read, and their embeddings, (N, D).

        Raises:
            FeaturecacheError: None of the images can be read.
        """
        self.encoder.module.eval()
        readable, embeddings = [], []
        for usable, pixels in self.images.batches(rows, self.config.micro_batch_size):
            if len(usable) == 0:
                continue
            with torch.inference_mode(), self._autocast():
                embedding = self.encoder.embed_images(pixels.to(self.device))
                embeddings.append(embedding.float())
            readable.append(usable)
        if not readable:
            raise FeaturecacheError(f"none of {len(rows)} images can be read: check the data set")
        return np.concatenate(readable), torch.cat(embeddings)

    def _train_epoch(
        self, training_state: TrainingState, progress: DetailedProgress | None
    ) -> None:
        config, state = self.config, self.state
        max_steps = self.steps_per_epoch * config.epochs
        order = np.random.default_rng([config.seed, state.epoch]).permutation(self.train_rows)
        # The remaining images, too few for a batch, are likely to be used in another epoch.
        order = order[: self.steps_per_epoch * config.batch_size]
        if state.step == 0:
            state.learning_rate = float(self.optimizer.param_groups[0]["lr"])
        last_saved = time.monotonic()
        self._set_training(True)
        for rows, pixels in self.images.batches(
            order[state.step * config.batch_size :], config.batch_size
        ):
            if len(rows):
                state.loss_sum += self._train_step(rows, pixels.to(self.device))
            state.step += 1
            if progress is not None:
                done = (state.epoch - 1) * self.steps_per_epoch + state.step
                progress(done, max_steps, f"epoch {state.epoch}")
            if time.monotonic() - last_saved > SAVE_SECONDS:
                training_state.save(self._state_dict())
                last_saved = time.monotonic()
        self._set_training(False)
        rows, embedding = self.embed(self.val_rows)
        with torch.inference_mode():
            val_loss = float(self.objective.loss(embedding, rows))
        train_loss = state.loss_sum / state.step
        state.history.append(Epoch(state.epoch, state.learning_rate, train_loss, val_loss))
        if val_loss < state.best_loss:
            state.best_loss, state.best_epoch = val_loss, state.epoch
            training_state.save_best(self._weights())
        state.epoch, state.step, state.loss_sum = state.epoch + 1, 0, 0.0
        training_state.save(self._state_dict())
        if progress is not None:
            done = (state.epoch - 1) * self.steps_per_epoch
            progress(done, max_steps, f"validation loss {val_loss:.4f}")

    def _train_step(self, rows: NDArray[np.intp], pixels: Tensor) -> float:
        config, state = self.config, self.state
        if config.augment:
            pixels = augment(pixels, [(config.seed, state.epoch, int(row)) for row in rows])
        self.optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            loss = self.objective.backward(
                [
                    partial(self.encoder.embed_images, chunk)
                    for chunk in torch.split(pixels, config.micro_batch_size)
                ],
                rows,
                # Dropout depends on the step alone, so it is the same in a continued training.
                seed=(config.seed, state.epoch, state.step),
                auxiliary=self.auxiliary,
            )
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
        self.optimizer.step()
        self.scheduler.step()
        return loss.item()

    def _make_optimizer(self) -> None:
        config = self.config
        groups: list[dict[str, Any]] = []
        if trained := [p for p in self.encoder.module.parameters() if p.requires_grad]:
            groups.append({"params": trained, "lr": config.learning_rate})
        for module in self.heads.values():
            groups.append({"params": list(module.parameters()), "lr": config.head_learning_rate})
        optimizer = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
        self.optimizer = optimizer(groups, weight_decay=config.weight_decay)
        total = self.steps_per_epoch * config.epochs
        warmup = int(config.warmup_ratio * total)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: warmup_cosine(step, warmup=warmup, total=total)
        )

    def _set_training(self, training: bool) -> None:
        for module in (self.encoder.module, *self.heads.values()):
            module.train(training)

    def _autocast(self) -> torch.autocast:
        device = torch.device(self.device).type
        return torch.autocast(device, torch.bfloat16, enabled=self.config.precision == "bf16")

    def _out_of_patience(self) -> bool:
        state = self.state
        return bool(state.history) and state.epoch - 1 - state.best_epoch >= self.config.patience

    def _weights(self) -> dict[str, Tensor]:
        modules = {"encoder": self.encoder.module, **self.heads}
        return {
            f"{name}.{key}": value
            for name, module in modules.items()
            for key, value in module.state_dict().items()
        }

    def _load_weights(self, weights: dict[str, Tensor]) -> None:
        for name, module in {"encoder": self.encoder.module, **self.heads}.items():
            prefix = f"{name}."
            module.load_state_dict(
                {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
            )

    def _state_dict(self) -> dict[str, Any]:
        return {
            "weights": self._weights(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.last_epoch,
            "loop": asdict(self.state),
            "failures": dict(self.images.failures),
        }

    def _load_state(self, saved: dict[str, Any]) -> None:
        self._load_weights(saved["weights"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scheduler.load_state_dict(
            {**self.scheduler.state_dict(), "last_epoch": saved["scheduler"]}
        )
        history = [Epoch(**row) for row in saved["loop"]["history"]]
        self.state = LoopState(**{**saved["loop"], "history": history})
        self.images.failures.update(saved["failures"])


def training_rows(dataset: "Dataset", config: FinetuneConfig) -> NDArray[np.intp]:
    """Return the data set rows to train on, ascending.

    Raises:
        UsageError: ``train_size`` is more than the training split has.
    """
    rows = dataset.rows("train")
    if config.train_size is None:
        return rows
    if config.train_size > len(rows):
        raise UsageError(
            f"`train_size` {config.train_size} is more than the {len(rows)} training images"
        )
    generator = np.random.default_rng(config.seed)
    return np.sort(generator.choice(rows, size=config.train_size, replace=False))
