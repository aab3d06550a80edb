"""Callbacks that long computations report their progress to."""

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called with the number of finished items and the total number of items."""

DetailedProgress = Callable[[int, int, str], None]
"""Called like ``Progress``, with a short description of the current state as third argument."""
