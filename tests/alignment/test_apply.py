"""Use a random alignment on a cache of an unaligned pair of encoders."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.special import logit, softmax
from sklearn.metrics import average_precision_score, roc_auc_score

from featurecache.alignment.alignment import Alignment
from featurecache.alignment.apply import align_images, align_texts
from featurecache.encoders.encoder import Encoder
from featurecache.errors import AlignmentError, CacheError, RunError, UsageError
from featurecache.evaluation.controls import N_SHUFFLES, derangement
from featurecache.evaluation.zero_shot import zero_shot
from featurecache.retrieval.metrics import measure_retrieval
from featurecache.retrieval.query import retrieve, search
from featurecache.store.records import TextEmbeddings, TextSet, to_utf8
from tests.evaluation.toy_caches import write_toy_cache

NAMES = ("Mass", "Edema", "Hernia")
TEXT_ENCODER = {"checkpoint": "of texts", "libraries": {"torch": "1"}}


class StubEncoder(Encoder):
    """Returns one embedding for any image and one for any text."""

    has_text = True
    image_spec = {"checkpoint": "0123"}  # noqa: RUF012
    text_spec = TEXT_ENCODER

    def __init__(self, image, text):
        super().__init__(name="stub")
        self.image, self.text = image, text

    def encode_images(self, images):
        return np.repeat(self.image[np.newaxis], len(images), axis=0)

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
            "text_encoder": TEXT_ENCODER,
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

    text = TextSet("signs", "f", ("{}",), NAMES, texts(), texts(), False, None, None, TEXT_ENCODER)
    labels = rng.integers(0, 2, size=(80, 3))
    return write_toy_cache(
        tmp_path / "toy.h5", rng.normal(size=(80, 10)), labels, text, names=NAMES
    )


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def mapped_images(cache, alignment):
    images = unit(cache.embedding.astype(np.float64))
    return unit(np.array([row @ alignment.weight + alignment.offset for row in images]))


def fitted_to(alignment, cache, split):
    [records] = cache.records(cache.rows(split))
    return replace(alignment, trained_on={cache.header.collection: records})


def test_scores_are_those_of_the_mapped_images(cache, alignment):
    text = cache.text()
    images = mapped_images(cache, alignment)[np.isin(cache.splits, ["val", "test"])]
    positive, negative = (
        images @ unit(side.ensemble.astype(np.float64)).T for side in (text.positive, text.negative)
    )
    pair = zero_shot(cache, alignment=alignment, n_bootstrap=0)
    assert pair.config["scoring"] == "pair"
    logits = logit(pair.scored.probability)
    np.testing.assert_allclose(logits, 9 * (positive - negative), atol=1e-5)
    sigmoid = zero_shot(cache, alignment=alignment, scoring="sigmoid", n_bootstrap=0)
    np.testing.assert_allclose(logit(sigmoid.scored.probability), 9 * positive - 1.5, atol=1e-5)
    run = zero_shot(cache, alignment=alignment, scoring="softmax", n_bootstrap=0)
    np.testing.assert_allclose(run.scored.probability, softmax(9 * positive, axis=1), atol=1e-5)


def test_alignment_is_accepted_as_a_path(cache, alignment, tmp_path):
    path = alignment.save(tmp_path / "alignment.safetensors")
    by_path = zero_shot(str(cache.path), alignment=str(path), n_bootstrap=0)
    by_object = zero_shot(cache, alignment=alignment, n_bootstrap=0)
    assert by_path.metrics == by_object.metrics
    found = retrieve(cache.path, label="Mass", alignment=path)
    assert found["id"].tolist() == retrieve(cache, label="Mass", alignment=alignment)["id"].tolist()
    assert measure_retrieval(cache.path, alignment=path, n_bootstrap=0).text_to_image is not None


def test_text_gain_is_measured_against_permuted_texts(cache, alignment):
    run = zero_shot(cache, alignment=alignment, n_bootstrap=50)
    test = run.scored.splits == "test"
    truth, scores = run.scored.truth[test], run.scored.probability[test]

    def auroc(columns):
        areas = []
        for label, column in enumerate(columns):
            valid = truth[:, label] >= 0
            areas.append(roc_auc_score(truth[valid, label], scores[valid, column]))
        return np.mean(areas)

    n_labels = truth.shape[1]
    permuted = [auroc(derangement(n_labels, seed=seed)) for seed in range(N_SHUFFLES)]
    gain = run.metrics.text_gain
    assert gain.pairs == N_SHUFFLES
    expected = auroc(range(n_labels)) - np.mean(permuted)
    assert gain.macro.auroc.difference == pytest.approx(expected)
    low, high = gain.macro.auroc.ci95
    assert low < expected < high


def test_errors_without_an_alignment_suggest_one(cache):
    for call in (
        lambda: zero_shot(cache),
        lambda: retrieve(cache, label="Mass"),
        lambda: retrieve(cache, "mass", model=StubEncoder(None, None)),
    ):
        with pytest.raises(UsageError, match="`alignment`"):
            call()


def test_run_records_its_alignment(cache, alignment):
    run = zero_shot(cache, alignment=alignment, n_bootstrap=0)
    assert run.config["alignment"]["fingerprint"] == alignment.fingerprint
    assert run.config["alignment"]["method"] == "ridge"


def test_images_that_the_alignment_was_fitted_to_are_refused(cache, alignment):
    safe = fitted_to(alignment, cache, "train")
    assert zero_shot(cache, alignment=safe, n_bootstrap=0).metrics.n == 20
    assert len(retrieve(cache, label="Mass", split="test", top=3, alignment=safe)) == 3
    leaky, encoder = fitted_to(alignment, cache, "test"), StubEncoder(None, np.ones(6))
    image = str(cache.ids[cache.rows("test")[0]])
    for call in (
        lambda: zero_shot(cache, alignment=leaky),
        lambda: measure_retrieval(cache, alignment=leaky),
        lambda: retrieve(cache, label="Mass", alignment=leaky),
        lambda: retrieve(cache, "mass", model=encoder, alignment=leaky),
        lambda: retrieve(cache, image=image, alignment=leaky),
    ):
        with pytest.raises(UsageError, match=r"`alignment` was trained on .* of toy .*'0060.png'"):
            call()
    # A table of the same files was scored with 0.846 in place of 0.704.
    table = replace(leaky, trained_on={"hospital": leaky.trained_on["toy"]})
    with pytest.raises(UsageError, match=r"20 of the 20 images of toy .*20 with the same file"):
        zero_shot(cache, alignment=table)
    # Equal ids and patients in another collection may be other images.
    unread = replace(leaky.trained_on["toy"], sha256=np.full(20, b""))
    other = replace(leaky, trained_on={"elsewhere": unread})
    assert zero_shot(cache, alignment=other, n_bootstrap=0).metrics.n == 20


def test_validation_images_that_are_scored_for_lack_of_test_images_are_checked(cache, alignment):
    split = np.where(cache.splits == "test", "spare", cache.splits)
    no_test = replace(cache, images=replace(cache.images, split=to_utf8(split)))
    with pytest.raises(UsageError, match="trained on 20 of the 20 images"):
        zero_shot(no_test, alignment=fitted_to(alignment, cache, "val"))


@pytest.mark.parametrize(
    ("side", "spec", "message"),
    [
        ("image", {"checkpoint": "4567"}, "image encoder .* another encoder .checkpoint: '4567'"),
        (
            "text",
            {**TEXT_ENCODER, "pooling": "mean"},
            "text encoder .* another encoder .pooling: 'mean'",
        ),
    ],
)
def test_other_encoder_is_refused_naming_the_field(cache, alignment, side, spec, message):
    other = replace(alignment, spec={**alignment.spec, f"{side}_encoder": spec})
    encoder = StubEncoder(None, np.ones(6))
    for call in (
        lambda: zero_shot(cache, alignment=other),
        lambda: measure_retrieval(cache, alignment=other),
        lambda: retrieve(cache, "mass", model=encoder, alignment=other),
    ):
        with pytest.raises(RunError, match=message):
            call()


def test_other_library_versions_give_a_warning(cache, alignment):
    newer = {**TEXT_ENCODER, "libraries": {"torch": "2"}}
    other = replace(alignment, spec={**alignment.spec, "text_encoder": newer})
    for warnings in (
        zero_shot(cache, alignment=other, n_bootstrap=0).warnings,
        measure_retrieval(cache, alignment=other, n_bootstrap=0).warnings,
    ):
        assert warnings[0] == (
            "the text encoder of `alignment` was used with other library versions "
            "(torch: '2' against '1')"
        )


def test_unsuitable_cache_is_refused(cache, alignment):
    text = cache.text()
    for change, error, message in (
        ({"encoder_spec": None}, CacheError, "prompt set signs: use a cache of a single encoder"),
        ({"aligned": True}, UsageError, "leave out `alignment`"),
    ):
        with pytest.raises(error, match=message):
            align_texts(alignment, replace(cache, texts={"signs": replace(text, **change)}))
    with pytest.raises(AlignmentError, match="of 10 values, but these have 7"):
        align_images(alignment, np.ones((2, 7)))


def test_retrieval_by_text_uses_the_alignment_and_by_image_does_not(cache, alignment):
    rows = cache.rows("test")
    truth = cache.labels.values[rows]
    cosines = mapped_images(cache, alignment)[rows] @ unit(cache.text().positive.ensemble).T
    aligned = measure_retrieval(cache, k=3, n_bootstrap=0, alignment=alignment)
    expected = [average_precision_score(truth[:, c], cosines[:, c]) for c in range(3)]
    assert aligned.text_to_image.average_precision == pytest.approx(np.mean(expected))
    of_images = [
        average_precision_score(t, c)
        for t, c in zip(truth, cosines, strict=True)
        if 0 < t.sum() < 3
    ]
    assert aligned.image_to_text.average_precision == pytest.approx(np.mean(of_images))
    unaligned = measure_retrieval(cache, k=3, n_bootstrap=0)
    assert unaligned.text_to_image is None
    assert aligned.image_to_image == unaligned.image_to_image


def test_searches_return_the_nearest_images_in_the_shared_space(cache, alignment):
    images = mapped_images(cache, alignment)
    query = np.arange(6.0) - 2
    encoder = StubEncoder(cache.embedding[5].astype(np.float32), query)
    by_text = retrieve(cache, "a text", top=4, model=encoder, alignment=alignment)
    order = np.argsort(-images @ unit(query))[:4]
    assert by_text["id"].tolist() == cache.ids[order].tolist()
    ensemble = unit(cache.text().positive.ensemble)
    by_label = retrieve(cache, label="Edema", top=4, alignment=alignment)
    order = np.argsort(-images @ ensemble[1])[:4]
    assert by_label["id"].tolist() == cache.ids[order].tolist()
    expected = dict(zip(NAMES, images[5] @ ensemble.T, strict=True))
    cached = search(cache, image="0005.png", top=4, alignment=alignment)
    picture = Image.new("L", (8, 8))
    new = search(cache, image=picture, top=4, model=encoder, alignment=alignment)
    for result in (cached, new):
        assert dict(result.descriptions) == pytest.approx(expected, abs=1e-6)
    assert new.images["id"][0] == "0005.png"
    unaligned = retrieve(cache, image="0005.png", top=4)
    pd.testing.assert_frame_equal(cached.images, unaligned)
