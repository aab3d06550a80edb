"""An image decoder that crashes or hangs on marked images, or whose images crash later.

With this folder on PYTHONPATH, every Python process uses it, subprocesses included.
"""

import ctypes
import time
from typing import Any

from PIL import Image

CRASH, HANG, CRASH_LATER = b"crash the decoder", b"hang the decoder", b"crash what preprocesses it"
_open = Image.open
_will_crash: list[Image.Image] = []


def _bad_open(file: Any, **options: Any) -> Image.Image:
    data = file.getvalue()
    if data.endswith(CRASH):
        ctypes.string_at(0)
    if data.endswith(HANG):
        time.sleep(1e6)
    image = _open(file, **options)
    if data.endswith(CRASH_LATER):
        _will_crash.append(image)
    return image


def _crashing(method: Any) -> Any:
    def call(image: Image.Image, *arguments: Any, **options: Any) -> Any:
        if any(image is one for one in _will_crash):
            ctypes.string_at(0)
        return method(image, *arguments, **options)

    return call


if __name__ == "sitecustomize":  # and not imported for its constants
    Image.open = _bad_open
    Image.Image.convert = _crashing(Image.Image.convert)
    Image.Image.resize = _crashing(Image.Image.resize)
