"""Images are decoded ahead in order, once, and within the window."""

import hashlib
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featurecache.errors import FeaturecacheError
from featurecache.extraction import decode as decode_module
from featurecache.extraction import timeout_pool
from featurecache.extraction.decode import ImageTask, decode, decode_ahead
from featurecache.images.subprocess_decoder import SubprocessDecoder
from tests.extraction.stub_encoder import StubEncoder, write_images


def image_tasks(root: Path, count: int) -> list[ImageTask]:
    ids = write_images(root, count)
    return [
        ImageTask(row, image_id, root / f"{image_id}.png", (0,)) for row, image_id in enumerate(ids)
    ]


def test_images_are_yielded_in_order(root: Path) -> None:
    class Slow(StubEncoder):
        def preprocess(self, image: Image.Image) -> np.ndarray:
            pixels = super().preprocess(image)
            time.sleep(0.03 if pixels[2, 0, 0] % 4 == 0 else 0)
            return pixels

    found = list(decode_ahead(image_tasks(root, 20), {0: Slow()}, workers=4, window=8))
    assert [image.row for image in found] == list(range(20))
    assert [int(image.pixels[0][2, 0, 0]) for image in found] == list(range(20))


@pytest.mark.parametrize(("workers", "window"), [(1, 1), (2, 5), (4, 50)])
def test_window_limits_reading_ahead(root: Path, workers: int, window: int) -> None:
    taken: list[int] = []

    def source() -> Iterator[ImageTask]:
        for task in image_tasks(root, 20):
            taken.append(task.row)
            yield task

    ahead = decode_ahead(source(), {0: StubEncoder()}, workers=workers, window=window)
    for number, _ in enumerate(ahead, start=1):
        assert len(taken) <= min(20, number - 1 + window)
    assert len(taken) == 20


def test_closing_stops_threads(root: Path) -> None:
    read: list[int] = []

    class Slow(StubEncoder):
        def preprocess(self, image: Image.Image) -> np.ndarray:
            time.sleep(0.01)
            read.append(1)
            return super().preprocess(image)

    ahead = decode_ahead(image_tasks(root, 40), {0: Slow()}, workers=2, window=30)
    next(ahead)
    ahead.close()
    assert len(read) < 15
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_only_encoders_of_the_task_get_pixels(root: Path) -> None:
    (task,) = image_tasks(root, 1)
    encoders = dict(enumerate([StubEncoder()] * 3))
    decoder = SubprocessDecoder()
    found = decode(ImageTask(0, task.id, task.path, (0, 2)), encoders, decoder)
    assert set(found.pixels) == {0, 2}
    assert found.reason is None
    hashed = decode(ImageTask(0, task.id, task.path, ()), encoders, decoder)
    assert (hashed.pixels, hashed.perceptual_hash) == ({}, None)
    assert hashed.sha256 == found.sha256 == hashlib.sha256(task.path.read_bytes()).hexdigest()


def test_many_stuck_images_end_decoding(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_module, "MAX_STUCK_IMAGES", 5)
    monkeypatch.setattr(timeout_pool, "GRACE", 0.02)
    release = threading.Event()

    class Stuck(StubEncoder):
        def preprocess(self, image: Image.Image) -> np.ndarray:
            release.wait(30)
            return np.zeros((3, 1, 1), np.float32)

    found: list[str | None] = []
    ahead = decode_ahead(image_tasks(root, 20), {0: Stuck()}, workers=2, window=8, timeout=0.05)
    with pytest.raises(FeaturecacheError, match=r"5 images hang, .i004. the last"):
        found.extend(image.reason for image in ahead)
    assert found == ["took longer than 0.05 s"] * 4
    release.set()


def test_isolated_decoding_gives_same_pixels_and_reasons(root: Path) -> None:
    (task, damaged) = image_tasks(root, 2)
    damaged.path.write_bytes(b"no image")
    decoder = SubprocessDecoder()
    for one in (task, damaged):
        here, isolated = (
            decode(replace(one, isolated=isolated), {0: StubEncoder()}, decoder)
            for isolated in (False, True)
        )
        assert (here.sha256, here.reason) == (isolated.sha256, isolated.reason)
        assert [pixels.tobytes() for pixels in here.pixels.values()] == [
            pixels.tobytes() for pixels in isolated.pixels.values()
        ]
