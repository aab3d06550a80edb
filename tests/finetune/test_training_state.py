"""The state of an unfinished fine-tuning: damage is refused, code is never executed."""

import errno
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from featurecache.errors import RunError
from featurecache.finetune.distillation import read_embeddings
from featurecache.finetune.training_state import TrainingState
from tests.longest_file import longest_file


class Trap:
    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> object:
        return Path.touch, (self.place,)


@pytest.mark.parametrize("zipped", [True, False])
def test_state_with_code_is_refused_and_not_executed(tmp_path: Path, zipped: bool) -> None:
    training_state = TrainingState(tmp_path / "run", {"seed": 1})
    state = {"epoch": 1, "trap": Trap(tmp_path / "sprung")}
    last = training_state.folder / "last.pt"
    torch.save(state, last) if zipped else last.write_bytes(pickle.dumps(state, protocol=2))
    with pytest.raises(RunError, match=r"last\.pt is damaged: delete"):
        training_state.load()
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["last.pt", "best.safetensors", "settings.json"])
@pytest.mark.parametrize("kept", [0, 1, 40])
def test_truncated_file_is_refused_by_name(tmp_path: Path, name: str, kept: int) -> None:
    training_state = TrainingState(tmp_path / "run", {"seed": 1, "text": "x" * 50})
    training_state.save({"epoch": 1})
    training_state.save_best({"weight": torch.ones(3)})
    path = training_state.folder / name
    path.write_bytes(path.read_bytes()[:kept])
    read = {"last.pt": training_state.load, "best.safetensors": training_state.load_best}
    with pytest.raises(RunError, match=f"{name} is damaged: delete"):
        read.get(name, lambda: TrainingState(tmp_path / "run", {"seed": 1}))()


def test_damaged_teacher_embeddings_are_refused(tmp_path: Path) -> None:
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


# In the header of the archive, within a tensor, and in its last bytes.
@pytest.mark.parametrize("size", [0, 100, 1000, 10_000, 81_000])
def test_full_disk_is_reported_and_keeps_last_state(tmp_path: Path, size: int) -> None:
    training_state = TrainingState(tmp_path / "run", {})
    training_state.save({"step": 1})
    state = {"weight": torch.zeros(20_000), "step": 2}
    with longest_file(size), pytest.raises(OSError, match="too large") as raised:
        training_state.save(state)
    assert raised.value.errno == errno.EFBIG
    assert raised.value.filename == str(tmp_path / "run.parts/last.pt")
    assert training_state.load() == {"step": 1}
    assert sorted(path.name for path in training_state.folder.iterdir()) == [
        "last.pt",
        "settings.json",
    ]
    training_state.save(state)
    assert training_state.load()["step"] == 2
