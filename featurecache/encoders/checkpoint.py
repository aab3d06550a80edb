"""A checkpoint on disk: its files, their hashes and its configuration."""

import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurecache.errors import CheckpointError
from featurecache.io import json as strict_json
from featurecache.io.fingerprint import sha256_of_file

if TYPE_CHECKING:
    import torch

VOCABULARY_FILES = (
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "tokenizer.model",
)
TOKENIZER_FILES = (
    *VOCABULARY_FILES,
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
)
# Entries of config.json that describe how it was written, not the network.
_METADATA_KEYS = frozenset({"_name_or_path", "dtype", "torch_dtype", "transformers_version"})


@dataclass(frozen=True)
class Layout:
    """The files of a checkpoint folder: its configuration, and its weights by preference."""

    config: str | None
    weights: tuple[str, ...]


TRANSFORMERS = Layout("config.json", ("model.safetensors", "pytorch_model.bin"))
OPEN_CLIP = Layout(
    "open_clip_config.json", ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
)
MEDCLIP = Layout(None, ("model.safetensors", "pytorch_model.bin"))


@dataclass(frozen=True)
class Checkpoint:
    """The folder of a checkpoint and its weight files: several if sharded.

    There are none if it was opened for its architecture alone.
    """

    folder: Path
    weights: tuple[Path, ...]

    @property
    def revision(self) -> str | None:
        """Commit of the Hugging Face repository, for a folder in the hub's cache; else None."""
        return self.folder.name if self.folder.parent.name == "snapshots" else None

    @property
    def weight_hashes(self) -> list[str]:
        """The sha256 of each weight file, sorted; each file is read once per process.

        Raises:
            CheckpointError: There are no weights.
        """
        self.require_weights()
        return sorted(_hash(path) for path in self.weights)

    def config(self, name: str = "config.json") -> dict[str, Any]:
        """Return the JSON of a configuration file, without entries on how it was written.

        Raises:
            CheckpointError: The file cannot be read as a JSON object.
        """
        return _without_metadata(read_json(self.folder / name))

    def scalar(self, key: str) -> float | None:
        """Read a single one-element tensor of the weights; None if there is no such key.

        Raises:
            CheckpointError: There are no weights, or a file cannot be read.
        """
        self.require_weights()
        for path in self.weights:
            if path.suffix == ".safetensors":
                tensor = _safetensors_entry(path, key)
            else:
                tensor = read_pickled_tensors(path).get(key)
            if tensor is not None:
                return float(tensor)
        return None

    def require_weights(self) -> None:
        """Check that the checkpoint was not opened for its architecture alone.

        Raises:
            CheckpointError: There are no weights.
        """
        if not self.weights:
            raise CheckpointError(
                f"{self.folder} was opened for its architecture alone: train it from random "
                "weights, or load a checkpoint that has weights"
            )


def open_checkpoint(folder: Path, layout: Layout) -> Checkpoint:
    """Find the files of a checkpoint folder without reading its weights.

    Raises:
        CheckpointError: The folder is missing, lacks its configuration or its weights, or would
            load other weights than these.
    """
    _require_config(folder, layout)
    if layout is TRANSFORMERS:
        _require_plain_weights(folder)
    for name in layout.weights:
        if (folder / name).is_file():
            return Checkpoint(folder, (folder / name,))
        if (index := folder / f"{name}.index.json").is_file():
            return Checkpoint(folder, _shards(index))
    raise CheckpointError(f"{folder} has no weights: expected {' or '.join(layout.weights)}")


def open_architecture(folder: Path) -> Checkpoint:
    """Open a folder in transformers' layout for its architecture, without weights.

    Raises:
        CheckpointError: The folder is missing, or lacks its configuration.
    """
    _require_config(folder, TRANSFORMERS)
    return Checkpoint(folder, ())


def tokenizer_files(folder: Path) -> tuple[Path, ...]:
    """Return the files of the tokenizer in a folder.

    Raises:
        CheckpointError: The folder has no vocabulary.
    """
    require_vocabulary(folder)
    return tuple(folder / name for name in TOKENIZER_FILES if (folder / name).is_file())


def tokenizer_hashes(folder: Path) -> dict[str, str]:
    """Return the sha256 of each tokenizer file in a folder, by file name.

    Raises:
        CheckpointError: The folder has no vocabulary.
    """
    return {path.name: _hash(path) for path in tokenizer_files(folder)}


def has_vocabulary(folder: Path) -> bool:
    """Return whether a folder holds the vocabulary of a tokenizer."""
    return any((folder / name).is_file() for name in VOCABULARY_FILES)


def require_vocabulary(folder: Path) -> None:
    """Check that a folder holds the vocabulary of a tokenizer.

    Raises:
        CheckpointError: It does not.
    """
    if not has_vocabulary(folder):
        raise CheckpointError(
            f"{folder} has no tokenizer: add those of {', '.join(VOCABULARY_FILES)} that are "
            "published with it"
        )


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file of a checkpoint.

    Raises:
        CheckpointError: The file cannot be read as a JSON object.
    """
    try:
        content = strict_json.read(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} does not hold a JSON object: download the checkpoint again")
    return content


def read_tensors(path: Path) -> "Mapping[str, torch.Tensor]":
    """Return the tensors of a weight file, safetensors or pickled.

    Raises:
        CheckpointError: The file is damaged, or holds other objects than tensors.
    """
    return read_safetensors(path) if path.suffix == ".safetensors" else read_pickled_tensors(path)


def read_safetensors(path: Path) -> "Mapping[str, torch.Tensor]":
    """Return the tensors of a safetensors file, whatever its suffix is.

    Raises:
        CheckpointError: The file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def read_pickled_tensors(path: Path) -> "Mapping[str, torch.Tensor]":
    """Return the tensors of a ``torch.save`` file; other objects raise and are never run.

    Raises:
        CheckpointError: The file is damaged, or holds other objects than tensors.
    """
    state = unpickle(path, holds="tensors", advice="take the weights from their publisher")
    if not isinstance(state, Mapping):
        raise CheckpointError(f"{path} holds a {type(state).__name__}, not a state dict")
    return state


