"""File names, format names and constants of cache files and of the files beside them."""

import re
from pathlib import Path

FORMAT = "featurecache"
CHUNK_FORMAT = "featurecache-part"
VERSION = 1
"""Format version of cache files and chunk files."""

CHUNK_ROWS = 512
"""Rows of a full chunk file, and rows per checksum."""

EMBEDDING = "/images/embedding"
"""Path of the embeddings in a cache file."""


def to_file_name(name: str) -> str:
    """Return a data set's or model's name as a file name: ``hf:org/model`` is ``hf--org--model``.

    Letters of every script are kept, so that two names do not end up as the same file.
    """
    return re.sub(r"[^\w.@+-]+", "--", name).strip(".-") or "unnamed"


def cache_path(cache_dir: Path, dataset_name: str, model: str) -> Path:
    """Return the path of a cache: ``<cache_dir>/<dataset_name>/<model>.h5``."""
    return cache_dir / to_file_name(dataset_name) / f"{to_file_name(model)}.h5"


def chunks_path(cache_file: Path) -> Path:
    """Return the folder of chunk files of an unfinished cache: ``<model>.h5.parts``."""
    return cache_file.with_name(cache_file.name + ".parts")


def alignment_path(cache_file: Path, prompts: str, method: str) -> Path:
    """Return the path of an alignment: ``<model>.<prompts>-<method>.alignment.safetensors``."""
    return cache_file.with_name(f"{cache_file.stem}.{prompts}-{method}.alignment.safetensors")


def lock_path(cache_file: Path) -> Path:
    """Return the lock file of a cache: ``<model>.h5.lock``."""
    return cache_file.with_name(cache_file.name + ".lock")
