"""From images to a run folder that all other commands accept."""

import csv
import dataclasses
import json
import os
import shutil

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from transformers import AutoModel

from featurecache.encoders.loading import load_encoder
from featurecache.errors import RunError, UsageError
from featurecache.evaluation.controls import random_features
from featurecache.evaluation.simple_predictors import view_only_probabilities
from featurecache.finetune.config import FinetuneConfig
from featurecache.finetune.io import load_model
from featurecache.finetune.run import train_encoder
from featurecache.finetune.training_state import require_no_run
from featurecache.images.decode import read_image
from featurecache.provenance.provenance import Provenance
from featurecache.runs.folder import new_run, write_config
from featurecache.runs.prediction import classify_images

BCE = FinetuneConfig("bce", learning_rate=1e-3, head_learning_rate=1e-2, epochs=12, batch_size=16)
# A small learning rate and no augmentation, because so small a model learns unsteadily otherwise.
CONTRASTIVE = FinetuneConfig(
    "contrastive", learning_rate=5e-4, epochs=15, patience=15, batch_size=16, augment=False
)


@pytest.fixture(scope="module", params=[BCE, CONTRASTIVE], ids=["bce", "contrastive"])
def made(request, dataset, tiny_clip, tmp_path_factory):
    """A run and its folder."""
    folder = tmp_path_factory.mktemp("made") / "run"
    clip = load_encoder(str(tiny_clip), device="cpu")
    return train_encoder(dataset, clip, request.param, target=folder, n_bootstrap=50), folder


@pytest.fixture(scope="module")
def short(dataset, tiny_clip, tmp_path_factory):
    """A run of one epoch, and its folder."""
    folder = tmp_path_factory.mktemp("short") / "run"
    config = dataclasses.replace(BCE, epochs=1)
    clip = load_encoder(str(tiny_clip), device="cpu")
    return train_encoder(dataset, clip, config, target=folder, n_bootstrap=0), folder


@pytest.fixture
def copied(short, tmp_path):
    """A copy of the folder of the short run, to be damaged."""
    return shutil.copytree(short[1], tmp_path / "run")


def test_it_learns_the_labels(made):
    run, _ = made
    assert run.metrics.macro.auroc > 0.8
    assert run.metrics.split == "test"


def test_metrics_follow_from_predictions(made):
    run, folder = made
    with (folder / "predictions.csv").open() as file:
        test = [row for row in csv.DictReader(file) if row["split"] == "test"]
    for name in ("Opacity", "Nodule"):
        truth = [int(row[f"{name} truth"]) for row in test]
        probability = [float(row[f"{name} probability"]) for row in test]
        expected = roc_auc_score(truth, probability)
        assert run.metrics.per_label[name].auroc == pytest.approx(expected)


def test_encoder_is_ordinary_checkpoint_folder(made, dataset):
    _, folder = made
    network = AutoModel.from_pretrained(folder / "encoder").eval()
    encoder = load_encoder(str(folder), device="cpu")
    assert encoder.name == "run"
    pixels = np.stack([encoder.preprocess(read_image(dataset.root / "000.png"))])
    with torch.inference_mode():
        direct = network.get_image_features(pixel_values=torch.tensor(pixels)).pooler_output
    assert np.allclose(encoder.embed_pixels(pixels), direct.numpy(), atol=1e-5)


def test_saved_model_reproduces_predictions(made, dataset):
    run, folder = made
    model = run.model
    with (folder / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))[:5]
    paths = [dataset.root / row["id"] for row in rows]
    for row, prediction in zip(
        rows, classify_images([model.encoder], model.probabilities, paths), strict=True
    ):
        stored = [float(row[f"{name} probability"]) for name in model.labels]
        assert prediction.output == pytest.approx(stored, abs=2e-2)


def test_no_unfinished_state_is_left(made):
    assert [path.name for path in made[1].parent.iterdir()] == ["run"]


def test_vision_encoder_learns_with_bce(dataset, vision, tmp_path):
    result = train_encoder(
        dataset,
        vision,
        dataclasses.replace(BCE, trainable="last-1"),
        target=tmp_path / "run",
        n_bootstrap=0,
    )
    assert result.metrics.macro.auroc > 0.8
    assert load_encoder(str(tmp_path / "run"), device="cpu").has_text is False


