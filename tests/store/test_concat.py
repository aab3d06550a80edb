"""Concatenated caches of the same images; caches that do not belong together are refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from featurecache.errors import CacheError, UsageError
from featurecache.provenance.records import ImageRecords
from featurecache.store.cache import Cache
from featurecache.store.concat import concat_caches, concat_embeddings
from featurecache.store.reader import read_cache
from featurecache.store.records import (
    Header,
    ImageTable,
    Labels,
    TextEmbeddings,
    TextSet,
    to_utf8,
)
from featurecache.store.writer import write_cache

HEADER = Header(
    "a", "set", (), False, False, {"model": "a"}, "nih", {"nih": ImageRecords.of("nih", ["x"])}
)


def text(dim: int, *, prompt: str = "signs of mass", negative: bool = True) -> TextSet:
    texts = TextEmbeddings(
        ((prompt,),), np.full((1, 1, dim), dim, "f4"), np.full((1, dim), dim, "f4")
    )
    return TextSet(
        *("signs", f"of {dim}", ("signs of {}",), ("Mass",), texts, texts if negative else None),
        *(True, 10.0, None),
    )


def cache(
    path: Path,
    rows: list[int],
    embedding: np.ndarray,
    *,
    header: Header = HEADER,
    texts: tuple[TextSet, ...] = (),
    labels: str = "Mass",
    **columns: list[str],
) -> Cache:
    """Write images by number; by default even numbers are positive and in the training split."""
    columns = {
        "sha256": [f"sha {row}" for row in rows],
        "patient": [f"p{row}" for row in rows],
        "split": ["train" if row % 2 == 0 else "test" for row in rows],
        **columns,
    }
    blank = np.full(len(rows), b"")
    half = embedding.astype(np.float16)
    write_cache(
        path,
        header=header,
        images=ImageTable(
            id=to_utf8([f"i{row}" for row in rows]),
            **{name: to_utf8(column) for name, column in columns.items()},
            perceptual_hash=np.zeros((len(rows), 32), np.uint8),
            study=blank,
            view=blank,
            sex=blank,
            age=blank,
            path=blank,
            size=np.ones(len(rows), np.int64),
            mtime_ns=np.ones(len(rows), np.int64),
        ),
        dim=half.shape[1],
        embedding=lambda start, stop: half[start:stop],
        labels=Labels((labels,), np.array([[row % 2 == 0] for row in rows], np.int8)),
        texts={text.name: text for text in texts},
        failures={},
    )
    return read_cache(path)


A_ROWS, B_ROWS = [1, 2, 3, 5], [2, 3, 4, 5]
A = np.array([[1, 0], [3, 4], [0, 2], [6, 8]], dtype=float)
B = np.array([[2, 0, 0], [0, 300, 0], [1, 1, 1], [0, 0, 7]], dtype=float)


@pytest.fixture
def pair(tmp_path) -> tuple[Cache, Cache]:
    other = replace(
        HEADER,
        model="b",
        encoder_spec={"model": "b"},
        exposed=True,
        trained_on={"nih": ImageRecords.of("nih", ["y"]), "more": ImageRecords.of("more", ["z"])},
    )
    return (
        cache(tmp_path / "a.h5", A_ROWS, A, texts=(text(2),)),
        cache(tmp_path / "b.h5", B_ROWS, B, header=other, texts=(text(3),)),
    )


def test_shared_images_have_both_embeddings_at_unit_length(pair):
    joined = concat_caches(pair)
    assert joined.ids.tolist() == ["i2", "i3", "i5"]
    assert joined.splits.tolist() == ["train", "test", "test"]
    assert joined.labels.values.tolist() == [[1], [0], [0]]
    assert joined.dim == 5
    expected = [[0.6, 0.8, 1, 0, 0], [0, 1, 0, 1, 0], [0.6, 0.8, 0, 0, 1]]
    np.testing.assert_allclose(joined.embedding, expected, atol=5e-4)
    np.testing.assert_array_equal(joined.read_rows(1, 3), joined.embedding[1:])
    assert joined.embedding.dtype == np.float16


def test_header_combines_all_caches(pair):
    joined = concat_caches(pair)
    assert joined.header.model == "a+b"
    assert joined.header.exposed
    assert joined.header.encoder_spec == {"joined": [{"model": "a"}, {"model": "b"}]}
    assert joined.header.trained_on == {
        "nih": ImageRecords.of("nih", ["x", "y"]),
        "more": ImageRecords.of("more", ["z"]),
    }
    assert joined.members == pair


def test_texts_are_concatenated_and_not_aligned(pair):
    joined = concat_caches(pair).text("signs")
    assert joined.positive.ensemble.tolist() == [[2, 2, 3, 3, 3]]
    assert joined.positive.embedding.tolist() == [[[2, 2, 3, 3, 3]]]
    assert joined.negative is not None
    assert not joined.aligned
    assert joined.scale is None


def test_single_cache_is_returned(pair):
    assert concat_caches(pair[:1]) is pair[0]
    assert pair[0].members == (pair[0],)


def test_rows_are_joined_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("featurecache.store.concat.BLOCK_ROWS", 2)
    rng = np.random.default_rng(0)
    rows = list(range(1, 8))
    parts = [rng.normal(size=(7, dim)).astype(np.float16) for dim in (3, 4)]
    caches = [cache(tmp_path / f"{n}.h5", rows, part) for n, part in enumerate(parts)]
    np.testing.assert_array_equal(concat_caches(caches).embedding, concat_embeddings(parts))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patient": ["p2", "p3", "p4", "other"]}, "patients of 1 image, the first is i5"),
        ({"split": ["train", "val", "train", "val"]}, "splits of 2 images, the first is i3"),
        ({"sha256": ["?"] * 4}, "files of 3 images, the first is i2"),
        ({"labels": "Nodule"}, "different labels"),
        ({"header": replace(HEADER, collection="others")}, "nih and others"),
    ],
)
def test_caches_that_disagree_are_refused(pair, tmp_path, change, message):
    other = cache(tmp_path / "c.h5", B_ROWS, B, **change)
    with pytest.raises(CacheError, match=message):
        concat_caches([pair[0], other])


def test_other_label_values_are_refused(pair, tmp_path):
    other = replace(pair[1], labels=Labels(("Mass",), 1 - pair[1].labels.values))
    with pytest.raises(CacheError, match="labels of 3 images, the first is i2"):
        concat_caches([pair[0], other])


def test_caches_without_shared_images_are_refused(pair, tmp_path):
    with pytest.raises(CacheError, match="share no image"):
        concat_caches([pair[0], cache(tmp_path / "c.h5", [6, 7], B[:2])])


def test_same_cache_twice_is_refused(pair):
    with pytest.raises(UsageError, match="given twice"):
        concat_caches([pair[0], pair[0]])


def test_other_prompts_of_the_same_name_are_refused(pair, tmp_path):
    other = cache(tmp_path / "c.h5", B_ROWS, B, texts=(text(3, prompt="evidence of mass"),))
    joined = concat_caches([pair[0], other])
    with pytest.raises(CacheError, match=r"the prompts 'signs' of .*c\.h5 are not the prompts"):
        joined.text()


def test_negatives_are_kept_only_if_all_caches_have_them(pair, tmp_path):
    other = cache(tmp_path / "c.h5", B_ROWS, B, texts=(text(3, negative=False),))
    assert concat_caches([pair[0], other]).text().negative is None


def test_images_that_a_cache_lacks_are_counted_by_reason(tmp_path: Path) -> None:
    header = replace(HEADER, excluded={"listed, but not on disk": 3})
    a = cache(tmp_path / "a.h5", A_ROWS, A, header=header)
    b = cache(tmp_path / "b.h5", B_ROWS, B, header=header)
    b = replace(b, failures={"i1": "damaged: broken PNG file", "i9": "damaged: no data"})
    joined = concat_caches([a, b])
    assert joined.ids.tolist() == ["i2", "i3", "i5"]
    assert joined.excluded == {
        "listed, but not on disk": 3,
        "damaged": 2,
        "not in the cache of another encoder": 1,
    }
