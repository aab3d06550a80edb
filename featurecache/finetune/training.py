"""The loop that trains an encoder itself, from images; it never reads a cache."""

import math
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from featurecache.errors import FeaturecacheError, UsageError
from featurecache.finetune.augmentation import augment
from featurecache.finetune.checkpoint import Checkpoint
from featurecache.finetune.config import FinetuneConfig
from featurecache.finetune.dataloader import ImageStream
from featurecache.finetune.distillation import Distillation, Teacher
from featurecache.finetune.objectives import (
    BceObjective,
    ContrastiveObjective,
    FurtherLoss,
    Objective,
    no_further_loss,
)
from featurecache.oom import ran_out_of_memory
from featurecache.progress import DetailedProgress
from featurecache.schedule import Epoch, warmup_cosine

if TYPE_CHECKING:
    from featurecache.datasets.dataset import Dataset
    from featurecache.encoders.encoder import Encoder
    from featurecache.encoders.trainable import TrainableEncoder

SAVE_SECONDS = 120.0
"""The most work, in time, that a kill can cost."""


@dataclass(frozen=True)
class Finetuned:
    """An encoder at its best epoch by validation loss.

    Attributes:
        encoder: the trained towers, in evaluation mode.
        head: of the BCE objective; None for the contrastive one.
        trainable: how many parameters moved.
    """

    encoder: "TrainableEncoder"
    head: nn.Module | None
    history: tuple[Epoch, ...]
    best_epoch: int
    trainable: int


