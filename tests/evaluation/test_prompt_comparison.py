"""AUROC of each template, against cosines and scikit-learn."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from featurecache.errors import CacheError, UnknownNameError
from featurecache.evaluation.prompt_comparison import compare_prompts
from featurecache.evaluation.zero_shot import zero_shot
from featurecache.prompts import ensemble
from featurecache.store.cache import Cache
from featurecache.store.records import TextEmbeddings, TextSet
from tests.evaluation.toy_caches import write_toy_cache

NAMES = ("Mass", "Effusion")


def prompt_set(name: str, positive: np.ndarray, negative: np.ndarray | None) -> TextSet:
    """A set of K templates with embeddings (C, K, D), and of negative ones."""

    def texts(vectors: np.ndarray) -> TextEmbeddings:
        prompts = tuple(tuple(f"prompt {k}" for k in range(vectors.shape[1])) for _ in vectors)
        return TextEmbeddings(prompts, vectors.astype(np.float32), ensemble(vectors))

    templates = [f"{name} {k}" for k in range(positive.shape[1])]
    if negative is not None:
        templates += [f"no {name} {k}" for k in range(negative.shape[1])]
    return TextSet(
        name=name,
        fingerprint=name,
        templates=tuple(templates),
        labels=NAMES,
        positive=texts(positive),
        negative=None if negative is None else texts(negative),
        aligned=True,
        scale=10.0,
        bias=None,
    )


@pytest.fixture
def cache(tmp_path) -> Cache:
    """Templates that are worse and worse; that of "Effusion" in the set "b" is reversed."""
    rng = np.random.default_rng(0)
    labels = (rng.random((240, 2)) < 0.5).astype(np.int8)
    axes = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    images = (2 * labels - 1) @ axes[:2] + 0.7 * rng.normal(size=(240, 8))
    vectors = axes[:2, np.newaxis] + np.array([0.1, 0.5, 1])[:, np.newaxis] * rng.normal(
        size=(2, 3, 8)
    )
    turned = vectors * np.array([1, -1])[:, np.newaxis, np.newaxis]
    sets = [prompt_set("a", vectors, -turned), prompt_set("b", turned, None)]
    cache = write_toy_cache(tmp_path / "toy.h5", images, labels, names=NAMES)
    return replace(cache, texts={one.name: one for one in sets})


def test_each_template_is_scored_alone_beside_all_of_its_set(cache):
    comparison = compare_prompts(cache, n_bootstrap=200)
    assert [(row.prompt_set, row.template) for row in comparison.rows] == [
        (name, template) for name in "ab" for template in (None, *(f"{name} {k}" for k in range(3)))
    ]
    assert {row.scoring for row in comparison.rows if row.prompt_set == "a"} == {"pair"}
    rows = cache.rows("test")
    x = cache.embedding[rows].astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    for row in comparison.rows:
        text = cache.texts[row.prompt_set]
        k = slice(None) if row.template is None else [int(row.template[-1])]
        weights = ensemble(text.positive.embedding[:, k])
        if text.negative is not None:
            weights = weights - ensemble(text.negative.embedding[:, k])
        scores = x @ weights.T
        aurocs = [roc_auc_score(cache.labels.values[rows, c], scores[:, c]) for c in range(2)]
        assert [row.per_label[name].auroc for name in NAMES] == pytest.approx(aurocs)
        assert row.macro.auroc == pytest.approx(np.mean(aurocs))
        low, high = row.macro.ci95
        assert low < row.macro.auroc < high
        template = [value for value in comparison.rows if value.prompt_set == row.prompt_set][1:]
        spread = comparison.spread[row.prompt_set]
        assert spread.sd == pytest.approx(np.std([one.macro.auroc for one in template], ddof=1))
        assert spread.lowest == min(one.macro.auroc for one in template)


def test_the_row_of_a_set_is_its_zero_shot_run(cache):
    row = compare_prompts(cache, prompts="a", n_bootstrap=50).rows[0]
    metrics = zero_shot(cache, prompts="a", n_bootstrap=50).metrics
    assert row.macro.auroc == metrics.macro.auroc
    assert row.macro.ci95 == metrics.macro.auroc_ci
    assert {name: score.ci95 for name, score in row.per_label.items()} == {
        name: score.auroc_ci for name, score in metrics.per_label.items()
    }


def test_a_reversed_prompt_is_a_warning_if_its_interval_says_so(cache):
    comparison = compare_prompts(cache, n_bootstrap=200)
    of_b = [row for row in comparison.rows if row.prompt_set == "b"]
    assert of_b[0].reversed_labels == ["Effusion"]
    (warning,) = [text for text in comparison.warnings if "'b', all templates" in text]
    assert warning.startswith(
        "prompt set 'b', all templates: images with the finding score lower than those without it"
    )
    assert "Effusion 0." in warning
    assert "Mass" not in warning
    assert not any("score lower" in text for text in compare_prompts(cache, n_bootstrap=0).warnings)
    frame = comparison.to_pandas()
    assert frame["reversed"].sum() == sum(len(row.reversed_labels) for row in comparison.rows)
    assert len(frame) == 8 * 3


def test_the_number_of_negative_templates_may_differ(cache):
    a = cache.texts["a"]
    shorter = replace(a, templates=a.templates[:4], negative=a.alone[0].negative)
    pairs = [one.negative for one in shorter.alone]
    assert all((pair.ensemble == shorter.negative.ensemble).all() for pair in pairs)
    assert [one.templates for one in shorter.alone] == [(f"a {k}", "no a 0") for k in range(3)]


def test_a_cache_without_texts_or_without_the_named_set_is_refused(cache):
    with pytest.raises(CacheError, match="no text embeddings"):
        compare_prompts(replace(cache, texts={}))
    with pytest.raises(UnknownNameError, match="'c'"):
        compare_prompts(cache, prompts="c")
