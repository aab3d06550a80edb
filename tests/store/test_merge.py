"""Merged shards equal the whole cache; caches that do not belong together are refused."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from featurecache.errors import CacheError, UsageError
from featurecache.provenance.records import ImageRecords
from featurecache.store.merge import Shard, merge_caches, shard_of
from featurecache.store.reader import read_cache
from featurecache.store.records import Header, ImageTable, Labels, TextEmbeddings, TextSet, to_utf8
from featurecache.store.writer import write_cache

HEADER = Header(
    model="m",
    dataset="set",
    notes=("a note",),
    image_level_split=False,
    exposed=False,
    encoder_spec={"model": "m", "precision": "fp32"},
    collection="set",
    trained_on={},
    probe={
        "images": 32,
        "measurements": [
            {
                "backend": "torch",
                "precision": "fp32",
                "images_per_second": 20.5,
                "min_cosine": 1.0,
            }
        ],
    },
)
TEXT = TextSet(
    name="signs",
    fingerprint="f" * 64,
    templates=("signs of {pathology}",),
    labels=("Mass", "Edema"),
    positive=TextEmbeddings(
        (("signs of mass",), ("signs of edema",)),
        np.float32([[[1, 0, 0]], [[0, 1, 0]]]),
        np.float32([[1, 0, 0], [0, 1, 0]]),
    ),
    negative=None,
    aligned=True,
    scale=10.0,
    bias=None,
)


def embedding_of(rows: np.ndarray) -> np.ndarray:
    return np.stack([rows, rows + 1, rows * 2 + 1], axis=1).astype(np.float16)


def write(
    path: Path, rows: range | list[int], *, header: Header = HEADER, text: TextSet = TEXT, **more
) -> Path:
    rows = np.array(rows)
    n = len(rows)
    embedding = embedding_of(rows)
    write_cache(
        path,
        header=header,
        images=ImageTable(
            id=to_utf8([f"i{row:04d}" for row in rows]),
            sha256=to_utf8([f"sha of {row}" for row in rows]),
            perceptual_hash=np.repeat(rows[:, None].astype(np.uint8), 32, axis=1),
            patient=to_utf8([f"p{row // 2}" for row in rows]),
            split=to_utf8(
                more.get("splits", [("train", "val", "test")[row // 2 % 3] for row in rows])
            ),
            study=to_utf8(more.get("studies", [f"s{row // 2}" for row in rows])),
            view=np.full(n, b"PA"),
            sex=to_utf8([("F", "M")[row % 2] for row in rows]),
            age=to_utf8([str(row % 90) for row in rows]),
            path=to_utf8([f"{row}.png" for row in rows]),
            size=rows.astype(np.int64) + 100,
            mtime_ns=rows.astype(np.int64) + 1000,
        ),
        dim=3,
        embedding=lambda start, stop: embedding[start:stop],
        labels=Labels(
            more.get("names", ("Mass", "Edema")),
            np.stack([rows % 2, rows % 3 - 1], axis=1).astype(np.int8),
        ),
        texts={text.name: text},
        failures=more.get("failures", {}),
    )
    return path


@pytest.mark.parametrize("count", [2, 3, 7])
@pytest.mark.parametrize("block_rows", [5, 4096])
def test_merged_shards_equal_the_whole_cache(tmp_path, monkeypatch, count, block_rows):
    monkeypatch.setattr("featurecache.store.writer.BLOCK_ROWS", block_rows)
    whole = read_cache(write(tmp_path / "whole.h5", range(40), failures={"x": "gone", "y": "cut"}))
    shards = [
        write(
            Shard(number, count).path(tmp_path / "m.h5"),
            range(number - 1, 40, count),
            failures={1: {"x": "gone"}, 2: {"y": "cut"}}.get(number, {}),
        )
        for number in range(1, count + 1)
    ]
    target, images = merge_caches(shards[::-1])
    assert (target, images) == (tmp_path / "m.h5", 40)
    merged = read_cache(target)
    for field in dataclasses.fields(ImageTable):
        found, expected = getattr(merged.images, field.name), getattr(whole.images, field.name)
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(merged.embedding, embedding_of(np.arange(40)))
    np.testing.assert_array_equal(merged.labels.values, whole.labels.values)
    assert merged.header == whole.header
    assert merged.failures == {"x": "gone", "y": "cut"}
    assert list(merged.texts) == ["signs"]
    assert all(path.is_file() for path in shards)


def test_image_that_failed_in_one_cache_only_is_not_a_failure(tmp_path):
    one = write(tmp_path / "a.h5", [0, 1], failures={"i0002": "missing"})
    two = write(tmp_path / "b.h5", [2, 3])
    target, _ = merge_caches([one, two], tmp_path / "both.h5")
    assert read_cache(target).failures == {}


def test_missing_shard_is_named(tmp_path):
    whole = tmp_path / "m.h5"
    shards = [write(Shard(n, 4).path(whole), range(n - 1, 40, 4)) for n in (1, 2, 4)]
    with pytest.raises(UsageError, match=r"1 of 4 .*m\.3-of-4\.h5: extract shard 3/4"):
        merge_caches(shards)
    assert not whole.exists()


def test_other_caches_than_shards_need_a_target(tmp_path):
    one, two = write(tmp_path / "a.h5", [0, 1]), write(tmp_path / "b.h5", [2, 3])
    with pytest.raises(UsageError, match="give `out`"):
        merge_caches([one, two])
    with pytest.raises(UsageError, match="two or more"):
        merge_caches([one], tmp_path / "c.h5")
    with pytest.raises(UsageError, match="already exists"):
        merge_caches([one, two], two)


def test_image_in_two_caches_is_refused(tmp_path):
    one, two = write(tmp_path / "a.h5", [0, 1, 2]), write(tmp_path / "b.h5", [2, 3])
    with pytest.raises(CacheError, match="'i0002' is in two"):
        merge_caches([one, two], tmp_path / "c.h5")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder_spec": {"model": "m", "precision": "bf16"}}, "precision"),
        ({"dataset": "other"}, "their dataset differ"),
        ({"trained_on": {"set": ImageRecords.of("set", ["i0001"])}}, "their trained_on differ"),
        ({"image_level_split": True}, "their image_level_split differ"),
    ],
)
def test_other_settings_are_refused_naming_the_difference(tmp_path, change, message):
    one = write(tmp_path / "a.h5", [0, 1])
    two = write(tmp_path / "b.h5", [2, 3], header=dataclasses.replace(HEADER, **change))
    with pytest.raises(CacheError, match=message):
        merge_caches([one, two], tmp_path / "c.h5")
    assert {path.name for path in tmp_path.iterdir()} == {"a.h5", "b.h5"}


def test_other_labels_and_other_prompts_are_refused(tmp_path):
    one = write(tmp_path / "a.h5", [0, 1])
    two = write(tmp_path / "b.h5", [2, 3], names=("Mass", "Nodule"))
    with pytest.raises(CacheError, match="their labels are Mass, Edema and Mass, Nodule"):
        merge_caches([one, two], tmp_path / "c.h5")
    text = dataclasses.replace(TEXT, fingerprint="e" * 64)
    three = write(tmp_path / "d.h5", [2, 3], text=text)
    with pytest.raises(CacheError, match="prompts differ"):
        merge_caches([one, three], tmp_path / "c.h5")


def test_study_of_two_patients_is_refused(tmp_path):
    paths = [
        write(tmp_path / "a.h5", [0, 1], studies=["s", "t"]),
        write(tmp_path / "b.h5", [2, 3], studies=["t", ""]),
    ]
    with pytest.raises(CacheError, match="1 study of different patients, study 't' the first"):
        merge_caches(paths, tmp_path / "all.h5")


@pytest.mark.parametrize("name", ["m.h5", "m.0-of-4.h5", "m.5-of-4.h5", "m.1-of-4.h5.parts"])
def test_other_names_are_not_shards(name):
    assert shard_of(Path(name)) is None


def test_shards_are_recognized_by_name_and_numbered_from_one():
    path = Shard(3, 12).path(Path("cache/nih/hf--org--m.v2.h5"))
    assert path == Path("cache/nih/hf--org--m.v2.3-of-12.h5")
    assert shard_of(path) == (Path("cache/nih/hf--org--m.v2.h5"), Shard(3, 12))
    for number, count in ((0, 4), (5, 4)):
        with pytest.raises(UsageError, match="from 1 to N"):
            Shard(number, count)


def test_patient_in_two_splits_is_refused(tmp_path):
    one = write(tmp_path / "a.h5", [0, 2], splits=["train", "val"])
    two = write(tmp_path / "b.h5", [1, 3], splits=["test", "val"])
    with pytest.raises(CacheError, match="1 patient in different splits, patient 'p0'"):
        merge_caches([one, two], tmp_path / "c.h5")
    header = dataclasses.replace(HEADER, image_level_split=True)
    one = write(tmp_path / "a.h5", [0, 2], splits=["train", "val"], header=header)
    two = write(tmp_path / "b.h5", [1, 3], splits=["test", "val"], header=header)
    assert merge_caches([one, two], tmp_path / "c.h5")[1] == 4
