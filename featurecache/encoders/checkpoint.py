"""A checkpoint on disk: which files it has, their hashes, its configuration."""

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
_TOKENIZER_FILES = (
    *VOCABULARY_FILES,
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
)
# What config.json says about its own making, not about the network.
_HOUSEKEEPING = frozenset({"_name_or_path", "dtype", "torch_dtype", "transformers_version"})


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
    """The folder of a checkpoint and its weight files: several when sharded.

    None when it was opened for its architecture alone; what needs weights then refuses it.
    """

    folder: Path
    weights: tuple[Path, ...]

    @property
    def revision(self) -> str | None:
        """The commit of the hub's repository that the folder is of; None for any other folder."""
        return self.folder.name if self.folder.parent.name == "snapshots" else None

    @property
    def weight_hashes(self) -> list[str]:
        """The sha256 of each weight file's bytes, sorted; each file is read once a process.

        Raises:
            CheckpointError: there are no weights.
        """
        self.require_weights()
        return sorted(_hash(path) for path in self.weights)

    def config(self, name: str = "config.json") -> dict[str, Any]:
        """The JSON of a configuration file, without what it says about its own making.

        Raises:
            CheckpointError: the file cannot be read as a JSON object.
        """
        return _without_housekeeping(read_json(self.folder / name))

    def scalar(self, key: str) -> float | None:
        """A one-element tensor of the weights, read alone; None when there is no such key.

        Raises:
            CheckpointError: there are no weights, or a file of them cannot be read.
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
        """Refuse a checkpoint that was opened for its architecture alone.

        Raises:
            CheckpointError: there are no weights.
        """
        if not self.weights:
            raise CheckpointError(
                f"{self.folder} was opened for its architecture alone: train it from fresh "
                "weights, or load a checkpoint that has weights"
            )


def open_checkpoint(folder: Path, layout: Layout) -> Checkpoint:
    """Take stock of a checkpoint folder without reading its weights.

    Raises:
        CheckpointError: the folder is missing, or lacks its configuration or its weights.
    """
    _require_config(folder, layout)
    for name in layout.weights:
        if (folder / name).is_file():
            return Checkpoint(folder, (folder / name,))
        if (index := folder / f"{name}.index.json").is_file():
            return Checkpoint(folder, _shards(index))
    raise CheckpointError(f"{folder} has no weights: expected {' or '.join(layout.weights)}")


def open_architecture(folder: Path) -> Checkpoint:
    """Take stock of a folder in transformers' layout for its architecture: no weights are used.

    Raises:
        CheckpointError: the folder is missing, or lacks its configuration.
    """
    _require_config(folder, TRANSFORMERS)
    return Checkpoint(folder, ())


def tokenizer_files(folder: Path) -> tuple[Path, ...]:
    """The tokenizer's files in a folder.

    Raises:
        CheckpointError: the folder has no vocabulary.
    """
    require_vocabulary(folder)
    return tuple(folder / name for name in _TOKENIZER_FILES if (folder / name).is_file())


def tokenizer_hashes(folder: Path) -> dict[str, str]:
    """The sha256 of each tokenizer file in a folder, by file name.

    Raises:
        CheckpointError: the folder has no vocabulary.
    """
    return {path.name: _hash(path) for path in tokenizer_files(folder)}


def has_vocabulary(folder: Path) -> bool:
    """Whether a folder holds the vocabulary of a tokenizer."""
    return any((folder / name).is_file() for name in VOCABULARY_FILES)


def require_vocabulary(folder: Path) -> None:
    """Refuse a folder without the vocabulary of a tokenizer.

    Raises:
        CheckpointError: it has none.
    """
    if not has_vocabulary(folder):
        raise CheckpointError(
            f"{folder} has no tokenizer: fetch its {', '.join(VOCABULARY_FILES)}, "
            "whichever are published"
        )


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a checkpoint's file.

    Raises:
        CheckpointError: the file cannot be read as a JSON object.
    """
    try:
        content = strict_json.read(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no JSON object: fetch the checkpoint again")
    return content


def read_tensors(path: Path) -> "Mapping[str, torch.Tensor]":
    """The tensors of a weight file, safetensors or pickled.

    Raises:
        CheckpointError: the file is damaged, or holds other objects than tensors.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if path.suffix != ".safetensors":
        return read_pickled_tensors(path)
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def read_pickled_tensors(path: Path) -> "Mapping[str, torch.Tensor]":
    """The tensors of a ``torch.save`` file; anything else inside is refused, not run.

    Raises:
        CheckpointError: the file is damaged, or holds other objects than tensors.
    """
    import torch

    try:
        # Only files in the zip format of torch 1.6 and later can be memory-mapped.
        state = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than tensors, or is damaged, and was not loaded: "
            "take the weights from their publisher"
        ) from error
    except (OSError, RuntimeError, EOFError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not isinstance(state, Mapping):
        raise CheckpointError(f"{path} holds a {type(state).__name__}, not a state dict")
    return state


def check_keys(path: Path, *, missing: set[str], unexpected: set[str]) -> None:
    """Refuse weights that do not cover their network exactly.

    Raises:
        CheckpointError: a key is missing or unexpected; the first three of each are named.
    """
    if not missing and not unexpected:
        return
    parts = [
        f"{len(keys)} {kind} ({', '.join(sorted(keys)[:3])}{', ...' if len(keys) > 3 else ''})"
        for kind, keys in (("missing", missing), ("unexpected", unexpected))
        if keys
    ]
    raise CheckpointError(
        f"the weights in {path} do not fit their network: {' and '.join(parts)} keys; "
        "check that config and weights belong together"
    )


def _require_config(folder: Path, layout: Layout) -> None:
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder: give the folder of a checkpoint")
    if layout.config is not None and not (folder / layout.config).is_file():
        raise CheckpointError(f"{folder} has no {layout.config}: give a whole checkpoint folder")


def _shards(index: Path) -> tuple[Path, ...]:
    listed = read_json(index).get("weight_map", {})
    if not isinstance(listed, dict) or not all(_is_name(name) for name in listed.values()):
        raise CheckpointError(
            f"{index} names a file that is not beside it: take the weights from their publisher"
        )
    names = sorted(set(listed.values()))
    shards = tuple(index.parent / name for name in names)
    lacking = [path.name for path in shards if not path.is_file()]
    if lacking or not shards:
        raise CheckpointError(
            f"{index.parent} lacks {', '.join(lacking) or 'its shards'}, which {index.name} "
            "should list: fetch the checkpoint again"
        )
    return shards


def _is_name(name: object) -> bool:
    return isinstance(name, str) and Path(name).name == name


def _hash(path: Path) -> str:
    found = path.stat()
    return _hash_once(path, found.st_size, found.st_mtime_ns)


@cache
def _hash_once(path: Path, size: int, mtime_ns: int) -> str:
    # Size and time are in the key so that a file replaced while the process lives is read anew.
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


def _without_housekeeping(config: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _without_housekeeping(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if key not in _HOUSEKEEPING
    }
