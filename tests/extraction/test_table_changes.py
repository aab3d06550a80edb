"""What changes in a cache when the table of its data set changes, and what does not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from featurecache.datasets.dataset import Dataset
from featurecache.datasets.splits import complete_split
from featurecache.extraction.update import ExtractionSummary, update_caches
from featurecache.store.merge import Shard, merge_caches
from featurecache.store.reader import read_cache
from tests.extraction.stub_encoder import LABELS, StubEncoder, make_dataset, write_images

PATIENTS = 40


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    write_images(root, 2 * PATIENTS + 8)
    return root


def table(
    root: Path, n_images: int = 2 * PATIENTS, *, relabel: int | None = None, **options: object
) -> Dataset:
    """A data set of two images a patient, whose split is drawn; one label may be corrected."""
    plain = make_dataset(root, [f"i{number:03d}" for number in range(n_images)])
    labels = plain.label_values.copy()
    if relabel is not None:
        labels[relabel, 0] = 1 - labels[relabel, 0]
    options = {"seed": 0, **options}
    split = complete_split(plain.images["patient"], labels, LABELS, **options)  # type: ignore[arg-type]
    return replace(
        plain,
        images=plain.images.assign(split=split.names),
        labels=labels,
        label_names=LABELS,
        notes=split.notes,
        split_draw=split.draw,
    )


def extract(
    data: Dataset, cache: Path, *, name: str = "stub", **options: object
) -> ExtractionSummary:
    (summary,) = update_caches(data, [StubEncoder(name)], cache_dir=cache, **options)  # type: ignore[arg-type]
    return summary


def splits_in(path: Path) -> dict[str, str]:
    cache = read_cache(path)
    return dict(zip(cache.patients.tolist(), cache.splits.tolist(), strict=True))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"folds": 4, "fold": 2},
        {"stated": ["train", "train", "train", "test"] * (PATIENTS // 2)},
    ],
    ids=["all", "folds", "validation"],
)
def test_a_corrected_label_moves_no_patient(images, cache, options) -> None:
    if "stated" in options:
        options = {"stated": np.repeat(options["stated"], 2)[: 2 * PATIENTS]}
    before = splits_in(extract(table(images, **options), cache).path)
    # A corrected label would deal the patients anew.
    changed = next(
        data
        for data in (table(images, relabel=row, **options) for row in range(2 * PATIENTS))
        if data.images["split"].tolist() != table(images, **options).images["split"].tolist()
    )
    summary = extract(changed, cache)
    assert splits_in(summary.path) == before
    assert summary.changed == {"label": 1}
    assert extract(changed, cache).written is False
    notes = read_cache(summary.path).header.notes
    assert sum("keep their split" in note for note in notes) == 1


def test_only_new_patients_are_assigned(images, cache) -> None:
    first = extract(table(images), cache)
    before = splits_in(first.path)
    larger = extract(table(images, 2 * PATIENTS + 8), cache)
    after = splits_in(larger.path)
    assert larger.done == 8
    assert {patient: after[patient] for patient in before} == before
    new = [split for patient, split in after.items() if patient not in before]
    assert len(new) == 4
    assert new.count("train") >= 2
    sizes = {split: sum(name == split for name in after.values()) for split in set(after.values())}
    assert sizes == {"train": 31, "val": 4, "test": 9}  # 70 %, 10 % and 20 % of 44, rounded
    # The notes count the images of the split that is used.
    (note,) = (note for note in read_cache(larger.path).header.notes if "by patient (" in note)
    assert note.endswith("62 train, 8 val and 18 test images.")


def test_another_draw_and_a_stated_split_are_used_and_reported(images, cache) -> None:
    before = splits_in(extract(table(images), cache).path)
    other = extract(table(images, seed=1), cache)
    moved = sum(before[patient] != split for patient, split in splits_in(other.path).items())
    assert moved
    assert other.changed == {"split": 2 * moved}
    stated = table(images, stated=["test"] * 2 * PATIENTS)
    assert set(splits_in(extract(stated, cache).path).values()) == {"test"}


def test_a_sample_does_not_change_the_split_of_the_rest(images, cache, tmp_path) -> None:
    whole = splits_in(extract(table(images), tmp_path / "whole").path)
    extract(table(images), cache, limit=10)
    assert splits_in(extract(table(images), cache).path) == whole


def test_another_encoder_gets_the_split_of_the_cache_beside_it(images, cache) -> None:
    before = splits_in(extract(table(images), cache).path)
    larger = table(images, 2 * PATIENTS + 8)
    other = splits_in(extract(larger, cache, name="other").path)
    assert {patient: other[patient] for patient in before} == before
    assert splits_in(extract(larger, cache).path) == other


def test_shards_of_one_table_agree_beside_a_cache(images, cache) -> None:
    before = splits_in(extract(table(images), cache, name="first").path)
    larger = table(images, 2 * PATIENTS + 8)
    shards = [extract(larger, cache, shard=Shard(number, 2)).path for number in (1, 2)]
    after = splits_in(merge_caches(shards)[0])
    assert {patient: after[patient] for patient in before} == before


def test_removed_and_missing_files_are_counted(root, dataset, cache) -> None:
    extract(dataset, cache)
    (root / "i000.png").unlink()
    fewer = dataset.take(np.arange(8))
    summary = extract(fewer, cache, prune=True)
    assert summary.changed == {"removed": 2, "missing": 1}
    moved = fewer.images.assign(patient="p" + fewer.images["id"])
    assert extract(make_dataset(root, moved["id"], images=moved), cache).changed == {
        "patient": 8,
        "missing": 1,
    }
