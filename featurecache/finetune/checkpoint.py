"""The state of an unfinished fine-tuning, so that a killed one goes on where it was.

<run>.parts/settings.json      what the fine-tuning was started with
<run>.parts/start/             the fresh weights that it started from, if it did
<run>.parts/teacher.npy        the teacher's embeddings, if there is one
<run>.parts/last.pt            everything needed to go on
<run>.parts/best.safetensors   the weights at the best epoch so far
<run>.parts/crash_journal      which images are being decoded
<run>.parts/lock               held by the process that is at work
"""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from featurecache.errors import RunError
from featurecache.io import json as strict_json
from featurecache.io.atomic import new_file
from featurecache.io.fingerprint import canonical_json, first_difference
from featurecache.io.lock import exclusive_lock


def unfinished(target: Path) -> Path:
    """The folder beside a run to be in which its fine-tuning is kept until it is finished."""
    return target.with_name(target.name + ".parts")


def bookmarks_of(target: Path) -> Path:
    """The file in which a fine-tuning keeps which images it is at."""
    return unfinished(target) / "crash_journal"


@contextmanager
def finetune_lock(target: Path) -> Iterator[None]:
    """Be the only process that fine-tunes into a run folder while the body runs.

    Raises:
        UsageError: another process is at work on it.
    """
    folder = unfinished(target)
    lock = folder / "lock"
    new_parent = not target.parent.exists()
    with exclusive_lock(target, lock):
        try:
            yield
        finally:
            if folder.is_dir() and list(folder.iterdir()) == [lock]:  # it never got to work
                shutil.rmtree(folder, ignore_errors=True)
                if new_parent:
                    with suppress(OSError):
                        target.parent.rmdir()


class Checkpoint:
    """A folder beside the run to be."""

    def __init__(self, target: Path, settings: Mapping[str, Any]) -> None:
        """Open or start it.

        Raises:
            RunError: it was started with other settings; the message names the first that differs.
        """
        self.folder = unfinished(target)
        path = self.folder / "settings.json"
        if path.is_file():
            try:
                found = strict_json.read(path)
            except (OSError, ValueError) as error:
                raise self.damaged(path.name) from error
            if not isinstance(found, dict):
                raise self.damaged(path.name)
            if difference := first_difference(found, dict(settings)):
                raise RunError(
                    f"{self.folder} holds an unfinished fine-tuning with other settings "
                    f"({difference}): finish it with those, delete it, or give another --out"
                )
        else:
            with new_file(path) as temporary:
                temporary.write_text(canonical_json(dict(settings)), encoding="utf-8")

    def load(self) -> dict[str, Any] | None:
        """What ``save`` saved last; None at the start.

        Raises:
            RunError: the file is damaged.
        """
        path = self.folder / "last.pt"
        if not path.is_file():
            return None
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        # UnpicklingError: it holds more than tensors and numbers, and was not loaded.
        except (RuntimeError, OSError, EOFError, ValueError, UnpicklingError) as error:
            raise self.damaged(path.name) from error
        return state

    def damaged(self, name: str) -> RunError:
        """What to raise over one of its files."""
        return RunError(f"{self.folder / name} is damaged: delete {self.folder} to start anew")

    def save(self, state: Mapping[str, Any]) -> None:
        """Save everything needed to go on; a kill leaves the last state or this one.

        Raises:
            OSError: the disk is full or not writable; the last state is untouched.
        """
        # By a file of Python's: where the disk is full, that says so, and torch's own does not.
        with new_file(self.folder / "last.pt") as temporary, temporary.open("wb") as file:
            try:
                torch.save(dict(state), file)
            except RuntimeError as error:
                # torch ends its archive in any case, and then complains of what is missing in it.
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise

    def save_best(self, weights: Mapping[str, Tensor]) -> None:
        """Keep the weights of the best epoch so far."""
        from safetensors.torch import save_file

        with new_file(self.folder / "best.safetensors") as temporary:
            save_file({k: v.detach().cpu().contiguous() for k, v in weights.items()}, temporary)

    def best(self) -> dict[str, Tensor]:
        """The weights that ``save_best`` kept.

        Raises:
            RunError: the file is missing or damaged.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(self.folder / "best.safetensors")
        except (SafetensorError, OSError) as error:
            raise self.damaged("best.safetensors") from error

    def delete(self) -> None:
        """Remove the folder, once the run is written."""
        shutil.rmtree(self.folder, ignore_errors=True)
