"""Images decoded in subprocesses: same results, and a crash costs one image only."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featurecache.audit.contact_sheet import draw_pairs
from featurecache.audit.near_duplicates import ImagePair
from featurecache.encoders.loading import load_encoder
from featurecache.errors import FeaturecacheError, ImageError
from featurecache.images.contact_sheet import thumbnail
from featurecache.images.decode import read_image
from featurecache.images.subprocess_decoder import MEMORY, SubprocessDecoder
from featurecache.report.examples import Thumbnails
from featurecache.runs.prediction import classify_images

CRASHED = "the decoder crashed (SIGSEGV)"


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """Six images, grayscale and color in turn."""
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.png" for number in range(6)]
    for number, path in enumerate(paths):
        shape = (20, 30, 3) if number % 2 else (20, 30)
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(path)
    return paths


@pytest.fixture
def short_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every use of a decoder wait half a second for an image."""
    for module in ("runs.prediction", "report.examples", "images.contact_sheet"):
        decoder = partial(SubprocessDecoder, timeout=0.5)
        # By import_module: ``featurecache.report`` may also be the function of that name.
        target = import_module(f"featurecache.{module}")
        monkeypatch.setattr(target, "SubprocessDecoder", decoder)


def children() -> list[int]:
    """Return the decoder processes that this one has started and that have not ended."""
    listed = Path(f"/proc/self/task/{threading.get_native_id()}/children")
    if not listed.exists():
        pytest.skip("this system does not list child processes")
    processes = [
        int(child)
        for task in listed.parents[1].glob("*/children")
        for child in task.read_text().split()
    ]
    return [
        child for child in processes if b"featurecache.images.subprocess_decoder" in cmdline(child)
    ]


def cmdline(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except FileNotFoundError:
        return b""


def test_subprocess_gives_the_same_image(images: list[Path]) -> None:
    decoder = SubprocessDecoder()
    for path in images:
        here = read_image(path)
        for decoded in (decoder.image(path), decoder.image(path.read_bytes())):
            assert (decoded.mode, decoded.tobytes()) == (here.mode, here.tobytes())
        arrays = decoder.read(path, [thumbnail, np.asarray])
        assert [array.tobytes() for array in arrays] == [thumbnail(here).tobytes(), here.tobytes()]


def test_subprocess_gives_the_same_error(images: list[Path]) -> None:
    decoder = SubprocessDecoder()
    images[0].write_bytes(b"no image")
    images[1].write_bytes(images[1].read_bytes()[:100])
    images[2].unlink()
    for path in images[:3]:
        with pytest.raises(ImageError) as here:
            read_image(path, "it")
        with pytest.raises(ImageError) as decoded:
            decoder.image(path, name="it")
        assert str(decoded.value) == str(here.value)
    assert decoder.image(images[3]).size == (30, 20)


def test_one_worker_per_thread_ends_with_the_decoder(images: list[Path]) -> None:
    decoder = SubprocessDecoder()
    gc.collect()
    before = children()
    for path in images:
        decoder.image(path)
    assert len(children()) == len(before) + 1
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(decoder.image, images * 5))
    assert len(before) < len(children()) <= len(before) + 3
    del decoder
    gc.collect()
    assert children() == before


def test_crashes_and_hangs_cost_one_image_each(images: list[Path], bad_decoder) -> None:
    decoder = SubprocessDecoder(timeout=0.3)
    bad_decoder.crash(images[1])
    bad_decoder.hang(images[2])
    bad_decoder.crash_later(images[4])
    errors: list[str | None] = []
    for path in images:
        try:
            decoder.read(path, [thumbnail])
        except ImageError as error:
            errors.append(str(error))
        else:
            errors.append(None)
    assert errors == [None, CRASHED, "took longer than 0.3 s", None, CRASHED, None]
    assert decoder.image(images[4]).size == (30, 20)  # only the transform crashes


