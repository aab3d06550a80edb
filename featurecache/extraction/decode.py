"""Read, decode and preprocess images ahead of the encoder, in order."""

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.encoders.encoder import decode_and_preprocess
from featurecache.errors import FeaturecacheError, ImageError
from featurecache.extraction.timeout_pool import Call, TimedOut, TimeoutPool
from featurecache.images.decode import decode_image, read_file
from featurecache.images.subprocess_decoder import IMAGE_TIMEOUT, SubprocessDecoder, timeout_message

if TYPE_CHECKING:
    from featurecache.encoders.encoder import Encoder

MOST_STUCK: Final = 100
"""So many threads may hang at once before it is the file system that is at fault."""

Mark = Callable[[str], AbstractContextManager[object]]
"""Keeps in mind that an image, by its id, is being decoded, as ``Bookmarks.at`` does."""


@dataclass(frozen=True)
class Item:
    """One image to read.

    Attributes:
        row: its row in the manifest.
        id: what it is called wherever something is kept of it.
        path: where it lies.
        known: per encoder that wants it, the sha256 its stored embedding was made from ("" for
            none); an encoder whose sha256 still fits needs no pixels.
        apart: whether it is decoded and preprocessed in a child process, for it may have killed one
            before.
    """

    row: int
    id: str
    path: Path
    known: Mapping[int, str]
    apart: bool = False


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


def decode(
    item: Item,
    encoders: "Mapping[int, Encoder]",
    reader: SubprocessDecoder,
    *,
    mark: Mark = nullcontext,
) -> Decoded:
    """Read one image once and preprocess it for every encoder that wants it.

    Args:
        item: the image.
        encoders: by their numbers.
        reader: for what is decoded in a child process.
        mark: entered while the image is decoded in this process.
    """
    try:
        data, state = read_file(item.path)
        sha256 = hashlib.sha256(data).hexdigest()
        pixels = {}
        wanted = [number for number, known in item.known.items() if known != sha256]
        if wanted and item.apart:
            made = decode_and_preprocess(reader, data, [encoders[number] for number in wanted])
            pixels = dict(zip(wanted, made, strict=True))
        elif wanted:
            with mark(item.id):
                image = decode_image(data)
                pixels = {number: encoders[number].preprocess(image) for number in wanted}
        return Decoded(item.row, sha256, state.size, state.mtime_ns, pixels)
    except ImageError as error:
        return _failed(item, str(error))


def _failed(item: Item, reason: str) -> Decoded:
    return Decoded(item.row, "", -1, -1, {}, reason)


def decode_ahead(
    items: Iterable[Item],
    encoders: "Mapping[int, Encoder]",
    *,
    workers: int,
    window: int,
    seconds: float = IMAGE_TIMEOUT,
    mark: Mark = nullcontext,
) -> Generator[Decoded, None, None]:
    """Decode in threads, at most ``window`` images ahead, and yield in the order of ``items``.

    Pillow releases the interpreter's lock while it decodes and resizes, so threads overlap with
    the encoder without copying pixels between processes. An image that takes more than ``seconds``
    has failed.

    Raises:
        FeaturecacheError: ``MOST_STUCK`` images hang at once.
    """
    waiting: deque[tuple[Item, Call[Decoded]]] = deque()
    reader = SubprocessDecoder(seconds=seconds)
    with closing(TimeoutPool(workers, seconds=seconds, name="decode")) as pool:

        def oldest() -> Decoded:
            item, call = waiting.popleft()
            try:
                return pool.result(call)
            except TimedOut:
                if pool.stuck >= MOST_STUCK:
                    raise FeaturecacheError(
                        f"{MOST_STUCK} images hang, {item.id!r} the last: see whether their file "
                        "system answers; what was finished is kept, and the same command goes on"
                    ) from None
                return _failed(item, timeout_message(seconds))

        for item in items:
            call = pool.submit(partial(decode, item, encoders, reader, mark=mark))
            waiting.append((item, call))
            if len(waiting) >= window:
                yield oldest()
        while waiting:
            yield oldest()
