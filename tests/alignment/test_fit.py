"""Fit alignments to simulated data whose true map is known."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score

from featurecache.alignment.alignment import Alignment
from featurecache.alignment.apply import align_images
from featurecache.alignment.fit import align
from featurecache.alignment.ridge import STRENGTHS
from featurecache.errors import CacheError, UnknownNameError, UsageError
from featurecache.evaluation.zero_shot import zero_shot
from featurecache.provenance.records import ImageRecords
from featurecache.store.cache import Cache
from featurecache.store.records import to_utf8
from tests.alignment.planted import (
    DIM,
    ENCODER,
    LABELS,
    ROTATION,
    prompt_set,
    simulate,
    write_planted,
)

KNOWN = range(60)
UNSEEN = range(60, LABELS)


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> Cache:
    images, labels = simulate(1200, seed=1)
    path = tmp_path_factory.mktemp("planted") / "planted.h5"
    return write_planted(path, images, labels[:, KNOWN], prompt_set(KNOWN))


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory) -> Cache:
    """Other images, with labels that the alignment was not fitted to."""
    images, labels = simulate(800, seed=2)
    path = tmp_path_factory.mktemp("elsewhere") / "elsewhere.h5"
    return write_planted(
        path, images, labels[:, UNSEEN], prompt_set(UNSEEN), collection="elsewhere"
    )


@pytest.fixture(scope="module")
def fitted(planted) -> dict[str, Alignment]:
    """An alignment by each method."""
    return {method: align(planted, method=method) for method in ("ridge", "contrastive")}


def with_text(cache: Cache, **changes) -> Cache:
    return replace(cache, texts={"signs": replace(cache.text(), **changes)})


@pytest.mark.parametrize("method", ["ridge", "contrastive"])
def test_rotation_between_the_spaces_is_recovered(planted, fitted, method):
    alignment = fitted[method]
    product = alignment.weight @ ROTATION
    # 1 for the rotation times any factor, 1/16 by chance.
    similarity = np.trace(product) / np.linalg.norm(product) / np.sqrt(DIM)
    assert similarity > 0.7
    metrics = zero_shot(planted, alignment=alignment, n_bootstrap=0).metrics
    assert metrics.macro.auroc > 0.9
    for control in ("permuted_texts", "shuffled_labels", "random_features"):
        assert 0.4 < metrics.controls[control].macro.auroc < 0.6
    assert metrics.controls["view_only"].macro.auroc == 0.5


@pytest.mark.parametrize("method", ["ridge", "contrastive"])
@pytest.mark.parametrize("scoring", ["pair", "sigmoid", "softmax"])
def test_unseen_labels_are_scored_by_their_texts(elsewhere, fitted, method, scoring):
    alignment = fitted[method]
    metrics = zero_shot(elsewhere, alignment=alignment, scoring=scoring, n_bootstrap=0).metrics
    assert metrics.macro.auroc > 0.7
    assert metrics.controls["permuted_texts"].macro.auroc < 0.6
    # Nearly as good as the true rotation; the difference is estimation error.
    true_map = replace(alignment, weight=ROTATION.T.astype(np.float32), offset=0 * alignment.offset)
    best = zero_shot(elsewhere, alignment=true_map, scoring=scoring, n_bootstrap=0).metrics
    assert metrics.macro.auroc > best.macro.auroc - 0.15


def test_test_images_are_not_used(planted, fitted, tmp_path):
    alignment = fitted["ridge"]
    images = planted.embedding.astype(np.float64)
    labels = planted.labels.values.copy()
    test = planted.rows("test")
    images[test] = np.random.default_rng(0).normal(size=images[test].shape)
    labels[test] = 1 - labels[test]
    other = write_planted(tmp_path / "other.h5", images, labels, prompt_set(KNOWN))
    assert align(other).fingerprint == alignment.fingerprint
    labels[planted.rows("val")[0]] = 1
    changed = write_planted(tmp_path / "changed.h5", images, labels, prompt_set(KNOWN))
    assert align(changed).fingerprint != alignment.fingerprint


def test_alignment_records_its_training_images_and_encoders(planted, fitted):
    alignment = fitted["ridge"]
    assert alignment.trained_on == {
        "planted": planted.records(np.flatnonzero(planted.splits != "test"))[0],
        "earlier": ImageRecords.of("earlier", ["image"]),
    }
    spec = alignment.spec
    assert spec["image_encoder"] == {"checkpoint": "of the images"}
    assert spec["text_encoder"] == ENCODER
    assert spec["prompts"] == {"name": "signs", "fingerprint": "of the prompts"}
    assert spec["labels"] == list(planted.labels.names)


def test_strength_minimizes_the_validation_error(planted, fitted):
    """Compared with scikit-learn's Ridge on the mean captions, which have equal weights here."""
    text, rows = planted.text(), [planted.rows(split) for split in ("train", "val")]
    x = planted.embedding.astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    labels = planted.labels.values
    true = labels @ text.positive.ensemble + (1 - labels) @ text.negative.ensemble
    train, val = ((x[at], true[at] / labels.shape[1]) for at in rows)
    unit = np.square(train[0] - train[0].mean(axis=0)).sum() / DIM
    errors = [
        np.square(Ridge(alpha=s * unit).fit(*train).predict(val[0]) - val[1]).sum()
        for s in STRENGTHS
    ]
    alignment = fitted["ridge"]
    assert alignment.spec["settings"]["strength"] == STRENGTHS[int(np.argmin(errors))]
    reference = Ridge(alpha=STRENGTHS[int(np.argmin(errors))] * unit).fit(*train)
    np.testing.assert_allclose(alignment.weight, reference.coef_.T, atol=1e-5)
    assert 0 < np.argmin(errors) < len(STRENGTHS) - 1  # not at an end of the grid


