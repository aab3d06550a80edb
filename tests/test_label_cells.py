"""Cells as a data set states them, and the policies that turn them into labels."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

import featurecache as fc
from featurecache.datasets.registry import DATASETS, get_dataset_spec
from featurecache.errors import CacheError, UnknownNameError, UsageError
from featurecache.label_cells import (
    LabelPolicy,
    any_of,
    cells_of_votes,
    count_cells,
    require_same_policy,
)
from featurecache.store.merge import merge_caches
from tests.evaluation.toy_caches import write_toy_cache

NAMES = ("Atelectasis", "Edema", "Pulmonary Edema", "Fracture")
LABELS = {(1, "positive"): 1, (0, "negative"): 0, (-1, "ignore"): -1, (-1, "positive"): 1} | {
    (-1, "negative"): 0,
    (-2, "unknown"): -1,
    (-2, "negative"): 0,
}

CELLS = arrays(
    np.int8,
    array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=6),
    elements=st.integers(-2, 1),
)


def test_a_finding_is_there_if_a_kind_is_and_unknown_if_only_that_is_possible() -> None:
    truth = {
        (1, 1): 1,
        **{(1, other): 1 for other in (0, -1)},
        **{(other, 1): 1 for other in (0, -1)},
        **{(-1, 0): -1, (0, -1): -1, (-1, -1): -1},
        (0, 0): 0,
    }
    assert any_of(np.array([*truth], dtype=np.int8)).tolist() == [*truth.values()]


@given(CELLS, st.sampled_from(["unknown", "negative"]))
def test_policies_differ_in_uncertain_cells_only(cells: np.ndarray, blank: str) -> None:
    names = [f"label {c}" for c in range(cells.shape[1])]
    resolved = {
        uncertain: LabelPolicy(uncertain=uncertain, blank=blank).resolve(cells, names)
        for uncertain in ("ignore", "positive", "negative", "paper")
    }
    for uncertain, labels in resolved.items():
        rule = {-1: "negative" if uncertain == "paper" else uncertain, -2: blank, 0: "negative"}
        expected = [[LABELS[c, rule.get(c, "positive")] for c in row] for row in cells.tolist()]
        assert labels.tolist() == expected
        np.testing.assert_array_equal(labels[cells != -1], resolved["ignore"][cells != -1])


def test_paper_is_positive_for_two_labels_of_chexpert() -> None:
    labels = LabelPolicy(uncertain="paper").resolve(np.full((1, 4), -1, np.int8), NAMES)
    assert labels.tolist() == [[1, 1, 0, 0]]


@given(st.integers(1, 10), st.data(), st.sampled_from(["any", "majority", "1", "2", "3", "10"]))
def test_findings_of_several_readers(n: int, data: st.DataObject, needed: str) -> None:
    votes = np.array([data.draw(st.lists(st.integers(0, n), min_size=1, max_size=4))])
    labels = LabelPolicy(readers=needed).resolve(
        cells_of_votes(votes, np.array([n])), ["a"] * votes.shape[1]
    )
    number = {"any": 1, "majority": n // 2 + 1}.get(needed) or min(int(needed), n)
    assert labels.tolist() == [[int(k >= number) for k in votes[0].tolist()]]


def test_more_readers_than_a_cell_can_tell_apart() -> None:
    with pytest.raises(ValueError, match="at most 10 readers"):
        cells_of_votes(np.array([[1]]), np.array([11]))


def test_labels_of_models_are_unknown_if_only_physicians_count() -> None:
    cells = np.array([[1, 0, 3, 2, -1, -2]], np.int8)
    names = [str(c) for c in range(6)]
    assert LabelPolicy().resolve(cells, names).tolist() == [[1, 0, 1, 0, -1, -1]]
    physician = LabelPolicy(labels_from="physician", uncertain="positive", blank="negative")
    assert physician.resolve(cells, names).tolist() == [[1, 0, -1, -1, 1, 0]]


@pytest.mark.parametrize(
    ("field", "near"),
    [("uncertain", "positive"), ("blank", "negative"), ("readers", "any"), ("readers", "majority")],
)
def test_unknown_policy_is_refused(field: str, near: str) -> None:
    with pytest.raises(UnknownNameError, match=f"policy `{field}` 'x{near}': did you mean {near}"):
        LabelPolicy(**{field: f"x{near}"})


@pytest.mark.parametrize(
    ("policy", "cells", "line"),
    [
        ({}, [1, 0, -2], ""),
        ({"uncertain": "paper"}, [1, 0, -2], ""),
        (
            {"readers": "2", "labels_from": "physician"},
            [31, 32, 1, 3],
            "labels: 2 cells on which readers disagree count as positive if 2 of the readers state "
            "them, else negative (`readers` 2), 1 cell labeled by a model counts as unknown "
            "(`labels_from` physician)",
        ),
        ({}, [1, -1, -2], "labels: 1 uncertain cell counts as unknown (`uncertain` ignore)"),
        (
            {"uncertain": "paper", "blank": "negative"},
            [-1, -1, -2],
            "labels: 2 uncertain cells count as positive for Atelectasis and Edema, else negative "
            "(`uncertain` paper), 1 blank cell counts as negative (`blank` negative)",
        ),
    ],
)
def test_policy_describes_what_it_changes(
    policy: dict[str, str], cells: list[int], line: str
) -> None:
    names = list("abcd")[: len(cells)]
    assert LabelPolicy(**policy).describe(np.array([cells], np.int8), names) == line


@pytest.mark.parametrize(
    ("names", "positive", "want"),
    [
        # Consolidation, the middle of Pneumonia < Consolidation < Lung Opacity, is no label.
        (("Lung Opacity", "Pneumonia"), {"Pneumonia"}, {"Pneumonia", "Lung Opacity"}),
        (("Pneumonia", "Lung Opacity"), {"Lung Opacity"}, {"Lung Opacity"}),
        (("Pneumonia", "Edema"), {"Pneumonia", "Edema"}, {"Pneumonia", "Edema"}),
        # What the radiologist's labels of MIMIC-CXR call Lung Opacity; both only in one's own data.
        (("Airspace Opacity", "Edema"), {"Edema"}, {"Airspace Opacity", "Edema"}),
        (
            ("Airspace Opacity", "Lung Opacity", "Edema"),
            {"Edema"},
            {"Lung Opacity", "Edema"},
        ),
        (
            ("Lung Opacity", "Enlarged Cardiomediastinum", "Cardiomegaly", "Pneumonia"),
            {"Cardiomegaly", "Pneumonia"},
            {"Lung Opacity", "Enlarged Cardiomediastinum", "Cardiomegaly", "Pneumonia"},
        ),
    ],
)
def test_hierarchy_passes_over_findings_that_are_no_labels(
    names: tuple[str, ...], positive: set[str], want: set[str]
) -> None:
    cells = np.array([[int(name in positive) for name in names]], np.int8)
    labels = LabelPolicy(hierarchy="chexpert").resolve(cells, names)
    assert {name for name, label in zip(names, labels[0], strict=True) if label == 1} == want


def test_positive_findings_make_their_parents_positive() -> None:
    names = ["Lung_Opacity", "Pneumonia", "Mass", "Consolidation", "Cardiomegaly"]
    cells = np.array(
        [[-2, 1, 0, 0, -2], [0, 0, 1, 1, 1], [-1, -1, 0, -2, 0], [0, 2, 0, 0, 0], [0, 3, 0, 0, 0]],
        np.int8,
    )
    plain, by_tree = LabelPolicy(), LabelPolicy(hierarchy="chexpert")
    want = plain.resolve(cells, names).copy()
    want[[0, 0, 1, 4, 4], [3, 0, 0, 3, 0]] = 1
    np.testing.assert_array_equal(by_tree.resolve(cells, names), want)
    physician = LabelPolicy(hierarchy="chexpert", labels_from="physician")
    assert physician.resolve(cells[4:], names).tolist() == [[0, -1, 0, 0, 0]]
    line = "labels: positive findings make their parents positive (Pneumonia: Consolidation, "
    assert by_tree.describe(cells[1:2], names).startswith(line)
    assert plain.describe(cells[1:2], names) == ""
    assert by_tree.applied_to(cells[1:2], names) == {"hierarchy": "chexpert"}
    assert by_tree.applied_to(cells[1:2], list("abcde")) == {}
    with pytest.raises(UsageError, match="`hierarchy` is 'chexpert' for a and 'none' for b"):
        require_same_policy(
            by_tree.applied_to(cells, names), plain.applied_to(cells, names), names=("a", "b")
        )


def test_cells_are_counted_by_label() -> None:
    cells = np.array([[1, -1], [1, -2], [0, -2]], np.int8)
    expected = {
        "a": {"positive": 2, "negative": 1, "uncertain": 0, "blank": 0},
        "b": {"positive": 0, "negative": 0, "uncertain": 1, "blank": 2},
    }
    assert count_cells(cells, ["a", "b"]) == expected
    by_model = np.where(cells >= 0, cells + 2, cells).astype(np.int8)
    assert count_cells(by_model, ["a", "b"]) == expected
    disputed = count_cells(np.array([[31, 1]], np.int8), ["a", "b"])
    assert [kinds["disputed"] for kinds in disputed.values()] == [1, 0]


def make_dataset(policy: LabelPolicy | None = None) -> fc.Dataset:
    ids = ["a", "b", "c"]
    images = pd.DataFrame({"id": ids, "path": ids, "patient": ids, "split": "train"}, dtype=str)
    labels = pd.DataFrame({"Edema": [-1, np.nan, 1], "Mass": [0, -1, np.nan]})
    return fc.Dataset(name="ward", root="x", images=images, labels=labels, policy=policy)


def test_dataset_keeps_the_cells_under_every_policy() -> None:
    dataset = make_dataset().with_policy(LabelPolicy(uncertain="positive", blank="negative"))
    assert dataset.label_values.tolist() == [[1, 0], [0, 1], [1, 0]]
    taken = dataset.take(np.array([2, 0])).with_policy(LabelPolicy())
    assert taken.label_values.tolist() == [[-1, 0], [1, -1]]
    assert taken.cells.tolist() == [[-1, 0], [1, -2]]
    np.testing.assert_array_equal(dataset.labels["Edema"], [-1, np.nan, 1])


def test_cells_are_given_in_place_of_labels() -> None:
    images = make_dataset().images
    options = {"name": "ward", "root": "x", "images": images, "label_names": ["Mass"]}
    cells = [[32], [3], [0]]
    assert fc.Dataset(**options, cells=cells).label_values.tolist() == [[1], [1], [0]]
    assert LabelPolicy(readers=2) == LabelPolicy(readers="2")


def test_policy_of_a_data_set_is_part_of_its_spec() -> None:
    blank_is_negative = {"chexpert", "chexpert-plus", "mimic-cxr-jpg", "brax"}
    for name in DATASETS:
        expected = LabelPolicy(blank="negative") if name in blank_is_negative else None
        assert get_dataset_spec(name).policy == expected
    policy = LabelPolicy(uncertain="negative")
    fc.register_dataset("ward", lambda root: make_dataset(policy))
    spec = get_dataset_spec("ward")
    assert spec.load(Path("x"), {}).policy == policy
    own = dataclasses.replace(spec, policy=LabelPolicy(blank="negative"))
    assert own.load(Path("x"), {}).policy == LabelPolicy(blank="negative")


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two caches of the same 40 images, with all kinds of cells."""
    rng = np.random.default_rng(0)
    cells = rng.choice([1, 0, -1, -2], (40, 2), p=[0.4, 0.4, 0.1, 0.1])
    folder = tmp_path_factory.mktemp("cells")
    files = [folder / "a.h5", folder / "b.h5"]
    for file in files:
        write_toy_cache(file, rng.normal(size=(40, 4)), cells, names=("Edema", "Mass"))
    return files