def test_provenance_is_stored_with_encoder(dataset, clip, tmp_path):
    config = dataclasses.replace(BCE, epochs=1, train_size=20)
    clip.provenance = Provenance(("clinic",))
    made = train_encoder(dataset, clip, config, target=tmp_path / "run", n_bootstrap=0)
    assert any("possible CLINIC exposure" in text for text in made.warnings)
    provenance = load_encoder(str(tmp_path / "run"), device="cpu").provenance
    ids = dataset.images["id"].to_numpy()
    records = provenance.trained_on["clinic"]
    trained = set(records.to_json()["id"])
    assert records.perceptual_hash.any(axis=1).all()
    assert (records.sha256 != b"").all()
    assert provenance.exposed_to == ("clinic",)
    assert set(ids[dataset.rows("val")]) < trained
    assert len(trained) == 20 + 16
    assert not trained & set(ids[dataset.rows("test")])


def test_second_finetuning_on_other_split_is_refused(dataset, short, tmp_path):
    again = load_encoder(str(short[1]), device="cpu")
    swap = dataset.images["split"].map({"train": "test", "val": "val", "test": "train"})
    swapped = dataclasses.replace(dataset, images=dataset.images.assign(split=swap))
    with pytest.raises(UsageError, match="trained on 48 of the 48 images of clinic"):
        train_encoder(swapped, again, BCE, target=tmp_path / "second", n_bootstrap=0)


def test_validation_images_that_are_scored_are_checked_like_test_images(dataset, short, tmp_path):
    """Was "metrics of the validation split" of 71 images, 65 of them trained on."""
    config = dataclasses.replace(BCE, epochs=1)
    first, folder = short
    again = load_encoder(str(folder), device="cpu")
    without_test = np.flatnonzero(dataset.images["split"] != "test")
    part = dataset.take(without_test)
    names = [f"x{row}" for row in range(len(part))]
    table = dataclasses.replace(
        part,
        name="table",
        collection="table",
        images=part.images.assign(id=names, patient=names),
        labels=part.labels.set_axis(names),
    )
    with pytest.raises(UsageError, match=r"trained on 16 of the 16 images of table .*same file"):
        train_encoder(table, again, BCE, target=tmp_path / "second", n_bootstrap=0)
    # With a test split of its own, a warning says what training and validation are worth.
    third = train_encoder(dataset, again, config, target=tmp_path / "third", n_bootstrap=0)
    (warning,) = [text for text in third.warnings if "itself" in text]
    assert "run itself was trained on 64 of the 64 training and validation images" in warning
    assert not [text for text in first.warnings if "itself" in text]
    # Evaluations on other data sets repeat it.
    assert third.model.learning_caveats == (warning,)
    assert first.model.learning_caveats == ()


def test_image_level_split_gives_warning(dataset, clip, tmp_path):
    by_image = dataclasses.replace(dataset, image_level_split=True)
    config = dataclasses.replace(BCE, epochs=1)
    made = train_encoder(by_image, clip, config, target=tmp_path / "run", n_bootstrap=0)
    assert any("the split is by image" in text for text in made.warnings)


def test_view_control_learns_from_training_images(dataset, clip, tmp_path):
    views = np.where(np.arange(80) % 5 < 2, "AP", "PA")
    seen = dataclasses.replace(dataset, images=dataset.images.assign(view=views))
    few = dataclasses.replace(BCE, epochs=1, train_size=20, seed=1)
    made = train_encoder(seen, clip, few, target=tmp_path / "run", n_bootstrap=0)
    config = json.loads((tmp_path / "run/provenance.json").read_text())["trained_on"]["clinic"][
        "id"
    ]
    rows = np.flatnonzero(seen.images["id"].isin(config) & (seen.images["split"] == "train"))
    test = seen.rows("test")
    expected = view_only_probabilities(views[rows], seen.label_values[rows], views[test])
    truth = seen.label_values[test]
    aurocs = [roc_auc_score(truth[:, c], expected[:, c]) for c in range(2)]
    assert made.metrics.controls["view_only"].macro.auroc == pytest.approx(np.mean(aurocs))


@pytest.mark.parametrize("config", [BCE, CONTRASTIVE])
def test_other_controls_use_finetuned_encoder(dataset, clip, tmp_path, config):
    config = dataclasses.replace(config, epochs=1)
    made = train_encoder(dataset, clip, config, target=tmp_path / "run", n_bootstrap=50)
    tuned = made.model
    held_out = np.concatenate([dataset.rows("val"), dataset.rows("test")])
    dim = json.loads((tmp_path / "run/config.json").read_text())["dim"]
    random = tuned.probabilities(random_features((len(held_out), dim), seed=0))
    test = dataset.rows("test")
    truth, random = dataset.label_values[test], random[-len(test) :]
    aurocs = [roc_auc_score(truth[:, c], random[:, c]) for c in range(2)]
    controls = made.metrics.controls
    assert controls["random_features"].macro.auroc == pytest.approx(np.mean(aurocs))
    low, high = controls["shuffled_labels"].macro.auroc_ci
    assert low < 0.5 < high


