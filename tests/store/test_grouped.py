"""Caches of some views, and of studies."""

from pathlib import Path

import numpy as np
import pytest

import featurecache as fc
from featurecache.label_cells import NEGATIVE_BY_MODEL, POSITIVE_BY_MODEL
from featurecache.store.grouped import pool_embeddings, study_cells
from tests.heads.conftest import write_toy

STUDY = ["b", "a", "b", "", "a", "c", "c"]
VIEW = ["PA", "AP", "LATERAL", "PA", "RL", "COSTAL", "PA"]
SPLIT = ["train", "test", "train", "val", "test", "train", "train"]
PATIENT = ["1", "2", "1", "3", "2", "4", "4"]
# Opacity, No Finding: 1 positive, 0 negative, -1 uncertain, -2 blank.
CELLS = [[0, 1], [1, 0], [-1, 0], [-1, -2], [0, 1], [-2, -1], [0, -2]]


@pytest.fixture
def images(tmp_path: Path) -> fc.Cache:
    return write_toy(
        tmp_path,
        np.arange(1, 29).reshape(7, 4),
        np.array(CELLS),
        np.array(SPLIT),
        names=("Opacity", "No Finding"),
        patient=np.array(PATIENT),
        study=np.array(STUDY),
        view=np.array(VIEW),
    )


def test_rows_are_studies_in_the_order_of_their_first_image(images: fc.Cache) -> None:
    studies = fc.open_cache(images, level="study", study_features="mean")
    assert studies.ids.tolist() == ["b", "a", "image 00003.png", "c"]
    assert studies.splits.tolist() == ["train", "test", "val", "train"]
    assert studies.patients.tolist() == ["1", "2", "3", "4"]
    assert studies.views.tolist() == ["LATERAL+PA", "AP+RL", "PA", "COSTAL+PA"]
    # A finding is positive if any image shows it, "No Finding" negative if any denies it.
    assert studies.cells.tolist() == [[-1, 0], [1, 0], [-1, -2], [0, -1]]
    policy = fc.LabelPolicy(uncertain="positive")
    assert studies.with_policy(policy).labels.values.tolist() == [[1, 0], [1, 0], [1, -1], [0, 1]]
    rows = [[0, 2], [1, 4], [3], [5, 6]]
    means = [images.embedding[of_study].mean(axis=0) for of_study in rows]
    assert studies.embedding.tolist() == np.array(means, dtype=np.float16).tolist()
    assert studies.arrays("train")[0].tolist() == [means[0].tolist(), means[3].tolist()]
    assert studies.notes == (
        "1 image without a study is a study of one image.",
        "The labels of the images differ in 3 studies: a finding is positive in a study if it is "
        "in one of its images.",
    )
    assert "studies, mean of the embeddings of their images" in repr(studies)
    assert fc.open_cache(studies, level="image") is images


@pytest.mark.parametrize(
    ("policy", "images", "study", "normal"),
    [
        # Who would say positive is not heard, or does not count.
        ({"labels_from": "physician"}, (POSITIVE_BY_MODEL, 32), 1, 1),
        ({"labels_from": "physician"}, (NEGATIVE_BY_MODEL, 0), 0, 0),
        ({"labels_from": "physician"}, (POSITIVE_BY_MODEL, -1), -1, -1),
        ({"uncertain": "positive"}, (-1, 31), 1, 0),
        ({"uncertain": "ignore"}, (-1, 31), -1, 0),
        ({"readers": "2"}, (21, 52), 1, 0),
        ({"readers": "any"}, (-2, 101), 1, 1),
        ({"blank": "negative"}, (-2, 1), 1, 1),
    ],
)
def test_a_study_is_what_its_images_are_by_the_policy(policy, images, study, normal) -> None:
    policy = fc.LabelPolicy(**policy)
    names = ("Opacity", "No Finding")
    cells = np.repeat(np.array(images, dtype=np.int8)[:, np.newaxis], 2, axis=1)
    for order in ([0, 1], [1, 0]):
        joined, n_differing = study_cells(cells[order], np.zeros(2, int), names, policy=policy)
        assert policy.resolve(joined, names).tolist() == [[study, normal]]
        assert n_differing == 1


