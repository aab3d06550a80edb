from collections import defaultdict

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurecache.datasets.splits import SPLITS, carve_validation, complete_split, patient_split
from featurecache.errors import DatasetError, UsageError

Rows = tuple[list[str], np.ndarray]


@st.composite
def rows(draw: st.DrawFn) -> Rows:
    """Patients and labels of 1 to 60 images."""
    n_images = draw(st.integers(1, 60))
    n_labels = draw(st.integers(1, 4))
    patients = draw(
        st.lists(st.sampled_from("abcdefghijklmnop"), min_size=n_images, max_size=n_images)
    )
    cells = st.sampled_from([1, 0, -1])
    values = draw(st.lists(cells, min_size=n_images * n_labels, max_size=n_images * n_labels))
    return patients, np.array(values, dtype=np.int8).reshape(n_images, n_labels)


def splits_by_patient(patients: list[str], split: np.ndarray) -> dict[str, set[str]]:
    splits: defaultdict[str, set[str]] = defaultdict(set)
    for patient, name in zip(patients, split.tolist(), strict=True):
        splits[patient].add(name)
    return splits


def simulated(n_patients: int, rates: list[float], seed: int) -> Rows:
    """Patients with 1 to 30 images, few with many, as in chest X-ray collections."""
    rng = np.random.default_rng(seed)
    n_images = np.minimum(rng.geometric(0.35, n_patients), 30)
    patients = np.repeat([f"{number:05d}" for number in range(n_patients)], n_images).tolist()
    return patients, (rng.random((len(patients), len(rates))) < rates).astype(np.int8)


@settings(max_examples=60, deadline=None)
@given(rows(), st.integers(0, 3))
def test_every_patient_is_in_exactly_one_split(given_rows: Rows, seed: int) -> None:
    patients, labels = given_rows
    split = patient_split(patients, labels, seed=seed)
    assert split.shape == (len(patients),)
    assert set(split.tolist()) <= set(SPLITS)
    assert all(len(splits) == 1 for splits in splits_by_patient(patients, split).values())


@settings(max_examples=60, deadline=None)
@given(rows(), st.randoms(use_true_random=False))
def test_split_does_not_depend_on_row_order(given_rows: Rows, random) -> None:
    patients, labels = given_rows
    order = list(range(len(patients)))
    random.shuffle(order)
    split = patient_split(patients, labels, seed=0)
    shuffled = patient_split([patients[i] for i in order], labels[order], seed=0)
    assert shuffled.tolist() == split[order].tolist()


@settings(max_examples=60, deadline=None)
@given(rows())
def test_carving_moves_only_whole_patients_from_train_to_val(given_rows: Rows) -> None:
    patients, labels = given_rows
    before = patient_split(patients, labels, fractions=(0.6, 0.2, 0.2), seed=0)
    after = carve_validation(patients, labels, before, fraction=0.3, seed=1)
    moved = before != after
    assert set(before[moved].tolist()) <= {"train"}
    assert set(after[moved].tolist()) <= {"val"}
    assert all(len(splits) == 1 for splits in splits_by_patient(patients, after).values())


@pytest.mark.parametrize("seed", range(3))
def test_images_and_positives_match_the_fractions(seed: int) -> None:
    fractions = (0.7, 0.1, 0.2)
    patients, labels = simulated(3000, [0.5, 0.2, 0.05, 0.01, 0.003], seed)
    split = patient_split(patients, labels, fractions=fractions, seed=seed)
    for name, fraction in zip(SPLITS, fractions, strict=True):
        chosen = split == name
        assert chosen.mean() == pytest.approx(fraction, abs=0.01)
        # A patient has several images of a label, so a fraction is met within a few images.
        expected = fraction * labels.sum(axis=0)
        assert np.abs(labels[chosen].sum(axis=0) - expected).max() <= max(3, 0.01 * expected.max())


def test_random_split_by_patient_fails_the_same_tolerance() -> None:
    """The tolerance of the previous test is strict: a random split does not meet it."""
    patients, labels = simulated(3000, [0.5, 0.2, 0.05, 0.01, 0.003], 0)
    rng = np.random.default_rng(0)
    misses = 0
    for _ in range(20):
        select_test_patients = set(rng.permutation(sorted(set(patients)))[:600].tolist())
        chosen = np.array([patient in select_test_patients for patient in patients])
        expected = 0.2 * labels.sum(axis=0)
        misses += np.abs(labels[chosen].sum(axis=0) - expected).max() > max(
            3, 0.01 * expected.max()
        )
    assert misses >= 15


def test_rare_label_is_distributed_as_computed_by_hand() -> None:
    """Ten single-image patients with the label and ten without, at 0.7/0.1/0.2: 7, 1 and 2 each."""
    labels = np.array([[1]] * 10 + [[0]] * 10, dtype=np.int8)
    split = patient_split([f"p{i}" for i in range(20)], labels, seed=5)
    for half in (split[:10], split[10:]):
        assert [half.tolist().count(name) for name in SPLITS] == [7, 1, 2]


