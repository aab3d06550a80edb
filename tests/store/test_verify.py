"""What a thorough look finds in a file that reads."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from featurecache.store.layout import chunks_path
from featurecache.store.verify import verify_cache
from tests.store import handwritten


def test_a_sound_cache_has_no_problems(version_1: Path) -> None:
    assert verify_cache(version_1) == []


def test_rows_that_are_no_embedding_are_found(
    version_1: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("featurecache.store.verify.BLOCK_ROWS", 2)
    with h5py.File(version_1, "a") as file:
        file["images/embedding"][1] = 0
        file["images/embedding"][2, 3] = np.nan
    assert verify_cache(version_1) == [
        "the embedding of 'b/1' is all zero (1 such rows)",
        "the embedding of 'ç' is not finite (1 such rows)",
    ]


def test_a_patient_in_two_splits_is_found(version_1: Path) -> None:
    with h5py.File(version_1, "a") as file:
        del file["images/patient"]
        handwritten.text(file, "images/patient", ["p1", "p1", "p2"])
    assert verify_cache(version_1) == ["patient 'p1' is in more than one split"]


def test_a_split_by_image_may_part_a_patient(version_1: Path) -> None:
    with h5py.File(version_1, "a") as file:
        del file["images/patient"]
        handwritten.text(file, "images/patient", ["p1", "p1", "p2"])
        file.attrs["image_level_split"] = True
    assert verify_cache(version_1) == []


@pytest.mark.parametrize(
    ("dataset", "kind"),
    [("text/signs/ensemble", "positive"), ("text/signs/negatives/ensemble", "negative")],
)
@pytest.mark.parametrize("value", [[0.0, 0.6, 0.8, 0.0], [0, 0, 0, 0.5], [np.nan, 0, 0, 1]])
def test_an_ensemble_that_its_prompts_do_not_give_is_found(
    version_1: Path, dataset: str, kind: str, value: list[float]
) -> None:
    with h5py.File(version_1, "a") as file:
        file[dataset][1] = value
    assert verify_cache(version_1) == [
        f"prompt set 'signs': a {kind} ensemble is not the mean of its prompts on the unit sphere"
    ]


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_a_text_without_direction_is_found(version_1: Path, value: float) -> None:
    with h5py.File(version_1, "a") as file:
        file["text/signs/embedding"][0, 1] = value
    assert verify_cache(version_1) == [
        "prompt set 'signs': a positive embedding is not finite, or is all zero"
    ]


def test_an_image_both_failed_and_embedded_is_found(version_1: Path) -> None:
    with h5py.File(version_1, "a") as file:
        del file["failures/id"]
        handwritten.text(file, "failures/id", ["b/1"])
    assert verify_cache(version_1) == [
        "'b/1' is recorded as failed and has an embedding all the same"
    ]


def test_parts_left_beside_a_cache_are_found(version_1: Path) -> None:
    chunks_path(version_1).mkdir()
    (problem,) = verify_cache(version_1)
    assert "run extract again" in problem
    assert str(chunks_path(version_1)) in problem