def take_memory(image: Image.Image, *, size: int) -> np.ndarray:
    """A transform that takes this many bytes."""
    return np.empty(size, dtype=np.uint8)[:1]


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no limit on this system")
def test_memory_of_a_worker_is_limited(images: list[Path]) -> None:
    decoder = SubprocessDecoder()
    for _ in range(2):
        with pytest.raises(ImageError, match="it: needs more memory than is available"):
            decoder.read(images[0], [partial(take_memory, size=MEMORY + 2**20)], name="it")
        (taken,) = decoder.read(images[0], [partial(take_memory, size=MEMORY // 2)])
        assert taken.shape == (1,)


def test_worker_killed_while_idle_is_replaced(images: list[Path]) -> None:
    decoder = SubprocessDecoder()
    gc.collect()
    before = children()
    decoder.image(images[0])
    (child,) = set(children()) - set(before)
    os.kill(child, signal.SIGKILL)
    while children() != before:
        time.sleep(0.01)
    assert decoder.image(images[0]).size == (30, 20)


def test_worker_that_does_not_start_is_not_an_image_error(
    images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(
        FeaturecacheError, match="no image can be decoded in a subprocess"
    ) as caught:
        SubprocessDecoder().image(images[0])
    assert not isinstance(caught.value, ImageError)


def test_worker_ends_soon_after_its_parent(images: list[Path], bad_decoder) -> None:
    bad_decoder.hang(images[0])
    script = (
        "import sys; from pathlib import Path\n"
        "from featurecache.images.subprocess_decoder import SubprocessDecoder\n"
        "decoder = SubprocessDecoder(timeout=1)\n"
        "decoder.image(Path(sys.argv[2])); print(*(c._process.pid for c in decoder._workers))\n"
        "sys.stdout.flush(); decoder.image(Path(sys.argv[1]))"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, images[0], images[1]],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    time.sleep(0.2)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    end = time.monotonic() + 10
    while b"featurecache.images.subprocess_decoder" in cmdline(child):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_prediction_reports_bad_images_and_predicts_the_others(
    images: list[Path], bad_decoder, short_timeout
) -> None:
    encoder = load_encoder("tiny", device="cpu", precision="fp32")

    def classify(embedding: np.ndarray) -> np.ndarray:
        return embedding[:, :2].astype(np.float64)

    expected = classify_images([encoder], classify, images)
    assert [prediction.reason for prediction in expected] == [None] * 6
    bad_decoder.crash(images[1])
    bad_decoder.hang(images[2])
    bad_decoder.crash_later(images[4])
    predictions = classify_images([encoder], classify, images)
    assert {p.path: p.reason for p in predictions if p.output is None} == {
        images[1]: f"{images[1]}: {CRASHED}",
        images[2]: f"{images[2]}: took longer than 0.5 s",
        images[4]: f"{images[4]}: {CRASHED}",
    }
    for number in (0, 3, 5):
        np.testing.assert_allclose(
            predictions[number].output, expected[number].output, rtol=1e-2, atol=1e-3
        )


def test_report_has_no_thumbnail_of_a_bad_image(
    images: list[Path], bad_decoder, short_timeout
) -> None:
    for path, spoil in zip(images, bad_decoder, strict=False):
        spoil(path)
    thumbnails = Thumbnails({path.stem: path for path in images})
    readable = [thumbnails.data_url(path.stem) is not None for path in images]
    assert readable == [False] * 3 + [True] * 3


def test_contact_sheet_error_names_the_bad_image(
    images: list[Path], bad_decoder, short_timeout
) -> None:
    pair = ImagePair(("0", "1"), ("train", "test"), ("a", "b"), True, 0.99, 0.95)
    by_id = {path.stem: path for path in images}
    assert draw_pairs([pair], by_id).width > 2 * 192
    bad_decoder.crash(images[1])
    with pytest.raises(ImageError, match=r"1: the decoder crashed \(SIGSEGV\)"):
        draw_pairs([pair], by_id)
