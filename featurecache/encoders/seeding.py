"""Random weights that are the same whenever they are drawn."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw torch's random numbers on the CPU from this seed; outside, nothing has been drawn."""
    import torch

    # Not torch.manual_seed, which would seed every GPU as well and not be undone there.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
