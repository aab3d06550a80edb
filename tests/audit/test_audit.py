import hashlib
import json
from pathlib import Path

import featurecache as fc
from featurecache.datasets.load import load_dataset
from tests.audit.audit_caches import make_cache


def test_audit_accepts_paths_and_serializes(tmp_path: Path) -> None:
    cache = make_cache(tmp_path, ["train", "train", "test"], patient=["a", "b", "a"])
    result = fc.audit(str(cache.path), n_bootstrap=0)
    assert result == fc.audit(cache, n_bootstrap=0)
    document = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert document["shared_patients"]["details"] == [
        {"patient": "a", "images": {"train": 1, "test": 1}}
    ]
    assert document["near_duplicates"]["pairs"] is None
    assert document["shortcuts"] == {"view": None, "sex": None, "age": None}


def test_repr_summarizes_the_findings(tmp_path: Path) -> None:
    cache = make_cache(tmp_path, ["train", "train", "test"], patient=["a", "b", "a"])
    result = fc.audit(cache, n_bootstrap=0)
    assert "patients in several splits: 1" in repr(result)
    assert "near-duplicate pairs across splits: not checked (0 suspected)" in repr(result)
    assert "<table>" in result._repr_html_()


def test_images_of_a_data_set_are_compared(phantom: Path, tmp_path: Path) -> None:
    dataset = load_dataset("phantom", phantom)
    images = dataset.images
    cache = make_cache(
        tmp_path,
        images["split"].tolist(),
        id=images["id"].tolist(),
        patient=images["patient"],
        sha256=[hashlib.sha256(file.read_bytes()).hexdigest() for file in dataset.files().values()],
    )
    tasks = {}

    def progress(done: int, total: int, task: str) -> None:
        tasks[task] = done / total

    result = fc.audit(cache, dataset, n_bootstrap=0, progress=progress)
    assert tasks == dict.fromkeys(
        (
            "read images",
            "compare images",
            "find usual similarities",
            "compare embeddings",
            "compare spectra",
            "predict view, sex and age",
        ),
        1,
    )
    assert result.near_duplicates.compared is not None
    assert result.near_duplicates.compared > 0
