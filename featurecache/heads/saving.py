"""Save a trained head as a run folder, and read it back."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featurecache.encoders.provenance import PROVENANCE_FILE
from featurecache.errors import RunError, UsageError
from featurecache.heads.config import HeadConfig
from featurecache.heads.experiment import Experiment
from featurecache.heads.registry import head_spec
from featurecache.heads.text import LabelTexts
from featurecache.runs import (
    new_run,
    read_config,
    write_config,
    write_history,
    write_json,
    write_predictions,
)
from featurecache.scoring.cached import cache_reference, learned_from, predicted_rows
from featurecache.store.reader import Cache

if TYPE_CHECKING:
    from featurecache.heads.head import Head

KIND = "head"
WEIGHTS = "head.safetensors"


@dataclass(frozen=True)
class SavedHead:
    """A head read from its run folder.

    Attributes:
        path: the folder.
        module: the head, in evaluation mode: (B, D) embeddings to (B, C) logits.
        config: its settings.
        labels: the C labels.
        thresholds: (C,) as chosen on validation, 0.5 where they could not be.
        model: name of the encoder it belongs to.
        description: of that encoder's image side.
        dim: length of the embeddings it takes.
    """

    path: Path
    module: "Head"
    config: HeadConfig
    labels: tuple[str, ...]
    thresholds: tuple[float, ...]
    model: str
    description: Mapping[str, Any]
    dim: int


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
        write_predictions(folder, **predicted_rows(cache, experiment.probability))
        write_json(folder / PROVENANCE_FILE, learned_from(cache, head.train_rows).to_json())
        if head.history:
            write_history(folder, [asdict(line) for line in head.history])
        save_file(state, folder / WEIGHTS, metadata={"format": "pt"})


def read_head(folder: Path) -> SavedHead:
    """Read a run folder that ``save_head`` wrote.

    Raises:
        RunError: the folder or a file in it is missing, damaged, of another kind or newer.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    config = read_config(folder, KIND, files=[WEIGHTS])
    try:
        state = load_file(folder / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise RunError(
            f"{folder / WEIGHTS} is damaged ({error}): restore it, or train the head again"
        ) from error
    try:
        stored = config["settings"]
        settings = HeadConfig(**{**stored, "hidden": stored["hidden"] and tuple(stored["hidden"])})
        labels = tuple(config["labels"])
        dim = int(config["cache"]["dim"])
        spec = head_spec(settings.head)
        # What the texts came to is in the state, so any will do.
        blank = np.zeros((len(labels), dim), dtype=np.float32)
        texts = LabelTexts(blank) if spec.uses_text else None
        module = spec.build(dim, len(labels), texts, settings)
        module.make_room(state)
        module.load_state_dict(state)
        return SavedHead(
            path=folder,
            module=module.eval(),
            config=settings,
            labels=labels,
            thresholds=tuple(float(config["thresholds"][name]) for name in labels),
            model=str(config["cache"]["model"]),
            description=dict(config["cache"]["spec"]),
            dim=dim,
        )
    # UsageError: a head or a setting that this featurecache does not know.
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, UsageError) as error:
        raise RunError(
            f"run folder {folder} contradicts itself ({error}): restore it, or train the head again"
        ) from error
