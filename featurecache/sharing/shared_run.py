"""Write the copy of a run folder that may leave this machine."""

import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.datasets.pseudonymize import IdKey
from featurecache.encoders.checkpoint import TOKENIZER_FILES
from featurecache.encoders.pretrained import PROCESSOR_FILES
from featurecache.errors import RunError
from featurecache.io import json as strict_json
from featurecache.provenance.names import key_fingerprint, pseudonymized_collection
from featurecache.provenance.provenance import PROVENANCE_FILE, read_provenance
from featurecache.runs.folder import run_file, write_json
from featurecache.runs.predictions import Predictions, write_predictions
from featurecache.runs.run import decision_rules, load_run
from featurecache.sharing.pseudonyms import pseudonymize_training, without_folders

_FILES: Final = frozenset(
    (
        *("config.json", "metrics.json", "predictions.csv", "history.csv", PROVENANCE_FILE),
        *("head.safetensors", "encoder/config.json", "encoder/model.safetensors.index.json"),
        *(f"encoder/{name}" for name in (*PROCESSOR_FILES, *TOKENIZER_FILES)),
    )
)
"""Files of runs, and of the encoders of fine-tunings. Plots and images are not sent."""

_ENCODER_WEIGHTS: Final = re.compile(r"encoder/model(?:-\d+-of-\d+)?\.safetensors")

_WITH_PATHS: Final = ("config.json", "metrics.json", "encoder/config.json")
"""Files that may name other files of this machine."""

_LOCAL: Final = {"data": None, "weights": None, "teacher": None, "groups": None, "path": ""}
"""What the config of a run says about this machine, and what takes its place."""


def write_shared_run(run: Path, folder: Path, *, key: IdKey | None) -> tuple[str, ...]:
    """Write a run without what identifies images, patients or this machine.

    With a key, predictions are in the order of the pseudonyms, as in a shared cache: their own
    order, often that of the ids, would tell which image is which.

    Args:
        run: The run folder.
        folder: The folder to create.
        key: The key of the pseudonyms; None keeps ids and hashes of files.

    Returns:
        The files in the run folder that were left out, because they are not of the run, or plots.

    Raises:
        RunError: The run is damaged, or a learning curve.
        OSError: The disk is full or not writable.
    """
    loaded = load_run(run)
    folder.mkdir()
    left_out = []
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run).as_posix()
        if path.is_dir():
            continue
        if name not in _FILES and not _ENCODER_WEIGHTS.fullmatch(name):
            left_out.append(name)
            continue
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if name == PROVENANCE_FILE:
            write_json(target, pseudonymize_training(read_provenance(run), key).to_json())
        elif name in _WITH_PATHS:
            document = _read(run, name)
            if name == "config.json":
                document = _without_sources(document, key)
            write_json(target, without_folders(document))
        else:
            shutil.copyfile(run_file(run, name), target)
    if key is not None:
        is_hashed = _is_pseudonymized(loaded.config)
        scored = _pseudonymize(loaded.scored, key, hashed=is_hashed)
        write_predictions(folder, scored, decision_rules(loaded))
    return tuple(left_out)


def _read(run: Path, name: str) -> Any:
    path = run_file(run, name)
    try:
        return strict_json.read(path)
    except ValueError as error:
        raise RunError(f"{path} is damaged: {error}") from error


def _without_sources(value: Any, key: IdKey | None) -> Any:
    """Return a config without the places of data and weights, and with the scheme of its ids."""
    if isinstance(value, list):
        return [_without_sources(entry, key) for entry in value]
    if not isinstance(value, Mapping):
        return value
    shared = {}
    for name, entry in value.items():
        if name == "spec":  # what an encoder is: hashes of weights, and no places
            shared[name] = entry
        elif name in _LOCAL and entry:
            shared[name] = _LOCAL[name]
        else:
            shared[name] = _without_sources(entry, key)
    collection = shared.get("collection")
    if key is not None and isinstance(collection, str) and not key_fingerprint(collection):
        shared["collection"] = pseudonymized_collection(collection, key.fingerprint)
    return shared


def _is_pseudonymized(config: Mapping[str, Any]) -> bool:
    if "cache" in config:
        return bool(key_fingerprint(config["cache"].get("collection", "")))
    source = config.get("arguments", {}).get("data") or {}
    return bool(source.get("pseudonymized"))


def _pseudonymize(scored: Predictions, key: IdKey, *, hashed: bool) -> Predictions:
    scored = replace(scored, sha256=np.full(len(scored.ids), ""))
    if not hashed:
        scored = _hash_ids(scored, key)
    return scored.take(np.argsort(scored.ids, kind="stable"))


def _hash_ids(scored: Predictions, key: IdKey) -> Predictions:
    studies = _map(key.hash_study, scored.studies)
    hash_patient = key.hash if np.array_equal(scored.patients, scored.ids) else key.hash_patient
    return replace(
        scored,
        # At study level, the ids are those of studies.
        ids=np.where(
            (scored.ids == scored.studies) & (scored.ids != ""),
            studies,
            _map(key.hash, scored.ids),
        ),
        patients=_map(hash_patient, scored.patients),
        studies=studies,
    )


def _map(function: Any, texts: NDArray[np.str_]) -> NDArray[np.str_]:
    return np.array([function(text) for text in texts.tolist()], dtype=np.str_)
