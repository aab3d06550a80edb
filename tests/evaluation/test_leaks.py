"""Scores on images that something was trained on are refused, whatever the images are called."""

import csv
import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import featurecache as fc
from featurecache.datasets.dataset import Dataset
from featurecache.datasets.nih import TEST_LIST
from featurecache.datasets.phantom.folder import generate_phantom, load_phantom
from featurecache.errors import FeaturecacheWarning, UsageError
from featurecache.evaluation.zero_shot import zero_shot
from featurecache.provenance.perceptual_hash import is_copy
from featurecache.store.cache import Cache

SEED = 3


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("data") / "phantom"
    generate_phantom(root, n_images=80, seed=SEED, size=96)
    return load_phantom(root)


@pytest.fixture(scope="module")
def cache(phantom: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return fc.extract(phantom, "tiny", cache_dir=tmp_path_factory.mktemp("cache"), precision="fp32")


@pytest.fixture(scope="module")
def head(cache: Cache) -> fc.Run:
    return fc.train_head(cache, "prototype", controls=False, n_bootstrap=0)


def table(dataset: Dataset, rows: np.ndarray, folder: Path, *, quality: int | None = None) -> Path:
    """Write images of a data set under other names, with a table of two labels, all as test."""
    folder.mkdir()
    lines = []
    for number, row in enumerate(rows.tolist()):
        source = dataset.root / dataset.images["path"].iloc[row]
        name = f"{number}.png" if quality is None else f"{number}.jpg"
        if quality is None:
            shutil.copyfile(source, folder / name)
        else:
            with Image.open(source) as image:
                side = round(image.width * 1.5)
                image.convert("L").resize((side, side)).save(folder / name, quality=quality)
        effusion, mass = (
            int(dataset.labels[label].iloc[row] == 1) for label in ("Effusion", "Mass")
        )
        lines.append([name, effusion, mass, f"patient {number}", "test"])
    with (folder / "hospital.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "Effusion", "Mass", "patient", "split"], *lines])
    return folder / "hospital.csv"


def load_table(path: Path) -> Dataset:
    return fc.load_dataset(path, labels=["Effusion", "Mass"], patient="patient", split="split")


def extract(dataset: Dataset, folder: Path) -> Cache:
    return fc.extract(dataset, "tiny", cache_dir=folder, precision="fp32")


@pytest.mark.parametrize(("quality", "kind"), [(None, "same file"), (60, "re-encoded or resized")])
def test_a_table_of_the_training_images_is_refused(phantom, head, tmp_path, quality, kind):
    """Was 0.879 on ChestX-ray14, without a warning."""
    rows = np.concatenate([phantom.rows("train")[:12], phantom.rows("test")[:8]])
    other = extract(load_table(table(phantom, rows, tmp_path / "x", quality=quality)), tmp_path)
    with pytest.raises(UsageError, match=rf"trained on 12 of the 20 images of hospital .*{kind}"):
        head.evaluate(other, n_bootstrap=0)


def test_a_table_of_test_images_is_scored(phantom, head, tmp_path):
    other = extract(load_table(table(phantom, phantom.rows("test"), tmp_path / "x")), tmp_path)
    metrics = head.evaluate(other, n_bootstrap=0).metrics
    assert metrics.n == len(phantom.rows("test"))
    assert not [warning for warning in metrics.warnings if "trained on" in warning]


def test_the_training_cache_itself_is_refused_but_for_its_test_images(cache, head):
    """Was 0.929, without a warning."""
    with pytest.raises(UsageError, match="with the same id"):
        head.evaluate(cache, split="all", n_bootstrap=0)
    again = head.evaluate(cache, n_bootstrap=0).metrics
    assert again.macro.auroc == pytest.approx(head.metrics.macro.auroc)


def test_other_images_of_training_patients_are_refused(phantom, cache, tmp_path):
    """Was 0.830 with 90 % of the images of training patients, without a warning."""
    patients = phantom.images["patient"]
    repeated = patients.duplicated().to_numpy() & (phantom.images["split"] == "train").to_numpy()
    followed = np.flatnonzero(repeated)
    # Follow-ups of a synthetic patient can be so alike that they count as copies.
    hashes, others = cache.images.perceptual_hash, np.setdiff1d(np.arange(len(phantom)), followed)
    followed = followed[~is_copy(hashes[followed], hashes[others])]
    ward = dataclasses.replace(phantom, name="ward", collection="ward")
    first, later = ward.take(others), ward.take(followed)
    later = dataclasses.replace(later, images=later.images.assign(split="test"))
    # Only the name of a published collection says that equal patients are the same people.
    first, later = (dataclasses.replace(part, collection="kermany") for part in (first, later))
    run = fc.train_head(extract(first, tmp_path / "a"), "prototype", controls=False, n_bootstrap=0)
    message = rf"other images of \d+ patients in {len(followed)} of the"
    with pytest.raises(UsageError, match=message):
        run.evaluate(extract(later, tmp_path / "b"), n_bootstrap=0)
    elsewhere = dataclasses.replace(later, name="elsewhere", collection="elsewhere")
    metrics = run.evaluate(extract(elsewhere, tmp_path / "c"), n_bootstrap=0).metrics
    assert [text for text in metrics.warnings if "patients with the same names" in text]


def test_patients_that_cannot_be_compared_are_one_warning(phantom, head, tmp_path):
    """The head and its encoder, which was trained elsewhere, say it once."""
    rows = phantom.rows("test")
    hospital = table(phantom, rows, tmp_path / "x")
    unknown = fc.load_dataset(hospital, labels=["Effusion", "Mass"], split="split")
    metrics = head.evaluate(extract(unknown, tmp_path / "a"), n_bootstrap=0).metrics
    (warning,) = [text for text in metrics.warnings if "cannot be compared" in text]
    assert "pseudonymized differently or unknown" in warning


def with_copies(phantom: Dataset, folder: Path) -> Dataset:
    """Return the data set with two test images in training, too: one copied, one re-encoded."""
    test = phantom.rows("test")[:2]
    root = folder / "root"
    shutil.copytree(phantom.root, root)
    images = phantom.images.copy()
    added = images.iloc[test].assign(
        id=["copy.png", "copy.jpg"], path=["copy.png", "copy.jpg"], patient="new", split="train"
    )
    sources = [root / path for path in images["path"].iloc[test]]
    shutil.copyfile(sources[0], root / "copy.png")
    with Image.open(sources[1]) as image:
        image.convert("L").resize((150, 150)).save(root / "copy.jpg", quality=50)
    return Dataset(
        name="copies",
        root=root,
        images=pd.concat([images, added], ignore_index=True),
        labels=np.concatenate([phantom.label_values, phantom.label_values[test]]),
        label_names=phantom.label_names,
    )


def test_training_images_that_are_copies_of_test_images_are_left_out(phantom, cache, tmp_path):
    """Was 1.000 with all test images in training; only `audit` saw it."""
    copies = extract(with_copies(phantom, tmp_path), tmp_path)
    assert len(copies) == len(cache) + 2
    run = fc.train_head(copies, "prototype", controls=False, n_bootstrap=0)
    (warning,) = [text for text in run.metrics.warnings if "left out" in text]
    assert "2 training or validation images are left out" in warning
    assert "1 has the same file as and 1 is a re-encoded" in warning
    assert run.config["n_train"] == len(phantom.rows("train"))
    assert run.metrics.n == len(phantom.rows("test"))
    trained = run.provenance.trained_on["copies"].to_json()["id"]
    assert not {"copy.png", "copy.jpg"} & set(trained)
    assert copies.learning_rows("val").tolist() == copies.rows("val").tolist()


def test_unknown_patients_are_a_warning_in_the_metrics(phantom, tmp_path):
    unknown = dataclasses.replace(
        phantom, name="u", images=phantom.images.assign(patient=phantom.images["id"])
    )
    metrics = zero_shot(extract(unknown, tmp_path), n_bootstrap=0).metrics
    assert [text for text in metrics.warnings if "patients are unknown" in text]


def test_no_warning_where_there_is_no_leak(cache, head):
    words = ("trained on", "left out", "patients")
    for metrics in (head.metrics, zero_shot(cache, n_bootstrap=0).metrics):
        assert not [text for text in metrics.warnings if any(word in text for word in words)]


def test_a_renamed_data_set_in_the_layout_of_nih_is_not_nih(phantom, shared_data, tmp_path):
    """`extract --n-images 500` was refused: trained on 1 of the 105 test images of nih."""
    trained = fc.load_encoder("tiny", device="cpu").provenance.trained_on["nih"].to_json()["id"]
    images = phantom.images.copy()
    test = phantom.rows("test")
    images.loc[test, "id"] = sorted(trained)[: len(test)]
    renamed = dataclasses.replace(
        phantom, images=images, labels=phantom.labels.set_axis(images["id"]), collection="nih"
    )
    assert len(extract(renamed, tmp_path)) == len(phantom)


@pytest.mark.parametrize("quality", [None, 80])
def test_tiny_is_not_tested_on_its_own_training_images(shared_data, tmp_path, quality):
    """Through a table it was, with 0.861 to 0.968, and `audit` saw none."""
    nih = fc.load_dataset("nih", shared_data / "nih", split="patient")
    official = set((shared_data / "nih" / TEST_LIST).read_text().split())
    train = np.flatnonzero(
        ((nih.images["split"] == "train") & ~nih.images["id"].isin(official)).to_numpy()
    )
    test = nih.rows("test")[:5]
    own = load_table(
        table(nih, np.concatenate([train[:10], test]), tmp_path / "x", quality=quality)
    )
    seen = "tiny was trained on 10 of the 15 images of hospital"
    with pytest.warns(FeaturecacheWarning, match=f"will not be scored: {seen}"):
        cache = extract(own, tmp_path)
    with pytest.raises(UsageError, match=seen):
        zero_shot(cache, n_bootstrap=0)
    # Without labels, nothing is scored, and by content or by name nothing is refused.
    unlabeled = dataclasses.replace(own, name="ward", cells=own.cells[:, :0], label_names=())
    assert len(extract(unlabeled, tmp_path)) == len(own)
    by_name = dataclasses.replace(
        nih.take(train[:10]), images=nih.images.iloc[train[:10]].assign(split="test")
    )
    with pytest.raises(UsageError, match=r"trained on 10 of the 10 .*10 with the same id"):
        extract(by_name, tmp_path)
