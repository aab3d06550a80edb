"""Decide the bit depth of a data set, which its caches keep."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from featurecache.images.bit_depth import bit_depth_note, judge_bit_depth, sample_files
from featurecache.images.gray_range import check_bit_depth
from featurecache.images.subprocess_decoder import IMAGE_TIMEOUT
from featurecache.store.builder import stored_bit_depth
from featurecache.store.chunks import require_same_bit_depth

if TYPE_CHECKING:
    from featurecache.datasets.dataset import Dataset


def with_bit_depth(
    dataset: "Dataset",
    bit_depth: int | None,
    *,
    caches: Sequence[Path] = (),
    image_timeout: float = IMAGE_TIMEOUT,
) -> "Dataset":
    """Return the data set with the bit depth of its images and notes on what was assumed.

    It is the given one or the data set's own; else the one that a cache was made with; else judged
    from a sample of the files, those of all shards. It is None where every file of the sample
    defines the range of its values; other files are then refused.

    Args:
        dataset: The data set.
        bit_depth: Number of bits in use, 8 to 16.
        caches: Caches that are going to be filled, whether they exist or not.
        image_timeout: Maximum time to read one image, in seconds.

    Raises:
        UsageError: ``bit_depth`` is out of range.
        CacheError: A cache was made with another bit depth.
    """
    check_bit_depth(bit_depth)
    bit_depth = bit_depth or dataset.bit_depth
    for path in caches:
        stored = stored_bit_depth(path)
        bit_depth = bit_depth or stored
        require_same_bit_depth(path, stored, bit_depth)
    sample = sample_files([dataset.root / path for path in dataset.images["path"]])
    if bit_depth is None:
        bit_depth = judge_bit_depth(sample, timeout=image_timeout)
    notes = sample.notes()
    if bit_depth is not None:
        notes.append(bit_depth_note(bit_depth))
    return dataset.with_bit_depth(bit_depth, notes)
