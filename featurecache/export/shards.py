"""Folders in which the images of each split are in files of their own."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Final, TypeVar

import numpy as np

from featurecache.export.tables import Block, iter_blocks
from featurecache.progress import Progress
from featurecache.store.cache import Cache

SHARD_ROWS: Final = 65_536
"""Images of a split after which another file begins."""

_File = TypeVar("_File")


def iter_shards(
    cache: Cache,
    open_shard: Callable[[str], AbstractContextManager[_File]],
    progress: Progress | None,
) -> Iterator[tuple[_File, Block]]:
    """Yield blocks of images of one split each, with the open file that they belong in.

    Args:
        cache: The cache.
        open_shard: Opens a file for a name such as "train-00000".
        progress: See ``iter_blocks``.
    """
    written = dict.fromkeys(np.unique(cache.splits).tolist(), 0)
    files: dict[str, tuple[str, _File, ExitStack]] = {}
    with ExitStack() as opened:
        for block in iter_blocks(cache, progress):
            splits = block.table["split"]
            for split in splits.unique():
                name = f"{split}-{written[split] // SHARD_ROWS:05d}"
                if split not in files or files[split][0] != name:
                    if split in files:
                        files[split][2].close()
                    shard = opened.enter_context(ExitStack())
                    files[split] = (name, shard.enter_context(open_shard(name)), shard)
                part = block.select((splits == split).to_numpy())
                yield files[split][1], part
                written[split] += len(part.table)
