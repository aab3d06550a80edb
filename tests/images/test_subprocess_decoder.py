"""Images are read in child processes as they are here, and what kills a child costs its image."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
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
from featurecache.images.subprocess_decoder import SubprocessDecoder
from featurecache.report.examples import Thumbnails
from featurecache.runs.prediction import classify_images

CRASHED = "the decoder crashed (SIGSEGV)"


@pytest.fixture
def films(tmp_path: Path) -> list[Path]:
    """Grey and colour in turn."""
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.png" for number in range(6)]
    for number, path in enumerate(paths):
        shape = (20, 30, 3) if number % 2 else (20, 30)
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(path)
    return paths


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that wait half a second for an image."""
    for module in ("prediction", "report.examples", "audit.sheet"):
        reader = partial(SubprocessDecoder, seconds=0.5)
        monkeypatch.setattr(f"featurecache.{module}.SubprocessDecoder", reader)


def children() -> list[int]:
    """The processes that this one has started and that have not ended."""
    listed = Path(f"/proc/self/task/{threading.get_native_id()}/children")
    if not listed.exists():
        pytest.skip("this system does not tell")
    found = [
        int(child)
        for task in listed.parents[1].glob("*/children")
        for child in task.read_text().split()
    ]
    return [child for child in found if b"featurecache.images.subprocess_decoder" in cmdline(child)]


def cmdline(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except FileNotFoundError:
        return b""


def test_an_image_is_the_same_whoever_reads_it(films: list[Path]) -> None:
    reader = SubprocessDecoder()
    for path in films:
        here = read_image(path)
        for apart in (reader.image(path), reader.image(path.read_bytes())):
            assert (apart.mode, apart.tobytes()) == (here.mode, here.tobytes())
        made = reader.read(path, [thumbnail, np.asarray])
        assert [one.tobytes() for one in made] == [thumbnail(here).tobytes(), here.tobytes()]


def test_what_cannot_be_read_is_refused_in_the_same_words(films: list[Path]) -> None:
    reader = SubprocessDecoder()
    films[0].write_bytes(b"no image")
    films[1].write_bytes(films[1].read_bytes()[:100])
    films[2].unlink()
    for path in films[:3]:
        with pytest.raises(ImageError) as here:
            read_image(path, "it")
        with pytest.raises(ImageError) as apart:
            reader.image(path, called="it")
        assert str(apart.value) == str(here.value)
    assert reader.image(films[3]).size == (30, 20)


def test_one_child_reads_image_after_image_and_ends_with_its_reader(films: list[Path]) -> None:
    reader = SubprocessDecoder()
    gc.collect()
    before = children()
    for path in films:
        reader.image(path)
    assert len(children()) == len(before) + 1
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(reader.image, films * 5))
    assert len(before) < len(children()) <= len(before) + 3
    del reader
    gc.collect()
    assert children() == before


def test_what_crashes_or_hangs_costs_itself_and_no_other(films: list[Path], bad_decoder) -> None:
    reader = SubprocessDecoder(seconds=0.3)
    bad_decoder.crash(films[1])
    bad_decoder.hang(films[2])
    bad_decoder.crash_later(films[4])
    said: list[str | None] = []
    for path in films:
        try:
            reader.read(path, [thumbnail])
        except ImageError as error:
            said.append(str(error))
        else:
            said.append(None)
    assert said == [None, CRASHED, "took longer than 0.3 s", None, CRASHED, None]
    assert reader.image(films[4]).size == (30, 20)  # it is what comes after that crashes


def test_a_child_that_was_ended_while_it_had_nothing_to_do_is_replaced(films: list[Path]) -> None:
    reader = SubprocessDecoder()
    gc.collect()
    before = children()
    reader.image(films[0])
    (child,) = set(children()) - set(before)
    os.kill(child, signal.SIGKILL)
    while children() != before:
        time.sleep(0.01)
    assert reader.image(films[0]).size == (30, 20)


def test_where_python_does_not_start_no_image_is_blamed(
    films: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(FeaturecacheError, match="no image can be read in a child") as caught:
        SubprocessDecoder().image(films[0])
    assert not isinstance(caught.value, ImageError)


def test_a_child_outlives_its_parent_by_no_more_than_its_image(
    films: list[Path], bad_decoder
) -> None:
    bad_decoder.hang(films[0])
    script = (
        "import sys; from pathlib import Path; from featurecache.images.subprocess_decoder import SubprocessDecoder\n"
        "reader = SubprocessDecoder(seconds=1)\n"
        "reader.image(Path(sys.argv[2])); print(*(c._process.pid for c in reader._children))\n"
        "sys.stdout.flush(); reader.image(Path(sys.argv[1]))"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, films[0], films[1]],
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


def test_a_prediction_tells_of_bad_images_and_predicts_the_others(
    films: list[Path], bad_decoder, hasty
) -> None:
    encoder = load_encoder("tiny", device="cpu", precision="fp32")

    def classify(embedding: np.ndarray) -> np.ndarray:
        return embedding[:, :2].astype(np.float64)

    whole = classify_images([encoder], classify, films)
    assert [prediction.reason for prediction in whole] == [None] * 6
    bad_decoder.crash(films[1])
    bad_decoder.hang(films[2])
    bad_decoder.crash_later(films[4])
    found = classify_images([encoder], classify, films)
    assert {one.path: one.reason for one in found if one.probability is None} == {
        films[1]: f"{films[1]}: {CRASHED}",
        films[2]: f"{films[2]}: took longer than 0.5 s",
        films[4]: f"{films[4]}: {CRASHED}",
    }
    for number in (0, 3, 5):
        np.testing.assert_allclose(
            found[number].probability, whole[number].probability, rtol=1e-2, atol=1e-3
        )


def test_a_report_has_no_picture_of_a_bad_film(films: list[Path], bad_decoder, hasty) -> None:
    for path, spoil in zip(films, bad_decoder, strict=False):
        spoil(path)
    thumbnails = Thumbnails({path.stem: path for path in films})
    readable = [thumbnails.data_url(path.stem) is not None for path in films]
    assert readable == [False] * 3 + [True] * 3


def test_a_sheet_of_pairs_names_the_bad_film(films: list[Path], bad_decoder, hasty) -> None:
    pair = ImagePair(("0", "1"), ("train", "test"), ("a", "b"), True, 0.99, 0.95)
    by_id = {path.stem: path for path in films}
    assert draw_pairs([pair], by_id).width > 2 * 192
    bad_decoder.crash(films[1])
    with pytest.raises(ImageError, match=r"1: the decoder crashed \(SIGSEGV\)"):
        draw_pairs([pair], by_id)
