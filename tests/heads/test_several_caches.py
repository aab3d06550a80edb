"""Heads on the caches of several encoders at once."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from featurecache.encoders.encoder import Encoder
from featurecache.errors import UsageError
from featurecache.heads.config import HeadConfig
from featurecache.heads.experiment import run_experiment, training_data_from
from featurecache.heads.fit import fit_head, predict_probabilities
from featurecache.heads.io import read_head, save_head
from featurecache.heads.prediction import predict_images
from featurecache.heads.registry import HEADS
from featurecache.images.decode import read_image
from featurecache.store.concat import concat_caches
from tests.heads.head_names import ALIGNED_HEADS

NAMES = ("Mass", "Effusion", "Nodule")
SMOOTH = sorted(name for name, spec in HEADS.items() if not spec.has_epochs and name != "knn")
"""Of the heads without chance in their training those that a rounding does not make jump."""


@pytest.fixture
def caches(write, problem, aligned_set):
    """Two encoders that each see half of an image, with texts of their own halves."""
    halves = []
    for number, half in enumerate((slice(0, 6), slice(6, 12))):
        ensemble = aligned_set.positive.ensemble[:, half]
        ensemble = ensemble / np.linalg.norm(ensemble, axis=1, keepdims=True)
        texts = replace(aligned_set.positive, ensemble=ensemble, embedding=ensemble[:, np.newaxis])
        halves.append(
            write(
                *(problem["embedding"][:, half], problem["labels"], problem["split"]),
                names=NAMES,
                patient=problem["patient"],
                texts=(replace(aligned_set, positive=texts, negative=None),),
                file=f"half-{number}.h5",
            )
        )
    return halves


def log_odds(probability):
    return torch.logit(torch.from_numpy(probability)).numpy()


@pytest.mark.parametrize("fusion", ["early", "late"])
def test_two_halves_together_tell_more_than_each_alone(caches, fusion):
    def auroc(cache):
        config = HeadConfig(head="linear", fusion=fusion)
        return run_experiment(cache, config, n_bootstrap=0, controls=False).metrics["macro"][
            "auroc"
        ]

    alone = [auroc(cache) for cache in caches]
    assert auroc(concat_caches(caches)) > max(alone) + 0.01


@pytest.mark.parametrize("head", SMOOTH)
def test_the_mean_of_logits_is_that_of_heads_trained_alone(caches, head):
    config = HeadConfig(head=head, fusion="late")
    joined = run_experiment(concat_caches(caches), config, n_bootstrap=0, controls=False)
    alone = []
    for cache in caches:
        trained = fit_head(training_data_from(cache, config), config)
        alone.append(log_odds(predict_probabilities(trained.module, cache.embedding)))
    # Rows joined are of length 1, and so rounded otherwise than in their caches.
    np.testing.assert_allclose(log_odds(joined.probability), np.mean(alone, axis=0), atol=0.1)


def test_a_member_trained_by_gradient_is_the_head_trained_alone(caches):
    config = HeadConfig(head="baseline", fusion="late", hidden=(8, 4), epochs=3)
    data = training_data_from(concat_caches(caches), config)
    together = fit_head(data, config)
    alone = fit_head(data.per_encoder[0], config)
    assert together.members[0].best_epoch == alone.best_epoch
    first = dict(together.module.members[0].state_dict())
    for name, value in alone.module.state_dict().items():
        assert torch.equal(first[name], value), name


def test_every_member_learns_from_what_the_controls_changed(caches):
    data = training_data_from(concat_caches(caches), HeadConfig(head="baseline", fusion="late"))
    shuffled = replace(data, labels=1 - data.labels)
    assert all(part.labels is shuffled.labels for part in shuffled.per_encoder)
    assert [part.embedding.shape for part in data.per_encoder] == [(300, 6), (300, 6)]


@pytest.mark.parametrize("head", ALIGNED_HEADS)
def test_features_side_by_side_share_no_space_with_texts(caches, head):
    with pytest.raises(UsageError, match="--fusion late"):
        run_experiment(concat_caches(caches), HeadConfig(head=head), n_bootstrap=0)


@pytest.mark.parametrize("fusion", ["early", "late"])
@pytest.mark.parametrize("head", ["weighted_sum", "knn"])
def test_a_saved_head_predicts_the_same_and_tells_its_encoders(caches, tmp_path, head, fusion):
    config = HeadConfig(head=head, fusion=fusion)
    if HEADS[head].has_epochs:
        config = replace(config, hidden=(8, 4), epochs=2)
    joined = concat_caches(caches)
    experiment = run_experiment(joined, config, n_bootstrap=0, controls=False)
    save_head(tmp_path / "run", joined, experiment, seeds=1)
    found = read_head(tmp_path / "run")
    assert [one.dim for one in found.encoders] == [6, 6]
    assert np.array_equal(
        predict_probabilities(found.module, joined.embedding), experiment.probability
    )
    with (tmp_path / "run" / "history.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert ("model" in lines[0]) == (fusion == "late")


class Half(Encoder):
    """Embeds an image as the mean grey of some of its stripes."""

    aligned, has_images, has_text = False, True, False
    scale = bias = image_spec = text_spec = encode_texts = None

    def __init__(self, stripes, description):
        super().__init__(name="toy-encoder", device="cpu", precision="fp32")
        self.stripes, self.image_spec = stripes, description

    def preprocess(self, image):
        return np.repeat(np.asarray(image.convert("L").resize((12, 4)), np.float32)[None], 3, 0)

    def embed_pixels(self, pixels):
        return pixels.mean(axis=(1, 2))[:, self.stripes] / 100


@pytest.mark.parametrize("fusion", ["early", "late"])
def test_new_images_go_through_all_encoders(write, problem, tmp_path, fusion):
    rng = np.random.default_rng(1)
    paths = [tmp_path / f"{row:03d}.png" for row in range(300)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (20, 24), dtype=np.uint8)).save(path)
    caches, encoders = [], []
    for number, stripes in enumerate((slice(0, 5), slice(5, 12))):
        blank = Half(stripes, {})
        embedding = blank.embed_pixels(
            np.stack([blank.preprocess(read_image(path)) for path in paths])
        )
        cache = write(
            *(embedding, problem["labels"], problem["split"]), names=NAMES, file=f"{number}.h5"
        )
        caches.append(cache)
        encoders.append(Half(stripes, cache.header.encoder_spec))
    joined = concat_caches(caches)
    config = HeadConfig(head="linear", fusion=fusion)
    experiment = run_experiment(joined, config, n_bootstrap=0, controls=False)
    save_head(tmp_path / "run", joined, experiment, seeds=1)
    missing = tmp_path / "missing.png"
    predictions = predict_images(
        read_head(tmp_path / "run"), encoders, [*paths[:3], missing, paths[3]]
    )
    assert predictions[3].probability is None
    found = [one.probability for one in predictions if one.probability is not None]
    np.testing.assert_allclose(found, experiment.probability[:4], atol=1e-6)