class Trainer:
    """One fine-tuning: the towers, the objective, the optimiser, and where they stand."""

    def __init__(
        self,
        manifest: "Dataset",
        encoder: "Encoder",
        config: FinetuneConfig,
        *,
        images: ImageStream,
    ) -> None:
        """Open the encoder for training.

        Raises:
            UsageError: the encoder cannot be trained so, a split is missing, or the batch is larger
                than the training data.
        """
        self.config = config
        self.images = images
        self.train, self.val = _training_rows(manifest, config), manifest.rows("val")
        if len(self.val) == 0:
            raise UsageError(
                "there are no validation images to stop by: give some images the split 'val'"
            )
        if config.batch_size > len(self.train):
            raise UsageError(
                f"--batch-size {config.batch_size} is more than the {len(self.train)} training "
                "images there are"
            )
        self.device = encoder.device
        self.towers = encoder.trainable()
        moving = self.towers.set_trainable(config.trainable, seed=config.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.objective = self._objective(manifest)
        head = self.objective.head
        self.trainable = moving + (sum(p.numel() for p in head.parameters()) if head else 0)
        if self.trainable == 0:
            raise UsageError(f"--trainable {config.trainable} leaves nothing to train")
        self.beside: dict[str, nn.Module] = {} if head is None else {"head": head}
        self.further: FurtherLoss = no_further_loss
        self.steps = len(self.train) // config.batch_size
        self._start()
        self.epoch, self.step, self.loss_sum, self.rate = 1, 0, 0.0, 0.0
        self.history: list[Epoch] = []
        self.best_loss, self.best_epoch = math.inf, 0

    def learn_from(self, teacher: NDArray[np.float32]) -> None:
        """Learn from a teacher's embeddings as well, (N, D) for each row of the manifest."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            distillation = Distillation(
                teacher, dim=self._dimension(), weight=self.config.teacher_weight
            )
        self.beside["teacher"] = distillation.projection.to(self.device)
        self.further = distillation.loss
        self._start()

    def _start(self) -> None:
        self.optimizer = self._optimizer()
        total = self.steps * self.config.epochs
        warmup = int(self.config.warmup_ratio * total)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: warmup_cosine(step, warmup=warmup, total=total)
        )

    def _objective(self, manifest: "Dataset") -> Objective:
        if self.config.objective == "contrastive":
            return ContrastiveObjective(
                manifest, self.config, train=self.train, encoder=self.towers
            )
        objective = BceObjective(manifest, self.config, train=self.train, dim=self._dimension())
        assert objective.head is not None
        objective.head.to(self.device)
        return objective

    def _dimension(self) -> int:
        for usable, pixels in self.images.batches(self.val, 1):
            if len(usable) == 0:
                continue
            with torch.inference_mode():
                return int(self.towers.embed_images(pixels.to(self.device)).shape[1])
        raise FeaturecacheError("no validation image can be read: check the data set")

    def _optimizer(self) -> torch.optim.Optimizer:
        config = self.config
        groups: list[dict[str, Any]] = []
        if moving := [p for p in self.towers.module.parameters() if p.requires_grad]:
            groups.append({"params": moving, "lr": config.learning_rate})
        for module in self.beside.values():
            groups.append({"params": list(module.parameters()), "lr": config.head_learning_rate})
        kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
        return kind(groups, weight_decay=config.weight_decay)

    def run(self, checkpoint: Checkpoint, progress: DetailedProgress | None = None) -> Finetuned:
        """Train to the end, or from where a killed run left off.

        Raises:
            RunError: the checkpoint is damaged.
            FeaturecacheError: no training or validation image can be read, memory runs out, or the
                validation loss was never finite.
        """
        saved = checkpoint.load()
        if saved is not None:
            try:
                self._restore(saved)
            except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
                raise checkpoint.damaged("last.pt") from error
        with torch.random.fork_rng(devices=[]):
            try:
                while self.epoch <= self.config.epochs and not self._patience_is_out():
                    self._train_epoch(checkpoint, progress)
            except (RuntimeError, MemoryError) as error:  # torch says it by the former
                if not ran_out_of_memory(error):
                    raise
                raise FeaturecacheError(
                    f"out of memory with {self.config.micro_batch_size} images at once: give a smaller "
                    "--micro-batch-size (the batch and its gradient stay the same), or --trainable last-2; "
                    "the same command goes on from the last saved step"
                ) from error
        if self.best_epoch == 0:
            raise UsageError(
                f"validation loss was never finite at learning rate {self.config.learning_rate}: "
                "lower it"
            )
        self._load_weights(checkpoint.best())
        self.towers.merge_lora()
        self.towers.module.eval()
        if self.objective.head is not None:
            self.objective.head.eval()
        return Finetuned(
            self.towers, self.objective.head, tuple(self.history), self.best_epoch, self.trainable
        )

    def embed(self, rows: NDArray[np.intp]) -> tuple[NDArray[np.intp], Tensor]:
        """The rows that can be read, and their embeddings (N, D), without gradients."""
        self.towers.module.eval()
        found, embeddings = [], []
        for usable, pixels in self.images.batches(rows, self.config.micro_batch_size):
            if len(usable) == 0:
                continue
            with torch.inference_mode(), self._autocast():
                embedding = self.towers.embed_images(pixels.to(self.device))
                embeddings.append(embedding.float())
            found.append(usable)
        if not found:
            raise FeaturecacheError(f"none of {len(rows)} images can be read: check the data set")
        return np.concatenate(found), torch.cat(embeddings)

    def _train_epoch(self, checkpoint: Checkpoint, progress: DetailedProgress | None) -> None:
        config = self.config
        order = np.random.default_rng([config.seed, self.epoch]).permutation(self.train)
        # The last images of an epoch that fill no batch wait for another epoch's order.
        order = order[: self.steps * config.batch_size]
        if self.step == 0:
            self.rate = float(self.optimizer.param_groups[0]["lr"])
        saved = time.monotonic()
        self._set_training(True)
        for rows, pixels in self.images.batches(
            order[self.step * config.batch_size :], config.batch_size
        ):
            if len(rows):
                self.loss_sum += self._train_step(rows, pixels.to(self.device))
            self.step += 1
            if progress is not None:
                done = (self.epoch - 1) * self.steps + self.step
                progress(done, self.steps * config.epochs, f"epoch {self.epoch}")
            if time.monotonic() - saved > SAVE_SECONDS:
                checkpoint.save(self._state())
                saved = time.monotonic()
        self._set_training(False)
        rows, embedding = self.embed(self.val)
        with torch.inference_mode():
            val_loss = float(self.objective.loss(embedding, rows))
        train_loss = self.loss_sum / self.step
        self.history.append(Epoch(self.epoch, self.rate, train_loss, val_loss))
        if val_loss < self.best_loss:
            self.best_loss, self.best_epoch = val_loss, self.epoch
            checkpoint.save_best(self._weights())
        self.epoch, self.step, self.loss_sum = self.epoch + 1, 0, 0.0
        checkpoint.save(self._state())
        if progress is not None:
            done = (self.epoch - 1) * self.steps
            progress(done, self.steps * config.epochs, f"validation loss {val_loss:.4f}")

    def _train_step(self, rows: NDArray[np.intp], pixels: Tensor) -> float:
        config = self.config
        if config.augment:
            pixels = augment(pixels, [(config.seed, self.epoch, int(row)) for row in rows])
        self.optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            loss = self.objective.backward(
                [
                    partial(self.towers.embed_images, p)
                    for p in torch.split(pixels, config.micro_batch_size)
                ],
                rows,
                # Dropout depends on the step alone, so that a resumed run draws the same.
                seed=(config.seed, self.epoch, self.step),
                further=self.further,
            )
        moving = [p for group in self.optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(moving, config.max_grad_norm)
        self.optimizer.step()
        self.schedule.step()
        return loss.item()

    def _set_training(self, training: bool) -> None:
        for module in (self.towers.module, *self.beside.values()):
            module.train(training)

    def _autocast(self) -> torch.autocast:
        device = torch.device(self.device).type
        return torch.autocast(device, torch.bfloat16, enabled=self.config.precision == "bf16")

    def _patience_is_out(self) -> bool:
        return bool(self.history) and self.epoch - 1 - self.best_epoch >= self.config.patience

    def _weights(self) -> dict[str, Tensor]:
        parts = {"encoder": self.towers.module, **self.beside}
        return {
            f"{name}.{key}": value
            for name, module in parts.items()
            for key, value in module.state_dict().items()
        }

    def _load_weights(self, weights: dict[str, Tensor]) -> None:
        for name, module in {"encoder": self.towers.module, **self.beside}.items():
            prefix = f"{name}."
            part = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
            module.load_state_dict(part)

    def _state(self) -> dict[str, Any]:
        return {
            "weights": self._weights(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.last_epoch,
            "epoch": self.epoch,
            "step": self.step,
            "loss_sum": self.loss_sum,
            "rate": self.rate,
            "history": [asdict(epoch) for epoch in self.history],
            "best_loss": self.best_loss,
            "best_epoch": self.best_epoch,
            "failures": dict(self.images.failures),
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self._load_weights(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(
            {**self.schedule.state_dict(), "last_epoch": state["schedule"]}
        )
        self.epoch, self.step = state["epoch"], state["step"]
        self.loss_sum, self.rate = state["loss_sum"], state["rate"]
        self.history = [Epoch(**line) for line in state["history"]]
        self.best_loss, self.best_epoch = state["best_loss"], state["best_epoch"]
        self.images.failures.update(state["failures"])


def open_checkpoint(
    target: Path,
    manifest: "Dataset",
    encoder: "Encoder",
    config: FinetuneConfig,
    teacher: Teacher | None = None,
) -> Checkpoint:
    """The checkpoint beside a run to be, for these settings, images and encoder.

    Raises:
        RunError: it was started with others.
    """
    from featurecache.io.fingerprint import fingerprint

    images = {
        "id": manifest.images["id"].tolist(),
        "split": manifest.images["split"].tolist(),
        "labels": manifest.label_values.tolist(),
    }
    settings = {
        **asdict(config),
        "dataset": manifest.name,
        "images": fingerprint(images),
        "model": encoder.name,
        "encoder": fingerprint(encoder.image_spec),
        "teacher": None if teacher is None else teacher.fingerprint,
    }
    return Checkpoint(target, settings)


def _training_rows(manifest: "Dataset", config: FinetuneConfig) -> NDArray[np.intp]:
    """The rows of a manifest that are trained on, ascending.

    Raises:
        UsageError: ``--train-size`` asks for more than there are.
    """
    rows = manifest.rows("train")
    if config.train_size is None:
        return rows
    if config.train_size > len(rows):
        raise UsageError(
            f"--train-size {config.train_size} is more than the {len(rows)} training images there "
            "are"
        )
    generator = np.random.default_rng(config.seed)
    return np.sort(generator.choice(rows, size=config.train_size, replace=False))
