"""The trained model of a head: its weights in a run folder, and its predictions."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featurecache.encoders.loading import reload_encoder
from featurecache.errors import RunError, UsageError
from featurecache.evaluation.trained_model import TrainedModel
from featurecache.heads.config import HeadConfig
from featurecache.heads.fit import predict_members, predict_probabilities
from featurecache.heads.models.attentive import Attentive
from featurecache.heads.models.ensemble import LogitEnsemble, SeedEnsemble
from featurecache.heads.registry import head_spec
from featurecache.heads.text_features import LabelTexts
from featurecache.heads.types import Head
from featurecache.metrics.conformal import ConformalLimits, read_answers
from featurecache.metrics.familiarity import MIN_IMAGES, Familiarity
from featurecache.metrics.platt_scaling import PlattScaling, read_calibration
from featurecache.metrics.thresholds import OperatingPoint
from featurecache.provenance.provenance import Provenance, read_provenance
from featurecache.runs.folder import read_config, read_metrics
from featurecache.runs.weights import read_weights
from featurecache.units import Units
from featurecache.wording import count_noun

if TYPE_CHECKING:
    from torch import Tensor

    from featurecache.encoders.encoder import Encoder

KIND = "head"
WEIGHTS = "head.safetensors"
_REFERENCE = "familiarity.reference"
"""The embeddings of the training images that ``Familiarity`` compares images with."""


@dataclass(frozen=True)
class EncoderReference:
    """An encoder whose embeddings a head takes.

    Attributes:
        name: Its name.
        spec: Its image spec.
        dim: Length of its embeddings, or of each token.
    """

    name: str
    spec: Mapping[str, Any]
    dim: int


@dataclass(frozen=True, eq=False, repr=False)
class HeadModel(TrainedModel):
    """A trained head on the embeddings of one or several encoders.

    Attributes:
        module: The head in evaluation mode: embeddings (B, D) to logits (B, C).
        config: Settings of its training.
        labels: The C labels.
        thresholds: Their thresholds, chosen on validation; 0.5 where none could be.
        thresholds_chosen: Whether each was chosen, and is not the default.
        operating_point: The rule by which they were chosen.
        encoders: The encoders whose embeddings it takes, concatenated.
        learned: Whether training had positives and negatives of each label.
        calibration: Platt scaling fitted on validation; None without a validation split.
        limits: Limits of the answers present, absent and unsure; None without any.
        provenance: The images that it was trained on.
        source: The run folder or name, for messages.
        bit_depth: See ``TrainedModel``.
        learning_caveats: What a reader of any evaluation has to know about its training images.
        units: What it was trained and scored on: images or studies.
        familiarity: Compares images with a sample of the training images; None without one.
    """

    module: Head
    config: HeadConfig
    labels: tuple[str, ...]
    thresholds: tuple[float, ...]
    thresholds_chosen: tuple[bool, ...]
    operating_point: OperatingPoint
    encoders: tuple[EncoderReference, ...]
    learned: tuple[bool, ...]
    calibration: PlattScaling | None
    limits: ConformalLimits | None
    provenance: Provenance
    source: str
    bit_depth: int | None
    learning_caveats: tuple[str, ...]
    units: Units
    familiarity: Familiarity | None

    def probabilities(self, embedding: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return probabilities of shape (N, C) for embeddings of shape (N, D), or tokens."""
        return predict_probabilities(self.module, embedding)

    def member_probabilities(self, embedding: NDArray[np.floating]) -> NDArray[np.float64]:
        """See ``TrainedModel.member_probabilities``."""
        if not isinstance(self.module, SeedEnsemble):
            return super().member_probabilities(embedding)
        return predict_members(self.module, embedding)

    @property
    def n_members(self) -> int:
        """Number of members of an ensemble; 0 for a single head."""
        return len(self.module.members) if isinstance(self.module, SeedEnsemble) else 0

    def attention(self, embedding: NDArray[np.floating]) -> NDArray[np.float32]:
        """See ``TrainedModel.attention``."""
        import torch

        if not isinstance(self.module, Attentive | SeedEnsemble):
            return super().attention(embedding)
        with torch.inference_mode():
            given = torch.from_numpy(np.asarray(embedding, dtype=np.float32))
            attention = self.module.attention(given)
        if attention is None:
            return super().attention(embedding)
        weights: NDArray[np.float32] = attention.numpy()
        return weights

    def encoder_specs(self) -> list[Mapping[str, Any]]:
        """Return the spec of each encoder whose embeddings it takes, in order."""
        return [encoder.spec for encoder in self.encoders]

    def load_encoders(
        self,
        *,
        models: Sequence[str] | None = None,
        weights: Sequence[str | os.PathLike[str]] | None = None,
        device: str = "auto",
    ) -> "list[Encoder]":
        """Load the encoders of the head.

        Raises:
            UsageError: ``models`` or ``weights`` do not name one for each encoder.
            RunError: An encoder is not the one that the head was trained with.
        """
        number = len(self.encoders)
        for argument, given in (("models", models), ("weights", weights)):
            if given and len(given) != number:
                raise UsageError(
                    f"{self.source} takes {count_noun(number, 'encoder')}, but "
                    f"`{argument}` names {len(given)}: give one for each, in their order"
                )
        return [
            reload_encoder(
                encoder.name,
                encoder.spec,
                source=self.source,
                argument="models",
                model=model,
                weights=path,
                device=device,
            )
            for encoder, model, path in zip(
                self.encoders, models or repeat(None), weights or repeat(None), strict=False
            )
        ]

    def save(self, folder: Path) -> None:
        """Write the weights, ``head.safetensors``, into a run folder."""
        import torch
        from safetensors.torch import save_file

        state = {name: tensor.contiguous() for name, tensor in self.module.state_dict().items()}
        if self.familiarity is not None:
            state[_REFERENCE] = torch.from_numpy(self.familiarity.reference)
        save_file(state, folder / WEIGHTS, metadata={"format": "pt"})


