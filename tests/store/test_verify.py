"""Problems that ``verify_cache`` reports in a cache that can be read."""

from pathlib import Path

import numpy as np
import pytest

from featurecache.errors import CacheError
from featurecache.store.layout import chunks_path
from featurecache.store.reader import read_cache
from featurecache.store.verify import verify_cache
from tests.store import handwritten


def test_sound_cache_has_no_problems(cache_file: Path) -> None:
    assert verify_cache(cache_file) == []


def test_unusable_embeddings_are_reported(
    cache_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("featurecache.store.verify.BLOCK_ROWS", 2)
    with handwritten.edit(cache_file) as file:
        file["images/embedding"][1] = 0
        file["images/embedding"][2, 3] = np.nan
    assert verify_cache(cache_file) == [
        "/images/embedding in row 1 ('b/1') is all zero",
        "/images/embedding in row 2 ('ç') is not finite",
    ]


def test_patient_in_two_splits_is_reported_and_not_scored(cache_file: Path) -> None:
    with handwritten.edit(cache_file) as file:
        del file["images/patient"]
        handwritten.write_text(file, "images/patient", ["p1", "p1", "p2"])
    assert verify_cache(cache_file) == ["patient 'p1' is in more than one split"]
    cache = read_cache(cache_file)
    for rows in (cache.rows, cache.learning_rows):
        with pytest.raises(CacheError, match="more than one split, patient 'p1' the first"):
            rows("train")


def test_image_level_split_may_divide_a_patient(cache_file: Path) -> None:
    with handwritten.edit(cache_file) as file:
        del file["images/patient"]
        handwritten.write_text(file, "images/patient", ["p1", "p1", "p2"])
        file.attrs["image_level_split"] = True
    assert verify_cache(cache_file) == []
    assert read_cache(cache_file).rows("train").size


@pytest.mark.parametrize(
    ("dataset", "kind"),
    [("text/signs/ensemble", "positive"), ("text/signs/negatives/ensemble", "negative")],
)
@pytest.mark.parametrize("value", [[0.0, 0.6, 0.8, 0.0], [0, 0, 0, 0.5]])
def test_wrong_ensemble_is_reported(
    cache_file: Path, dataset: str, kind: str, value: list[float]
) -> None:
    with handwritten.edit(cache_file) as file:
        file[dataset][1] = value
    assert verify_cache(cache_file) == [
        f"prompt set 'signs': a {kind} ensemble is not the mean of its prompts on the unit sphere"
    ]


def test_failed_image_with_an_embedding_is_reported(cache_file: Path) -> None:
    with handwritten.edit(cache_file) as file:
        del file["failures/id"]
        handwritten.write_text(file, "failures/id", ["b/1"])
    assert verify_cache(cache_file) == ["'b/1' is recorded as failed but has an embedding"]


def test_leftover_chunk_files_are_reported(cache_file: Path) -> None:
    chunks_path(cache_file).mkdir()
    (problem,) = verify_cache(cache_file)
    assert "extract again" in problem
    assert str(chunks_path(cache_file)) in problem
