"""What was trained, a head or a fine-tuned encoder: its probabilities and its calibration."""

from pathlib import Path

import numpy as np

from featurecache.metrics.calibration import PlattScaling
from featurecache.runs.folder import read_metrics


def read_platt(run: Path) -> PlattScaling | None:
    """The correction that a run's metrics hold, of its labels in their order.

    Returns:
        None where the run had no validation images beside its test images to fit one on.

    Raises:
        RunError: metrics.json is missing or damaged.
    """
    metrics = read_metrics(run)
    if (calibration := metrics.get("calibration")) is None:
        return None
    fitted = [calibration["per_label"][name] for name in metrics["per_label"]]
    parameters = ([label[name] for label in fitted] for name in ("slope", "intercept"))
    return PlattScaling(*(np.array(values, dtype=np.float64) for values in parameters))
