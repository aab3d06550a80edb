"""Alignments of a world whose truth is known."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score

from featurecache.alignment.apply import align_images
from featurecache.alignment.fit import fit_alignment
from featurecache.alignment.ridge import STRENGTHS
from featurecache.errors import CacheError, UnknownNameError, UsageError
from featurecache.evaluation.from_cache import zero_shot
from featurecache.store.cache import Cache
from featurecache.store.records import to_utf8
from tests.alignment.planted import DIM, ENCODER, LABELS, ROTATION, prompt_set, world, write_planted

KNOWN = range(60)
UNSEEN = range(60, LABELS)


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> Cache:
    images, labels = world(2400, seed=1)
    path = tmp_path_factory.mktemp("planted") / "planted.h5"
    return write_planted(path, images, labels[:, KNOWN], prompt_set(KNOWN))


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory) -> Cache:
    """Other images, with labels that the alignment has not learned."""
    images, labels = world(800, seed=2)
    path = tmp_path_factory.mktemp("elsewhere") / "elsewhere.h5"
    return write_planted(
        path, images, labels[:, UNSEEN], prompt_set(UNSEEN), collection="elsewhere"
    )


def with_text(cache: Cache, **changes) -> Cache:
    return replace(cache, texts={"signs": replace(cache.text(), **changes)})


@pytest.mark.parametrize("method", ["ridge", "contrastive"])
def test_a_rotation_between_the_spaces_is_found(planted, method):
    alignment = fit_alignment(planted, method=method)
    turned_back = alignment.weight @ ROTATION
    # 1 for a rotation and any factor, 1/16 for chance.
    share = np.trace(turned_back) / np.linalg.norm(turned_back) / np.sqrt(DIM)
    assert share > 0.7
    metrics = zero_shot(planted, alignment=alignment, n_bootstrap=20).metrics
    assert metrics["macro"]["auroc"] > 0.9
    for control in ("permuted_texts", "shuffled_labels", "random_features"):
        assert 0.4 < metrics["controls"][control]["macro"]["auroc"] < 0.6
    assert metrics["controls"]["view_only"]["macro"]["auroc"] == 0.5


@pytest.mark.parametrize("method", ["ridge", "contrastive"])
@pytest.mark.parametrize("scoring", ["pair", "sigmoid", "softmax"])
def test_findings_that_it_has_not_learned_are_scored_by_their_texts(
    planted, elsewhere, method, scoring
):
    alignment = fit_alignment(planted, method=method)
    metrics = zero_shot(elsewhere, alignment=alignment, scoring=scoring, n_bootstrap=0).metrics
    assert metrics["macro"]["auroc"] > 0.7
    assert metrics["controls"]["permuted_texts"]["macro"]["auroc"] < 0.6
    # It is no worse than a rotation that is known, but for what there was to learn it from.
    known = replace(alignment, weight=ROTATION.T.astype(np.float32), offset=0 * alignment.offset)
    best = zero_shot(elsewhere, alignment=known, scoring=scoring, n_bootstrap=0).metrics
    assert metrics["macro"]["auroc"] > best["macro"]["auroc"] - 0.15


def test_test_rows_take_no_part(planted, tmp_path):
    alignment = fit_alignment(planted)
    images = planted.embedding.astype(np.float64)
    labels = planted.labels.values.copy()
    test = planted.rows("test")
    images[test] = np.random.default_rng(0).normal(size=images[test].shape)
    labels[test] = 1 - labels[test]
    other = write_planted(tmp_path / "other.h5", images, labels, prompt_set(KNOWN))
    assert fit_alignment(other).fingerprint == alignment.fingerprint
    labels[planted.rows("val")[0]] = 1
    changed = write_planted(tmp_path / "changed.h5", images, labels, prompt_set(KNOWN))
    assert fit_alignment(changed).fingerprint != alignment.fingerprint


def test_it_knows_what_it_learned_from(planted):
    alignment = fit_alignment(planted)
    ids = planted.ids[np.isin(planted.splits, ["train", "val"])]
    assert alignment.trained_on == {
        "planted": frozenset(ids.tolist()),
        "earlier": frozenset({"film"}),
    }
    spec = alignment.spec
    assert spec["image_encoder"] == {"checkpoint": "of the images"}
    assert spec["text_encoder"] == ENCODER
    assert spec["prompts"] == {"name": "signs", "fingerprint": "of the prompts"}
    assert spec["labels"] == list(planted.labels.names)


def test_the_strength_is_that_with_the_least_error_on_validation(planted):
    """Against scikit-learn's Ridge on the mean captions, which all count alike here."""
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
    chosen = fit_alignment(planted)
    assert chosen.spec["settings"]["strength"] == STRENGTHS[int(np.argmin(errors))]
    reference = Ridge(alpha=STRENGTHS[int(np.argmin(errors))] * unit).fit(*train)
    np.testing.assert_allclose(chosen.weight, reference.coef_.T, atol=1e-5)
    assert 0 < np.argmin(errors) < len(STRENGTHS) - 1  # or the ends of the grid have chosen


def test_scale_and_bias_and_figures_are_those_of_validation(planted):
    alignment = fit_alignment(planted)
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


def test_prompts_without_negatives_will_do(planted, elsewhere):
    alignment = fit_alignment(with_text(planted, negative=None))
    found = zero_shot(with_text(elsewhere, negative=None), alignment=alignment, n_bootstrap=0)
    assert found.scoring == "sigmoid"
    assert found.metrics["macro"]["auroc"] > 0.8


def test_unknown_labels_take_no_part(planted):
    """Rows of which nothing is known change nothing, whatever they look like."""
    values = planted.labels.values.copy()
    hidden = planted.rows("train")[:100]
    values[hidden] = -1
    half = replace(planted, labels=replace(planted.labels, values=values))
    ids = planted.ids[hidden].tolist()
    alignment = fit_alignment(half)
    assert alignment.trained_on["planted"].isdisjoint(ids)
    split = planted.splits.astype("U8")
    split[hidden] = "left out"
    fewer = replace(planted, images=replace(planted.images, split=to_utf8(split)))
    np.testing.assert_array_equal(fit_alignment(fewer).weight, alignment.weight)


def test_what_cannot_be_aligned_is_refused(planted):
    with pytest.raises(UnknownNameError, match="did you mean ridge"):
        fit_alignment(planted, method="rigde")
    with pytest.raises(UsageError, match="share a space already"):
        fit_alignment(with_text(planted, aligned=True))
    with pytest.raises(CacheError, match="run extract again with --prompts signs"):
        fit_alignment(with_text(planted, encoder=None))
    split = np.where(planted.splits == "val", "train", planted.splits)
    images = replace(planted.images, split=to_utf8(split))
    with pytest.raises(UsageError, match="no images of the split 'val'"):
        fit_alignment(replace(planted, images=images))


def test_an_alignment_that_is_wrong_on_validation_is_refused(planted):
    values = planted.labels.values.copy()
    val = planted.rows("val")
    values[val] = 1 - values[val]
    labels = replace(planted.labels, values=values)
    with pytest.raises(UsageError, match=r"says nothing of the 600 validation images"):
        fit_alignment(replace(planted, labels=labels))
