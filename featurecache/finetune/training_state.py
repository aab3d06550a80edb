"""The state of an unfinished fine-tuning, from which a killed process continues.

<run>.parts/settings.json      settings that the fine-tuning was started with
<run>.parts/start/             random initial weights, if it started from them
<run>.parts/teacher.npy        embeddings of the teacher, if there is one
<run>.parts/last.pt            everything that is needed to continue
<run>.parts/best.safetensors   weights of the best epoch so far
<run>.parts/crash_journal      images that are being decoded
<run>.parts/lock               held by the process that is fine-tuning
"""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from featurecache.errors import RunError
from featurecache.finetune.config import KIND
from featurecache.io import json as strict_json
from featurecache.io.atomic import new_file, require_absent, require_short_name
from featurecache.io.fingerprint import canonical_json, first_difference
from featurecache.io.lock import exclusive_lock
from featurecache.io.system_errors import raise_if_inaccessible
from featurecache.runs.folder import run_kind

if TYPE_CHECKING:
    from torch import Tensor


def state_folder(target: Path) -> Path:
    """Return the folder next to a run folder that holds the state until the run is finished."""
    return target.with_name(target.name + ".parts")


def require_no_run(target: Path) -> None:
    """Require that there is no run at ``target``; delete what a finished one left beside it.

    Raises:
        UsageError: ``target`` exists already, or its name is too long.
    """
    require_short_name(target)
    with suppress(RunError):  # it is not a run
        if state_folder(target).is_dir() and run_kind(target) == KIND:
            # The process that wrote the run was killed before it deleted its state.
            shutil.rmtree(state_folder(target), ignore_errors=True)
    require_absent(target)


@contextmanager
def finetune_lock(target: Path) -> Iterator[None]:
    """Be the only process that fine-tunes into a run folder while the body runs.

    Raises:
        UsageError: Another process is doing so.
    """
    folder = state_folder(target)
    lock = folder / "lock"
    new_parent = not target.parent.exists()
    with exclusive_lock(target, lock):
        try:
            yield
        finally:
            if folder.is_dir() and list(folder.iterdir()) == [lock]:  # nothing was started
                shutil.rmtree(folder, ignore_errors=True)
                if new_parent:
                    with suppress(OSError):
                        target.parent.rmdir()


class TrainingState:
    """A folder next to the future run folder."""

    def __init__(self, target: Path, settings: Mapping[str, Any]) -> None:
        """Open or create it.

        Args:
            target: The future run folder.
            settings: Everything that decides the result of the fine-tuning.

        Raises:
            RunError: It was started with other settings; the message names the first that differs.
        """
        self.folder = state_folder(target)
        path = self.folder / "settings.json"
        if path.is_file():
            try:
                started_with = strict_json.read(path)
            except (OSError, ValueError) as error:
                raise_if_inaccessible(error, path)
                raise self.damaged(path.name) from error
            if not isinstance(started_with, dict):
                raise self.damaged(path.name)
            if difference := first_difference(started_with, dict(settings)):
                raise RunError(
                    f"{self.folder} holds an unfinished fine-tuning with other settings "
                    f"({difference}): finish it with those, delete it, or give another `out`"
                )
        else:
            with new_file(path) as temporary:
                temporary.write_text(canonical_json(dict(settings)), encoding="utf-8")

    def load(self) -> dict[str, Any] | None:
        """Return what ``save`` saved last; None at the start.

        Raises:
            RunError: The file is damaged.
        """
        import torch

        path = self.folder / "last.pt"
        if not path.is_file():
            return None
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        # UnpicklingError: it holds more than tensors and numbers, and was not loaded.
        except (RuntimeError, OSError, EOFError, ValueError, UnpicklingError) as error:
            raise_if_inaccessible(error, path)
            raise self.damaged(path.name) from error
        return state

    def damaged(self, name: str) -> RunError:
        """Return the error for one of its files being damaged."""
        return RunError(f"{self.folder / name} is damaged: delete {self.folder} to start again")

    def save(self, state: Mapping[str, Any]) -> None:
        """Save everything that is needed to continue; a kill leaves the last state or this one.

        Raises:
            OSError: The disk is full or not writable; the last state is unchanged.
        """
        import torch

        # Through a Python file, whose error says that the disk is full; torch's own does not.
        with new_file(self.folder / "last.pt") as temporary, temporary.open("wb") as file:
            try:
                torch.save(dict(state), file)
            except RuntimeError as error:
                # torch finishes its archive in any case, and then complains about missing bytes.
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise

    def save_best(self, weights: "Mapping[str, Tensor]") -> None:
        """Save the weights of the best epoch so far."""
        from safetensors.torch import save_file

        with new_file(self.folder / "best.safetensors") as temporary:
            save_file({k: v.detach().cpu().contiguous() for k, v in weights.items()}, temporary)

    def load_best(self) -> "dict[str, Tensor]":
        """Return the weights that ``save_best`` saved.

        Raises:
            RunError: The file is missing or damaged.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = self.folder / "best.safetensors"
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise_if_inaccessible(error, path)
            raise self.damaged(path.name) from error

    def delete(self) -> None:
        """Remove the folder, once the run is written."""
        shutil.rmtree(self.folder, ignore_errors=True)
