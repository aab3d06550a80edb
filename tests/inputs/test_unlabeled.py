"""What works without labels, and what says that it needs them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import featurecache as fc
from featurecache.datasets.dataset import Dataset
from featurecache.errors import UsageError
from featurecache.retrieval.metrics import measure_retrieval
from featurecache.store.cache import Cache
from featurecache.store.merge import merge_caches
from featurecache.store.verify import verify_cache


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("ward")
    rng = np.random.default_rng(0)
    ids = [f"{number}.png" for number in range(6)]
    for name in ids:
        Image.fromarray(rng.integers(0, 255, (32, 32), dtype=np.uint8)).save(root / name)
    split = ["train", "train", "train", "val", "test", "test"]
    images = pd.DataFrame({"id": ids, "path": ids, "patient": ids, "split": split})
    return Dataset(name="ward", root=root, images=images, labels=None)


@pytest.fixture(scope="module")
def cache(ward: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return fc.extract(ward, "tiny", cache_dir=tmp_path_factory.mktemp("cache"))


def test_a_data_set_without_labels(ward: Dataset) -> None:
    assert ward.label_names == ()
    assert ward.label_values.shape == ward.labels.shape == (6, 0)
    assert ward.split("test").label_values.shape == (2, 0)
    assert "6 images of 6 patients, no labels" in repr(ward)


def test_its_cache_has_no_labels_and_no_prompts(cache: Cache) -> None:
    assert cache.labels.names == ()
    assert cache.labels.values.shape == (6, 0)
    assert cache.prompt_sets == frozenset()
    assert cache.header.extraction["prompts"] == {}
    assert cache.arrays("train")[1].shape == (3, 0)
    assert "labels: none" in repr(cache)
    assert verify_cache(cache.path) == []


def test_shards_without_labels_are_merged(ward: Dataset, cache: Cache, tmp_path: Path) -> None:
    shards = [fc.extract(ward, "tiny", cache_dir=tmp_path, shard=f"{i}/2").path for i in (1, 2)]
    merged = fc.open_cache(merge_caches(shards)[0])
    assert merged.labels.values.shape == (6, 0)
    assert np.array_equal(merged.embedding, cache.embedding)


def test_labels_are_added_without_encoding_again(ward: Dataset, tmp_path: Path) -> None:
    before = np.array(fc.extract(ward, "tiny", cache_dir=tmp_path).embedding)
    labels = pd.DataFrame({"Edema": [1, 0, 1, 0, 1, 0]})
    labeled = Dataset(name="ward", root=ward.root, images=ward.images, labels=labels)
    after = fc.extract(labeled, "tiny", cache_dir=tmp_path)
    assert after.labels.values[:, 0].tolist() == [1, 0, 1, 0, 1, 0]
    assert after.prompt_sets == {"signs"}
    assert np.array_equal(after.embedding, before)


def test_retrieval_and_audit_need_no_labels(ward: Dataset, cache: Cache) -> None:
    assert len(fc.retrieve(cache, "pleural effusion", top=2)) == 2
    similar = fc.retrieve(cache, image="1.png", top=3)
    assert set(similar["patient"]) == {""}  # unknown, not the image
    assert similar["labels"].tolist() == [()] * 3
    audit = fc.audit(cache, n_bootstrap=0)
    assert audit.label_support == {}
    assert "no labels" in repr(audit)


@pytest.mark.parametrize(
    "use",
    [
        fc.train_head,
        fc.zero_shot,
        fc.align,
        measure_retrieval,
        lambda cache: fc.learning_curve(cache, "knn"),
        lambda cache: fc.retrieve(cache, label="Edema"),
        lambda cache: cache.text_embeddings(),
    ],
)
def test_what_needs_labels_says_how_to_add_them(cache: Cache, use) -> None:
    message = r"tiny\.h5 has no labels: extract the same images again .* `name` ward"
    with pytest.raises(UsageError, match=message):
        use(cache)


def test_finetuning_needs_labels(ward: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the data set ward has no labels"):
        fc.finetune(ward, "tiny", objective="bce", out=tmp_path / "run")


def test_commands_report_missing_labels(run, cache: Cache) -> None:
    assert "no labels" in run("cache", "info", cache.path).stdout
    assert "no labels" in run("audit", "--cache", cache.path, "--n-bootstrap", 0).stdout
    refused = run("train-head", "--cache", cache.path, "--head", "knn")
    assert refused.code == 2
    assert "has no labels" in refused.stderr


def test_any_data_set_can_be_named(ward: Dataset) -> None:
    (ward.root / "list.csv").write_text("path,Edema\n0.png,1\n1.png,0\n2.png,1\n3.png,0\n")
    named = fc.load_dataset(ward.root / "list.csv", labels=["Edema"], name="clinic")
    assert named.name == named.collection == "clinic"
    assert named.source is not None
    assert named.source["options"]["name"] == "clinic"
