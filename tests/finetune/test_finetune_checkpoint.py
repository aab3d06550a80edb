"""The state of an unfinished fine-tuning: refused where damaged, never run, kept whole."""

import errno
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from featurecache.errors import RunError
from featurecache.finetune.checkpoint import Checkpoint
from featurecache.finetune.distillation import read_embeddings
from tests.longest_file import longest_file


class Trap:
    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> object:
        return Path.touch, (self.place,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_state_that_holds_code_is_refused_unrun(tmp_path: Path, zipped: bool) -> None:
    checkpoint = Checkpoint(tmp_path / "run", {"seed": 1})
    state = {"epoch": 1, "trap": Trap(tmp_path / "sprung")}
    last = checkpoint.folder / "last.pt"
    torch.save(state, last) if zipped else last.write_bytes(pickle.dumps(state, protocol=2))
    with pytest.raises(RunError, match=r"last\.pt is damaged: delete"):
        checkpoint.load()
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["last.pt", "best.safetensors", "settings.json"])
@pytest.mark.parametrize("kept", [0, 1, 40])
def test_a_file_cut_short_is_refused_by_name(tmp_path: Path, name: str, kept: int) -> None:
    checkpoint = Checkpoint(tmp_path / "run", {"seed": 1, "text": "x" * 50})
    checkpoint.save({"epoch": 1})
    checkpoint.save_best({"weight": torch.ones(3)})
    path = checkpoint.folder / name
    path.write_bytes(path.read_bytes()[:kept])
    read = {"last.pt": checkpoint.load, "best.safetensors": checkpoint.best}
    with pytest.raises(RunError, match=f"{name} is damaged: delete"):
        read.get(name, lambda: Checkpoint(tmp_path / "run", {"seed": 1}))()


def test_embeddings_of_a_teacher_take_no_more_than_the_file_has(tmp_path: Path) -> None:
    file = tmp_path / "teacher.npy"
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 1099511627776), }"
    file.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
    objects = tmp_path / "objects.npy"
    np.save(objects, np.array([Trap(tmp_path / "sprung")] * 3, dtype=object), allow_pickle=True)
    for path in (file, objects):
        with pytest.raises(RunError, match="is damaged: delete"):
            read_embeddings(path, 3)
    assert not (tmp_path / "sprung").exists()
    np.save(file, np.ones((3, 4), dtype=np.float32))
    np.testing.assert_array_equal(read_embeddings(file, 3), np.ones((3, 4)))


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
