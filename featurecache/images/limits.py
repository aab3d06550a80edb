"""The sizes that an image may have, in pixels."""

from typing import Final

MAX_PIXELS: Final = 80_000_000
"""Five times the largest chest radiograph in common use (4,280 x 3,520)."""
MIN_SIDE: Final = 16
MAX_ASPECT: Final = 20
"""Longer side divided by the shorter one."""