def test_opened_cache_follows_the_policy(paths: list[Path]) -> None:
    for opened in (paths[0], paths):
        cache = fc.open_cache(opened, uncertain="paper", blank="negative")
        assert cache.policy == LabelPolicy(uncertain="paper", blank="negative")
        assert set(cache.cells.ravel()) == {1, 0, -1, -2}
        np.testing.assert_array_equal(cache.labels.values[:, 0], np.abs(cache.cells[:, 0]) % 2)
        np.testing.assert_array_equal(cache.labels.values[:, 1], cache.cells[:, 1] == 1)
        _, y, _ = cache.arrays()
        np.testing.assert_array_equal(y, cache.labels.values)
        assert not cache.to_pandas()["Edema"].isna().any()
        again = fc.open_cache(cache, blank="unknown")
        assert again.policy == LabelPolicy(uncertain="paper")
        assert {member.policy for member in again.members} == {again.policy}
        np.testing.assert_array_equal(again.to_pandas()["Mass"].isna(), cache.cells[:, 1] == -2)


def test_caches_under_different_policies_are_not_joined(paths: list[Path]) -> None:
    first, second = (
        fc.open_cache(paths[i], uncertain=u) for i, u in enumerate(("ignore", "paper"))
    )
    with pytest.raises(UsageError, match=r"`uncertain` is 'ignore' for .*a\.h5 and 'paper' for"):
        fc.open_cache([first, second])


