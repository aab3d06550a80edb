"""Caches of an unaligned pair, seen through an alignment that is written by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from featurecache.alignment.alignment import Alignment
from featurecache.alignment.apply import align_images, align_texts
from featurecache.errors import AlignmentError, CacheError, RunError, UsageError
from featurecache.evaluation.controls import N_SHUFFLES, derangement
from featurecache.evaluation.from_cache import save_zero_shot, zero_shot
from featurecache.retrieval.metrics import measure_retrieval
from featurecache.retrieval.query import (
    images_for_label,
    images_for_text,
    neighbours_of_cached,
    neighbours_of_image,
)
from featurecache.store.records import TextEmbeddings, TextSet, to_utf8
from tests.evaluation.toy_caches import write_toy_cache

NAMES = ("Mass", "Edema", "Hernia")
READER = {"checkpoint": "of texts", "libraries": {"torch": "1"}}


class Pair:
    """As much of an encoder as a search needs."""

    name, aligned = "pair", False
    text_spec = READER

    def __init__(self, image, text):
        self.image, self.text = image, text

    def embed_pixels(self, pixels):
        return np.repeat(self.image[np.newaxis], len(pixels), axis=0)

    def encode_texts(self, texts):
        return np.repeat(self.text[np.newaxis], len(texts), axis=0)


@pytest.fixture
def alignment():
    rng = np.random.default_rng(0)
    return Alignment(
        weight=rng.normal(size=(10, 6)).astype(np.float32),
        offset=rng.normal(size=6).astype(np.float32),
        scale=9.0,
        bias=-1.5,
        spec={
            "image_encoder": {"checkpoint": "0123"},
            "text_encoder": READER,
            "model": "toy-encoder",
            "dataset": "toy",
            "method": "ridge",
            "settings": {"strength": 1.0},
            "prompts": {"name": "signs", "fingerprint": "f"},
        },
        trained_on={},
    )


@pytest.fixture
def cache(tmp_path):
    rng = np.random.default_rng(1)

    def texts():
        vectors = rng.normal(size=(3, 6)).astype(np.float32)
        return TextEmbeddings(tuple((name,) for name in NAMES), vectors[:, np.newaxis], vectors)

    text = TextSet("signs", "f", ("{}",), NAMES, texts(), texts(), False, None, None, READER)
    labels = rng.integers(0, 2, size=(80, 3))
    return write_toy_cache(
        tmp_path / "toy.h5", rng.normal(size=(80, 10)), labels, text, names=NAMES
    )


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def mapped(cache, alignment):
    images = unit(cache.embedding.astype(np.float64))
    return unit(np.array([row @ alignment.weight + alignment.offset for row in images]))


def learned(alignment, cache, split):
    ids = cache.ids[cache.rows(split)].tolist()
    return replace(alignment, trained_on={cache.header.collection: frozenset(ids)})


def test_scores_are_those_of_the_mapped_images(cache, alignment):
    text = cache.text()
    images = mapped(cache, alignment)
    positive, negative = (
        images @ unit(side.ensemble.astype(np.float64)).T for side in (text.positive, text.negative)
    )
    pair = zero_shot(cache, alignment=alignment, n_bootstrap=0)
    assert pair.scoring == "pair"
    np.testing.assert_allclose(pair.scores.logits, 9 * (positive - negative), atol=1e-5)
    sigmoid = zero_shot(cache, alignment=alignment, scoring="sigmoid", n_bootstrap=0)
    np.testing.assert_allclose(sigmoid.scores.logits, 9 * positive - 1.5, atol=1e-5)
    softmax = zero_shot(cache, alignment=alignment, scoring="softmax", n_bootstrap=0)
    powers = np.exp(9 * positive)
    expected = powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(softmax.scores.probabilities, expected, atol=1e-5)


def test_what_the_texts_bring_is_told_over_permuted_ones(cache, alignment):
    found = zero_shot(cache, alignment=alignment, n_bootstrap=50)
    test = cache.rows("test")
    truth, logits = cache.labels.values[test], found.scores.logits[test]

    def auroc(columns):
        areas = []
        for label, column in enumerate(columns):
            known = truth[:, label] >= 0
            areas.append(roc_auc_score(truth[known, label], logits[known, column]))
        return np.mean(areas)

    labels = truth.shape[1]
    permuted = [auroc(derangement(labels, seed=number)) for number in range(N_SHUFFLES)]
    gain = found.metrics["text_gain"]
    assert gain["pairs"] == N_SHUFFLES
    expected = auroc(range(labels)) - np.mean(permuted)
    assert gain["macro"]["auroc"]["difference"] == pytest.approx(expected)
    low, high = gain["macro"]["auroc"]["ci95"]
    assert low < expected < high


def test_without_an_alignment_the_way_to_one_is_named(cache, alignment):
    for refused in (
        lambda: zero_shot(cache),
        lambda: images_for_label(cache, "Mass", top=3),
        lambda: images_for_text(cache, Pair(None, None), "mass", top=3),
    ):
        with pytest.raises(UsageError, match="'featurecache align' and give it with --alignment"):
            refused()


def test_a_run_says_which_alignment_it_was_scored_with(cache, alignment, tmp_path):
    save_zero_shot(tmp_path / "run", cache, zero_shot(cache, alignment=alignment, n_bootstrap=0))
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["alignment"]["fingerprint"] == alignment.fingerprint
    assert config["alignment"]["method"] == "ridge"


def test_images_that_it_learned_from_are_never_scored(cache, alignment):
    safe = learned(alignment, cache, "val")
    assert zero_shot(cache, alignment=safe, n_bootstrap=0).metrics["n"] == 20
    assert len(images_for_label(cache, "Mass", split="test", top=3, alignment=safe).hits) == 3
    leaky, encoder = learned(alignment, cache, "test"), Pair(None, np.ones(6))
    image = str(cache.ids[cache.rows("test")[0]])
    for refused in (
        lambda: zero_shot(cache, alignment=leaky),
        lambda: measure_retrieval(cache, alignment=leaky),
        lambda: images_for_label(cache, "Mass", top=3, alignment=leaky),
        lambda: images_for_text(cache, encoder, "mass", top=3, alignment=leaky),
        lambda: neighbours_of_cached(cache, image, top=3, alignment=leaky),
    ):
        with pytest.raises(UsageError, match=r"--alignment learned from .* of toy, '0060.png'"):
            refused()
    other = replace(leaky, trained_on={"elsewhere": leaky.trained_on["toy"]})
    assert zero_shot(cache, alignment=other, n_bootstrap=0).metrics["n"] == 20


def test_where_validation_is_all_there_is_what_it_learned_from_is_refused(cache, alignment):
    split = np.where(cache.splits == "test", "spare", cache.splits)
    without = replace(cache, images=replace(cache.images, split=to_utf8(split)))
    with pytest.raises(UsageError, match="learned from 20 of these 20 images"):
        zero_shot(without, alignment=learned(alignment, cache, "val"))


@pytest.mark.parametrize(
    ("side", "change", "said"),
    [
        ("image", {"checkpoint": "4567"}, "image side .* another encoder .checkpoint: '4567'"),
        ("text", {**READER, "pooling": "mean"}, "text side .* another encoder .pooling: 'mean'"),
    ],
)
def test_another_encoder_is_refused_naming_the_field(cache, alignment, side, change, said):
    other = replace(alignment, spec={**alignment.spec, f"{side}_encoder": change})
    for refused in (
        lambda: zero_shot(cache, alignment=other),
        lambda: measure_retrieval(cache, alignment=other),
        lambda: images_for_text(cache, Pair(None, np.ones(6)), "mass", top=3, alignment=other),
    ):
        with pytest.raises(RunError, match=said):
            refused()


def test_other_library_versions_are_a_warning(cache, alignment):
    newer = {**READER, "libraries": {"torch": "2"}}
    other = replace(alignment, spec={**alignment.spec, "text_encoder": newer})
    for warnings in (
        zero_shot(cache, alignment=other, n_bootstrap=0).metrics["warnings"],
        measure_retrieval(cache, alignment=other, n_bootstrap=0)["warnings"],
    ):
        assert warnings == [
            "the text side of --alignment was made with other library versions "
            "(torch: '2' against '1')"
        ]


def test_a_cache_that_it_cannot_serve_is_refused(cache, alignment):
    text = cache.text()
    for change, error, said in (
        ({"encoder": None}, CacheError, "run extract again with --prompts signs"),
        ({"aligned": True}, UsageError, "leave out --alignment"),
    ):
        with pytest.raises(error, match=said):
            align_texts(alignment, replace(cache, texts={"signs": replace(text, **change)}))
    with pytest.raises(AlignmentError, match="of 10 values, these have 7"):
        align_images(alignment, np.ones((2, 7)))


def test_retrieval_by_text_is_in_the_shared_space_and_by_image_is_not(cache, alignment):
    rows = cache.rows("test")
    truth = cache.labels.values[rows]
    cosines = mapped(cache, alignment)[rows] @ unit(cache.text().positive.ensemble).T
    found = measure_retrieval(cache, at=3, n_bootstrap=0, alignment=alignment)
    expected = [average_precision_score(truth[:, c], cosines[:, c]) for c in range(3)]
    assert found["text_to_image"]["average_precision"] == pytest.approx(np.mean(expected))
    of_images = [
        average_precision_score(t, c)
        for t, c in zip(truth, cosines, strict=True)
        if 0 < t.sum() < 3
    ]
    assert found["image_to_text"]["average_precision"] == pytest.approx(np.mean(of_images))
    alone = measure_retrieval(cache, at=3, n_bootstrap=0)
    assert alone["text_to_image"] is None
    assert found["image_to_image"] == alone["image_to_image"]


def test_searches_find_what_is_nearest_in_the_shared_space(cache, alignment):
    images = mapped(cache, alignment)
    query = np.arange(6.0) - 2
    encoder = Pair(cache.embedding[5].astype(np.float32), query)
    by_text = images_for_text(cache, encoder, "a text", top=4, alignment=alignment)
    order = np.argsort(-images @ unit(query))[:4]
    assert [hit.id for hit in by_text.hits] == cache.ids[order].tolist()
    ensemble = unit(cache.text().positive.ensemble)
    by_label = images_for_label(cache, "Edema", top=4, alignment=alignment)
    order = np.argsort(-images @ ensemble[1])[:4]
    assert [hit.id for hit in by_label.hits] == cache.ids[order].tolist()
    expected = dict(zip(NAMES, images[5] @ ensemble.T, strict=True))
    cached = neighbours_of_cached(cache, "0005.png", top=4, alignment=alignment)
    new = neighbours_of_image(
        cache, encoder, np.ones(1), name="x", picture=None, top=4, alignment=alignment
    )
    for answer in (cached, new):
        assert dict(answer.descriptions) == pytest.approx(expected, abs=1e-6)
    assert cached.hits == neighbours_of_cached(cache, "0005.png", top=4).hits
