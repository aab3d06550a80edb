"""The state of an unfinished fine-tuning on a disk that is full."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from featurecache.finetune.checkpoint import Checkpoint

resource = pytest.importorskip("resource")


@contextmanager
def longest_file(size: int) -> Iterator[None]:
    """Files that this process writes may have so many bytes, which stands for a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# At the head of the archive, within a tensor, and among its last bytes.
@pytest.mark.parametrize("size", [0, 100, 1000, 10_000, 81_000])
def test_a_full_disk_is_told_as_such_and_leaves_the_last_state(tmp_path: Path, size: int) -> None:
    checkpoint = Checkpoint(tmp_path / "run", {})
    checkpoint.save({"step": 1})
    state = {"weight": torch.zeros(20_000), "step": 2}
    with longest_file(size), pytest.raises(OSError, match="too large") as told:
        checkpoint.save(state)
    assert told.value.errno == errno.EFBIG
    assert told.value.filename == str(tmp_path / "run.parts/last.pt")
    assert checkpoint.load() == {"step": 1}
    assert sorted(path.name for path in checkpoint.folder.iterdir()) == ["last.pt", "settings.json"]
    checkpoint.save(state)
    assert checkpoint.load()["step"] == 2
