"""Decode an image in a child process, which may crash.

    python -m featurecache.extraction.apart SECONDS < film > pixels

It costs 0.15 s an image, so it is only for those whose decoding may have killed a process before.
"""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from featurecache.errors import FeaturecacheError, ImageError
from featurecache.images import decode_image

if TYPE_CHECKING:
    import PIL.Image

CRASHED: Final = "the decoder crashed"
"""How the reason begins; an image that has it is always decoded apart."""

_REFUSED: Final = b"refused"


def decode_apart(data: bytes, seconds: float) -> "PIL.Image.Image":
    """What ``decode_image`` gives, by a child process.

    Args:
        data: the image file.
        seconds: that decoding may take.

    Raises:
        ImageError: see ``decode_image``; or the decoder crashed, or took longer.
        FeaturecacheError: Python does not start.
    """
    from PIL import Image

    child = subprocess.run(
        # -P: nothing that lies in the folder of the command is imported.
        [sys.executable, "-P", "-m", __name__, str(seconds)],
        input=data,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    if child.returncode == -signal.SIGALRM:
        raise ImageError(took_longer(seconds))
    if child.returncode < 0:
        raise ImageError(f"{CRASHED} ({signal.Signals(-child.returncode).name})")
    if child.returncode:
        told = child.stderr.decode(errors="replace").strip().splitlines()
        raise FeaturecacheError(
            f"no image can be decoded in a child process ({told[-1] if told else 'no word'}): "
            f"see whether {sys.executable} -m {__name__} starts"
        )
    head, _, rest = child.stdout.partition(b"\n")
    if head == _REFUSED:
        raise ImageError(rest.decode())
    mode, width, height = head.decode().split()
    return Image.frombytes(mode, (int(width), int(height)), rest)


def took_longer(seconds: float) -> str:
    """The reason of an image that takes too long."""
    return f"took longer than {seconds:g} s"


def _main() -> None:
    # The parent may be gone, or the decoder deaf to Python: the kernel ends it in any case.
    signal.setitimer(signal.ITIMER_REAL, float(sys.argv[1]))
    with suppress(OSError):
        # Where memory runs out this process goes, and not its parent.
        Path("/proc/self/oom_score_adj").write_text("1000")
    try:
        image = decode_image(sys.stdin.buffer.read())
    except ImageError as error:
        answer = _REFUSED + f"\n{error}".encode()
    else:
        answer = f"{image.mode} {image.width} {image.height}\n".encode() + image.tobytes()
    sys.stdout.buffer.write(answer)


if __name__ == "__main__":
    _main()
