"""Read a sound cache, written by hand with plain h5py."""

import hashlib
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from featurecache.errors import CacheError, UnknownNameError
from featurecache.store.hdf5 import dataset
from featurecache.store.reader import read_cache
from featurecache.store.validation import Hdf5Object, validate_hdf5
from tests.store import handwritten


def test_handwritten_cache_is_read(cache_file: Path) -> None:
    cache = read_cache(cache_file)
    assert cache.path == cache_file
    assert cache.header.model == "hf:org/m"
    assert cache.header.dataset == "nih"
    assert cache.header.notes == ("one", "zwölf")
    assert cache.header.image_level_split is False
    assert cache.header.collection == "nih"
    assert cache.header.trained_on == {}
    assert cache.header.encoder_spec == json.loads(handwritten.SPEC)
    assert cache.fingerprint == hashlib.sha256(handwritten.SPEC.encode()).hexdigest()
    assert cache.created == "2025-01-02T03:04:05+00:00"
    assert cache.ids.tolist() == ["a", "b/1", "ç"]
    assert cache.images.sha256.tolist() == [b"0" * 64, b"1" * 64, b"2" * 64]
    assert cache.patients.tolist() == ["p1", "p2", "p2"]
    assert cache.splits.tolist() == ["train", "test", "test"]
    assert cache.views.tolist() == ["PA", "", "AP"]
    assert cache.images.sex.tolist() == [b"F", b"", b"M"]
    assert cache.images.age.tolist() == [b"40", b"", b"7"]
    assert cache.images.size.tolist() == [10, 20, 30]
    assert cache.images.mtime_ns.tolist() == [1, 2, 3]
    assert cache.dim == 4
    assert cache.embedding.dtype == np.float16
    assert cache.embedding.tolist() == handwritten.EMBEDDING
    assert cache.labels.names == ("Mass", "Edema")
    assert cache.labels.values.dtype == np.int8
    assert cache.labels.values.tolist() == [[1, 0], [0, -1], [-1, 1]]
    assert cache.failures == {"b/2": "the file is empty"}


def test_text_sets_of_a_handwritten_cache_are_read(cache_file: Path) -> None:
    text = read_cache(cache_file).texts["signs"]
    assert text.fingerprint == "f" * 64
    assert text.templates == ("signs of {pathology}", "{pathology}", "no {pathology}")
    assert text.labels == ("Mass", "Edema")
    assert (text.aligned, text.scale, text.bias) == (True, 10.0, -2.0)
    assert text.positive.prompts == (("signs of mass", "mass"), ("signs of edema", "edema"))
    assert text.positive.embedding.tolist() == handwritten.TEXTS
    np.testing.assert_array_equal(text.positive.ensemble, np.float32(handwritten.ENSEMBLE))
    assert text.encoder_spec == {"model": "m"}
    assert text.negative is not None
    assert text.negative.prompts == (("no mass",), ("no edema",))
    assert text.negative.embedding.tolist() == [[[0, 0, 0, 2]], [[4, 0, 0, 0]]]
    assert text.negative.ensemble.tolist() == [[0, 0, 0, 1], [1, 0, 0, 0]]


def test_negatives_scale_bias_texts_and_failures_are_optional(cache_file: Path) -> None:
    with handwritten.edit(cache_file) as file:
        del file["text/signs/negatives"], file["failures/id"], file["failures/reason"]
        del file["text/signs"].attrs["scale"], file["text/signs"].attrs["bias"]
        file["failures/id"] = np.empty(0, "S1")
        file["failures/reason"] = np.empty(0, "S1")
    cache = read_cache(cache_file)
    assert cache.failures == {}
    text = cache.texts["signs"]
    assert (text.negative, text.scale, text.bias) == (None, None, None)
    with handwritten.edit(cache_file) as file:
        del file["text/signs"]
    assert read_cache(cache_file).texts == {}


def test_rows_are_read_without_the_others(cache_file: Path) -> None:
    cache = read_cache(cache_file)
    assert cache.read_rows(1, 3).tolist() == handwritten.EMBEDDING[1:]
    assert cache.read_rows(1, 1).shape == (0, 4)


def test_rows_of_a_split(cache_file: Path) -> None:
    cache = read_cache(cache_file)
    assert cache.rows("test").tolist() == [1, 2]
    assert cache.rows("val").tolist() == []


def test_reading_does_not_change_the_file(cache_file: Path) -> None:
    before = cache_file.stat().st_mtime_ns, cache_file.read_bytes()
    cache_file.chmod(0o444)
    assert read_cache(cache_file).embedding.shape == (3, 4)
    assert (cache_file.stat().st_mtime_ns, cache_file.read_bytes()) == before


def test_cache_deleted_after_opening_is_refused(cache_file: Path) -> None:
    cache = read_cache(cache_file)
    cache_file.unlink()
    with pytest.raises(CacheError, match="there is no cache at"):
        cache.read_rows(0, 1)


def test_cache_replaced_after_opening_is_refused(
    cache_file: Path,
) -> None:
    cache, other = read_cache(cache_file), read_cache(cache_file)
    assert other.embedding.shape == (3, 4)
    replacement = cache_file.with_name("new.h5")
    shutil.copy(cache_file, replacement)
    replacement.replace(cache_file)
    with pytest.raises(CacheError, match="has changed since it was opened: open it again"):
        cache.read_rows(0, 1)
    # The mapping keeps the file that was opened.
    assert other.embedding.tolist() == handwritten.EMBEDDING
    assert read_cache(cache_file).embedding.tolist() == handwritten.EMBEDDING