def test_patient_sizes_are_balanced_across_splits() -> None:
    patients, labels = simulated(2000, [0.3], 0)
    split = patient_split(patients, labels, seed=0)
    frame = pd.DataFrame({"patient": patients, "split": split})
    per_patient = frame.groupby("split").size() / frame.groupby("split")["patient"].nunique()
    assert per_patient.max() - per_patient.min() < 0.15 * per_patient.mean()


def test_seed_determines_the_split() -> None:
    patients, labels = simulated(300, [0.3, 0.1], 0)
    first = patient_split(patients, labels, seed=0)
    assert first.tolist() == patient_split(patients, labels, seed=0).tolist()
    assert first.tolist() != patient_split(patients, labels, seed=1).tolist()


def test_split_of_fraction_zero_stays_empty() -> None:
    patients, labels = simulated(50, [0.3], 0)
    split = patient_split(patients, labels, fractions=(0.8, 0.0, 0.2), seed=0)
    assert set(split.tolist()) == {"train", "test"}


def test_carving_takes_its_fraction_of_train_and_keeps_test() -> None:
    patients, labels = simulated(2000, [0.3, 0.02], 0)
    split = np.where(np.array(patients) < "01000", "train", "test")
    carved = carve_validation(patients, labels, split, fraction=0.1, seed=0)
    assert (carved == "test").tolist() == (split == "test").tolist()
    train, val = labels[carved == "train"], labels[carved == "val"]
    assert len(val) / (len(val) + len(train)) == pytest.approx(0.1, abs=0.005)
    assert (val.sum(axis=0) / (val.sum(axis=0) + train.sum(axis=0))).tolist() == pytest.approx(
        [0.1, 0.1], abs=0.03
    )


def test_carving_without_training_images_changes_nothing() -> None:
    labels = np.ones((2, 1), dtype=np.int8)
    assert carve_validation(["a", "b"], labels, ["test", "test"], seed=0).tolist() == ["test"] * 2


@pytest.mark.parametrize("fractions", [(0.7, 0.1, 0.1), (1.2, -0.1, -0.1), (0.5, 0.5)])
def test_invalid_fractions_are_refused(fractions) -> None:
    with pytest.raises(UsageError, match="sum to 1"):
        patient_split(["a"], np.ones((1, 1), dtype=np.int8), fractions=fractions, seed=0)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5])
def test_validation_fraction_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        carve_validation(["a"], np.ones((1, 1), np.int8), ["train"], fraction=fraction, seed=0)


def test_different_lengths_are_refused() -> None:
    with pytest.raises(DatasetError, match="2 patients but 3 rows"):
        patient_split(["a", "b"], np.ones((3, 1), dtype=np.int8), seed=0)


def sizes(split: np.ndarray) -> list[int]:
    return [int((split == name).sum()) for name in SPLITS]


@pytest.mark.parametrize(
    ("n_classes", "per_class", "expected"),
    [
        (30, 4, [84, 12, 24]),
        (100, 2, [140, 20, 40]),
        (10, 1, [7, 1, 2]),
        (1, 3, [1, 1, 1]),
        (2, 2, [2, 1, 1]),
        (1, 2, [1, 0, 1]),
    ],
)
def test_small_classes_fill_every_split(
    n_classes: int, per_class: int, expected: list[int]
) -> None:
    """Fractions of the images, although those of one class round to no validation."""
    labels = np.repeat(np.eye(n_classes, dtype=np.int8), per_class, axis=0)
    split = patient_split([f"p{i}" for i in range(len(labels))], labels, seed=0)
    assert sizes(split) == expected
    if per_class > 1:  # every class is left something to train on
        assert (labels[split == "train"].sum(axis=0) > 0).all() or n_classes < 3


@settings(max_examples=60, deadline=None)
@given(rows(), st.integers(0, 3))
def test_three_patients_are_enough_for_three_splits(given_rows: Rows, seed: int) -> None:
    patients, labels = given_rows
    split = patient_split(patients, labels, seed=seed)
    assert len(set(split.tolist())) == min(3, len(set(patients)))
    carved = carve_validation(patients, labels, np.full(len(patients), "train"), seed=seed)
    assert len(set(carved.tolist())) == min(2, len(set(patients)))


def complete(stated: list[str] | None, **options) -> tuple[list[str], str]:
    """The split of one image for each of the patients p0, p1, ..., and its notes."""
    n = 20 if stated is None else len(stated)
    labels = np.arange(n, dtype=np.int8)[:, np.newaxis] % 2
    completed = complete_split(
        [f"p{i}" for i in range(n)],
        labels,
        ["Edema"],
        stated=stated,
        source="the column 'set'",
        seed=0,
        **options,
    )
    return completed.names.tolist(), " ".join(completed.notes)


