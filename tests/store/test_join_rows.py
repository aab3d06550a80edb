"""Joined rows are those of the caches one after another; labels are joined as by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import featurecache as fc
from featurecache.datasets.nih import LABELS as NIH
from featurecache.datasets.release import CHEXPERT_LABELS as CHEXPERT
from featurecache.errors import CacheError, UnknownNameError, UsageError
from featurecache.evaluation.from_cache import cache_reference, find_cache
from featurecache.label_cells import LabelPolicy
from featurecache.provenance.records import ImageRecords
from featurecache.store.cache import Cache
from featurecache.store.join_rows import join_labels, join_rows
from tests.evaluation.toy_caches import toy_texts, write_toy_cache

PADCHEST = ("pulmonary mass", "mass", "scoliosis")


def parts(*sets: tuple[str, tuple[str, ...]]) -> dict[str, tuple[tuple[str, ...], ...]]:
    return {label.name: label.parts for label in join_labels([([name], own) for name, own in sets])}


def test_labels_of_nih_and_chexpert():
    joined = parts(("nih", NIH), ("chexpert", CHEXPERT))
    shared = ("Atelectasis", "Cardiomegaly", "Pneumonia", "Pneumothorax", "Consolidation", "Edema")
    expected = {label: ((label,), ()) for label in NIH}
    expected |= {label: ((label,), (label,)) for label in shared}
    expected |= {"Effusion": (("Effusion",), ("Pleural Effusion",))}
    only = {label: ((), (label,)) for label in CHEXPERT if label not in shared}
    del only["Pleural Effusion"]
    # What is only near (Pleural Other) stays a label of its own.
    only["Lung Lesion"] = (("Mass", "Nodule"), ("Lung Lesion",))
    assert joined == expected | only
    assert [*joined] == [*expected, *only]


def test_kinds_are_joined_unless_they_are_findings_of_their_own():
    padchest = ("nodule", "multiple nodules", "mass", "pseudonodule", "pneumonia")
    assert parts(("padchest", padchest), ("nih", ("Nodule", "Pneumonia"))) == {
        "Nodule": (("nodule", "multiple nodules"), ("Nodule",)),
        "mass": (("mass",), ()),
        "pseudonodule": (("pseudonodule",), ()),
        "Pneumonia": (("pneumonia",), ("Pneumonia",)),
    }
    # CheXpert has no nodules and masses, only the lesions that they are kinds of.
    assert parts(("padchest", padchest[:3]), ("chexpert", ("Lung Lesion",))) == {
        **{label: ((label,), ()) for label in padchest[:3]},
        "Lung Lesion": (padchest[:3], ("Lung Lesion",)),
    }


def test_labels_of_other_data_sets_are_joined_by_name():
    assert parts(("a", ("Rare", "Edema")), ("b", ("Rare", "rare")), ("c", ("Edema",))) == {
        "Rare": (("Rare",), ("Rare",), ()),
        "Edema": (("Edema",), (), ("Edema",)),
        "rare": ((), ("rare",), ()),
    }


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Cache, Cache]:
    rng = np.random.default_rng(0)
    padchest = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 0], [-1, 0, 1]] * 4)
    nih = np.array([[1, 0], [0, 1], [0, 0], [1, 0]] * 2)
    return (
        write_toy_cache(
            *(tmp_path / "padchest" / "toy.h5", rng.normal(size=(16, 3)), padchest),
            names=PADCHEST,
            dataset="padchest",
        ),
        write_toy_cache(
            *(tmp_path / "nih" / "toy.h5", rng.normal(size=(8, 3)), nih),
            names=("Mass", "Hernia"),
            dataset="nih",
        ),
    )


def test_rows_are_those_of_both_caches(pair):
    a, b = pair
    joined = fc.open_cache(pair, join="rows")
    assert joined.labels.names == ("Mass", "scoliosis", "Hernia")
    # Ids are in order: of nih before padchest.
    unknown_b, unknown_a = np.full((8, 1), np.nan), np.full((16, 1), np.nan)
    kinds = a.labels.values[:, :2]
    mass = np.where((kinds == 1).any(axis=1), 1, np.where((kinds == -1).any(axis=1), np.nan, 0))
    labels_a = np.column_stack([mass, a.labels.values[:, 2], unknown_a])
    labels_b = np.column_stack([b.labels.values[:, 0], unknown_b, b.labels.values[:, 1]])
    X, y, groups = joined.arrays()
    np.testing.assert_array_equal(X, np.concatenate([b.embedding, a.embedding]))
    np.testing.assert_array_equal(y, np.concatenate([labels_b, labels_a]))
    np.testing.assert_array_equal(joined.embedding, X.astype(np.float16))
    np.testing.assert_array_equal(joined.read_rows(6, 11), X[6:11])
    assert joined.ids.tolist() == [f"nih/{i}" for i in b.ids] + [f"padchest/{i}" for i in a.ids]
    assert groups.tolist() == [f"nih/{p}" for p in b.patients] + [
        f"padchest/{p}" for p in a.patients
    ]
    assert joined.splits.tolist() == [*b.splits, *a.splits]
    assert joined.studies.tolist() == [""] * 24
    assert (joined.header.dataset, joined.path.parent.name) == ("padchest+nih", "padchest+nih")
    assert joined.sources == pair
    assert fc.open_cache(joined) is joined
    assert join_rows(pair[:1]) is a


def test_a_head_learns_the_same_as_from_one_cache_of_the_same_rows(tmp_path):
    rng = np.random.default_rng(1)
    n, names = 40, ("Mass", "Edema")
    labels = rng.integers(0, 2, (2, n, 2))
    X = rng.normal(size=(2, n, 4)) + labels[..., :1]
    caches = [
        write_toy_cache(*(tmp_path / f"{k}.h5", X[k], labels[k]), names=names, dataset="ab"[k])
        for k in range(2)
    ]
    split = np.tile(caches[0].splits, 2)
    one = write_toy_cache(
        *(tmp_path / "one.h5", np.concatenate(X), np.concatenate(labels)), names=names, split=split
    )
    options = {"controls": False, "n_bootstrap": 0}
    run = fc.train_head(fc.open_cache(caches, join="rows"), "prototype", **options)
    expected = fc.train_head(one, "prototype", **options)
    np.testing.assert_allclose(run.scored.probability, expected.scored.probability, atol=1e-6)
    assert run.metrics.macro.auroc == expected.metrics.macro.auroc
    # Each data set is known by its own ids.
    trained_on = run.provenance.trained_on
    assert {name: len(images) for name, images in trained_on.items()} == {"a": 30, "b": 30}
    assert trained_on["a"].id.tolist() == caches[0].images.id[:30].tolist()
    with pytest.raises(UsageError, match="trained on 30 of the 40 images of b"):
        run.evaluate(caches[1], split="all", n_bootstrap=0)
    assert run.evaluate(caches[1], n_bootstrap=0).metrics.n == 10


def test_studies_of_joined_rows(pair):
    """Studies of equal names in two data sets are different ones."""
    studies = [
        replace(c, images=replace(c.images, study=np.char.add(b"of ", c.images.patient)))
        for c in pair
    ]
    joined = fc.open_cache(studies, join="rows", level="study")
    assert len(joined) == 8 // 2 + 16 // 2
    assert {"nih/of patient 0", "padchest/of patient 0"} <= set(joined.studies.tolist())
    labels = [source["labels"] for source in cache_reference(joined)["rows_of"]]
    assert labels == [
        {"Mass": ["pulmonary mass", "mass"], "scoliosis": ["scoliosis"]},
        {"Mass": ["Mass"], "Hernia": ["Hernia"]},
    ]


def test_policies_are_those_of_each_cache(pair):
    a = pair[0].with_policy(LabelPolicy(uncertain="positive"))
    cells = pair[1].labels.cells.copy()
    cells[:2, 0] = -2, -1
    b = replace(pair[1], labels=replace(pair[1].labels, cells=cells))
    b = b.with_policy(LabelPolicy(uncertain="negative", blank="negative"))
    joined = join_rows([a, b])
    assert joined.labels.values[8:12, 0].tolist() == [1, 1, 0, 1]
    # A label that a data set does not have stays unknown there.
    assert joined.labels.values[:3].tolist() == [[0, -1, 0], [0, -1, 1], [0, -1, 0]]
    assert joined.labels.applied_policy == {"blank": "negative"}
    policies = [source.policy for source in find_cache(cache_reference(joined)).sources]
    assert policies == [a.policy, b.policy]
    ignored = joined.with_policy(LabelPolicy())
    assert ignored.labels.values[[0, 1, 11], 0].tolist() == [-1, -1, -1]
    assert ignored.labels.applied_policy == {"uncertain": "ignore", "blank": "unknown"}


@pytest.mark.parametrize("level", ["image", "study"])
def test_one_field_of_the_policies_is_changed_and_the_others_stay(pair, level):
    a = pair[0].with_policy(LabelPolicy(blank="negative"))
    cells = a.labels.cells.copy()
    cells[:2] = -2
    a = replace(a, labels=replace(a.labels, cells=cells))
    at_once = fc.open_cache([a, pair[1]], join="rows", uncertain="positive", level=level)
    later = fc.open_cache(join_rows([a, pair[1]]), level=level)
    later = fc.open_cache(later, uncertain="positive")
    assert (at_once.labels.values[8:10, 1] == 0).all()
    np.testing.assert_array_equal(later.labels.values, at_once.labels.values)
    assert later.units == at_once.units


def test_a_copy_in_the_test_split_of_the_other_is_not_learned_from(pair):
    joined = join_rows(pair)
    # Files are equal by their number: 4 to 7 are train in the first, val and test in the second.
    left_out = [f"padchest/{number:04d}.png" for number in (4, 5, 6, 7)]
    assert joined.ids[joined.copies.same_file].tolist() == left_out
    assert joined.learning_rows("train").tolist() == [0, 1, 2, 3, 8, 9, 10, 11]


def test_patients_are_shared_within_a_collection_only(pair, tmp_path):
    split = np.array(["train", "train", "test", "test"])
    a = write_toy_cache(
        *(tmp_path / "a.h5", np.ones((4, 3)), np.ones((4, 1))), names=("Mass",), split=split
    )
    swapped = replace(a.images, id=np.char.add(b"b", a.images.id), split=a.images.split[::-1])
    b = replace(a, path=tmp_path / "b.h5", images=swapped)
    with pytest.raises(CacheError, match="images of 2 patients are in more than one split"):
        join_rows([a, b]).rows("train")
    other = replace(b, header=replace(b.header, collection="other"))
    assert len(join_rows([a, other]).rows("train")) == 4


def test_texts_are_those_of_the_data_set_that_names_a_label(pair):
    rows = np.arange(9.0).reshape(3, 3)
    a = replace(pair[0], texts={"signs": toy_texts(rows, -rows, PADCHEST)})
    b = replace(pair[1], texts={"signs": toy_texts(rows[:2] + 10, -rows[:2], ("Mass", "Hernia"))})
    joined = join_rows([a, b])
    assert joined.prompt_sets == {"signs"}
    text = joined.text()
    assert text.labels == ("Mass", "scoliosis", "Hernia")
    assert text.positive.ensemble.tolist() == [[10, 11, 12], [6, 7, 8], [13, 14, 15]]
    assert text.positive.prompts == (("prompt 0",), ("prompt 2",), ("prompt 1",))
    assert text.negative is not None
    others = replace(b.texts["signs"], templates=("evidence of {}",))
    with pytest.raises(CacheError, match="are not the prompts"):
        join_rows([a, replace(b, texts={"signs": others})]).text()


def test_what_encoders_and_data_sets_were_trained_on_and_lack_is_added_up(pair):
    a, b = (
        replace(
            cache,
            header=replace(
                cache.header,
                trained_on={name: ImageRecords.of(name, ["x"])},
                excluded={"missing": 2},
                listed={"images": 3, "patients": depth},
                bit_depth=depth,
            ),
            failures={"x.png": "damaged"},
        )
        for cache, name, depth in zip(pair, ("nih", "more"), (None, 12), strict=True)
    )
    joined = join_rows([a, b])
    assert {*joined.header.trained_on} == {"nih", "more"}
    assert joined.excluded == {"missing": 4, "damaged": 2}
    assert joined.header.listed == {"images": 6, "patients": None}
    assert joined.header.bit_depth == 12


def test_caches_that_cannot_be_joined_are_refused(pair, tmp_path):
    a, b = pair
    other = replace(b.header, encoder_spec={"checkpoint": "4567"})
    with pytest.raises(CacheError, match=r"different encoders.*checkpoint: '0123' against '4567'"):
        join_rows([a, replace(b, header=other)])
    with pytest.raises(CacheError, match=r"'nih/0000\.png' is in two of the caches"):
        join_rows([a, b, replace(b, path=tmp_path / "c.h5")])
    hashed = replace(b.header, collection="nih#abc")
    with pytest.raises(CacheError, match="images of nih under different ids"):
        join_rows([b, replace(b, header=hashed)])
    overlapping = replace(b, header=replace(b.header, collection="rsna"))
    with pytest.raises(CacheError, match="nih and rsna share images and patients"):
        join_rows([a, b, overlapping])
    with pytest.raises(UsageError, match="rows of several data sets"):
        fc.open_cache([join_rows(pair), a])
    both = fc.open_cache([b, replace(b, path=tmp_path / "c.h5")])
    with pytest.raises(UsageError, match="features of several encoders"):
        fc.open_cache([a, both], join="rows")
    with pytest.raises(UnknownNameError, match="'row': did you mean rows"):
        fc.open_cache(pair, join="row")


def test_a_renamed_data_set_has_the_labels_of_what_it_was_loaded_as(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    cache = write_toy_cache(
        tmp_path / "x.h5",
        rng.standard_normal((8, 4)),
        rng.integers(0, 2, (8, 1)),
        names=("Target",),
        dataset="mine",
    )
    assert cache.header.vocabulary_names == ("mine",)
    data = {"dataset": "rsna", "root": None, "options": {}, "pseudonymized": False}
    header = replace(cache.header, collection="nih#1234", extraction={"data": data})
    assert header.vocabulary_names == ("rsna", "mine", "nih")
