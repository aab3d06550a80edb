"""Read, decode and preprocess images ahead of the encoder, in order."""

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import ImageError
from featurecache.images import decode_image, read_bytes

if TYPE_CHECKING:
    import PIL.Image

Preprocess = Callable[["PIL.Image.Image"], NDArray[np.float32]]


@dataclass(frozen=True)
class Item:
    """One image to read.

    Attributes:
        row: its row in the manifest.
        path: where it lies.
        known: per encoder that wants it, the sha256 its stored embedding was made from ("" for
            none); an encoder whose sha256 still fits needs no pixels.
    """

    row: int
    path: Path
    known: Mapping[int, str]


@dataclass(frozen=True)
class Decoded:
    """What came of an item: pixels per encoder, or the reason why there are none."""

    row: int
    sha256: str
    size: int
    mtime_ns: int
    pixels: Mapping[int, NDArray[np.float32]]
    """Per encoder that must encode it, (3, H, W)."""
    reason: str | None = None


def decode(item: Item, preprocess: Mapping[int, Preprocess]) -> Decoded:
    """Read one image once and preprocess it for every encoder that wants it."""
    try:
        # The state is taken before the bytes: a file that changes in between is read again later.
        status = item.path.stat()
        data = read_bytes(item.path)
        sha256 = hashlib.sha256(data).hexdigest()
        wanted = [encoder for encoder, known in item.known.items() if known != sha256]
        image = decode_image(data) if wanted else None
        pixels = {encoder: preprocess[encoder](image) for encoder in wanted if image is not None}
        return Decoded(item.row, sha256, status.st_size, status.st_mtime_ns, pixels)
    except FileNotFoundError:
        return Decoded(item.row, "", -1, -1, {}, "missing: no such file")
    except OSError as error:
        return Decoded(item.row, "", -1, -1, {}, f"cannot be read: {error.strerror}")
    except ImageError as error:
        return Decoded(item.row, "", -1, -1, {}, str(error))


def decode_ahead(
    items: Iterable[Item],
    preprocess: Mapping[int, Preprocess],
    *,
    workers: int,
    window: int,
) -> Generator[Decoded, None, None]:
    """Decode in threads, at most ``window`` images ahead, and yield in the order of ``items``.

    Pillow releases the interpreter's lock while it decodes and resizes, so threads overlap with
    the encoder without copying pixels between processes.
    """
    waiting: deque[Future[Decoded]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(decode, item, preprocess))
                if len(waiting) >= window:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
