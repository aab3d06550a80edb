"""Whether the caches of an extraction fit on the disk."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from featurecache.errors import UsageError
from featurecache.store.layout import chunks_path
from featurecache.wording import format_size

if TYPE_CHECKING:
    from featurecache.encoders.encoder import Encoder
    from featurecache.extraction.pipeline import Job


def embedding_bytes(encoder: "Encoder", n_images: int) -> int:
    """Return the size of an encoder's embeddings of some images in a cache, in bytes."""
    return 2 * getattr(encoder, "dim", 0) * n_images


def require_disk_space(jobs: "Sequence[Job]") -> None:
    """Check that the embeddings that some jobs are going to store fit on the disk.

    All caches grow chunk by chunk. Then each is written as a whole, and its chunks and the file
    that it replaces are removed, before the next one.

    Raises:
        UsageError: They do not fit; the message says how much each takes.
    """
    used = peak = sum(embedding_bytes(job.encoder, len(job.plan.rows)) for job in jobs)
    sizes: dict[Path, int] = {}
    for job in jobs:
        if not len(job.plan.rows):
            continue
        path = job.builder.path
        n_images = int(job.builder.stored.present().sum()) + len(job.plan.rows)
        sizes[path] = embedding_bytes(job.encoder, n_images)
        peak = max(peak, used + sizes[path])
        before = [path, *chunks_path(path).glob("*.h5")]
        freed = embedding_bytes(job.encoder, len(job.plan.rows))
        used += sizes[path] - freed - sum(file.stat().st_size for file in before if file.exists())
    if not sizes:
        return
    folder = next(iter(sizes)).parent
    free = shutil.disk_usage(folder).free
    if peak > free:
        parts = ", ".join(f"{format_size(size)} for {path.name}" for path, size in sizes.items())
        raise UsageError(
            f"{folder} has {format_size(free)} of free space, and this extraction takes up to "
            f"{format_size(peak)} ({parts}; a cache and its chunk files exist side by side until "
            "it is finished): free some, or give another `cache_dir`, fewer `features`, tokens of "
            "a coarser grid, or a `limit`"
        )
