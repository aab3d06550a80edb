"""Log to Weights & Biases, as its own settings say, such as ``WANDB_MODE=offline``."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from featurecache.tracking.tracker import Scalar

PROJECT: Final = "featurecache"
"""Project of the runs, unless ``WANDB_PROJECT`` names another."""


class WandbTracker:
    """A run of a Weights & Biases project."""

    def __init__(
        self, folder: Path, settings: Mapping[str, Scalar], *, id: str | None, n_points: int
    ) -> None:
        """See ``Tracker``."""
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=folder.name,
            config=dict(settings),
            id=id,
            resume=None if id is None else "allow",
            reinit="create_new",  # leaves a run of the caller's own open
            settings={"console": "off"},  # messages may name images
        )
        self._run.define_metric("*", step_metric="epoch")
        self.id: str | None = self._run.id

    @staticmethod
    def errors() -> tuple[type[Exception], ...]:
        """See ``Tracker``."""
        import wandb

        return (wandb.Error, OSError, ValueError)  # the last for a bad variable such as WANDB_MODE

    def log_point(self, step: int, values: Mapping[str, float]) -> None:
        """See ``Tracker``."""
        self._run.log({"epoch": step, **values})

    def log_scores(self, scores: Mapping[str, float]) -> None:
        """See ``Tracker``."""
        self._run.summary.update(dict(scores))

    def close(self, *, failed: bool) -> None:
        """See ``Tracker``."""
        self._run.finish(exit_code=int(failed))
