"""bf16 is chosen where it is fast and accurate, and a cache keeps its precision."""

from functools import partial

import numpy as np
import pytest

from featurecache.extraction.precision import MIN_COSINE, choose_precision, min_cosine
from featurecache.extraction.update import update_caches
from featurecache.store.reader import read_cache
from tests.extraction.stub_encoder import StubEncoder, make_dataset, write_images


class Rounded(StubEncoder):
    """Rotates its embeddings by an angle in bf16."""

    def __init__(self, *, precision: str, angle: float = 0.0, made: list | None = None) -> None:
        super().__init__()
        self.precision, self.angle = precision, angle
        if made is not None:
            made.append(self)

    @property
    def image_spec(self):
        return {**super().image_spec, "precision": self.precision}

    def embed_pixels(self, pixels):
        rows = super().embed_pixels(pixels)
        if self.precision == "fp32":
            return rows
        # Rotated in the plane of the row and an orthogonal direction.
        away = np.zeros_like(rows)
        away[:, 0], away[:, 1] = rows[:, 1], -rows[:, 0]
        away *= (np.linalg.norm(rows, axis=1) / np.linalg.norm(away, axis=1))[:, np.newaxis]
        return np.cos(self.angle) * rows + np.sin(self.angle) * away


@pytest.fixture
def fast(monkeypatch):
    monkeypatch.setattr("featurecache.extraction.precision.has_fast_bf16", lambda device: True)


@pytest.mark.parametrize(("angle", "chosen"), [(0.04, "bf16"), (0.05, "fp32")])
def test_bf16_is_chosen_if_min_cosine_is_high_enough(fast, dataset, cache, angle, chosen):
    assert np.cos(0.04) > MIN_COSINE > np.cos(0.05)
    encoder = choose_precision(partial(Rounded, angle=angle), dataset, cache)
    assert encoder.precision == chosen
    assert encoder.bf16_cosine == pytest.approx(np.cos(angle), abs=1e-6)


def test_device_without_fast_bf16_is_not_probed(monkeypatch, dataset, cache):
    monkeypatch.setattr("featurecache.extraction.precision.has_fast_bf16", lambda device: False)
    made = []
    encoder = choose_precision(partial(Rounded, made=made), dataset, cache)
    assert (encoder.precision, encoder.bf16_cosine) == ("fp32", None)
    assert [one.batches for one in made] == [[]]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("finished", [True, False])
def test_cache_keeps_its_precision(fast, dataset, cache, precision, finished):
    class StopError(Exception):
        pass

    def progress(done, total):
        if done == 8 and not finished:
            raise StopError

    started = Rounded(precision=precision, angle=0.5 if precision == "fp32" else 0.0)
    try:
        update_caches(dataset, [started], cache_dir=cache, batch_size=2, progress=progress)
    except StopError:
        assert not (cache / "set/stub.h5").exists()
    # A new measurement would choose the other one.
    angle = 0.0 if precision == "fp32" else 0.5
    assert choose_precision(partial(Rounded, angle=angle), dataset, cache).precision == precision


def test_measured_cosine_is_stored_in_cache(fast, dataset, cache):
    encoder = choose_precision(partial(Rounded, angle=0.03), dataset, cache)
    (summary,) = update_caches(dataset, [encoder], cache_dir=cache)
    measured = read_cache(summary.path).header.bf16_cosine
    assert measured == encoder.bf16_cosine
    again = choose_precision(partial(Rounded, angle=0.03), dataset, cache)
    (summary,) = update_caches(dataset, [again], cache_dir=cache)
    assert not summary.written
    assert read_cache(summary.path).header.bf16_cosine == measured


def test_unreadable_images_are_not_probed(fast, root, cache):
    dataset = make_dataset(root, write_images(root, 4))
    for name in dataset.images["path"].iloc[:3]:
        (root / name).write_bytes(b"no image")
    encoder = choose_precision(partial(Rounded, angle=0.0), dataset, cache)
    assert encoder.precision == "bf16"
    (root / dataset.images["path"].iloc[3]).write_bytes(b"no image")
    assert choose_precision(Rounded, dataset, cache).precision == "fp32"


def test_hanging_and_crashing_images_are_not_probed(fast, root, cache, bad_decoder):
    dataset = make_dataset(root, write_images(root, 5))
    for name, spoil in zip(dataset.images["path"], bad_decoder, strict=False):
        spoil(root / name)
    made = []
    load = partial(Rounded, angle=0.0, made=made)
    assert choose_precision(load, dataset, cache, image_timeout=0.3).precision == "bf16"
    assert made[0].batches == [[3, 4]]


def test_min_cosine_is_of_worst_row_and_zero_for_zero_row():
    one = np.float32([[1, 0], [0, 2], [3, 4]])
    other = np.float32([[2, 0], [0.1, 2], [4, 3]])
    assert min_cosine(one, other) == pytest.approx(24 / 25)
    assert min_cosine(one, np.zeros((3, 2), np.float32)) == 0
