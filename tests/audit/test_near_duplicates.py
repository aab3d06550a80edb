from pathlib import Path

import numpy as np
import pytest

from featurecache.audit import near_duplicates as module
from featurecache.audit.contact_sheet import draw_pairs
from featurecache.audit.near_duplicates import (
    SuspectedPairs,
    near_duplicates,
    similarity_cutoff,
)
from featurecache.images.decode import read_image
from featurecache.store.cache import Cache
from tests.audit.audit_caches import make_cache
from tests.audit.changed import CHANGES


def with_copies(root: Path, folder: Path) -> tuple[Cache, dict[str, Path], dict[str, str]]:
    """First visits, half in train and half in test, with changed copies of ten from train in test.

    Embeddings are random, so copies can be found only by their pixels.

    Returns:
        The cache, the image files by id, and the original of each copy by id.
    """
    files = {path.stem: path for path in sorted((root / "images").glob("*_000.png"))}
    split = dict.fromkeys(files, "test") | dict.fromkeys(list(files)[::2], "train")
    rng, origin = np.random.default_rng(1), {}
    for source, (name, change) in zip(list(files)[:20:2], list(CHANGES.items()) * 2, strict=True):
        copy = folder / f"{source} {name}.png"
        change(read_image(files[source]), rng).save(copy)
        origin[copy.stem] = source
    files |= {name: folder / f"{name}.png" for name in origin}
    split |= dict.fromkeys(origin, "test")
    ids = sorted(files)
    return make_cache(folder, [split[name] for name in ids], id=ids), files, origin


def test_every_copy_is_found_and_nothing_else(any_phantom: Path, tmp_path: Path) -> None:
    cache, files, origin = with_copies(any_phantom, tmp_path)
    found = near_duplicates(cache, files)
    assert {frozenset(pair.images) for pair in found.pairs} == {
        frozenset(pair) for pair in origin.items()
    }
    assert found.unreadable == {}
    values = [pair.similarity for pair in found.pairs]
    assert values == sorted(values, reverse=True)
    assert {tuple(sorted(pair.splits)) for pair in found.pairs} == {("test", "train")}


def test_clean_data_set_has_no_pairs(any_phantom: Path, tmp_path: Path) -> None:
    files = {path.stem: path for path in sorted((any_phantom / "images").iterdir())}
    # By patient, since phantom images of one patient are nearly identical.
    split = [("train", "val", "test")[int(name[:8]) % 3] for name in files]
    found = near_duplicates(make_cache(tmp_path, split, id=list(files)), files)
    assert found.pairs == ()
    assert found.compared > len(files)


def test_byte_identical_images_are_not_near_duplicates(phantom: Path, tmp_path: Path) -> None:
    image = sorted((phantom / "images").iterdir())[0]
    cache = make_cache(tmp_path, ["train", "test"], sha256=["same", "same"])
    assert near_duplicates(cache, dict.fromkeys(cache.ids, image)).pairs == ()


def test_unreadable_images_are_reported_and_the_others_compared(
    phantom: Path, tmp_path: Path, bad_decoder
) -> None:
    cache, files, origin = with_copies(phantom, tmp_path)
    unreadable, crashing = list(origin)[:2]
    files[unreadable].write_bytes(b"no image")
    bad_decoder.crash(files[crashing])
    found = near_duplicates(cache, files)
    assert set(found.unreadable) == {unreadable, crashing}
    assert "not an image" in found.unreadable[unreadable]
    assert found.unreadable[crashing] == "the decoder crashed (SIGSEGV)"
    assert len(found.pairs) == len(origin) - 2


@pytest.mark.parametrize("sample", [40, 200])
def test_without_image_files_similar_embeddings_are_only_suspected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sample: int
) -> None:
    monkeypatch.setattr(module, "SAMPLE", sample)
    rng = np.random.default_rng(3)
    embedding = rng.normal(size=(200, 8))
    embedding[150] = embedding[20] + 1e-3 * rng.normal(size=8)
    split = ["train"] * 100 + ["test"] * 100
    cache = make_cache(tmp_path, split, embedding=embedding)
    found = near_duplicates(cache, None)
    assert (found.pairs, found.compared) == (None, None)
    (pair,) = found.suspected.pairs
    assert pair.images == ("0020", "0150")
    assert pair.similarity is None
    assert pair.cosine > found.suspected.cosine
    rows = cache.embedding.astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    nearest = (rows[:100] @ rows[100:].T).max(axis=1), (rows[100:] @ rows[:100].T).max(axis=1)
    every = np.linspace(0, 199, sample).astype(int)
    cutoff = similarity_cutoff(np.concatenate(nearest)[every], n_images=200)
    assert (found.suspected.sample, found.suspected.cosine) == (sample, pytest.approx(cutoff))


def test_all_pairs_above_the_cutoff_are_suspected_with_and_without_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    embedding = np.repeat(rng.normal(size=(40, 8)), 3, axis=0)
    embedding[::4] += 1e-2 * rng.normal(size=embedding[::4].shape)
    cache = make_cache(tmp_path, ["train", "val", "test"] * 40, embedding=embedding)
    without, unreadable = near_duplicates(cache, None), dict.fromkeys(cache.ids, tmp_path / "none")
    assert len(without.suspected.pairs) > 20
    assert without.suspected == near_duplicates(cache, unreadable).suspected


def test_single_split_has_nothing_to_compare(tmp_path: Path) -> None:
    found = near_duplicates(make_cache(tmp_path, ["train"] * 30), {})
    assert found.pairs == ()
    assert found.suspected == SuspectedPairs(sample=0, cosine=None, pairs=())


def test_half_an_image_per_data_set_exceeds_the_cutoff_by_chance() -> None:
    rng = np.random.default_rng(0)
    counts = []
    for _ in range(400):
        nearest = 1 - np.exp(rng.normal(-4, 0.3, 1000))
        cutoff = similarity_cutoff(nearest, n_images=1000)
        assert cutoff is not None
        counts.append((nearest >= cutoff).sum())
    assert np.mean(counts) == pytest.approx(0.5, abs=0.15)
    assert similarity_cutoff(np.full(19, 0.5), n_images=19) is None


def test_contact_sheet_shows_two_pairs_per_row(phantom: Path, tmp_path: Path) -> None:
    cache, files, origin = with_copies(phantom, tmp_path)
    pairs = near_duplicates(cache, files).pairs
    one_pair, all_pairs = draw_pairs(pairs[:1], files), draw_pairs(pairs, files)
    assert all_pairs.width == pytest.approx(2 * one_pair.width, abs=5)
    assert all_pairs.height == pytest.approx(len(origin) / 2 * one_pair.height, abs=30)
