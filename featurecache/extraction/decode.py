"""Read, decode and preprocess images in threads, ahead of the encoder and in order."""

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
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
from featurecache.images.decode import decode_image
from featurecache.images.read import read_file
from featurecache.images.subprocess_decoder import IMAGE_TIMEOUT, SubprocessDecoder, timeout_message
from featurecache.provenance.perceptual_hash import PerceptualHash, perceptual_hash

if TYPE_CHECKING:
    from featurecache.encoders.encoder import Encoder

MAX_STUCK_IMAGES: Final = 100
"""With this many images stuck at once, the file system itself must be at fault."""

JournalEntry = Callable[[str], AbstractContextManager[object]]
"""Records that the image with this id is being decoded, see ``CrashJournal.entry``."""


@dataclass(frozen=True)
class ImageTask:
    """One image to read.

    Attributes:
        row: Row of the image in the data set.
        id: Id of the image.
        path: Path of the image file.
        encoders: Indices of the encoders that need its pixels. Without any, the file is read but
            not decoded.
        isolated: Whether to decode and preprocess the image in a subprocess, because it may have
            crashed a process before.
        bit_depth: See ``decode_image``.
    """

    row: int
    id: str
    path: Path
    encoders: Sequence[int]
    isolated: bool = False
    bit_depth: int | None = None


@dataclass(frozen=True)
class DecodedImage:
    """The result of an ``ImageTask``.

    Attributes:
        row: Row of the image in the data set.
        sha256: Hexadecimal sha256 of the file; "" where the image cannot be used.
        size: Size of the file in bytes; -1 where the image cannot be used.
        mtime_ns: Modification time of the file in nanoseconds; -1 likewise.
        pixels: Preprocessed pixels, (3, H, W), for each encoder of the task.
        perceptual_hash: Hash of the decoded image, (32,); None where it was not decoded.
        reason: Why the image cannot be used; None if it can.
    """

    row: int
    sha256: str
    size: int
    mtime_ns: int
    pixels: Mapping[int, NDArray[np.float32]]
    perceptual_hash: PerceptualHash | None = None
    reason: str | None = None


def decode(
    task: ImageTask,
    encoders: "Mapping[int, Encoder]",
    decoder: SubprocessDecoder,
    *,
    journal_entry: JournalEntry = nullcontext,
) -> DecodedImage:
    """Read one image once and preprocess it for every encoder that needs it.

    Args:
        task: The image.
        encoders: The encoders by index; one that has several indices preprocesses once.
        decoder: Decodes isolated images in a subprocess.
        journal_entry: Entered while the image is decoded in this process.

    Returns:
        The pixels, or the reason why there are none.
    """
    try:
        data, state = read_file(task.path)
        sha256 = hashlib.sha256(data).hexdigest()
        arrays: list[NDArray[np.float32]] = []
        content = None
        needed = list(dict.fromkeys(encoders[index] for index in task.encoders))
        if needed and task.isolated:
            *arrays, content = decode_and_preprocess(
                decoder, data, needed, bit_depth=task.bit_depth, also=[perceptual_hash]
            )
        elif needed:
            with journal_entry(task.id):
                image = decode_image(data, bit_depth=task.bit_depth)
                arrays = [encoder.preprocess(image) for encoder in needed]
                content = perceptual_hash(image)
        by_encoder = dict(zip(needed, arrays, strict=True))
        pixels = {index: by_encoder[encoders[index]] for index in task.encoders}
        return DecodedImage(task.row, sha256, state.size, state.mtime_ns, pixels, content)
    except ImageError as error:
        return _failed(task, str(error))


def file_sha256(path: Path) -> str | None:
    """Return the SHA-256 of an image file, in hex; None if it cannot be read."""
    try:
        return hashlib.sha256(read_file(path)[0]).hexdigest()
    except ImageError:
        return None


def _failed(task: ImageTask, reason: str) -> DecodedImage:
    return DecodedImage(task.row, "", -1, -1, {}, reason=reason)


def decode_ahead(
    tasks: Iterable[ImageTask],
    encoders: "Mapping[int, Encoder]",
    *,
    workers: int,
    window: int,
    timeout: float = IMAGE_TIMEOUT,
    journal_entry: JournalEntry = nullcontext,
) -> Generator[DecodedImage, None, None]:
    """Decode images in threads and yield them in the order of ``tasks``.

    Pillow releases the GIL while it decodes and resizes, so threads run in parallel with the
    encoder, without copying pixels between processes.

    Args:
        tasks: The images.
        encoders: The encoders by index.
        workers: Number of threads.
        window: Maximum number of images that are decoded ahead.
        timeout: Maximum time to read one image, in seconds; an image that takes longer has failed.
        journal_entry: Entered while an image is decoded in this process.

    Yields:
        One result for each task.

    Raises:
        FeaturecacheError: ``MAX_STUCK_IMAGES`` images are stuck at the same time.
    """
    pending: deque[tuple[ImageTask, Call[DecodedImage]]] = deque()
    decoder = SubprocessDecoder(timeout=timeout)
    with closing(TimeoutPool(workers, timeout=timeout, name="decode")) as pool:

        def next_result() -> DecodedImage:
            task, call = pending.popleft()
            try:
                return pool.result(call)
            except TimedOut:
                if pool.stuck >= MAX_STUCK_IMAGES:
                    raise FeaturecacheError(
                        f"{MAX_STUCK_IMAGES} images hang, {task.id!r} the last: check whether "
                        "their file system responds; finished images are kept, and the same call "
                        "continues from there"
                    ) from None
                return _failed(task, timeout_message(timeout))

        for task in tasks:
            call = pool.submit(
                partial(decode, task, encoders, decoder, journal_entry=journal_entry)
            )
            pending.append((task, call))
            if len(pending) >= window:
                yield next_result()
        while pending:
            yield next_result()
