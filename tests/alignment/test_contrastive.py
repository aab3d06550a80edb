"""The contrastive map: its loss, early stopping, and its initial value."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from featurecache.alignment.captions import caption_targets
from featurecache.alignment.contrastive import ContrastiveSettings, train_contrastive
from featurecache.alignment.ridge import AffineMap
from featurecache.losses import multi_positive_info_nce
from tests.alignment.planted import DIM, POSITIVE, prompt_set, simulate

SETTINGS = ContrastiveSettings(learning_rate=3e-3, batch_size=64, epochs=8, patience=8)


@pytest.fixture
def case():
    images, labels = simulate(300, seed=1)
    images = (images / np.linalg.norm(images, axis=1, keepdims=True)).astype(np.float32)
    images[:, 0] = 0.25  # a constant feature has standard deviation 0
    captions = [
        caption_targets(part, prompt_set(range(8))) for part in (labels[:200, :8], labels[200:, :8])
    ]
    start = AffineMap(np.zeros((DIM, DIM)), POSITIVE[:8].mean(axis=0).astype(np.float64))
    return start, {"train": (images[:200], captions[0]), "val": (images[200:], captions[1])}


def loss_of(affine_map, images, captions, scale):
    return float(
        multi_positive_info_nce(
            torch.from_numpy(affine_map(images)),
            torch.from_numpy(captions.texts),
            torch.from_numpy(captions.truth),
            torch.tensor(scale),
        )
    )


def test_best_epoch_improves_on_the_initial_map(case):
    start, splits = case
    trained = train_contrastive(start, 10.0, **splits, settings=SETTINGS)
    assert trained.epoch > 0
    assert trained.loss < loss_of(start, *splits["val"], 10.0)
    again = train_contrastive(start, 10.0, **splits, settings=SETTINGS)
    np.testing.assert_array_equal(again.map.weight, trained.map.weight)


def test_reported_loss_applies_to_unstandardized_images(case):
    # One small step barely changes the scale, so the loss follows from the map.
    start, splits = case
    one_step = replace(SETTINGS, learning_rate=1e-5, batch_size=1000, epochs=1)
    trained = train_contrastive(start, 10.0, **splits, settings=one_step)
    assert trained.epoch == 1
    assert trained.loss == pytest.approx(loss_of(trained.map, *splits["val"], 10.0), rel=1e-3)


def test_initial_map_is_kept_if_no_epoch_improves_on_it(case):
    start, splits = case
    images, captions = splits["val"]
    wrong = replace(captions, truth=np.where(captions.truth >= 0, 1 - captions.truth, -1))
    trained = train_contrastive(
        start,
        10.0,
        train=splits["train"],
        val=(images, wrong.__class__(captions.texts, wrong.truth.astype(np.int8))),
        settings=replace(SETTINGS, patience=2),
    )
    assert trained.epoch == 0
    np.testing.assert_allclose(trained.map.weight, start.weight, atol=1e-6)
    np.testing.assert_allclose(trained.map.offset, start.offset, atol=1e-6)
