"""Opening a cache by a file, a folder or a list, and what it gives as arrays and DataFrames."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from featurecache.errors import CacheError, UnknownNameError, UsageError
from featurecache.store.concat import ConcatCache
from featurecache.store.describe import list_caches
from featurecache.store.layout import lock_path
from featurecache.store.open import mark_as_newest, open_cache
from tests.store import handwritten


def set_age(path: Path, seconds: int) -> None:
    os.utime(path, (1_000_000 - seconds, 1_000_000 - seconds))


def test_file_is_opened_by_str_or_path(cache_file: Path) -> None:
    assert open_cache(str(cache_file)).path == cache_file
    assert open_cache(cache_file).path == cache_file


def test_folder_gives_its_newest_cache(cache_file: Path) -> None:
    folder = cache_file.parent.parent
    other = folder / "kermany" / "m.h5"
    other.parent.mkdir()
    shutil.copy(cache_file, other)
    set_age(cache_file, 20)
    set_age(other, 10)
    assert open_cache(folder).path == other
    set_age(other, 30)
    assert open_cache(folder).path == cache_file


def test_several_caches_of_the_last_extraction_are_listed(cache_file: Path) -> None:
    folder = cache_file.parent.parent
    other = Path(shutil.copy(cache_file, cache_file.with_name("n.h5")))
    older = Path(shutil.copy(cache_file, cache_file.with_name("o.h5")))
    for path in (cache_file, other, older):
        lock_path(path).touch()
    # Later than the copies, which were written just now.
    mark_as_newest([cache_file, other])
    with pytest.raises(CacheError, match=r"give one of them as `cache`: .*m\.h5, .*n\.h5$"):
        open_cache(folder)
    # An extraction that changes nothing makes its cache the newest, too.
    before = older.stat().st_mtime_ns
    mark_as_newest([older])
    assert open_cache(folder).path == older
    assert older.stat().st_mtime_ns == before


def test_shards_and_unfinished_caches_are_never_the_newest(cache_file: Path) -> None:
    folder = cache_file.parent.parent
    received = folder / ".pull.0-0-0.tmp" / "kermany" / "m.h5"  # of a killed pull
    received.parent.mkdir(parents=True)
    shutil.copy(cache_file, received)
    assert [entry.path for entry in list_caches(folder)] == [cache_file]
    set_age(cache_file, 20)
    shutil.copy(cache_file, cache_file.with_name("m.1-of-2.h5"))
    (cache_file.parent / "n.h5.parts").mkdir()
    shutil.copy(cache_file, cache_file.parent / "n.h5.parts" / "part-00000000.h5")
    assert open_cache(folder).path == cache_file
    cache_file.unlink()
    with pytest.raises(CacheError, match="holds only shards: merge them"):
        open_cache(folder)


def test_folder_without_caches_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match=f"no finished cache in {tmp_path}: extract one"):
        open_cache(tmp_path)
    (tmp_path / "n.h5.parts").mkdir()
    with pytest.raises(CacheError, match=r"but the unfinished .*n\.h5\.parts: extract again"):
        open_cache(tmp_path)


def test_list_concatenates_features(cache_file: Path) -> None:
    other = shutil.copy(cache_file, cache_file.with_name("n.h5"))
    cache = open_cache([cache_file, str(other)])
    assert isinstance(cache, ConcatCache)
    assert [member.path for member in cache.members] == [cache_file, Path(other)]
    X, _, _ = cache.arrays()
    assert X.shape == (3, 8)
    with pytest.raises(UsageError, match="given twice"):
        open_cache([cache_file, cache_file])
    with pytest.raises(UsageError, match="at least one cache"):
        open_cache([])


def test_home_folder_is_expanded(cache_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(cache_file.parent))
    assert open_cache("~/m.h5").path == cache_file


def test_arrays_of_all_images(cache_file: Path) -> None:
    X, y, groups = open_cache(cache_file).arrays()
    assert (X.dtype, y.dtype) == (np.float32, np.float32)
    assert X.tolist() == handwritten.EMBEDDING
    np.testing.assert_array_equal(y, [[1, 0], [0, np.nan], [np.nan, 1]])
    assert groups.tolist() == ["p1", "p2", "p2"]


@pytest.mark.parametrize("block_rows", [1, 2, 4096])
def test_arrays_of_a_split(
    cache_file: Path, monkeypatch: pytest.MonkeyPatch, block_rows: int
) -> None:
    monkeypatch.setattr("featurecache.store.cache.BLOCK_ROWS", block_rows)
    X, y, groups = open_cache(cache_file).arrays("test")
    assert X.tolist() == handwritten.EMBEDDING[1:]
    np.testing.assert_array_equal(y, [[0, np.nan], [np.nan, 1]])
    assert groups.tolist() == ["p2", "p2"]


def test_arrays_of_an_unknown_split_are_refused(cache_file: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown split 'tests': did you mean test\?"):
        open_cache(cache_file).arrays("tests")


def test_to_pandas_has_metadata_and_labels(cache_file: Path) -> None:
    frame = open_cache(cache_file).to_pandas()
    assert list(frame) == ["id", "patient", "study", "split", "view", "sex", "age", "Mass", "Edema"]
    assert frame["id"].tolist() == handwritten.IDS
    assert frame["view"].isna().tolist() == [False, True, False]
    assert frame["sex"].isna().tolist() == [False, True, False]
    np.testing.assert_array_equal(frame["age"], [40, np.nan, 7])
    np.testing.assert_array_equal(frame["Mass"], [1, 0, np.nan])


def test_to_torch_has_stored_embeddings_and_labels(cache_file: Path) -> None:
    cache = open_cache(cache_file)
    embedding, labels = cache.to_torch().tensors
    assert str(embedding.dtype) == "torch.float16"
    np.testing.assert_array_equal(embedding.numpy(), np.array(handwritten.EMBEDDING, np.float16))
    np.testing.assert_array_equal(labels.numpy(), [[1, 0], [0, np.nan], [np.nan, 1]])
    test, _ = cache.to_torch("test").tensors
    np.testing.assert_array_equal(test.numpy(), embedding[1:].numpy())
    with pytest.raises(ValueError, match="unknown split 'val'"):
        cache.to_torch("val")


def test_to_anndata_has_all_of_a_cache_and_can_be_written(cache_file: Path) -> None:
    import anndata

    path = cache_file.with_suffix(".h5ad")
    open_cache(cache_file).to_anndata().write_h5ad(path)
    read = anndata.read_h5ad(path)
    np.testing.assert_array_equal(read.X, np.array(handwritten.EMBEDDING, np.float16))
    assert read.obs_names.tolist() == handwritten.IDS
    assert read.obs["view"].tolist() == ["PA", "", "AP"]
    np.testing.assert_array_equal(read.obs["age"], [40, np.nan, 7])
    np.testing.assert_array_equal(read.obs["Mass"], [1, 0, np.nan])


def test_to_pandas_adds_embeddings_when_asked(cache_file: Path) -> None:
    column = open_cache(cache_file).to_pandas(embeddings=True)["embedding"]
    assert np.stack(column).tolist() == handwritten.EMBEDDING


def test_text_embeddings_are_the_ensembles(cache_file: Path) -> None:
    cache = open_cache(cache_file)
    np.testing.assert_array_equal(cache.text_embeddings(), np.float32(handwritten.ENSEMBLE))
    assert cache.text_embeddings("signs").dtype == np.float32


def test_repr_shows_what_the_cache_holds(cache_file: Path) -> None:
    cache = open_cache(cache_file)
    assert repr(cache).splitlines() == [
        f"Cache({str(cache_file)!r})",
        "  model: hf:org/m",
        "  dataset: nih",
        "  images: 3 (test 2, train 1)",
        "  embeddings: 4-d float16",
        "  labels: 2 (Mass, Edema)",
        "  prompt sets: signs",
        "  excluded images: 8 (7 listed, but not on disk; 1 the file is empty)",
    ]
    assert "<td style='text-align:left'>hf:org/m</td>" in cache._repr_html_()
