"""Heads on the caches of several encoders."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from featurecache.encoders.encoder import Encoder
from featurecache.errors import UsageError
from featurecache.heads.config import HeadConfig
from featurecache.heads.fit import fit_head, predict_probabilities
from featurecache.heads.io import load_model
from featurecache.heads.registry import HEADS
from featurecache.heads.train import train_head, training_data_from
from featurecache.images.decode import read_image
from featurecache.store.concat import concat_caches
from tests.heads.conftest import write_toy
from tests.heads.head_names import ALIGNED_HEADS

NAMES = ("Mass", "Effusion", "Nodule")
SMOOTH = sorted(name for name, spec in HEADS.items() if not spec.has_epochs and name != "knn")
"""Deterministic heads whose scores change little under rounding."""


@pytest.fixture(scope="module")
def caches(tmp_path_factory, problem, aligned_set):
    """Return caches of two encoders that see one half of the dimensions each, with their texts."""
    halves, folder = [], tmp_path_factory.mktemp("halves")
    for number, half in enumerate((slice(0, 6), slice(6, 12))):
        ensemble = aligned_set.positive.ensemble[:, half]
        ensemble = ensemble / np.linalg.norm(ensemble, axis=1, keepdims=True)
        texts = replace(aligned_set.positive, ensemble=ensemble, embedding=ensemble[:, np.newaxis])
        halves.append(
            write_toy(
                folder,
                *(problem["embedding"][:, half], problem["labels"], problem["split"]),
                names=NAMES,
                patient=problem["patient"],
                texts=(replace(aligned_set, positive=texts, negative=None),),
                file=f"half-{number}.h5",
            )
        )
    return halves


def train(cache, head, **settings):
    return train_head(cache, head, n_bootstrap=0, controls=False, **settings)


def log_odds(probability):
    return torch.logit(torch.from_numpy(probability)).numpy()


@pytest.mark.parametrize("fusion", ["early", "late"])
def test_two_encoders_score_better_than_each_alone(caches, fusion):
    def auroc(cache):
        return train(cache, "linear", fusion=fusion).metrics.macro.auroc

    alone = [auroc(cache) for cache in caches]
    assert auroc(concat_caches(caches)) > max(alone) + 0.01


@pytest.mark.parametrize("head", SMOOTH)
def test_late_fusion_is_the_mean_of_logits_of_heads_trained_alone(caches, head):
    config = HeadConfig(head=head, fusion="late")
    joined = concat_caches(caches)
    fused = train(joined, head, fusion="late").model.probabilities(joined.embedding)
    alone = []
    for cache in caches:
        fitted = fit_head(training_data_from(cache, config), config)
        alone.append(log_odds(predict_probabilities(fitted.module, cache.embedding)))
    # Concatenated embeddings are normalized first, and therefore rounded differently.
    np.testing.assert_allclose(log_odds(fused), np.mean(alone, axis=0), atol=0.1)


def test_member_of_an_ensemble_is_the_head_trained_alone(caches):
    config = HeadConfig(head="baseline", fusion="late", hidden=(8, 4), epochs=3)
    data = training_data_from(concat_caches(caches), config)
    together = fit_head(data, config)
    alone = fit_head(data.per_encoder[0], config)
    assert together.members[0].best_epoch == alone.best_epoch
    first = dict(together.module.members[0].state_dict())
    for name, value in alone.module.state_dict().items():
        assert torch.equal(first[name], value), name


def test_members_share_changed_labels(caches):
    data = training_data_from(concat_caches(caches), HeadConfig(head="baseline", fusion="late"))
    shuffled = replace(data, labels=1 - data.labels)
    assert all(member.labels is shuffled.labels for member in shuffled.per_encoder)
    assert [member.embedding.shape for member in data.per_encoder] == [(300, 6), (300, 6)]


@pytest.mark.parametrize("head", ALIGNED_HEADS)
def test_aligned_head_with_early_fusion_is_refused(caches, head):
    with pytest.raises(UsageError, match="use late `fusion`"):
        train(concat_caches(caches), head)


@pytest.mark.parametrize("fusion", ["early", "late"])
@pytest.mark.parametrize("head", ["weighted_sum", "knn"])
def test_saved_head_predicts_the_same_and_knows_its_encoders(caches, tmp_path, head, fusion):
    settings = {"hidden": (8, 4), "epochs": 2} if HEADS[head].has_epochs else {}
    joined = concat_caches(caches)
    run = train(joined, head, fusion=fusion, **settings)
    model = load_model(run.save(tmp_path / "run"))
    assert [encoder.dim for encoder in model.encoders] == [6, 6]
    expected = run.model.probabilities(joined.embedding)
    assert np.array_equal(model.probabilities(joined.embedding), expected)
    history = pd.read_csv(tmp_path / "run" / "history.csv")
    assert ("model" in history) == (fusion == "late")


class Half(Encoder):
    """Embeds an image as the mean gray value of some of its stripes."""

    image_spec = None

    def __init__(self, stripes, spec):
        super().__init__(name="toy-encoder")
        self.stripes, self.image_spec = stripes, spec

    def preprocess(self, image):
        return np.repeat(np.asarray(image.convert("L").resize((12, 4)), np.float32)[None], 3, 0)

    def embed_pixels(self, pixels):
        return pixels.mean(axis=(1, 2))[:, self.stripes] / 100


@pytest.mark.parametrize("fusion", ["early", "late"])
def test_new_images_go_through_all_encoders(write, problem, tmp_path, fusion, monkeypatch):
    rng = np.random.default_rng(1)
    paths = [tmp_path / f"{row:03d}.png" for row in range(300)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (20, 24), dtype=np.uint8)).save(path)
    caches, encoders = [], []
    for index, stripes in enumerate((slice(0, 5), slice(5, 12))):
        encoder = Half(stripes, {})
        pixels = np.stack([encoder.preprocess(read_image(path)) for path in paths])
        cache = write(
            encoder.embed_pixels(pixels),
            problem["labels"],
            problem["split"],
            names=NAMES,
            file=f"{index}.h5",
        )
        caches.append(cache)
        encoders.append(Half(stripes, cache.header.encoder_spec))
    remaining = iter(encoders)
    monkeypatch.setattr(
        "featurecache.encoders.loading.load_encoder", lambda *args, **kwargs: next(remaining)
    )
    joined = concat_caches(caches)
    run = train(joined, "linear", fusion=fusion)
    table = run.predict([*paths[:3], tmp_path / "missing.png", paths[3]])
    assert table["error"].notna().tolist() == [False, False, False, True, False]
    predicted = table[[f"{name} probability" for name in NAMES]].dropna()
    expected = run.model.probabilities(joined.embedding)[:4]
    np.testing.assert_allclose(predicted, expected, atol=1e-6)