@pytest.mark.parametrize("same_state", [False, True])
def test_ids_and_embeddings_are_of_one_file(
    cache_file: Path, monkeypatch: pytest.MonkeyPatch, same_state: bool
) -> None:
    """An extraction replaces the cache in the middle of reading it."""
    replacement = cache_file.with_name("new.h5")

    def replace(value: float) -> None:
        shutil.copy(cache_file, replacement)
        with handwritten.edit(replacement) as file:
            file["images/embedding"][:] = value
        replacement.replace(cache_file)

    def replace_and_validate(file: h5py.File) -> dict[str, Hdf5Object]:
        if not replacement.exists():
            replace(7)
        return validate_hdf5(file)

    # A file system that gives every file the same inode, and times in seconds.
    if same_state:
        monkeypatch.setattr("featurecache.store.cache.file_state", lambda _: (0, 0, 0))
        monkeypatch.setattr("featurecache.store.reader.file_state", lambda _: (0, 0, 0))
    with monkeypatch.context() as patch:
        patch.setattr("featurecache.store.checksums.validate_hdf5", replace_and_validate)
        cache = read_cache(cache_file)
    for read in (lambda: cache.embedding, lambda: cache.read_rows(0, 1)):
        with pytest.raises(CacheError, match="has changed since it was opened: open it again"):
            read()

    def replace_and_find(group: h5py.Group, name: str) -> h5py.Dataset:
        replace(8)
        return dataset(group, name)

    # Between the check and the mapping.
    current = read_cache(cache_file)
    with monkeypatch.context() as patch:
        patch.setattr("featurecache.store.cache.dataset", replace_and_find)
        assert (current.embedding == 7).all()
    assert (read_cache(cache_file).embedding == 8).all()


def test_only_prompt_set_needs_no_name(cache_file: Path) -> None:
    assert read_cache(cache_file).text().name == "signs"


def test_one_of_several_prompt_sets_must_be_named(cache_file: Path) -> None:
    with handwritten.edit(cache_file) as file:
        file.copy("text/signs", "text/mine")
    cache = read_cache(cache_file)
    with pytest.raises(CacheError, match=r"give `prompts`: .*several prompt sets \(mine, signs\)"):
        cache.text()
    assert cache.text("mine").name == "mine"
    with pytest.raises(UnknownNameError, match="'sings': did you mean signs"):
        cache.text("sings")


def test_cache_without_texts_is_refused(cache_file: Path) -> None:
    with handwritten.edit(cache_file) as file:
        del file["text/signs"]
    with pytest.raises(CacheError, match=r"holds no text embeddings.*such as baseline"):
        read_cache(cache_file).text()


def test_prompt_set_is_in_the_order_of_the_labels(cache_file: Path) -> None:
    with handwritten.edit(cache_file) as file:
        del file["labels/names"]
        handwritten.write_text(file, "labels/names", ["Edema", "Mass"])
    text = read_cache(cache_file).text("signs")
    assert text.labels == ("Edema", "Mass")
    assert text.positive.prompts == (("signs of edema", "edema"), ("signs of mass", "mass"))
    assert text.positive.embedding.tolist() == handwritten.TEXTS[::-1]
    np.testing.assert_array_equal(text.positive.ensemble, np.float32(handwritten.ENSEMBLE[::-1]))
    assert text.negative is not None
    assert text.negative.ensemble.tolist() == [[1, 0, 0, 0], [0, 0, 0, 1]]
    assert (text.fingerprint, text.scale) == ("f" * 64, 10.0)


def test_prompt_set_may_have_more_labels(cache_file: Path) -> None:
    text = read_cache(cache_file).texts["signs"].select(("Edema",))
    assert text.positive.prompts == (("signs of edema", "edema"),)
    assert text.positive.embedding.shape == (1, 2, 4)


def test_label_without_text_is_refused(cache_file: Path) -> None:
    text = read_cache(cache_file).texts["signs"]
    with pytest.raises(CacheError, match="no text for label 'Hernia': extract again"):
        text.select(("Mass", "Hernia"))


def test_copy_is_read_from_a_path_or_a_string(cache_file: Path, tmp_path: Path) -> None:
    copy = shutil.copy(cache_file, tmp_path / "Lungenröntgen.h5")
    assert read_cache(copy).ids.tolist() == handwritten.IDS
    assert read_cache(str(copy)).ids.tolist() == handwritten.IDS


def test_embeddings_are_mapped_copy_on_write(
    cache_file: Path,
) -> None:
    before = cache_file.read_bytes()
    cache_file.chmod(0o444)
    embedding = read_cache(cache_file).embedding
    assert isinstance(embedding, np.memmap)
    embedding[:] = 7
    assert cache_file.read_bytes() == before
    assert read_cache(cache_file).embedding.tolist() == handwritten.EMBEDDING


def test_chunked_embeddings_are_read(cache_file: Path) -> None:
    with handwritten.edit(cache_file) as file:
        values = file["images/embedding"][()]
        del file["images/embedding"]
        file["images"].create_dataset("embedding", data=values, chunks=(1, 4))
    cache = read_cache(cache_file)
    assert cache.embedding.tolist() == handwritten.EMBEDDING
    assert cache.read_rows(1, 3).tolist() == handwritten.EMBEDDING[1:]