@pytest.mark.parametrize("name", ["config.json", "head.safetensors"])
def test_missing_file_is_named(copied, name):
    (copied / name).unlink()
    with pytest.raises(RunError, match=name):
        load_model(copied)


def test_setting_of_another_version_is_refused_with_its_run(copied):
    path = copied / "config.json"
    document = json.loads(path.read_text())
    document["settings"]["optimizer"] = "unheard of"
    path.write_text(json.dumps(document))
    with pytest.raises(RunError, match=r"contradicts itself \(unknown optimizer 'unheard of'"):
        load_model(copied)


@pytest.mark.parametrize(("value", "lacking"), [(0, "positives"), (1, "negatives")])
def test_label_of_one_class_in_training_is_undefined(
    dataset, clip, part_of, tmp_path, value, lacking
):
    labels = dataset.label_values.copy()
    labels[dataset.rows("train"), 1] = value
    result = train_encoder(
        part_of(np.arange(80), labels),
        clip,
        dataclasses.replace(BCE, epochs=1),
        target=tmp_path / "run",
        n_bootstrap=0,
    )
    assert result.metrics.per_label["Nodule"].auroc is None
    assert result.model.learned[1] is False
    assert result.scored.learned.tolist() == [True, False]
    assert f"Nodule has no {lacking} in training: its metrics are undefined" in result.warnings


def test_state_of_finished_run_is_deleted_when_repeated(tmp_path):
    run, parts = tmp_path / "run", tmp_path / "run.parts"
    with new_run(run) as folder:
        write_config(folder, "finetune", {})
    parts.mkdir()
    with pytest.raises(UsageError, match="already exists"):
        require_no_run(run)
    assert not parts.exists()
    # Next to a run of another kind it may be unfinished work.
    other = tmp_path / "other"
    with new_run(other) as folder:
        write_config(folder, "head", {})
    (tmp_path / "other.parts").mkdir()
    with pytest.raises(UsageError, match="already exists"):
        require_no_run(other)
    assert (tmp_path / "other.parts").exists()


def test_fine_tuned_tiny_embeds_in_transformers_as_documented(dataset, tmp_path):
    """BiT's pooled maps are not flat: get_image_features of transformers fails on them."""
    config = FinetuneConfig("bce", trainable="head", epochs=1, augment=False)
    train_encoder(dataset, load_encoder("tiny"), config, target=tmp_path / "run", n_bootstrap=0)
    network = AutoModel.from_pretrained(tmp_path / "run/encoder", dtype=torch.float32).eval()
    encoder = load_encoder(tmp_path / "run")
    pixels = np.stack(
        [encoder.preprocess(read_image(dataset.root / f"{n:03}.png")) for n in (0, 7)]
    )
    with torch.inference_mode():
        maps = network.vision_model(pixel_values=torch.tensor(pixels)).pooler_output
        direct = network.visual_projection(maps.flatten(1))
        with pytest.raises(RuntimeError):  # once this works, the documentation can say so
            network.get_image_features(pixel_values=torch.tensor(pixels))
    assert maps.shape == (2, 512, 1, 1)
    assert np.allclose(encoder.embed_pixels(pixels), direct.numpy(), atol=1e-5)


@pytest.mark.parametrize("what", ["paths", "files of one size and time"])
def test_unfinished_training_notices_exchanged_images(dataset, clip, tmp_path, what):
    def stop(*_):
        raise KeyboardInterrupt

    root = shutil.copytree(dataset.root, tmp_path / "copy")
    pair = [root / name for name in dataset.images["path"][:2]]
    size = max(path.stat().st_size for path in pair)
    content = [path.read_bytes().ljust(size, b"\0") for path in pair]

    def write(*data: bytes) -> None:
        for path, one in zip(pair, data, strict=True):
            path.write_bytes(one)
            os.utime(path, ns=(10**18, 10**18))

    write(*content)
    exchanged = before = dataclasses.replace(dataset, root=root)
    config = dataclasses.replace(BCE, epochs=1)
    with pytest.raises(KeyboardInterrupt):
        train_encoder(before, clip, config, target=tmp_path / "run", progress=stop)
    if what == "paths":
        images = dataset.images.assign(path=dataset.images["path"].to_numpy()[::-1])
        exchanged = dataclasses.replace(before, images=images)
    else:
        write(*content[::-1])
    with pytest.raises(RunError, match=r"other settings \(files: "):
        train_encoder(exchanged, clip, config, target=tmp_path / "run")