def test_views_are_selected_and_unknown_ones_reported(images: fc.Cache) -> None:
    frontal = fc.open_cache(images, views="frontal")
    assert frontal.ids.tolist() == [images.ids[row] for row in (0, 1, 3, 6)]
    assert frontal.embedding.tolist() == images.embedding[[0, 1, 3, 6]].tolist()
    assert frontal.notes == (
        "1 image is left out, neither frontal nor lateral by the view: COSTAL (1).",
    )
    assert frontal.excluded == {"of another view": 3}
    lateral = fc.open_cache(images, level="study", views="lateral", study_features="mean")
    assert lateral.ids.tolist() == ["b", "a"]
    assert lateral.cells.tolist() == [[-1, 0], [0, 1]]


def test_frontal_and_lateral_are_side_by_side_with_marks_of_missing_ones(images: fc.Cache) -> None:
    studies = fc.open_cache(images, level="study", study_features="frontal+lateral")
    pa, rl = (images.embedding[row].astype(float) for row in (0, 4))
    rows = studies.embedding.astype(float)
    assert rows.shape == (4, 10)
    assert np.linalg.norm(rows, axis=1) == pytest.approx([2**0.5] * 4, abs=1e-3)
    assert rows[0, :5] == pytest.approx([*pa / np.linalg.norm(pa), 0], abs=1e-3)
    assert rows[1, 5:] == pytest.approx([*rl / np.linalg.norm(rl), 0], abs=1e-3)
    assert rows[2, 5:].tolist() == [0, 0, 0, 0, 1]  # of a study without a lateral image
    lateral_only = pool_embeddings(images.embedding[2:3], np.array([0]), views=np.array(["LL"]))
    assert lateral_only[0, :5].tolist() == [0, 0, 0, 0, 1]


def test_leaks_are_those_of_the_images(images: fc.Cache) -> None:
    studies = fc.open_cache(images, level="study")
    (records,) = studies.records(np.array([0, 3]))
    assert records.id.tolist() == images.images.id[[0, 2, 5, 6]].tolist()
    for about_images in (lambda: fc.retrieve(studies, label="Opacity"), lambda: fc.audit(studies)):
        with pytest.raises(fc.FeaturecacheError, match="open the cache with `level` image"):
            about_images()
    with pytest.raises(fc.FeaturecacheError, match="have no embeddings: give `study_features`"):
        studies.arrays("train")


@pytest.mark.parametrize(
    ("column", "values", "units", "message"),
    [
        ("view", ["PA"] * 7, {"views": "lateral"}, r"known to be lateral; the views are PA \(7\)"),
        ("view", [""] * 7, {"views": "frontal"}, r"the views are unknown \(7\)"),
        (
            "view",
            ["PA"] * 7,
            {"level": "study", "study_features": "frontal+lateral"},
            "known to be lateral",
        ),
        (
            "study",
            ["a", "a", "a", "", "image 00003.png", "", ""],
            {"level": "study"},
            "is the name of a study and of an image",
        ),
        ("split", [*SPLIT[:4], "val", *SPLIT[5:]], {"level": "study"}, "study 'a' are in several"),
    ],
)
def test_what_cannot_be_grouped_is_refused(tmp_path: Path, column, values, units, message) -> None:
    arrays = {"split": SPLIT, "study": STUDY, "view": VIEW, column: values}
    cache = write_toy(
        tmp_path,
        np.ones((7, 4)),
        np.array(CELLS),
        names=("Opacity", "No Finding"),
        image_level_split=True,
        **{name: np.array(texts) for name, texts in arrays.items()},
    )
    with pytest.raises(fc.FeaturecacheError, match=message):
        fc.open_cache(cache, **units)


def test_several_caches_are_grouped_together(images: fc.Cache, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = write_toy(
        tmp_path / "other",
        np.arange(29, 57).reshape(7, 4),
        np.array(CELLS),
        np.array(SPLIT),
        names=("Opacity", "No Finding"),
        patient=np.array(PATIENT),
        study=np.array(STUDY),
        view=np.array(VIEW),
    )
    both = fc.open_cache([images, other])
    studies = fc.open_cache([images, other], level="study", study_features="mean")
    assert len(studies.members) == 2
    assert studies.embedding[0].tolist() == pytest.approx(
        both.embedding[[0, 2]].astype(float).mean(axis=0), abs=1e-3
    )
    with pytest.raises(fc.FeaturecacheError, match="for the cache of one encoder"):
        fc.open_cache(both, level="study", study_features="frontal+lateral")
    with pytest.raises(fc.FeaturecacheError, match="for caches together"):
        fc.open_cache([fc.open_cache(images, level="study"), other])
