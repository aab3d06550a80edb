"""The names in a cache file, and what a description must hold."""

import re
from pathlib import Path

FORMAT = "featurecache"
CHUNK_FORMAT = "featurecache-part"
VERSION = 2
"""Version 1 had no checksums, and text of variable length in its attributes."""

UNKNOWN = -1
"""The value of a label that nobody has stated."""

CHUNK_ROWS = 512
"""Rows a chunk of a part, and rows a part: a read of one part is a read of one chunk. Rows to a
checksum, too."""

EMBEDDING = "/images/embedding"
"""Where the embeddings lie in a cache."""


def safe_name(name: str) -> str:
    """A data set's or model's name as a file name: ``hf:org/model`` becomes ``hf--org--model``.

    Letters of every script stay: two data sets must not fall together in one file.
    """
    return re.sub(r"[^\w.@-]+", "--", name).strip(".-") or "unnamed"


def cache_path(cache: Path, dataset: str, model: str) -> Path:
    """Where the cache of a data set and a model lies: ``cache/<dataset>/<model>.h5``."""
    return cache / safe_name(dataset) / f"{safe_name(model)}.h5"


def chunks_path(cache_file: Path) -> Path:
    """The folder of parts beside a cache that is being made: ``<model>.h5.parts``."""
    return cache_file.with_name(cache_file.name + ".parts")


def alignment_path(cache_file: Path, prompts: str, method: str) -> Path:
    """Beside a cache, its alignment: ``<model>.<prompts>-<method>.alignment.safetensors``."""
    return cache_file.with_name(f"{cache_file.stem}.{prompts}-{method}.alignment.safetensors")


def lock_path(cache_file: Path) -> Path:
    """The lock file beside a cache: ``<model>.h5.lock``."""
    return cache_file.with_name(cache_file.name + ".lock")
