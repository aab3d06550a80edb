"""Text embeddings and their ablations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurecache.errors import UsageError
from featurecache.heads.text_features import LabelTexts, ablate_texts


def ablated_text(text, ablation, *, seed):
    return ablate_texts(LabelTexts(text), ablation, seed=seed).positive


def ensembles(labels, dim=5):
    return np.random.default_rng(labels).normal(size=(labels, dim)).astype(np.float32)


def test_no_ablation_keeps_the_text():
    text = ensembles(4)
    before = text.copy()
    assert np.array_equal(ablated_text(text, "none", seed=0), before)


@settings(deadline=None)
@given(labels=st.integers(2, 20), seed=st.integers(0, 2**32 - 1))
def test_permuted_text_has_no_label_at_its_own_position(labels, seed):
    text = ensembles(labels)
    permuted = ablated_text(text, "permuted", seed=seed)
    assert sorted(map(tuple, permuted)) == sorted(map(tuple, text))
    assert not (permuted == text).all(axis=1).any()


def test_every_permutation_target_is_possible():
    text = ensembles(4)
    moves = set()
    for seed in range(100):
        permuted = ablated_text(text, "permuted", seed=seed)
        moves |= {
            (old, new) for old in range(4) for new in range(4) if (permuted[new] == text[old]).all()
        }
    assert moves == {(old, new) for old in range(4) for new in range(4) if old != new}


def test_permuting_a_single_label_is_refused():
    with pytest.raises(UsageError, match="two labels or more: use random or zero"):
        ablated_text(ensembles(1), "permuted", seed=0)


def test_random_text_has_unit_length_and_is_unrelated_to_the_real():
    text = ensembles(40, dim=500)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    random = ablated_text(text, "random", seed=3)
    assert random.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(random, axis=1), 1, rtol=1e-6)
    # Cosines of independent directions in D dimensions have a standard deviation of 1 / sqrt(D).
    assert np.abs(random @ text.T).max() < 5 / np.sqrt(500)


def test_zero_text_is_zero():
    zero = ablated_text(ensembles(3), "zero", seed=0)
    assert zero.shape == (3, 5)
    assert not zero.any()


@pytest.mark.parametrize("ablation", ["permuted", "random"])
def test_ablation_depends_on_the_seed_only(ablation):
    text = ensembles(10)
    first, again, other = (ablated_text(text, ablation, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("ablation", ["permuted", "random", "zero"])
def test_negative_texts_are_ablated_like_positive_ones(ablation):
    text = ensembles(6)
    texts = LabelTexts(text, negative=-2 * text, scale=3.0, bias=-1.0, aligned=True)
    changed = ablate_texts(texts, ablation, seed=1)
    assert (changed.scale, changed.bias, changed.aligned) == (3.0, -1.0, True)
    assert not np.array_equal(changed.negative, texts.negative)
    if ablation == "random":
        assert np.abs((changed.positive * changed.negative).sum(axis=1)).max() < 1
        assert not np.allclose(changed.positive, changed.negative)
    else:
        # A label gets the positive and the negative text of the same other label.
        np.testing.assert_array_equal(changed.negative, -2 * changed.positive)
    # Positive texts do not depend on whether there are negative ones.
    alone = ablate_texts(LabelTexts(text), ablation, seed=1)
    np.testing.assert_array_equal(changed.positive, alone.positive)


def test_contrast_is_positive_minus_negative_text():
    text = ensembles(3)
    assert np.array_equal(LabelTexts(text).contrast(), text)
    assert np.array_equal(LabelTexts(text, negative=text / 4).contrast(), text - text / 4)
