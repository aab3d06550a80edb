"""A decoder that crashes, or never returns, at films that say so.

With this folder on PYTHONPATH, every Python has it: an extraction, and its children.
"""

import ctypes
import time
from typing import Any

from PIL import Image

CRASH, HANG = b"crash the decoder", b"hang the decoder"
_open = Image.open


def _bad_open(file: Any, **options: Any) -> Image.Image:
    data = file.getvalue()
    if data.endswith(CRASH):
        ctypes.string_at(0)
    if data.endswith(HANG):
        time.sleep(1e6)
    return _open(file, **options)


if __name__ == "sitecustomize":  # and not imported for its constants
    Image.open = _bad_open