def test_scale_bias_and_metrics_are_those_of_validation(planted, fitted):
    alignment = fitted["ridge"]
    val = planted.rows("val")
    mapped = align_images(alignment, planted.embedding[val])
    mapped /= np.linalg.norm(mapped, axis=1, keepdims=True)
    text, labels = planted.text(), planted.labels.values[val]
    positive = mapped @ text.positive.ensemble.T
    p = 1 / (1 + np.exp(-(alignment.scale * positive + alignment.bias)))
    assert p.mean() == pytest.approx(labels.mean(), abs=1e-3)
    pair = positive - mapped @ text.negative.ensemble.T
    areas = [roc_auc_score(labels[:, c], pair[:, c]) for c in range(labels.shape[1])]
    assert alignment.spec["validation"]["auroc"] == pytest.approx(np.mean(areas), abs=1e-4)
    assert alignment.spec["validation"]["n"] == len(val)


def test_prompts_without_negatives_are_supported(planted, elsewhere):
    alignment = align(with_text(planted, negative=None))
    run = zero_shot(with_text(elsewhere, negative=None), alignment=alignment, n_bootstrap=0)
    assert run.config["scoring"] == "sigmoid"
    assert run.metrics.macro.auroc > 0.8


def test_images_with_unknown_labels_are_not_used(planted):
    """Images whose labels are all unknown have no influence."""
    values = planted.labels.values.copy()
    hidden = planted.rows("train")[:100]
    values[hidden] = -1
    half = replace(planted, labels=replace(planted.labels, cells=values))
    ids = planted.ids[hidden].tolist()
    alignment = align(half)
    assert set(alignment.trained_on["planted"].to_json()["id"]).isdisjoint(ids)
    split = planted.splits.astype("U8")
    split[hidden] = "left out"
    fewer = replace(planted, images=replace(planted.images, split=to_utf8(split)))
    np.testing.assert_array_equal(align(fewer).weight, alignment.weight)


def test_invalid_input_is_refused(planted):
    with pytest.raises(UnknownNameError, match="did you mean ridge"):
        align(planted, method="rigde")
    with pytest.raises(UsageError, match="in one space already"):
        align(with_text(planted, aligned=True))
    with pytest.raises(CacheError, match="prompt set signs: use a cache"):
        align(with_text(planted, encoder_spec=None))
    split = np.where(planted.splits == "val", "train", planted.splits)
    images = replace(planted.images, split=to_utf8(split))
    with pytest.raises(UsageError, match="no images in the split 'val'"):
        align(replace(planted, images=images))


def test_alignment_that_fails_on_validation_is_refused(planted):
    values = planted.labels.values.copy()
    val = planted.rows("val")
    values[val] = 1 - values[val]
    labels = replace(planted.labels, cells=values)
    with pytest.raises(UsageError, match="uninformative on the 300 validation images"):
        align(replace(planted, labels=labels))
    values[val] = np.arange(values.shape[1]) % 2
    with pytest.raises(UsageError, match="so the scale of the alignment is undefined"):
        align(replace(planted, labels=replace(planted.labels, cells=values)))
