"""Save a trained head as a run folder, and read it back."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.errors import RunError, UsageError
from featurecache.evaluation.from_cache import cache_reference, predictions_of
from featurecache.heads.config import HeadConfig
from featurecache.heads.experiment import Experiment
from featurecache.heads.registry import head_spec
from featurecache.heads.text_features import LabelTexts
from featurecache.heads.types import TrainedHead
from featurecache.provenance import PROVENANCE_FILE
from featurecache.runs.folder import (
    new_run,
    read_config,
    write_config,
    write_history,
    write_json,
    write_predictions,
)
from featurecache.runs.weights import read_weights
from featurecache.store.cache import Cache

if TYPE_CHECKING:
    from featurecache.heads.head import Head

KIND = "head"
WEIGHTS = "head.safetensors"


@dataclass(frozen=True)
class HeadEncoder:
    """An encoder whose embeddings a head takes.

    Attributes:
        model: its name.
        description: of its image side.
        dim: length of its embeddings.
    """

    model: str
    description: Mapping[str, Any]
    dim: int


@dataclass(frozen=True)
class SavedHead:
    """A head read from its run folder.

    Attributes:
        path: the folder.
        module: the head, in evaluation mode: (B, D) embeddings to (B, C) logits.
        config: its settings.
        labels: the C labels.
        thresholds: (C,) as chosen on validation, 0.5 where they could not be.
        encoders: those it belongs to: one, or several whose embeddings it takes side by side.
    """

    path: Path
    module: "Head"
    config: HeadConfig
    labels: tuple[str, ...]
    thresholds: tuple[float, ...]
    encoders: tuple[HeadEncoder, ...]


def save_head(target: Path, cache: Cache, experiment: Experiment, *, seeds: int) -> None:
    """Write a head's run folder, whole or not at all.

    Raises:
        UsageError: something is at ``target`` already.
        OSError: the disk is full or not writable.
    """
    from safetensors.torch import save_file

    head, text = experiment.head, experiment.text
    per_label = experiment.metrics["per_label"]
    settings = {
        "settings": asdict(head.config),
        "seeds": seeds,
        "labels": list(cache.labels.names),
        "thresholds": {name: per_label[name]["threshold"] for name in cache.labels.names},
        "cache": cache_reference(cache),
        "prompts": None if text is None else {"name": text.name, "fingerprint": text.fingerprint},
        "best_epoch": head.best_epoch,
        "chosen": head.chosen,
        "n_train": len(head.train_rows),
    }
    state = {name: tensor.contiguous() for name, tensor in head.module.state_dict().items()}
    with new_run(target) as folder:
        write_config(folder, KIND, settings)
        write_json(folder / "metrics.json", experiment.metrics)
        write_predictions(folder, **predictions_of(cache, experiment.probability))
        write_json(folder / PROVENANCE_FILE, cache.training_provenance(head.train_rows).to_json())
        if lines := _history(cache, head):
            write_history(folder, lines)
        save_file(state, folder / WEIGHTS, metadata={"format": "pt"})


def _history(cache: Cache, head: TrainedHead) -> list[dict[str, Any]]:
    """The lines of ``history.csv``; those of several members begin with the member's model."""
    if not head.members:
        return [asdict(line) for line in head.history]
    return [
        {"model": one.header.model, **asdict(line)}
        for one, member in zip(cache.members, head.members, strict=True)
        for line in member.history
    ]


def read_head(folder: Path) -> SavedHead:
    """Read a run folder that ``save_head`` wrote.

    Raises:
        RunError: the folder or a file in it is missing, damaged, of another kind or newer.
    """
    config = read_config(folder, KIND, files=[WEIGHTS])
    try:
        stored = config["settings"]
        settings = HeadConfig(**{**stored, "hidden": stored["hidden"] and tuple(stored["hidden"])})
        labels = tuple(config["labels"])
        encoders = tuple(
            HeadEncoder(str(one["model"]), dict(one["spec"]), int(one["dim"]))
            for one in config["cache"].get("joined", [config["cache"]])
        )
        dims = [one.dim for one in encoders]
        if settings.fusion != "late":
            dims = [sum(dims)]
        state = read_weights(folder, WEIGHTS, sizes=[*dims, len(labels), *(settings.hidden or ())])
        module = _blank_head(settings, [one.dim for one in encoders], len(labels))
        module.resize_buffers_for(state)
        module.load_state_dict(state)
        return SavedHead(
            path=folder,
            module=module.eval(),
            config=settings,
            labels=labels,
            thresholds=tuple(float(config["thresholds"][name]) for name in labels),
            encoders=encoders,
        )
    except RunError:
        raise
    # UsageError: a head or a setting that this featurecache does not know.
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, UsageError) as error:
        raise RunError(
            f"run folder {folder} contradicts itself ({error}): restore it, or train the head again"
        ) from error


def _blank_head(settings: HeadConfig, dims: Sequence[int], labels: int) -> "Head":
    """A head for a state to be loaded into."""
    from featurecache.heads.models.ensemble import LogitEnsemble

    if settings.fusion == "late" and len(dims) > 1:
        return LogitEnsemble([_blank_head(settings, [dim], labels) for dim in dims], dims)
    spec, dim = head_spec(settings.head), sum(dims)
    # What the texts came to is in the state, so any will do.
    blank = np.zeros((labels, dim), dtype=np.float32)
    return spec.build(dim, labels, LabelTexts(blank) if spec.uses_text else None, settings)
