"""The text a head is given: real, or a control that can carry no meaning.

A gain that survives the permuted control is not a gain from text.

    real       each label's own ensemble
    permuted   the same ensembles, none at its own label
    random     random directions
    zero       nothing
"""

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import UsageError
from featurecache.heads.config import TextControl
from featurecache.scoring.controls import other_labels


def controlled_text(
    ensemble: NDArray[np.float32], control: TextControl, *, seed: int
) -> NDArray[np.float32]:
    """The ensembles (C, D) that a head is given in place of the real ones, (C, D) float32.

    Raises:
        UsageError: a single label has nothing to be permuted with.
    """
    if control == "real":
        return ensemble
    if control == "zero":
        return np.zeros_like(ensemble)
    if control == "random":
        drawn = np.random.default_rng(seed).standard_normal(ensemble.shape)
        drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
        return drawn.astype(np.float32)
    if len(ensemble) < 2:
        raise UsageError(
            "--text-control permuted needs two labels or more; use random or zero with one label"
        )
    permuted: NDArray[np.float32] = ensemble[other_labels(len(ensemble), seed=seed)]
    return permuted
