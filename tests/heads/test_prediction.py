"""A trained head on image files, with an encoder simple enough to follow."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featurecache.encoders.compatibility import library_difference
from featurecache.encoders.encoder import Encoder
from featurecache.errors import RunError
from featurecache.heads.config import HeadConfig
from featurecache.heads.experiment import run_experiment
from featurecache.heads.io import SavedHead, read_head, save_head
from featurecache.heads.prediction import predict_images
from featurecache.images.decode import read_image
from featurecache.runs.prediction import BATCH_SIZE

DESCRIPTION = {
    "checkpoint": "0123",
    "preprocessing": {"size": 8},
    "precision": "fp32",
    "libraries": {"torch": "2.6"},
}


class Blocks(Encoder):
    """Embeds an image as the mean grey of each of 12 vertical stripes."""

    aligned, has_images, has_text = False, True, False
    scale = bias = text_spec = None
    image_spec = DESCRIPTION
    encode_texts = None

    def __init__(self, **changes):
        super().__init__(name="toy-encoder", device="cpu", precision="fp32")
        self.image_spec = {**DESCRIPTION, **changes}
        self.batches = []

    def preprocess(self, image):
        return np.repeat(np.asarray(image.convert("L").resize((12, 4)), np.float32)[None], 3, 0)

    def embed_pixels(self, pixels):
        self.batches.append(len(pixels))
        return pixels.mean(axis=(1, 2)) / 100


@pytest.fixture
def films(tmp_path) -> list[Path]:
    """300 films as files, one for each row of the problem's splits."""
    rng = np.random.default_rng(1)
    folder = tmp_path / "films"
    folder.mkdir()
    paths = [folder / f"{row:03d}.png" for row in range(300)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (20, 24), dtype=np.uint8)).save(path)
    return paths


@pytest.fixture
def trained(films, write, problem, tmp_path):
    """A head trained on the films' embeddings as a cache holds them, and its predictions there."""
    encoder = Blocks()
    embedding = encoder.embed_pixels(
        np.stack([encoder.preprocess(read_image(path)) for path in films])
    )
    cache = write(embedding, problem["labels"], problem["split"], names=("a", "b", "c"))
    config = HeadConfig(head="baseline", hidden=(8, 4), epochs=2)
    experiment = run_experiment(cache, config, n_bootstrap=0)
    save_head(tmp_path / "run", cache, experiment, seeds=1)
    return read_head(tmp_path / "run"), experiment.probability


def test_an_image_predicts_what_its_cached_embedding_predicts(trained, films):
    head, probability = trained
    rows = np.random.default_rng(0).permutation(300)[: 2 * BATCH_SIZE + 5]
    paths = [films[row] for row in rows]
    predictions = predict_images(head, [Blocks()], paths)
    assert [prediction.path for prediction in predictions] == paths
    assert all(prediction.reason is None for prediction in predictions)
    found = np.stack([prediction.probability for prediction in predictions])
    np.testing.assert_allclose(found, probability[rows], rtol=1e-5)
    assert np.ptp(found, axis=0).min() > 0.01


def test_no_more_images_than_a_batch_are_held_at_once(trained, films):
    encoder = Blocks()
    predict_images(trained[0], [encoder], films[: 2 * BATCH_SIZE + 1])
    assert encoder.batches == [BATCH_SIZE, BATCH_SIZE, 1]


def test_an_unreadable_image_is_reported_and_the_others_are_predicted(trained, films, tmp_path):
    head, probability = trained
    text = tmp_path / "notes.png"
    text.write_text("not an image")
    missing = tmp_path / "missing.png"
    found = predict_images(head, [Blocks()], [text, films[0], missing, films[1]])
    assert [prediction.probability is None for prediction in found] == [True, False, True, False]
    assert str(text) in found[0].reason
    assert str(missing) in found[2].reason
    np.testing.assert_allclose(found[1].probability, probability[0], rtol=1e-5)
    np.testing.assert_allclose(found[3].probability, probability[1], rtol=1e-5)


def test_images_of_which_none_is_readable_are_all_reported(trained, tmp_path):
    paths = [tmp_path / f"missing-{number}.png" for number in range(3)]
    found = predict_images(trained[0], [Blocks()], paths)
    assert [prediction.probability for prediction in found] == [None] * 3


def test_an_image_given_twice_is_answered_twice(trained, films):
    first, second = predict_images(trained[0], [Blocks()], [films[3], films[3]])
    assert np.array_equal(first.probability, second.probability)


@pytest.mark.parametrize("factor", [1e8, 0.0, np.nan])
def test_an_embedding_that_no_cache_would_hold_is_reported(trained, films, factor):
    class Broken(Blocks):
        def embed_pixels(self, pixels):
            embedding = super().embed_pixels(pixels)
            embedding[1] *= factor
            return embedding

    first, broken, last = predict_images(trained[0], [Broken()], films[:3])
    assert broken.probability is None
    assert str(films[1]) in broken.reason
    assert "not finite in float16, or is all zero" in broken.reason
    np.testing.assert_allclose(first.probability, trained[1][0], rtol=1e-5)
    np.testing.assert_allclose(last.probability, trained[1][2], rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"checkpoint": "4567"}, "checkpoint: '0123' against '4567'"),
        ({"preprocessing": {"size": 9}}, r"preprocessing\.size: 8 against 9"),
        ({"precision": "bf16"}, "precision: 'fp32' against 'bf16'"),
    ],
)
def test_another_encoder_is_refused_naming_what_differs(trained, films, change, field):
    head, _ = trained
    with pytest.raises(RunError, match=field) as caught:
        predict_images(head, [Blocks(**change)], films[:1])
    assert str(head.path) in str(caught.value)


def test_other_library_versions_alone_are_told_and_not_refused(trained, films):
    head, _ = trained
    other = Blocks(libraries={"torch": "2.7"})

    def difference(encoder):
        return library_difference(
            head.encoders[0].description, encoder.image_spec, source=head.path
        )

    assert difference(other) == "torch: '2.6' against '2.7'"
    assert difference(Blocks()) is None
    assert predict_images(head, [other], films[:1])[0].probability is not None


def test_comparing_changes_neither_description(trained):
    head: SavedHead = trained[0]
    before = dict(head.encoders[0].description)
    encoder = Blocks()
    library_difference(head.encoders[0].description, encoder.image_spec, source=head.path)
    assert head.encoders[0].description == before
    assert encoder.image_spec == DESCRIPTION