def encoder_references(reference: Mapping[str, Any]) -> tuple[EncoderReference, ...]:
    """Return the encoders of the cache that a run's config records.

    Args:
        reference: The entry ``cache`` of the config.
    """
    return tuple(
        EncoderReference(
            str(one["model"]), dict(one["spec"]), int(one["dim"]) // one["spec"].get("tokens", 1)
        )
        for one in reference.get("joined", [reference])
    )


def load_model(folder: Path) -> HeadModel:
    """Load the head of a run folder.

    Raises:
        RunError: The folder or a file in it is missing, damaged, of another kind or of a newer
            version.
    """
    config = read_config(folder, KIND, files=[WEIGHTS])
    try:
        settings = HeadConfig(**config["settings"])
        labels = tuple(config["labels"])
        encoders = encoder_references(config["cache"])
        dims = [encoder.dim for encoder in encoders]
        sizes = dims if settings.fusion == "late" else [sum(dims)]
        state = read_weights(folder, WEIGHTS, sizes=[*sizes, len(labels), *(settings.hidden or ())])
        familiarity = _read_familiarity(state, sum(dims))
        n_members = int(config["ensemble"])
        _check_members(state, n_members)
        module = _untrained_head(settings, dims, len(labels), n_members)
        module.resize_buffers_for(state)
        module.load_state_dict(state)
        thresholds = tuple(float(config["thresholds"][name]) for name in labels)
        operating_point = OperatingPoint.parse(config["operating_point"])
        metrics = read_metrics(folder)
        thresholds_chosen = tuple(metrics.per_label[name].threshold_chosen for name in labels)
        learned = tuple(metrics.per_label[name].learned for name in labels)
        calibration = read_calibration(metrics, labels)
        limits = read_answers(metrics.answers, labels)
        caveats = tuple(config["learning_caveats"])
        units = Units().override(**config.get("units", {}))
    except RunError:
        raise
    # ValueError: also a UsageError, for a head or setting that this version does not have.
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise RunError(
            f"run folder {folder} contradicts itself ({error}): restore it, or train the head again"
        ) from error
    return HeadModel(
        module=module.eval(),
        config=settings,
        labels=labels,
        thresholds=thresholds,
        thresholds_chosen=thresholds_chosen,
        operating_point=operating_point,
        encoders=encoders,
        learned=learned,
        calibration=calibration,
        limits=limits,
        familiarity=familiarity,
        provenance=read_provenance(folder),
        bit_depth=config["cache"].get("bit_depth"),
        learning_caveats=caveats,
        source=str(folder),
        units=units,
    )


def _read_familiarity(state: "dict[str, Tensor]", dim: int) -> Familiarity | None:
    """Take the sample of training images out of the tensors of a head.

    Raises:
        ValueError: It has another shape than embeddings, or a row that has no direction.
    """
    reference = state.pop(_REFERENCE, None)
    if reference is None:
        return None
    if reference.ndim != 2 or reference.shape[1] != dim or len(reference) < MIN_IMAGES:
        raise ValueError(f"{_REFERENCE} has shape {tuple(reference.shape)}")
    if not reference.any(dim=1).all():
        raise ValueError(f"{_REFERENCE} has a row of zeros")
    return Familiarity(reference.numpy().astype(np.float16))


def _check_members(state: "Mapping[str, Tensor]", n_members: int) -> None:
    """Check that the members of an ensemble are in its file, before they are built.

    Raises:
        ValueError: They are others, or there are none.
    """
    if n_members == 1:
        return
    stored = {name.split(".")[1] for name in state if name.startswith("members.")}
    if n_members < 1 or len(stored) != n_members:
        raise ValueError(f"an ensemble of {n_members} heads has the weights of {len(stored)}")


def _untrained_head(
    settings: HeadConfig, dims: Sequence[int], labels: int, n_members: int = 1
) -> Head:
    """Return a head, or an ensemble of several seeds, that a state can be loaded into."""
    if n_members > 1:
        return SeedEnsemble([_untrained_head(settings, dims, labels) for _ in range(n_members)])
    if settings.fusion == "late" and len(dims) > 1:
        return LogitEnsemble([_untrained_head(settings, [dim], labels) for dim in dims], dims)
    spec, dim = head_spec(settings.head), sum(dims)
    # The state holds everything computed from the texts, so any texts will do.
    zeros = np.zeros((labels, dim), dtype=np.float32)
    return spec.build(dim, labels, LabelTexts(zeros) if spec.uses_text else None, settings)
