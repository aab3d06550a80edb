"""Predictions of a trained head for image files, with an encoder simple enough to follow."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.special import expit, logit

from featurecache.encoders.encoder import Encoder
from featurecache.errors import FeaturecacheWarning, RunError, UsageError
from featurecache.heads.train import train_head
from featurecache.images.decode import read_image
from featurecache.metrics.familiarity import COLUMNS as FAMILIARITY
from featurecache.metrics.familiarity import fit_familiarity
from featurecache.metrics.platt_scaling import PlattScaling
from featurecache.runs.prediction import BATCH_SIZE
from featurecache.runs.run import load_run
from featurecache.store.open import open_cache
from tests.heads.conftest import DESCRIPTION, write_toy

LABELS = ("a", "b", "c")
COLUMNS = [f"{label} probability" for label in LABELS]


class Blocks(Encoder):
    """Embeds an image as the mean gray value of each of 12 vertical stripes."""

    image_spec = None

    def __init__(self, *, factor=1.0, **changes):
        super().__init__(name="toy-encoder")
        self.image_spec = {**DESCRIPTION, **changes}
        self.batches = []
        self.factor = factor

    def preprocess(self, image):
        return np.repeat(np.asarray(image.convert("L").resize((12, 4)), np.float32)[None], 3, 0)

    def embed_pixels(self, pixels):
        self.batches.append(len(pixels))
        embedding = pixels.mean(axis=(1, 2)) / 100
        embedding[1:2] *= self.factor
        return embedding


@pytest.fixture
def use_encoder(monkeypatch):
    """Return a function that sets the encoder which runs load by name."""

    def use(encoder):
        monkeypatch.setattr(
            "featurecache.encoders.loading.load_encoder", lambda *args, **kwargs: encoder
        )
        return encoder

    return use


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> list[Path]:
    """Return 300 image files, one for each row of the problem."""
    rng = np.random.default_rng(1)
    folder = tmp_path_factory.mktemp("images")
    paths = [folder / f"{row:03d}.png" for row in range(300)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (20, 24), dtype=np.uint8)).save(path)
    return paths


@pytest.fixture(scope="module")
def saved(images, problem, tmp_path_factory):
    """Return the folder of a run on the images' cached embeddings, and its probabilities."""
    encoder, folder = Blocks(), tmp_path_factory.mktemp("saved")
    pixels = np.stack([encoder.preprocess(read_image(path)) for path in images])
    cache = write_toy(
        folder, encoder.embed_pixels(pixels), problem["labels"], problem["split"], names=LABELS
    )
    run = train_head(cache, "baseline", hidden=(8, 4), epochs=2, n_bootstrap=0, controls=False)
    return run.save(folder / "run"), run.model.probabilities(cache.embedding)


@pytest.fixture
def trained(saved, use_encoder):
    """Return a run that was read from its folder, and its probabilities (300, 3)."""
    use_encoder(Blocks())
    folder, probability = saved
    return load_run(folder), probability


def test_image_gets_the_prediction_of_its_cached_embedding(trained, images):
    run, probability = trained
    rows = np.random.default_rng(0).permutation(300)[: 2 * BATCH_SIZE + 5]
    paths = [images[row] for row in rows]
    table = run.predict(paths)
    assert table["image"].tolist() == [str(path) for path in paths]
    assert table["error"].isna().all()
    np.testing.assert_allclose(table[COLUMNS], probability[rows], rtol=1e-5)
    assert np.ptp(table[COLUMNS].to_numpy(), axis=0).min() > 0.01
    for label, threshold in zip(LABELS, run.model.thresholds, strict=True):
        expected = (table[f"{label} probability"] >= threshold).tolist()
        assert table[f"{label} positive"].tolist() == expected
        assert (table[f"{label} threshold"] == threshold).all()


def test_thresholds_are_of_the_uncalibrated_probability(trained, images):
    """A Platt scaling after which no probability reaches its threshold changes no decision."""
    run, probability = trained
    platt = PlattScaling(
        np.array([1.0, np.nan, 1.0]), np.array([-50.0, np.nan, -50.0]), (None, "a reason", None)
    )
    model = replace(run.model, calibration=platt, thresholds=(0.3, 0.3, 1.0))
    table = model.predict(images[:5])
    np.testing.assert_allclose(
        table["a calibrated"], expit(logit(probability[:5, 0]) - 50), rtol=1e-4
    )
    assert table["b calibrated"].isna().all()
    assert table["a positive"].tolist() == (probability[:5, 0] >= 0.3).tolist()
    assert table["a positive"].any()
    assert not table["c positive"].any()


def test_a_label_that_was_not_learned_is_not_predicted(trained, images):
    run, probability = trained
    table = replace(run.model, learned=(True, False, True)).predict(images[:2])
    np.testing.assert_allclose(table["a probability"], probability[:2, 0], rtol=1e-5)
    for column in ("probability", "threshold", "positive"):
        assert table[f"b {column}"].isna().all()
        assert table[[f"a {column}", f"c {column}"]].notna().all(axis=None)
    assert table["b calibrated"].isna().all()


