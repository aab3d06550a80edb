"""Reading what is sound: a file written by hand with plain h5py."""

import hashlib
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from featurecache.errors import CacheError, UnknownNameError
from featurecache.store.reader import read_cache
from tests.store import handwritten


def test_a_handwritten_file_of_version_1_reads(version_1: Path) -> None:
    cache = read_cache(version_1)
    assert cache.path == version_1
    assert cache.header.model == "hf:org/m"
    assert cache.header.dataset == "nih"
    assert cache.header.notes == ("one", "zwölf")
    assert cache.header.image_level_split is False
    # Files of before say neither.
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
    # Nor do they know of sex and age.
    assert cache.images.sex.tolist() == [b"", b"", b""]
    assert cache.images.age.tolist() == [b"", b"", b""]
    assert cache.images.size.tolist() == [10, 20, 30]
    assert cache.images.mtime_ns.tolist() == [1, 2, 3]
    assert cache.dim == 4
    assert cache.embedding.dtype == np.float16
    assert cache.embedding.tolist() == handwritten.EMBEDDING
    assert cache.labels.names == ("Mass", "Edema")
    assert cache.labels.values.dtype == np.int8
    assert cache.labels.values.tolist() == [[1, 0], [0, -1], [-1, 1]]
    assert cache.failures == {"b/2": "the file is empty"}


def test_the_texts_of_a_handwritten_file_read(version_1: Path) -> None:
    text = read_cache(version_1).texts["signs"]
    assert text.fingerprint == "f" * 64
    assert text.templates == ("signs of {pathology}", "{pathology}", "no {pathology}")
    assert text.labels == ("Mass", "Edema")
    assert (text.aligned, text.scale, text.bias) == (True, 10.0, -2.0)
    assert text.positive.prompts == (("signs of mass", "mass"), ("signs of edema", "edema"))
    assert text.positive.embedding.tolist() == handwritten.TEXTS
    np.testing.assert_array_equal(text.positive.ensemble, np.float32(handwritten.ENSEMBLE))
    assert text.negative is not None
    assert text.negative.prompts == (("no mass",), ("no edema",))
    assert text.negative.embedding.tolist() == [[[0, 0, 0, 2]], [[4, 0, 0, 0]]]
    assert text.negative.ensemble.tolist() == [[0, 0, 0, 1], [1, 0, 0, 0]]


def test_negatives_scale_bias_texts_and_failures_may_be_absent(version_1: Path) -> None:
    with h5py.File(version_1, "a") as file:
        del file["text/signs/negatives"], file["failures/id"], file["failures/reason"]
        del file["text/signs"].attrs["scale"], file["text/signs"].attrs["bias"]
        file["failures/id"] = np.empty(0, "S1")
        file["failures/reason"] = np.empty(0, "S1")
    cache = read_cache(version_1)
    assert cache.failures == {}
    text = cache.texts["signs"]
    assert (text.negative, text.scale, text.bias) == (None, None, None)
    with h5py.File(version_1, "a") as file:
        del file["text/signs"]
    assert read_cache(version_1).texts == {}


def test_some_rows_are_read_without_the_others(version_1: Path) -> None:
    cache = read_cache(version_1)
    assert cache.read_rows(1, 3).tolist() == handwritten.EMBEDDING[1:]
    assert cache.read_rows(1, 1).shape == (0, 4)


def test_rows_of_a_split(version_1: Path) -> None:
    cache = read_cache(version_1)
    assert cache.rows("test").tolist() == [1, 2]
    assert cache.rows("val").tolist() == []


def test_reading_leaves_the_file_alone(version_1: Path) -> None:
    before = version_1.stat().st_mtime_ns, version_1.read_bytes()
    version_1.chmod(0o444)
    assert read_cache(version_1).embedding.shape == (3, 4)
    assert (version_1.stat().st_mtime_ns, version_1.read_bytes()) == before


def test_a_cache_that_was_deleted_after_reading_is_a_cache_error(version_1: Path) -> None:
    cache = read_cache(version_1)
    version_1.unlink()
    with pytest.raises(CacheError, match="no cache at"):
        cache.read_rows(0, 1)


