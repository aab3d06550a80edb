"""A sample covers splits and labels, and a larger one holds the smaller ones."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from featurecache.datasets.dataset import Dataset
from featurecache.extraction.sample import sample_rows


def make(split: list[str], labels: np.ndarray, patient: list[str] | None = None) -> Dataset:
    ids = [f"{name}/{row:05d}.png" for row, name in enumerate(split)]
    images = pd.DataFrame({"id": ids, "path": ids, "patient": patient or ids, "split": split})
    names = [f"label {column}" for column in range(labels.shape[1])]
    return Dataset(
        name="set",
        root="images",
        images=images,
        labels=labels,
        label_names=names,
        image_level_split=True,
    )


def kermany() -> Dataset:
    """One label, splits of very different sizes, and ids that begin with ``test/``."""
    split = ["test"] * 60 + ["train"] * 500 + ["val"] * 8
    return make(split, (np.arange(568) % 4 > 0).astype(np.int8)[:, None])


def test_every_size_covers_splits_and_classes() -> None:
    dataset = kermany()
    strata = pd.DataFrame({"split": dataset.images["split"], "label": dataset.label_values[:, 0]})
    assert set(strata.iloc[sample_rows(dataset, 3)]["split"]) == {"train", "val", "test"}
    for size in (6, 7, 50, 300):
        sample = strata.iloc[sample_rows(dataset, size)].value_counts()
        assert len(sample) == 6
        expected = strata.value_counts() / len(dataset) * size
        # One of each first, then in proportion.
        assert (sample - expected.loc[sample.index]).abs().max() < 3


def test_larger_samples_hold_smaller_ones_and_are_no_beginning_of_the_ids() -> None:
    dataset = kermany()
    samples = [set(sample_rows(dataset, size).tolist()) for size in (1, 2, 5, 6, 7, 60, 567, 568)]
    assert [len(sample) for sample in samples] == [1, 2, 5, 6, 7, 60, 567, 568]
    for smaller, larger in pairwise(samples):
        assert smaller < larger
    assert np.array_equal(sample_rows(dataset, 1000), np.arange(568))
    first = dataset.images["id"].iloc[sample_rows(dataset, 60)]
    train = first[first.str.startswith("train/")].str[-9:-4].astype(int)
    assert 200 < train.median() < 430


def test_chance_is_of_the_ids_not_of_the_rows() -> None:
    """Images that are added change little of a sample."""
    dataset = kermany()
    fewer = dataset.take(np.flatnonzero(np.arange(568) % 10 > 0))
    whole, part = (set(d.images["id"].iloc[sample_rows(d, 60)]) for d in (dataset, fewer))
    assert len(whole & part) > 45


def test_rare_labels_are_in_the_sample() -> None:
    labels = np.zeros((900, 3), np.int8)
    labels[::2, 0], labels[::30, 1], labels[[7, 301, 602], 2] = 1, 1, 1
    dataset = make(["train", "val", "test"] * 300, labels)
    sample = dataset.label_values[sample_rows(dataset, 12)]
    assert (sample == 1).any(axis=0).all()
    assert (sample == 1).any(axis=1).sum() < 12


@pytest.mark.parametrize("n_labels", [0, 1])
def test_a_patient_with_many_images_does_not_fill_the_sample(n_labels: int) -> None:
    patient = ["many"] * 90 + [f"p{number}" for number in range(10)]
    dataset = make(["train"] * 100, np.zeros((100, n_labels), np.int8), patient)
    sample = dataset.images["patient"].iloc[sample_rows(dataset, 11)]
    assert sorted(sample) == sorted(set(patient))
