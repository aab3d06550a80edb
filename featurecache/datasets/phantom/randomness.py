"""Independent random number streams, so that parts of an image do not affect each other."""

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """Key of each random number stream. Changing a number changes the images.

    The key of a finding is ``FINDINGS`` plus its index in the list of labels.
    """

    COHORT = 0
    PATIENT = 1
    IMAGE = 2
    BUILD = 3
    VESSELS = 4
    POSE = 5
    EXPOSURE = 6
    GRAIN = 7
    OVERLAYS = 8
    FINDINGS = 100


def random_stream(seed: int, *key: int) -> np.random.Generator:
    """Return the random number generator of one stream.

    Each finding has its own stream, so the rest of the image is the same with and without it.

    Args:
        seed: Seed of the data set, patient or image.
        *key: Key of the stream, and numbers that distinguish its uses.
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
