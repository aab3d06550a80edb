"""Load a fine-tuned encoder, with its head or its captions, from a run folder."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featurecache.encoders.loading import load_encoder
from featurecache.errors import RunError, UsageError
from featurecache.evaluation.trained_model import TrainedModel
from featurecache.evaluation.zero_shot_scores import ZeroShotScores, pair_scores
from featurecache.execution import Execution
from featurecache.finetune.captions import scored_captions
from featurecache.finetune.config import KIND, FinetuneConfig
from featurecache.finetune.head import build_head
from featurecache.metrics.conformal import ConformalLimits, read_answers
from featurecache.metrics.platt_scaling import PlattScaling, read_calibration
from featurecache.metrics.thresholds import OperatingPoint
from featurecache.prompts import load_prompts
from featurecache.provenance.provenance import Provenance, read_provenance
from featurecache.runs.folder import read_config, read_metrics
from featurecache.runs.weights import read_weights

if TYPE_CHECKING:
    from torch import nn

    from featurecache.encoders.encoder import Encoder

WEIGHTS = "head.safetensors"


@dataclass(frozen=True, eq=False, repr=False)
class FinetunedModel(TrainedModel):
    """A fine-tuned encoder that predicts the labels it was trained on.

    Attributes:
        folder: The run folder, which holds the encoder.
        encoder: The encoder.
        head: Head on the image embedding; None where captions are scored.
        config: Settings of the fine-tuning.
        labels: The C labels.
        thresholds: Their thresholds, chosen on validation; 0.5 where none could be.
        thresholds_chosen: Whether each was chosen, and is not the default.
        operating_point: The rule by which they were chosen.
        learned: Whether training had positives and negatives of each label.
        calibration: Platt scaling fitted on validation; None without a validation split.
        limits: Limits of the answers present, absent and unsure; None without any.
        provenance: The images that it was trained on.
        bit_depth: See ``TrainedModel``.
        learning_caveats: What a reader of any evaluation has to know about its training images.
    """

    folder: Path
    encoder: "Encoder"
    head: "nn.Module | None"
    config: FinetuneConfig
    labels: tuple[str, ...]
    thresholds: tuple[float, ...]
    thresholds_chosen: tuple[bool, ...]
    operating_point: OperatingPoint
    learned: tuple[bool, ...]
    calibration: PlattScaling | None
    limits: ConformalLimits | None
    provenance: Provenance
    learning_caveats: tuple[str, ...]
    bit_depth: int | None

    def probabilities(self, embedding: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return probabilities of shape (N, C) for image embeddings of shape (N, D)."""
        import torch

        if self.head is not None:
            with torch.inference_mode():
                logits = self.head(torch.from_numpy(embedding.astype(np.float32))).double().numpy()
            probability: NDArray[np.float64] = 1 / (1 + np.exp(-logits))
            return probability
        texts = self.encoder.encode_texts(label_captions(self.labels, self.config))
        return caption_scores(embedding, texts, self.encoder.scale).probabilities

    def encoder_specs(self) -> list[Mapping[str, Any]]:
        """Return the image spec of the encoder."""
        return [self.encoder.image_spec]

    def match_execution(self, specs: Sequence[Mapping[str, Any]]) -> "FinetunedModel":
        """Return the model with its encoder executed as in a cache made by it."""
        execution = Execution.of_spec(specs[0])
        if execution == self.encoder.execution:
            return self
        encoder = load_encoder(
            str(self.folder),
            device=self.encoder.device,
            backend=execution.backend,
            precision=execution.precision,
        )
        return replace(self, encoder=encoder)

    def load_encoders(
        self,
        *,
        models: Sequence[str] | None = None,
        weights: Sequence[str | os.PathLike[str]] | None = None,
        device: str = "auto",
    ) -> "list[Encoder]":
        """Return the encoder of the run itself.

        Raises:
            UsageError: Another encoder is asked for.
        """
        if models or weights:
            raise UsageError(
                f"{self.folder} holds its own encoder: leave out `models` and `weights`"
            )
        if device == "auto":
            return [self.encoder]
        return [
            load_encoder(
                str(self.folder),
                device=device,
                backend=self.encoder.backend,
                precision=self.encoder.precision,
            )
        ]

    def save(self, folder: Path) -> None:
        """Copy the encoder and the head of the run folder.

        Raises:
            OSError: A file cannot be copied.
        """
        import shutil

        shutil.copytree(self.folder / "encoder", folder / "encoder")
        if self.head is not None:
            shutil.copyfile(self.folder / WEIGHTS, folder / WEIGHTS)


def load_model(folder: Path) -> FinetunedModel:
    """Load the model of a run folder that ``finetune`` wrote, in the precision of its training.

    Raises:
        RunError: The folder or a file in it is missing, damaged, of another kind or of a newer
            version.
        CheckpointError: The encoder in it is damaged.
    """
    config = read_config(folder, KIND)
    try:
        settings = FinetuneConfig(**config["settings"])
        labels = tuple(config["labels"])
        head = None
        if settings.objective == "bce":
            dim = int(config["dim"])
            state = read_weights(folder, WEIGHTS, sizes=[dim, len(labels)])
            head = build_head(settings.head, dim, len(labels))
            head.load_state_dict(state)
            head.eval()
        thresholds = tuple(float(config["thresholds"][name]) for name in labels)
        operating_point = OperatingPoint.parse(config["operating_point"])
        metrics = read_metrics(folder)
        thresholds_chosen = tuple(metrics.per_label[name].threshold_chosen for name in labels)
        learned = tuple(metrics.per_label[name].learned for name in labels)
        calibration = read_calibration(metrics, labels)
        limits = read_answers(metrics.answers, labels)
        caveats = tuple(config["learning_caveats"])
    except RunError:
        raise
    # ValueError: also a UsageError, for a head or setting that this version does not have.
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise RunError(
            f"run folder {folder} contradicts itself ({error}): restore it, or train again"
        ) from error
    return FinetunedModel(
        folder=folder,
        encoder=load_encoder(str(folder), precision=settings.precision),
        head=head,
        config=settings,
        labels=labels,
        thresholds=thresholds,
        thresholds_chosen=thresholds_chosen,
        operating_point=operating_point,
        learned=learned,
        calibration=calibration,
        limits=limits,
        provenance=read_provenance(folder),
        bit_depth=config.get("bit_depth"),
        learning_caveats=caveats,
    )


def label_captions(names: Sequence[str], config: FinetuneConfig) -> list[str]:
    """Return the captions that state each label, then those that state its absence."""
    positive, negative = scored_captions(names, load_prompts(config.prompts))
    return positive + negative


def caption_scores(
    images: NDArray[np.floating], texts: NDArray[np.float32], scale: float | None
) -> ZeroShotScores:
    """Score each label's caption against its absence.

    Args:
        images: Image embeddings of shape (N, D).
        texts: Caption embeddings of shape (2C, D), as ``label_captions`` orders them.
        scale: exp(logit_scale) of the model; None for 1.

    Returns:
        Scores of shape (N, C).
    """
    positive, negative = np.split(texts, 2)
    return pair_scores(images, positive, negative, scale=1.0 if scale is None else scale)
