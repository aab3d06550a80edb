"""Files that cannot be accessed are not called damaged, whichever library reads them."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest
from safetensors import SafetensorError

from featurecache.alignment.alignment import Alignment
from featurecache.errors import UsageError
from featurecache.finetune.distillation import read_embeddings
from featurecache.finetune.training_state import TrainingState
from featurecache.io.system_errors import raise_if_inaccessible
from featurecache.runs.describe import list_runs
from featurecache.runs.folder import read_config
from featurecache.runs.weights import read_weights
from featurecache.store.describe import list_caches
from featurecache.store.reader import read_cache

NUMBERS = [errno.EACCES, errno.EIO, errno.ESTALE, errno.EMFILE]


def raises(error: Exception) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def load_state(path: Path) -> None:
    TrainingState(path.parent.with_suffix(""), {}).load()


def load_best(path: Path) -> None:
    TrainingState(path.parent.with_suffix(""), {}).load_best()


READERS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "cache": ("cache/m.h5", read_cache, "h5py.File"),
    "run": ("run/config.json", lambda path: read_config(path.parent), "pathlib.Path.read_text"),
    "weights": (
        "run/head.safetensors",
        lambda path: read_weights(path.parent, path.name, sizes=[]),
        "safetensors.torch.load_file",
    ),
    "alignment": ("m.alignment.safetensors", Alignment.load, "safetensors.safe_open"),
    "state": ("run.parts/last.pt", load_state, "torch.load"),
    "best": ("run.parts/best.safetensors", load_best, "safetensors.torch.load_file"),
    "teacher": ("run.parts/t.npy", lambda path: read_embeddings(path, 3), "numpy.load"),
}


@pytest.mark.parametrize("number", NUMBERS, ids=errno.errorcode.get)
@pytest.mark.parametrize("reader", READERS)
def test_access_errors_are_raised_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str, number: int
) -> None:
    name, read, function = READERS[reader]
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    if reader in ("state", "best"):
        TrainingState(path.parent.with_suffix(""), {})
    message = f"I/O error: {os.strerror(number)} (os error {number})"
    rust = "safetensors" in function
    error = SafetensorError(message) if rust else OSError(number, "unable to open file")
    with monkeypatch.context() as patch:
        patch.setattr(function, raises(error))
        with pytest.raises(OSError, match=os.strerror(number)) as caught:
            read(path)
    assert (caught.value.errno, caught.value.filename) == (number, str(path))
    # The empty file itself is damaged.
    with pytest.raises(UsageError):
        read(path)


def test_errors_that_a_damaged_file_may_cause_are_not(tmp_path: Path) -> None:
    for error in (OSError(errno.EINVAL, "offset"), OSError("truncated"), ValueError("errno = 22")):
        raise_if_inaccessible(error, tmp_path)


def test_read_error_of_hdf5_has_its_number(tmp_path: Path) -> None:
    """A folder is no file; h5py gives the number of the system call that failed."""
    with pytest.raises(OSError, match="errno = 21") as caught:
        h5py.File(tmp_path, "r")
    assert caught.value.errno == errno.EISDIR


def test_lists_go_on_after_an_inaccessible_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("cache/a.h5", "runs/a/config.json"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    error = PermissionError(errno.EACCES, "Permission denied")
    monkeypatch.setattr("h5py.File", raises(error))
    monkeypatch.setattr("pathlib.Path.read_text", raises(error))
    (cache,) = list_caches(tmp_path / "cache")
    assert "Permission denied" in cache.state
    (run,) = list_runs(tmp_path / "runs")
    assert "Permission denied" in str(run.problem)
