"""Log to MLflow: to ``MLFLOW_TRACKING_URI``, by default a file in the working directory."""

import os
import re
import sys
import time
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Final

from featurecache.tracking.tracker import Scalar

EXPERIMENT: Final = "featurecache"
"""Experiment of the runs, unless ``MLFLOW_EXPERIMENT_NAME`` names another."""
_INVALID: Final = re.compile(r"[^\w\-. :/]", re.ASCII)
"""Characters that MLflow refuses in a name."""


class MlflowTracker:
    """A run of an MLflow experiment."""

    def __init__(
        self, folder: Path, settings: Mapping[str, Scalar], *, id: str | None, n_points: int
    ) -> None:
        """See ``Tracker``."""
        from mlflow import MlflowClient
        from mlflow.entities import Param

        # The client, unlike functions such as mlflow.log_metric, ignores a run of the caller's own.
        self._client = MlflowClient()
        if id is None:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
            experiment = self._client.get_experiment_by_name(name)
            experiment_id = (
                self._client.create_experiment(name)
                if experiment is None
                else experiment.experiment_id
            )
            id = self._client.create_run(experiment_id, run_name=folder.name).info.run_id
            params = [Param(name, str(value)) for name, value in settings.items()]
            self._client.log_batch(id, params=params)
        else:
            self._client.update_run(id, status="RUNNING")
        self.id: str | None = id

    @staticmethod
    def errors() -> tuple[type[Exception], ...]:
        """See ``Tracker``."""
        from mlflow.exceptions import MlflowException

        return (MlflowException, OSError)

    def log_point(self, step: int, values: Mapping[str, float]) -> None:
        """See ``Tracker``."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [
            Metric(_INVALID.sub("_", name), value, now, step) for name, value in values.items()
        ]
        self._client.log_batch(self.id, metrics=metrics)

    def log_scores(self, scores: Mapping[str, float]) -> None:
        """See ``Tracker``."""
        self.log_point(0, scores)

    def close(self, *, failed: bool) -> None:
        """See ``Tracker``."""
        with redirect_stdout(sys.stderr):  # prints the run's address, and stdout is for results
            self._client.set_terminated(self.id, "FAILED" if failed else "FINISHED")