def test_folder_stands_for_its_images(trained, images):
    run, probability = trained
    np.testing.assert_allclose(run.predict(images[0].parent)[COLUMNS], probability, rtol=1e-5)


def test_only_one_batch_of_images_is_held_at_a_time(trained, images, use_encoder):
    encoder = use_encoder(Blocks())
    trained[0].predict(images[: 2 * BATCH_SIZE + 1])
    assert encoder.batches == [BATCH_SIZE, BATCH_SIZE, 1]


def test_unreadable_image_is_reported_and_the_others_are_predicted(trained, images, tmp_path):
    run, probability = trained
    text = tmp_path / "notes.png"
    text.write_text("not an image")
    missing = tmp_path / "missing.png"
    table = run.predict([text, images[0], missing, images[1]])
    assert table["error"].isna().tolist() == [False, True, False, True]
    assert str(text) in table["error"][0]
    assert str(missing) in table["error"][2]
    assert table[COLUMNS].isna().all(axis=1).tolist() == [True, False, True, False]
    np.testing.assert_allclose(table[COLUMNS].iloc[[1, 3]], probability[:2], rtol=1e-5)


def test_unreadable_images_only_are_all_reported(trained, tmp_path):
    files = [tmp_path / f"text-{number}.png" for number in range(3)]
    for file in files:
        file.write_text("not an image")
    assert trained[0].predict(files)["error"].notna().tolist() == [True] * 3
    for file in files:
        file.unlink()
    with pytest.raises(UsageError, match=r"text-0\.png does not exist"):
        trained[0].predict(files)


def test_cache_and_data_set_give_the_same_as_their_images(trained, images, tmp_path):
    run, probability = trained
    cache = run.config["cache"]["path"]
    table = run.predict(cache)
    np.testing.assert_allclose(table[COLUMNS], probability, rtol=1e-6)
    assert table["image"].tolist() == open_cache(cache).ids.tolist()
    with pytest.raises(UsageError, match="give it without other files"):
        run.predict([cache, images[0]])
    with pytest.raises(
        UsageError, match="leave out `models`, `weights`, `bit_depth` and `heatmap`"
    ):
        run.predict(cache, weights=["x"])
    done = []
    table = run.predict(images[:20], progress=lambda n, total: done.append((n, total)))
    assert done == [(16, 20), (20, 20)]


def test_image_given_twice_is_predicted_twice(trained, images):
    table = trained[0].predict([images[3], images[3]])
    assert table.iloc[0].equals(table.iloc[1])


@pytest.mark.parametrize("factor", [1e8, 0.0, np.nan])
def test_embedding_that_no_cache_would_hold_is_reported(trained, images, factor, use_encoder):
    run, probability = trained
    use_encoder(Blocks(factor=factor))
    table = run.predict(images[:3])
    assert str(images[1]) in table["error"][1]
    assert "not finite in float16, or is all zero" in table["error"][1]
    np.testing.assert_allclose(table[COLUMNS].iloc[[0, 2]], probability[[0, 2]], rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"checkpoint": "4567"}, "checkpoint: '0123' against '4567'"),
        ({"preprocessing": {"size": 9}}, r"preprocessing\.size: 8 against 9"),
        ({"precision": "bf16"}, "precision: 'fp32' against 'bf16'"),
    ],
)
def test_another_encoder_is_refused_naming_the_difference(
    trained, images, change, field, use_encoder
):
    run, _ = trained
    use_encoder(Blocks(**change))
    with pytest.raises(RunError, match=field) as caught:
        run.predict(images[:1])
    assert str(run.path) in str(caught.value)


def test_other_library_versions_are_a_warning(trained, images, use_encoder):
    use_encoder(Blocks(libraries={"torch": "2.7"}))
    with pytest.warns(FeaturecacheWarning, match="torch: '2.6' against '2.7'"):
        assert trained[0].predict(images[:1])["error"].isna().all()


@pytest.mark.parametrize("argument", ["models", "weights"])
def test_one_encoder_must_be_named_per_encoder_of_the_run(trained, images, argument):
    with pytest.raises(UsageError, match=f"takes 1 encoder, but `{argument}` names 2"):
        trained[0].predict(images[:1], **{argument: ["x", "y"]})


def test_familiarity_is_that_of_a_sample_of_training_patients(trained, images):
    run, _ = trained
    cache = open_cache(run.config["cache"]["path"])
    sample = fit_familiarity(cache.embedding, cache.rows("train"), cache.patients)
    expected = sample.percentiles(cache.embedding)
    columns = list(FAMILIARITY)
    np.testing.assert_allclose(run.predict(run.config["cache"]["path"])[columns], expected)
    np.testing.assert_allclose(run.predict(images[:4])[columns], expected[:4])
    scored = np.median(expected[cache.rows("test")], axis=0)
    found = run.metrics.familiarity
    assert [found.knn, found.mahalanobis] == pytest.approx(scored)
