from pathlib import Path

import numpy as np
import pytest

from featurecache.audit.contact_sheet import pair_sheet
from featurecache.audit.near_duplicates import near_duplicates, similarity_cutoff
from featurecache.errors import UsageError
from featurecache.images.decode import read_image
from featurecache.store.cache import Cache
from tests.audit.audit_caches import make
from tests.audit.changed import CHANGES


def planted(root: Path, folder: Path) -> tuple[Cache, dict[str, Path], dict[str, str]]:
    """First visits, half in train, half in test; of ten in train a changed copy is in test.

    Embeddings are random: that copies are found is owed to the films alone.
    """
    films = {path.stem: path for path in sorted((root / "images").glob("*_000.png"))}
    split = dict.fromkeys(films, "test") | dict.fromkeys(list(films)[::2], "train")
    rng, origin = np.random.default_rng(1), {}
    for source, (name, change) in zip(list(films)[:20:2], list(CHANGES.items()) * 2, strict=True):
        copy = folder / f"{source} {name}.png"
        change(read_image(films[source]), rng).save(copy)
        origin[copy.stem] = source
    films |= {name: folder / f"{name}.png" for name in origin}
    split |= dict.fromkeys(origin, "test")
    ids = sorted(films)
    return make(folder, [split[name] for name in ids], id=ids), films, origin


def test_every_planted_copy_is_found_and_nothing_else(phantom: Path, tmp_path: Path) -> None:
    cache, films, origin = planted(phantom, tmp_path)
    found = near_duplicates(cache, films)
    assert {frozenset(pair["images"]) for pair in found["pairs"]} == {
        frozenset(pair) for pair in origin.items()
    }
    assert found["unreadable"] == {}
    likenesses = [pair["likeness"] for pair in found["pairs"]]
    assert likenesses == sorted(likenesses, reverse=True)
    assert {tuple(sorted(pair["splits"])) for pair in found["pairs"]} == {("test", "train")}


def test_a_clean_set_has_no_pairs(phantom: Path, tmp_path: Path) -> None:
    films = {path.stem: path for path in sorted((phantom / "images").iterdir())}
    # By patient: in the drawn set, the films of one are nearly the same picture.
    split = [("train", "val", "test")[int(name[:8]) % 3] for name in films]
    found = near_duplicates(make(tmp_path, split, id=list(films)), films)
    assert found["pairs"] == []
    assert found["compared"] > len(films)


def test_byte_identical_films_are_not_near_identical_ones_as_well(
    phantom: Path, tmp_path: Path
) -> None:
    film = sorted((phantom / "images").iterdir())[0]
    cache = make(tmp_path, ["train", "test"], sha256=["same", "same"])
    assert near_duplicates(cache, dict.fromkeys(cache.ids, film))["pairs"] == []


def test_a_film_that_cannot_be_read_is_told_and_the_others_are_compared(
    phantom: Path, tmp_path: Path, bad_decoder
) -> None:
    cache, films, origin = planted(phantom, tmp_path)
    lost, crashing = list(origin)[:2]
    films[lost].write_bytes(b"no image")
    bad_decoder.crash(films[crashing])
    found = near_duplicates(cache, films)
    assert set(found["unreadable"]) == {lost, crashing}
    assert "not an image" in found["unreadable"][lost]
    assert found["unreadable"][crashing] == "the decoder crashed (SIGSEGV)"
    assert len(found["pairs"]) == len(origin) - 2


def test_a_data_set_that_lacks_an_image_of_the_cache_is_refused(tmp_path: Path) -> None:
    cache = make(tmp_path, ["train", "test"])
    with pytest.raises(UsageError, match=r"no image '0000' .* --data-root"):
        near_duplicates(cache, {})


def test_without_films_an_embedding_out_of_the_ordinary_is_only_suspected(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    embedding = rng.normal(size=(200, 8))
    embedding[150] = embedding[20] + 1e-3 * rng.normal(size=8)
    split = ["train"] * 100 + ["test"] * 100
    found = near_duplicates(make(tmp_path, split, embedding=embedding), None)
    assert (found["pairs"], found["compared"]) == (None, None)
    (pair,) = found["outstanding"]["pairs"]
    assert pair["images"] == ["0020", "0150"]
    assert pair["likeness"] is None
    assert pair["cosine"] > found["outstanding"]["cosine"]


def test_a_set_of_one_split_has_nothing_to_compare(tmp_path: Path) -> None:
    found = near_duplicates(make(tmp_path, ["train"] * 30), {})
    assert found["pairs"] == []
    assert found["outstanding"] == {"cosine": None, "pairs": []}


def test_by_chance_half_an_image_in_a_set_is_out_of_the_ordinary() -> None:
    rng = np.random.default_rng(0)
    counts = []
    for _ in range(400):
        nearest = 1 - np.exp(rng.normal(-4, 0.3, 1000))
        threshold = similarity_cutoff(nearest)
        assert threshold is not None
        counts.append((nearest >= threshold).sum())
    assert np.mean(counts) == pytest.approx(0.5, abs=0.15)
    assert similarity_cutoff(np.full(19, 0.5)) is None


def test_the_sheet_shows_the_pairs_two_a_row(phantom: Path, tmp_path: Path) -> None:
    cache, films, origin = planted(phantom, tmp_path)
    pairs = near_duplicates(cache, films)["pairs"]
    one, all_of_them = pair_sheet(pairs[:1], films), pair_sheet(pairs, films)
    assert all_of_them.width == pytest.approx(2 * one.width, abs=5)
    assert all_of_them.height == pytest.approx(len(origin) / 2 * one.height, abs=30)