def test_default_policy_is_stored_in_the_cache(paths: list[Path], tmp_path: Path) -> None:
    from featurecache.store.writer import write_cache

    cache = fc.open_cache(paths[0])
    header = dataclasses.replace(cache.header, policy=LabelPolicy(blank="negative"))
    write_cache(
        tmp_path / "c.h5",
        header=header,
        images=dataclasses.replace(cache.images, id=np.char.add(b"other ", cache.images.id)),
        dim=cache.dim,
        embedding=cache.read_rows,
        labels=cache.labels,
        texts={},
        failures={},
    )
    stored = fc.open_cache(tmp_path / "c.h5")
    assert stored.policy == LabelPolicy(blank="negative")
    np.testing.assert_array_equal(stored.cells, cache.cells)
    with pytest.raises(CacheError, match="their policy differs"):
        merge_caches([paths[0], tmp_path / "c.h5"], tmp_path / "all.h5")


def test_runs_under_different_policies_are_refused(paths: list[Path], tmp_path: Path) -> None:
    def train(**policy: Any) -> fc.Run:
        opened = fc.open_cache(paths[0], **policy)
        run = fc.train_head(opened, "prototype", controls=False, n_bootstrap=0)
        run.save(tmp_path / "-".join(policy.values()))
        return run

    ignored, positive = train(uncertain="ignore"), train(uncertain="positive")
    assert ignored.config["label_policy"] == {"uncertain": "ignore", "blank": "unknown"}
    message = "`uncertain` is 'ignore' for .*ignore and 'positive' for .*positive"
    with pytest.raises(UsageError, match=message):
        fc.compare([tmp_path / "ignore", tmp_path / "positive"])
    with pytest.raises(UsageError, match=message):
        fc.table([ignored, positive])
    with pytest.raises(UsageError, match=r"`blank` is 'unknown' for .* and 'negative' for .*b\.h5"):
        ignored.evaluate(fc.open_cache(paths[1], blank="negative"))


def test_policies_without_effect_do_not_matter(paths: list[Path], tmp_path: Path) -> None:
    cells = fc.open_cache(paths[0]).cells
    rng = np.random.default_rng(1)
    write_toy_cache(
        tmp_path / "c.h5", rng.normal(size=(40, 4)), np.abs(cells) % 2, names=("Edema", "Mass")
    )
    runs = [
        fc.train_head(
            fc.open_cache(tmp_path / "c.h5", uncertain=uncertain),
            "prototype",
            controls=False,
            n_bootstrap=0,
        )
        for uncertain in ("ignore", "positive")
    ]
    assert runs[1].config["label_policy"] == {}
    assert fc.compare(runs).comparisons[0].macro["auroc"].difference == 0