def test_a_cache_that_was_replaced_after_reading_is_not_mixed_with_the_new_one(
    version_1: Path,
) -> None:
    cache, other = read_cache(version_1), read_cache(version_1)
    assert other.embedding.shape == (3, 4)
    replacement = version_1.with_name("new.h5")
    shutil.copy(version_1, replacement)
    replacement.replace(version_1)
    with pytest.raises(CacheError, match="has changed since it was opened: open it again"):
        cache.read_rows(0, 1)
    # The mapping keeps the file that it was made of.
    assert other.embedding.tolist() == handwritten.EMBEDDING
    assert read_cache(version_1).embedding.tolist() == handwritten.EMBEDDING


def test_the_only_prompt_set_needs_no_name(version_1: Path) -> None:
    assert read_cache(version_1).text().name == "signs"


def test_one_of_several_prompt_sets_must_be_named(version_1: Path) -> None:
    with h5py.File(version_1, "a") as file:
        file.copy("text/signs", "text/mine")
    cache = read_cache(version_1)
    with pytest.raises(CacheError, match=r"give `prompts`: .*several prompt sets \(mine, signs\)"):
        cache.text()
    assert cache.text("mine").name == "mine"
    with pytest.raises(UnknownNameError, match="'sings': did you mean signs"):
        cache.text("sings")


def test_a_cache_without_texts_says_what_to_do(version_1: Path) -> None:
    with h5py.File(version_1, "a") as file:
        del file["text/signs"]
    with pytest.raises(CacheError, match=r"holds no text embeddings.*such as baseline"):
        read_cache(version_1).text()


def test_a_prompt_set_comes_in_the_order_of_the_caches_labels(version_1: Path) -> None:
    with h5py.File(version_1, "a") as file:
        del file["labels/names"]
        handwritten.text(file, "labels/names", ["Edema", "Mass"])
    text = read_cache(version_1).text("signs")
    assert text.labels == ("Edema", "Mass")
    assert text.positive.prompts == (("signs of edema", "edema"), ("signs of mass", "mass"))
    assert text.positive.embedding.tolist() == handwritten.TEXTS[::-1]
    np.testing.assert_array_equal(text.positive.ensemble, np.float32(handwritten.ENSEMBLE[::-1]))
    assert text.negative is not None
    assert text.negative.ensemble.tolist() == [[1, 0, 0, 0], [0, 0, 0, 1]]
    assert (text.fingerprint, text.scale) == ("f" * 64, 10.0)


def test_a_prompt_set_may_know_more_labels_than_are_asked_for(version_1: Path) -> None:
    text = read_cache(version_1).texts["signs"].select(("Edema",))
    assert text.positive.prompts == (("signs of edema", "edema"),)
    assert text.positive.embedding.shape == (1, 2, 4)


def test_a_label_without_text_is_refused(version_1: Path) -> None:
    text = read_cache(version_1).texts["signs"]
    with pytest.raises(CacheError, match="no text for label 'Hernia': run extract again"):
        text.select(("Mass", "Hernia"))


def test_a_copy_reads_the_same(version_1: Path, tmp_path: Path) -> None:
    copy = shutil.copy(version_1, tmp_path / "Lungenröntgen.h5")
    assert read_cache(Path(copy)).ids.tolist() == handwritten.IDS


def test_the_embedding_is_mapped_and_what_is_written_into_it_stays_in_memory(
    version_1: Path,
) -> None:
    before = version_1.read_bytes()
    version_1.chmod(0o444)
    embedding = read_cache(version_1).embedding
    assert isinstance(embedding, np.memmap)
    embedding[:] = 7
    assert version_1.read_bytes() == before
    assert read_cache(version_1).embedding.tolist() == handwritten.EMBEDDING


def test_an_embedding_in_chunks_reads_the_same(version_1: Path) -> None:
    with h5py.File(version_1, "r+") as file:
        values = file["images/embedding"][()]
        del file["images/embedding"]
        file["images"].create_dataset("embedding", data=values, chunks=(1, 4))
    cache = read_cache(version_1)
    assert cache.embedding.tolist() == handwritten.EMBEDDING
    assert cache.read_rows(1, 3).tolist() == handwritten.EMBEDDING[1:]
