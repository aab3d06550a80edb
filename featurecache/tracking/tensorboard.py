"""Log to TensorBoard: event files beside the run folder."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from featurecache.tracking.tracker import Scalar

FOLDER: Final = "tensorboard"
"""Folder beside the run folders that ``tensorboard --logdir`` takes."""


class TensorBoardTracker:
    """Writes event files into ``tensorboard/NAME`` beside the run folder."""

    def __init__(
        self, folder: Path, settings: Mapping[str, Scalar], *, id: str | None, n_points: int
    ) -> None:
        """See ``Tracker``."""
        from torch.utils.tensorboard import SummaryWriter

        self.id: str | None = None
        self._settings = settings
        # TensorBoard drops what earlier files hold from this step on: epochs that were logged
        # before the training was killed, or all of an earlier run of this name.
        self._writer = SummaryWriter(
            folder.parent / FOLDER / folder.name, purge_step=n_points + 1 if n_points else 0
        )
        if not n_points:
            # Indented, which is code in Markdown.
            text = json.dumps(settings, indent=2).replace("\n", "\n    ")
            self._writer.add_text("settings", f"    {text}")

    @staticmethod
    def errors() -> tuple[type[Exception], ...]:
        """See ``Tracker``."""
        return (OSError,)

    def log_point(self, step: int, values: Mapping[str, float]) -> None:
        """See ``Tracker``."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def log_scores(self, scores: Mapping[str, float]) -> None:
        """Log scores with the settings, for the tab that compares settings (HParams)."""
        self._writer.add_hparams(dict(self._settings), dict(scores), run_name=".")

    def close(self, *, failed: bool) -> None:
        """See ``Tracker``."""
        self._writer.close()
