"""The content of a cache, what a repeated extraction computes again, and what is refused."""

import hashlib
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from featurecache.datasets.dataset import Dataset
from featurecache.errors import CacheError, UsageError
from featurecache.extraction.update import ExtractionSummary, update_caches
from featurecache.prompts import PROMPT_SETS
from featurecache.store.reader import read_cache
from tests.extraction.stub_encoder import (
    DIM,
    StubEncoder,
    content,
    expected_embedding,
    make_dataset,
    touch,
    write_image,
    write_images,
)


def run(
    dataset: Dataset, cache: Path, encoder: StubEncoder | None = None, **options: Any
) -> tuple[ExtractionSummary, StubEncoder]:
    """Extract with one encoder in batches of four."""
    encoder = encoder or StubEncoder()
    (summary,) = update_caches(dataset, [encoder], cache_dir=cache, **({"batch_size": 4} | options))
    return summary, encoder


def state(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


def fresh(dataset: Dataset, tmp_path: Path, **options: Any) -> dict[str, Any]:
    """The content of a cache from one undisturbed extraction."""
    summary, _ = run(dataset, tmp_path / "fresh", **options)
    made = content(read_cache(summary.path))
    shutil.rmtree(tmp_path / "fresh")
    return made


def test_every_image_is_encoded_and_stored(
    dataset: Dataset, root: Path, cache: Path, stub_path: Path
) -> None:
    summary, encoder = run(dataset, cache)
    assert summary.path == stub_path
    assert (summary.model, summary.dataset) == ("stub", "set")
    assert (summary.images, summary.done, summary.reused) == (10, 10, 0)
    assert (summary.failed, summary.written) == ({}, True)
    assert encoder.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    files = [root / f"i{number:03d}.png" for number in range(10)]
    with h5py.File(stub_path) as file:
        assert file.attrs["format"] == b"featurecache"
        assert file.attrs["version"] == 1
        assert file.attrs["spec"] == b'{"checkpoint":"one","preprocessing":{"size":[1,1]}}'
        assert file.attrs["model"] == b"stub"
        assert file.attrs["dataset"] == b"set"
        images = file["images"]
        assert images["embedding"].dtype == np.float16
        assert images["embedding"].chunks is None
        np.testing.assert_array_equal(
            images["embedding"][()],
            np.stack([expected_embedding(number) for number in range(10)]).astype(np.float16),
        )
        assert (np.linalg.norm(images["embedding"][()], axis=1) > 2).all()  # not normalized
        assert images["id"].asstr()[()].tolist() == [f"i{number:03d}" for number in range(10)]
        assert images["sha256"].asstr()[()].tolist() == [
            hashlib.sha256(file.read_bytes()).hexdigest() for file in files
        ]
        assert images["size"][()].tolist() == [file.stat().st_size for file in files]
        assert images["mtime_ns"][()].tolist() == [file.stat().st_mtime_ns for file in files]
        patients = [f"p{number // 2}" for number in range(10)]
        assert images["patient"].asstr()[()].tolist() == patients
        assert images["split"].asstr()[()].tolist() == [
            *("train", "train", "val", "val", "test", "test"),
            *("train", "train", "val", "val"),
        ]
        assert images["view"].asstr()[()].tolist() == ["", "PA"] * 5
        assert file["labels/names"].asstr()[()].tolist() == ["Mass", "Edema"]
        assert file["labels/values"][()].tolist() == [
            [number % 2, [1, 0, -1][number % 3]] for number in range(10)
        ]
        assert len(file["text"]) == 0
        assert len(file["failures/id"]) == 0
    assert sorted(path.name for path in stub_path.parent.iterdir()) == ["stub.h5", "stub.h5.lock"]


def test_rows_are_sorted_by_id(root: Path, cache: Path, tmp_path: Path) -> None:
    ids = write_images(root, 30)
    shuffled = np.random.default_rng(0).permutation(ids).tolist()
    _, encoder = run(make_dataset(root, shuffled), cache)
    assert encoder.encoded == list(range(30))
    made = content(read_cache(cache / "set" / "stub.h5"))
    assert made == fresh(make_dataset(root, ids), tmp_path)


def test_no_batch_crosses_the_end_of_a_segment(
    root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("featurecache.extraction.encode.SEGMENT_BATCHES", 2)
    dataset = make_dataset(root, write_images(root, 18))
    (root / "i001.png").write_bytes(b"no image")
    _, encoder = run(dataset, cache)
    assert encoder.batches == [
        *([0, 2, 3, 4], [5, 6, 7]),
        *([8, 9, 10, 11], [12, 13, 14, 15]),
        [16, 17],
    ]


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_number_of_workers_does_not_change_the_cache(
    root: Path, cache: Path, tmp_path: Path, stub_path: Path, workers: int
) -> None:
    dataset = make_dataset(root, write_images(root, 40))
    _, encoder = run(dataset, cache, workers=workers)
    assert encoder.batches == [list(range(start, start + 4)) for start in range(0, 40, 4)]
    assert content(read_cache(stub_path)) == fresh(dataset, tmp_path, workers=3)


def test_progress_counts_every_image(dataset: Dataset, cache: Path) -> None:
    calls: list[tuple[int, int]] = []
    run(dataset, cache, progress=lambda finished, total: calls.append((finished, total)))
    assert calls == [(number, 10) for number in range(11)]


def test_time_shares_sum_to_one(dataset: Dataset, cache: Path) -> None:
    summary, _ = run(dataset, cache, StubEncoder(seconds=0.02))
    assert summary.read_share is not None
    assert summary.encode_share is not None
    assert summary.write_share is not None
    assert summary.read_share + summary.encode_share + summary.write_share == pytest.approx(1)
    assert summary.seconds > 3 * 0.02
    assert summary.images_per_second is not None
    assert 10 / summary.seconds < summary.images_per_second < 10 / (3 * 0.02)


def test_repeated_extraction_does_nothing(
    dataset: Dataset, cache: Path, stub_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = PROMPT_SETS["showing"]
    run(dataset, cache, prompts=prompts)
    before = state(stub_path)
    monkeypatch.setattr("featurecache.extraction.decode.decode_image", None)
    calls: list[tuple[int, int]] = []
    summary, encoder = run(
        dataset, cache, prompts=prompts, progress=lambda *numbers: calls.append(numbers)
    )
    assert (encoder.batches, encoder.texts, calls) == ([], [], [(0, 0)])
    assert (summary.images, summary.done, summary.reused) == (10, 0, 10)
    assert summary.images_per_second is None
    assert summary.read_share is None
    assert not summary.written
    assert state(stub_path) == before


def test_only_new_images_are_encoded(
    dataset: Dataset, root: Path, cache: Path, tmp_path: Path, stub_path: Path
) -> None:
    run(dataset, cache)
    # Some of the ten are between the others, some after them.
    new = [*(f"i{number:03d}b" for number in range(0, 10, 2)), *write_images(root, 5, start=10)]
    for number, image_id in enumerate(new[:5], start=200):
        write_image(root / f"{image_id}.png", number)
    grown = make_dataset(root, [*dataset.images["id"], *new])
    summary, encoder = run(grown, cache)
    assert encoder.encoded == [200, 201, 202, 203, 204, 10, 11, 12, 13, 14]
    assert (summary.images, summary.done, summary.reused) == (20, 10, 10)
    assert content(read_cache(stub_path)) == fresh(grown, tmp_path)


@pytest.mark.parametrize("what", ["labels", "split", "patient", "view", "notes", "label_names"])
def test_changed_metadata_encodes_no_image(
    dataset: Dataset, cache: Path, stub_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    changes: dict[str, dict[str, Any]] = {
        "labels": {"labels": np.ones((10, 2), np.int8)},
        "split": {"images": dataset.images.assign(split="test")},
        "patient": {"images": dataset.images.assign(patient=[*"abcdefghij"])},
        "view": {"images": dataset.images.assign(view="AP")},
        "notes": {"notes": ("another note",)},
        "label_names": {"labels": np.ones((10, 1), np.int8), "label_names": ("Nodule",)},
    }
    changed = replace(dataset, **changes[what])
    run(dataset, cache, prompts=PROMPT_SETS["showing"])
    before = read_cache(stub_path)
    before_embedding = before.embedding
    monkeypatch.setattr("featurecache.extraction.decode.decode_image", None)
    summary, encoder = run(changed, cache)
    assert encoder.batches == []
    assert (summary.written, summary.reused) == (True, 10)
    after = read_cache(stub_path)
    assert after.embedding.tobytes() == before_embedding.tobytes()
    assert after.texts["showing"].fingerprint == before.texts["showing"].fingerprint
    assert after.labels.names == changed.label_names
    assert after.labels.values.tolist() == changed.label_values.tolist()
    assert after.splits.tolist() == changed.images["split"].tolist()
    assert after.patients.tolist() == changed.images["patient"].tolist()
    assert after.views.tolist() == changed.images["view"].tolist()
    assert after.header.notes == changed.notes


def test_changed_file_is_encoded_again(
    dataset: Dataset, root: Path, cache: Path, tmp_path: Path, stub_path: Path
) -> None:
    run(dataset, cache)
    write_image(root / "i003.png", 77)
    summary, encoder = run(dataset, cache)
    assert encoder.batches == [[77]]
    assert (summary.images, summary.done, summary.reused) == (10, 1, 9)
    assert content(read_cache(stub_path)) == fresh(dataset, tmp_path)
    np.testing.assert_array_equal(read_cache(stub_path).embedding[3], expected_embedding(77))


def test_change_of_size_or_time_alone_is_noticed(dataset: Dataset, root: Path, cache: Path) -> None:
    run(dataset, cache)
    path = root / "i003.png"
    before = path.stat()
    data = path.read_bytes()
    write_image(path, 77)
    assert len(path.read_bytes()) == len(data)
    _, encoder = run(dataset, cache)
    assert encoder.encoded == [77]
    before = path.stat()
    path.write_bytes(data + b"more behind the end")
    os.utime(path, ns=(before.st_mtime_ns, before.st_mtime_ns))
    _, encoder = run(dataset, cache)
    assert encoder.encoded == [3]


@pytest.mark.parametrize("other", ["time", "size", "content"])
@pytest.mark.parametrize("images", [3, 30])
def test_another_data_set_with_the_same_ids_is_refused(
    root: Path, cache: Path, stub_path: Path, images: int, other: str
) -> None:
    """Hospital B's train.csv replaced the images of hospital A without a word."""
    dataset = make_dataset(root, write_images(root, images, start=100))
    run(dataset, cache)
    before = state(stub_path)
    replaced = 2 * images // 3
    for number in range(100, 100 + replaced):
        path = root / f"i{number:03d}.png"
        size, time = path.stat().st_size, path.stat().st_mtime_ns
        write_image(path, number + 50)
        if other == "size":
            path.write_bytes(path.read_bytes() + b"more")
        elif other == "content":  # as in archives that give all files one time
            assert path.stat().st_size == size
            os.utime(path, ns=(time, time))
    with pytest.raises(UsageError, match=f"would lose {replaced} of its {images} images") as error:
        run(dataset, cache)
    for argument in ("`name`", "`cache_dir`", "`prune`"):
        assert argument in str(error.value)
    assert state(stub_path) == before
    summary, _ = run(dataset, cache, prune=True)
    assert summary.done == replaced
    # Files that were only copied, with new modification times, are the same images.
    for number in range(100, 100 + images):
        touch(root / f"i{number:03d}.png")
    summary, _ = run(dataset, cache)
    assert (summary.done, summary.reused) == (0, images)


def test_touched_file_is_read_but_not_encoded(
    dataset: Dataset, root: Path, cache: Path, tmp_path: Path, stub_path: Path
) -> None:
    run(dataset, cache)
    touch(root / "i003.png")
    touch(root / "i009.png")
    summary, encoder = run(dataset, cache)
    assert encoder.batches == []
    assert (summary.done, summary.reused, summary.written) == (0, 10, True)
    assert content(read_cache(stub_path)) == fresh(dataset, tmp_path)
    before = state(stub_path)
    run(dataset, cache)
    assert state(stub_path) == before


def test_missing_file_keeps_its_embedding(
    dataset: Dataset, root: Path, cache: Path, stub_path: Path
) -> None:
    run(dataset, cache)
    before = content(read_cache(stub_path))
    (root / "i003.png").unlink()
    summary, encoder = run(dataset, cache)
    assert (encoder.batches, summary.failed, summary.written) == ([], {}, False)
    assert content(read_cache(stub_path)) == before
    # Also when the cache is written for another reason.
    summary, encoder = run(make_dataset(root, [*dataset.images["id"], "i999"]), cache)
    assert summary.failed == {"i999": "missing: no such file"}
    assert content(read_cache(stub_path)) == before | {"failures": summary.failed}


def test_limit_takes_a_sample_and_later_calls_the_rest(
    dataset: Dataset, cache: Path, tmp_path: Path, stub_path: Path
) -> None:
    summary, encoder = run(dataset, cache, limit=3)
    assert (summary.images, summary.done, len(encoder.encoded)) == (3, 3, 3)
    sample = read_cache(stub_path)
    assert sorted(sample.splits.tolist()) == ["test", "train", "val"]
    assert sample.labels.values.shape == (3, 2)
    summary, encoder = run(dataset, cache, limit=5)
    assert (summary.images, summary.done, summary.reused) == (5, 2, 3)
    assert set(sample.ids) < set(read_cache(stub_path).ids)
    assert run(dataset, tmp_path / "other", limit=5)[0].images == 5
    assert (read_cache(tmp_path / "other/set/stub.h5").ids == read_cache(stub_path).ids).all()
    summary, encoder = run(dataset, cache)
    assert (summary.images, summary.done, summary.reused) == (10, 5, 5)
    assert content(read_cache(stub_path)) == fresh(dataset, tmp_path)


def test_limit_drops_no_cached_image(dataset: Dataset, cache: Path, stub_path: Path) -> None:
    run(dataset, cache)
    before = state(stub_path)
    summary, encoder = run(dataset, cache, limit=3)
    assert (encoder.batches, summary.images, summary.reused) == ([], 10, 3)
    assert state(stub_path) == before


def test_removed_images_are_dropped_only_with_prune(
    dataset: Dataset, root: Path, cache: Path, tmp_path: Path, stub_path: Path
) -> None:
    run(dataset, cache)
    before = stub_path.read_bytes()
    smaller = make_dataset(root, dataset.images["id"].tolist()[2:])
    with pytest.raises(CacheError, match=r"holds 2 images .*'i000' the first: give `prune`"):
        run(smaller, cache)
    assert stub_path.read_bytes() == before
    summary, encoder = run(smaller, cache, prune=True)
    assert (encoder.batches, summary.images, summary.written) == ([], 8, True)
    assert content(read_cache(stub_path)) == fresh(smaller, tmp_path)


def test_content_that_is_lost_to_that_of_a_removed_image_needs_prune(
    dataset: Dataset, root: Path, cache: Path, tmp_path: Path, stub_path: Path
) -> None:
    """Was dropped without a word: the removed image's content was still there, the other's not."""
    run(dataset, cache)
    smaller = make_dataset(root, dataset.images["id"].tolist()[1:])
    paths = smaller.images["path"].replace({"i003.png": "i000.png"})
    changed = replace(smaller, images=smaller.images.assign(path=paths))
    with pytest.raises(CacheError, match=r"holds 1 image no .*'i000' the first: give `prune`"):
        run(changed, cache)
    summary, encoder = run(changed, cache, prune=True)
    assert (encoder.batches, summary.images) == ([], 9)
    assert content(read_cache(stub_path)) == fresh(changed, tmp_path)


@pytest.mark.parametrize("finished", [True, False])
def test_other_checkpoint_is_refused_by_differing_field(
    dataset: Dataset, cache: Path, stub_path: Path, finished: bool
) -> None:
    if finished:
        run(dataset, cache)
    else:
        with pytest.raises(ZeroDivisionError):
            run(dataset, cache, progress=lambda finished, total: 1 // (9 - finished))
    before = {path: path.read_bytes() for path in stub_path.parent.rglob("*.h5")}
    assert len(before) == 1
    other = StubEncoder(checkpoint="two")
    with pytest.raises(CacheError, match=r"other settings .*checkpoint: 'one' against 'two'"):
        run(dataset, cache, other)
    assert other.batches == []
    assert {path: path.read_bytes() for path in stub_path.parent.rglob("*.h5")} == before


def test_damaged_cache_is_refused_and_not_changed(
    dataset: Dataset, cache: Path, stub_path: Path
) -> None:
    run(dataset, cache)
    stub_path.write_bytes(stub_path.read_bytes()[:-10])
    before = stub_path.read_bytes()
    with pytest.raises(CacheError, match="cannot be read as HDF5"):
        run(dataset, cache)
    assert stub_path.read_bytes() == before


def test_encoders_with_same_name_are_refused(dataset: Dataset, cache: Path) -> None:
    with pytest.raises(UsageError, match="the same name"):
        update_caches(dataset, [StubEncoder(), StubEncoder(checkpoint="two")], cache_dir=cache)
    assert not cache.exists()


def test_text_encoder_is_refused(dataset: Dataset, cache: Path) -> None:
    encoder = StubEncoder("words")
    encoder.has_images = False
    with pytest.raises(UsageError, match="'words' has no image encoder"):
        update_caches(dataset, [encoder], cache_dir=cache)
    assert not cache.exists()


@pytest.mark.parametrize("option", ["limit", "batch_size", "workers"])
@pytest.mark.parametrize("value", [0, -1])
def test_numbers_below_one_are_refused(
    dataset: Dataset, cache: Path, option: str, value: int
) -> None:
    with pytest.raises(UsageError, match=f"`{option}` is {value}: must be at least 1"):
        run(dataset, cache, **{option: value})
    assert not cache.exists()


def test_second_extraction_into_same_cache_is_refused(
    dataset: Dataset, cache: Path, tmp_path: Path, stub_path: Path
) -> None:
    second = StubEncoder()
    refusals: list[str] = []

    def progress(finished: int, total: int) -> None:
        with pytest.raises(UsageError, match="another process is writing") as caught:
            run(dataset, cache, second)
        refusals.append(str(caught.value))

    _, encoder = run(dataset, cache, progress=progress)
    assert len(refusals) == 11
    assert str(stub_path) in refusals[0]
    assert second.batches == []
    assert encoder.encoded == list(range(10))
    assert content(read_cache(stub_path)) == fresh(dataset, tmp_path)


def test_failed_extraction_releases_lock(dataset: Dataset, cache: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        run(dataset, cache, progress=lambda finished, total: 1 // 0)
    assert run(dataset, cache)[0].images == 10


def test_other_models_are_not_locked(dataset: Dataset, cache: Path) -> None:
    inner: list[ExtractionSummary] = []

    def progress(finished: int, total: int) -> None:
        if finished == 5:
            inner.append(run(dataset, cache, StubEncoder("other"))[0])

    run(dataset, cache, progress=progress)
    assert inner[0].path == cache / "set" / "other.h5"
    assert read_cache(inner[0].path).dim == DIM


def test_slash_in_name_does_not_leave_folder(dataset: Dataset, cache: Path) -> None:
    summary, _ = run(dataset, cache, StubEncoder("hf:org/name"))
    assert summary.path == cache / "set" / "hf--org--name.h5"
    assert read_cache(summary.path).header.model == "hf:org/name"


def test_data_sets_with_non_ascii_names_do_not_share_a_cache(root: Path, cache: Path) -> None:
    paths = set()
    for name in ("胸部", "肺"):
        folder = root / name
        dataset = make_dataset(folder, write_images(folder, 2), name=name)
        paths.add(run(dataset, cache)[0].path)
    assert len(paths) == 2
    assert all(len(read_cache(path).images) == 2 for path in paths)
