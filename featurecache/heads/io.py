"""Make a run of a trained head, and load its model from the run folder."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featurecache.encoders.loading import reload_encoder
from featurecache.errors import RunError, UsageError
from featurecache.evaluation.from_cache import cache_reference, predictions_from, run_name
from featurecache.evaluation.trained_model import TrainedModel, read_calibration
from featurecache.heads.config import HeadConfig
from featurecache.heads.experiment import Experiment
from featurecache.heads.registry import head_spec
from featurecache.heads.text_features import LabelTexts
from featurecache.heads.training import predict_probabilities
from featurecache.heads.types import TrainedHead
from featurecache.metrics.calibration import PlattScaling
from featurecache.provenance import Provenance, read_provenance
from featurecache.runs.folder import read_config, read_metrics
from featurecache.runs.run import Run
from featurecache.runs.weights import read_weights
from featurecache.store.cache import Cache

if TYPE_CHECKING:
    from featurecache.encoders.encoder import Encoder
    from featurecache.heads.head import Head

KIND = "head"
WEIGHTS = "head.safetensors"


@dataclass(frozen=True)
class EncoderReference:
    """An encoder whose embeddings a head takes.

    Attributes:
        name: Its name.
        spec: Its image spec.
        dim: Length of its embeddings.
    """

    name: str
    spec: Mapping[str, Any]
    dim: int


@dataclass(frozen=True, eq=False)
class HeadModel(TrainedModel):
    """A trained head on the embeddings of one or several encoders.

    Attributes:
        module: The head in evaluation mode: embeddings (B, D) to logits (B, C).
        config: Settings of its training.
        labels: The C labels.
        thresholds: Their thresholds, chosen on validation; 0.5 where none could be.
        encoders: The encoders whose embeddings it takes, concatenated.
        calibration: Platt scaling fitted on validation; None without a validation split.
        provenance: The images that it was trained on.
        source: The run folder or name, for messages.
    """

    module: "Head"
    config: HeadConfig
    labels: tuple[str, ...]
    thresholds: tuple[float, ...]
    encoders: tuple[EncoderReference, ...]
    calibration: PlattScaling | None
    provenance: Provenance
    source: str

    def probabilities(self, embedding: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return probabilities of shape (N, C) for embeddings of shape (N, D)."""
        return predict_probabilities(self.module, embedding)

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
                    f"{self.source} takes {number} encoder{'s' if number > 1 else ''}, but "
                    f"`{argument}` names {len(given)}: give one for each, in their order"
                )
        return [
            reload_encoder(
                encoder.name,
                encoder.spec,
                made_by=self.source,
                model=model,
                weights=path,
                device=device,
            )
            for encoder, model, path in zip(
                self.encoders, models or repeat(None), weights or repeat(None), strict=False
            )
        ]

    def save(self, folder: Path) -> None:
        """Write ``head.safetensors``."""
        from safetensors.torch import save_file

        state = {name: tensor.contiguous() for name, tensor in self.module.state_dict().items()}
        save_file(state, folder / WEIGHTS, metadata={"format": "pt"})


def run_of_head(cache: Cache, experiment: Experiment, *, seeds: int) -> Run:
    """Return the run of a trained head."""
    head, text, metrics = experiment.head, experiment.text, experiment.metrics
    thresholds = {name: metrics.per_label[name].threshold for name in cache.labels.names}
    provenance = cache.training_provenance(head.train_rows)
    reference = cache_reference(cache)
    model = HeadModel(
        module=head.module.eval(),
        config=head.config,
        labels=cache.labels.names,
        thresholds=tuple(thresholds.values()),
        encoders=_encoder_references(reference),
        calibration=read_calibration(metrics),
        provenance=provenance,
        source=run_name(cache, head.config.head),
    )
    return Run(
        kind=KIND,
        config={
            "settings": asdict(head.config),
            "seeds": seeds,
            "labels": list(cache.labels.names),
            "thresholds": thresholds,
            "cache": reference,
            "prompts": None
            if text is None
            else {"name": text.name, "fingerprint": text.fingerprint},
            "best_epoch": head.best_epoch,
            "chosen": head.chosen,
            "n_train": len(head.train_rows),
        },
        metrics=metrics,
        scored=predictions_from(cache, experiment.probability),
        default_name=run_name(cache, head.config.head),
        history=_history(cache, head),
        provenance=provenance,
        load_model=lambda: model,
    )


def _history(cache: Cache, head: TrainedHead) -> list[dict[str, Any]]:
    """Return the lines of ``history.csv``; with several members, each names its encoder."""
    if not head.members:
        return [asdict(line) for line in head.history]
    return [
        {"model": cache_member.header.model, **asdict(line)}
        for cache_member, member in zip(cache.members, head.members, strict=True)
        for line in member.history
    ]


def _encoder_references(reference: Mapping[str, Any]) -> tuple[EncoderReference, ...]:
    return tuple(
        EncoderReference(str(one["model"]), dict(one["spec"]), int(one["dim"]))
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
        stored = config["settings"]
        settings = HeadConfig(**{**stored, "hidden": stored["hidden"] and tuple(stored["hidden"])})
        labels = tuple(config["labels"])
        encoders = _encoder_references(config["cache"])
        dims = [encoder.dim for encoder in encoders]
        sizes = dims if settings.fusion == "late" else [sum(dims)]
        state = read_weights(folder, WEIGHTS, sizes=[*sizes, len(labels), *(settings.hidden or ())])
        module = _untrained_head(settings, dims, len(labels))
        module.resize_buffers_for(state)
        module.load_state_dict(state)
        thresholds = tuple(float(config["thresholds"][name]) for name in labels)
    except RunError:
        raise
    # UsageError: a head or a setting that this version does not know.
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, UsageError) as error:
        raise RunError(
            f"run folder {folder} contradicts itself ({error}): restore it, or train the head again"
        ) from error
    return HeadModel(
        module=module.eval(),
        config=settings,
        labels=labels,
        thresholds=thresholds,
        encoders=encoders,
        calibration=read_calibration(read_metrics(folder)),
        provenance=read_provenance(folder),
        source=str(folder),
    )


def _untrained_head(settings: HeadConfig, dims: Sequence[int], labels: int) -> "Head":
    """Return a head for a state to be loaded into."""
    from featurecache.heads.models.ensemble import LogitEnsemble

    if settings.fusion == "late" and len(dims) > 1:
        return LogitEnsemble([_untrained_head(settings, [dim], labels) for dim in dims], dims)
    spec, dim = head_spec(settings.head), sum(dims)
    # The state holds what the texts became, so any will do.
    zeros = np.zeros((labels, dim), dtype=np.float32)
    return spec.build(dim, labels, LabelTexts(zeros) if spec.uses_text else None, settings)