@pytest.mark.parametrize("stated", [None, [""] * 20])
def test_a_split_that_is_not_stated_is_by_patient(stated: list[str] | None) -> None:
    names, notes = complete(stated)
    assert sizes(np.array(names)) == [14, 2, 4]
    assert notes == "The split is by patient (70%, 10%, 20%): 14 train, 2 val and 4 test images."


def test_names_of_splits_are_translated() -> None:
    words = ["Training", " train", "TRN", "validate", "Valid", "dev", "testing", "Test"]
    assert complete(words)[0] == ["train"] * 3 + ["val"] * 3 + ["test"] * 2


def test_missing_validation_is_a_tenth_of_train() -> None:
    names, notes = complete(["train"] * 20 + ["test"] * 4)
    assert sizes(np.array(names)) == [18, 2, 4]
    assert names[20:] == ["test"] * 4
    assert "no validation split, so 10% of train is validation, by patient: 18 train, 2" in notes


@pytest.mark.parametrize(
    ("stated", "missing"),
    [(["test"] * 4, "train and val"), (["val"] * 4, "train and test"), (["train"] * 4, "test")],
)
def test_a_missing_split_is_noted(stated: list[str], missing: str) -> None:
    names, notes = complete(stated)
    assert f"There are no images in {missing}." in notes
    if stated[0] != "train":  # nothing to train on, as in external validation
        assert names == stated


@pytest.mark.parametrize("numbers", [["0", "1", "2", "3"], ["1.0", "2.0", "3.0", "4.0"]])
@pytest.mark.parametrize("prefix", ["", "fold", "Fold_"])
def test_fold_numbers_are_read(numbers: list[str], prefix: str) -> None:
    first = int(float(numbers[0]))
    stated = [prefix + number for number in numbers * 2]
    assert complete(stated, fold=first)[0] == ["test", "val", "train", "train"] * 2
    # After the last fold comes the first.
    last = complete(stated, fold=first + 3, folds=4)
    assert last[0] == ["val", "train", "train", "test"] * 2
    assert f"Fold {first + 3} of the column 'set' is test, the next one validation." in last[1]


def test_folds_are_dealt_by_patient() -> None:
    tested = [complete(None, folds=5, fold=fold)[0] for fold in range(1, 6)]
    assert all(sizes(np.array(names)) == [12, 4, 4] for names in tested)
    assert [sum(names[i] == "test" for names in tested) for i in range(20)] == [1] * 20
    assert all(
        (np.array(here) == "val").tolist() == (np.array(there) == "test").tolist()
        for here, there in zip(tested, tested[1:] + tested[:1], strict=True)
    )


@pytest.mark.parametrize(
    ("stated", "options", "message"),
    [
        (["train", "", "test"], {}, "the column 'set' states no split in 1 of 3 rows: fill in"),
        (["train", "a", "a", "test"], {}, r"values that name no split: 'a' \(2\)\. Use train"),
        (["0", "1", "2"], {}, "has the folds 0, 1, 2: give `fold`, the number of the one"),
        (["0", "1", "0"], {}, "numbers 0, 1, which are not the three or more folds"),
        (["1", "3", "4"], {"fold": 1}, "numbers 1, 3, 4, which are not"),
        (["0", "1", "2"], {"fold": 3}, "`fold` is 3: give a number from 0 to 2"),
        (["0", "1", "2"], {"fold": 1, "folds": 5}, "`folds` is 5, but .* has 3 folds"),
        (["train", "test"], {"fold": 1, "folds": 5}, "states the splits already: leave out"),
        (None, {"fold": 1}, "give `folds`, the number of folds, with `fold`"),
        (None, {"folds": 5}, "give `fold`, the fold that is test, from 1 to 5"),
        (None, {"folds": 21, "fold": 1}, "`folds` is 21: give a number from 3 to 20"),
    ],
)
def test_ambiguous_splits_are_refused(stated, options: dict[str, int], message: str) -> None:
    with pytest.raises((DatasetError, UsageError), match=message):
        complete(stated, **options)


def test_labels_without_both_values_in_a_split_are_noted() -> None:
    labels = np.array([[1, 0], [0, 1], [1, 1], [0, -1]], dtype=np.int8)
    completed = complete_split(
        list("abcd"), labels, ["A", "B"], stated=["train", "train", "test", "test"], seed=0
    )
    assert (
        "In test (2 images) these labels are all positive or all negative, so their AUROC and "
        "AUPRC are undefined: B."
    ) in completed.notes


def test_images_without_labels_are_split() -> None:
    labels = np.empty((10, 0), dtype=np.int8)
    assert sizes(complete_split(list("abcdefghij"), labels, [], seed=0).names) == [7, 1, 2]
