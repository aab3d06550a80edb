"""The training loop of a fine-tuning; it reads images, never a cache."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from featurecache.errors import FeaturecacheError, UsageError
from featurecache.finetune.augmentation import augment
from featurecache.finetune.config import FinetuneConfig
from featurecache.finetune.dataloader import ImageLoader
from featurecache.finetune.learner import Learner
from featurecache.finetune.training_state import TrainingState
from featurecache.oom import ran_out_of_memory
from featurecache.progress import DetailedProgress
from featurecache.provenance.leaks import NO_COPIES, SplitCopies
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
    """One fine-tuning: what is trained, the optimizer, and the loop."""

    def __init__(
        self,
        dataset: "Dataset",
        encoder: "Encoder",
        config: FinetuneConfig,
        *,
        images: ImageLoader,
        copies: SplitCopies = NO_COPIES,
    ) -> None:
        """Prepare the encoder for training.

        Args:
            dataset: Images, labels and splits.
            encoder: The encoder to start from.
            config: Settings.
            images: Loads the images of the data set.
            copies: Training and validation images to leave out.

        Raises:
            UsageError: The encoder cannot be trained with these settings, a split is missing, or
                the batch is larger than the training split.
        """
        self.config = config
        self.images = images
        self.train_rows = training_rows(copies.without(dataset.rows("train")), config)
        self.val_rows = copies.without(dataset.rows("val"))
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
        self.learner = Learner(
            dataset,
            encoder,
            config,
            images=images,
            train_rows=self.train_rows,
            val_rows=self.val_rows,
        )
        self.state = LoopState()

    def run(
        self,
        training_state: TrainingState,
        progress: DetailedProgress | None = None,
        *,
        on_epoch: Callable[[Sequence[Epoch]], None] | None = None,
    ) -> FinetunedEncoder:
        """Train to the end, continuing from the state of a killed process if there is one.

        Args:
            training_state: Where states are saved.
            progress: Called with the number of finished steps, their maximum, and the epoch or the
                validation loss.
            on_epoch: Called after each epoch, with all so far.

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
                    if on_epoch is not None:
                        on_epoch(self.state.history)
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
        learner = self.learner
        learner.load_state_dict(training_state.load_best())
        learner.encoder.merge_lora()
        learner.train(False)
        return FinetunedEncoder(
            encoder=learner.encoder,
            head=learner.objective.head,
            history=tuple(self.state.history),
            best_epoch=self.state.best_epoch,
            n_trainable=learner.n_trainable,
        )

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
        self.learner.train()
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
        self.learner.train(False)
        rows, embedding = self.learner.embed(self.val_rows)
        with torch.inference_mode():
            val_loss = float(self.learner.objective.loss(embedding, rows))
        train_loss = state.loss_sum / state.step
        state.history.append(Epoch(state.epoch, state.learning_rate, train_loss, val_loss))
        if val_loss < state.best_loss:
            state.best_loss, state.best_epoch = val_loss, state.epoch
            training_state.save_best(self.learner.state_dict())
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
        # Dropout depends on the step alone, so it is the same in a continued training.
        loss = self.learner.backward(pixels, rows, seed=(config.seed, state.epoch, state.step))
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
        self.optimizer.step()
        self.scheduler.step()
        return loss.item()

    def _make_optimizer(self) -> None:
        config = self.config
        optimizer = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
        self.optimizer = optimizer(
            self.learner.parameter_groups(), weight_decay=config.weight_decay
        )
        total = self.steps_per_epoch * config.epochs
        warmup = int(config.warmup_ratio * total)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: warmup_cosine(step, warmup=warmup, total=total)
        )

    def _out_of_patience(self) -> bool:
        state = self.state
        return bool(state.history) and state.epoch - 1 - state.best_epoch >= self.config.patience

    def _state_dict(self) -> dict[str, Any]:
        return {
            "weights": self.learner.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.last_epoch,
            "loop": asdict(self.state),
            "failures": dict(self.images.failures),
        }

    def _load_state(self, saved: dict[str, Any]) -> None:
        self.learner.load_state_dict(saved["weights"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scheduler.load_state_dict(
            {**self.scheduler.state_dict(), "last_epoch": saved["scheduler"]}
        )
        history = [Epoch(**row) for row in saved["loop"]["history"]]
        self.state = LoopState(**{**saved["loop"], "history": history})
        self.images.failures.update(saved["failures"])


def training_rows(rows: NDArray[np.intp], config: FinetuneConfig) -> NDArray[np.intp]:
    """Return the rows to train on, ascending: all of the training split, or ``train_size``.

    Raises:
        UsageError: ``train_size`` is more than the training split has.
    """
    if config.train_size is None:
        return rows
    if config.train_size > len(rows):
        raise UsageError(
            f"`train_size` {config.train_size} is more than the {len(rows)} training images"
        )
    generator = np.random.default_rng(config.seed)
    return np.sort(generator.choice(rows, size=config.train_size, replace=False))
