"""Independent streams of random numbers, so that no part of a film disturbs another."""

from enum import IntEnum

import numpy as np


class Part(IntEnum):
    """What draws random numbers. A number, once given, stays: it decides what is drawn.

    The findings follow, at ``FINDINGS`` plus their place in the list of labels.
    """

    COHORT = 0
    PATIENT = 1
    FILM = 2
    BUILD = 3
    VESSELS = 4
    POSE = 5
    EXPOSURE = 6
    GRAIN = 7
    FURNITURE = 8
    FINDINGS = 100


def stream(seed: int, *key: int) -> np.random.Generator:
    """The random numbers of one part of one patient or film.

    A finding that is absent draws nothing, and one that is present draws from its own stream:
    the rest of the film is the same with and without it.
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