def unpickle(path: Path, *, holds: str, advice: str) -> Any:
    """Return the content of a ``torch.save`` file; what is not allowed raises and is never run.

    Args:
        path: The file.
        holds: What is allowed, for messages: tensors, and what ``torch.serialization.safe_globals``
            adds.
        advice: What to do about a file that holds more.

    Raises:
        CheckpointError: The file is damaged, or holds more.
    """
    import torch

    try:
        # Only files in the zip format of torch 1.6 and later can be memory-mapped.
        return torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than {holds}, or is damaged, and was not loaded: {advice}"
        ) from error
    except (OSError, RuntimeError, EOFError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def check_keys(path: Path | str, *, missing: set[str], unexpected: set[str]) -> None:
    """Check that weights cover their network exactly.

    Raises:
        CheckpointError: A key is missing or unexpected; the first three of each are named.
    """
    if not missing and not unexpected:
        return
    problems = [
        f"{len(keys)} {kind} ({', '.join(sorted(keys)[:3])}{', ...' if len(keys) > 3 else ''})"
        for kind, keys in (("missing", missing), ("unexpected", unexpected))
        if keys
    ]
    raise CheckpointError(
        f"the weights in {path} do not fit their network: {' and '.join(problems)} keys; "
        "check that config and weights belong together"
    )


def require_no_file(path: Path, layout: Layout = TRANSFORMERS, *, model: str | None = None) -> None:
    """Require that a checkpoint is not given as a single file, such as ``best.pt``.

    Args:
        path: The checkpoint.
        layout: The files that make up a checkpoint.
        model: The model, if ``convert_checkpoint`` can convert its weights; else None.

    Raises:
        CheckpointError: It is; the message says how to make a folder of it.
    """
    if path.is_file() and model is not None:
        raise CheckpointError(
            f"{path} is a single file: convert it with convert_checkpoint(FILE, FOLDER, "
            f"model={model!r}) in Python or 'featurecache models convert', and give the folder"
        )
    if path.is_file():
        raise CheckpointError(
            f"{path} is a single file, and a checkpoint is a folder with {layout.config}, "
            f"{layout.weights[0]}, and the files of its image processor and tokenizer. In Python, "
            "load the file into its network, and write the folder with `save_pretrained` of the "
            "network, the processor and the tokenizer; or copy the last two, and config.json, from "
            "the model that the training started from, and write the weights with "
            "safetensors.torch.save_file. Then give the folder"
        )


def _require_config(folder: Path, layout: Layout) -> None:
    if layout.config is not None:
        require_no_file(folder, layout)
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder: give the folder of a checkpoint")
    if layout.config is not None and not (folder / layout.config).is_file():
        raise CheckpointError(f"{folder} has no {layout.config}: give a complete checkpoint folder")


def _require_plain_weights(folder: Path) -> None:
    """Require that transformers loads the weights that are hashed, and no others.

    It follows ``transformers_weights`` in config.json, and adds an adapter that is in the folder.
    """
    if name := read_json(folder / "config.json").get("transformers_weights"):
        raise CheckpointError(
            f"{folder / 'config.json'} takes the weights from {name!r} (transformers_weights): "
            f"remove this entry, and name that file {TRANSFORMERS.weights[0]}"
        )
    if (folder / "adapter_config.json").is_file():
        raise CheckpointError(
            f"{folder} holds a PEFT adapter (adapter_config.json): merge it into its base model "
            "with `merge_and_unload`, and give the folder that `save_pretrained` writes"
        )


def _shards(index: Path) -> tuple[Path, ...]:
    listed = read_json(index).get("weight_map", {})
    if not isinstance(listed, dict) or not all(_is_name(name) for name in listed.values()):
        raise CheckpointError(
            f"{index} names a file that is not beside it: take the weights from their publisher"
        )
    names = sorted(set(listed.values()))
    shards = tuple(index.parent / name for name in names)
    missing = [path.name for path in shards if not path.is_file()]
    if missing or not shards:
        raise CheckpointError(
            f"{index.parent} lacks {', '.join(missing) or 'its shards'}, which {index.name} "
            "should list: download the checkpoint again"
        )
    return shards


def _is_name(name: object) -> bool:
    return isinstance(name, str) and Path(name).name == name


def _hash(path: Path) -> str:
    status = path.stat()
    return _hash_once(path, status.st_size, status.st_mtime_ns)


@cache
def _hash_once(path: Path, size: int, mtime_ns: int) -> str:
    # Size and time are part of the key, so that a file that is replaced is read again.
    return sha256_of_file(path)


def _safetensors_entry(path: Path, key: str) -> "torch.Tensor | None":
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            if key not in file.keys():  # noqa: SIM118 - the file is not a mapping
                return None
            tensor: torch.Tensor = file.get_tensor(key)
            return tensor
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def _without_metadata(config: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _without_metadata(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if key not in _METADATA_KEYS
    }
