"""The attentive head: its formula in NumPy, and runs on tokens in place of vectors."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from featurecache.datasets.boxes import BOX_COLUMNS
from featurecache.errors import RunError, UsageError
from featurecache.evaluation.controls import random_features
from featurecache.heads.config import HeadConfig
from featurecache.heads.fit import fit_head, predict_probabilities
from featurecache.heads.registry import head_spec
from featurecache.heads.train import train_head
from featurecache.heads.types import TrainingData
from featurecache.runs.run import load_run
from featurecache.store.grouped import with_units
from featurecache.store.join_rows import join_rows
from featurecache.units import Units
from tests.heads.conftest import DESCRIPTION, write_toy

DIM, TOKENS, LABELS = 6, 5, 2
NAMES = ("Mass", "Effusion")
SPEC = {
    **DESCRIPTION,
    "features": "tokens:2",
    "tokens": TOKENS,
    "geometry": {"size": {"height": 8, "width": 8}, "crop": None, "pad": False, "min_side": 0},
}
QUICK = {"hidden": (16,), "epochs": 25, "batch_size": 16, "learning_rate": 1e-2}


@pytest.fixture(scope="module")
def problem():
    """300 images; a finding is a direction of one of their patch tokens, at a random place."""
    rng = np.random.default_rng(1)
    tokens = rng.normal(size=(300, TOKENS, DIM))
    labels = (rng.random((300, LABELS)) < 0.5).astype(np.int8)
    place = rng.integers(1, TOKENS, (300, LABELS))
    directions = 4 * np.eye(LABELS, DIM)
    for image, label in zip(*np.nonzero(labels), strict=True):
        tokens[image, place[image, label]] += directions[label]
    return {
        "embedding": tokens.reshape(300, -1),
        "labels": labels,
        "place": place,
        "split": np.repeat(["train", "val", "test"], [160, 60, 80]),
        "patient": np.array([f"patient {row // 2}" for row in range(300)]),
    }


@pytest.fixture(scope="module")
def cache(problem, tmp_path_factory):
    arrays = {name: problem[name] for name in ("embedding", "labels", "split", "patient")}
    folder = tmp_path_factory.mktemp("tokens")
    return write_toy(folder, **arrays, names=NAMES, spec=SPEC, view=np.resize(["PA", "AP"], 300))


@pytest.fixture(scope="module")
def run(cache):
    return train_head(cache, "attentive", n_bootstrap=20, **QUICK)


@pytest.mark.parametrize("n_tokens", [TOKENS, TOKENS - 1])  # with and without a class token
@pytest.mark.parametrize("hidden", [(7,), (7, 4)])
def test_logits_and_attention_follow_the_formula(hidden, n_tokens):
    config = HeadConfig(head="attentive", hidden=hidden)
    torch.manual_seed(0)
    head = head_spec("attentive").build(DIM, LABELS, None, config).double().eval()
    rng = np.random.default_rng(2)
    tokens = rng.normal(size=(9, n_tokens, DIM))
    head.scaling.fit(tokens, np.arange(9))
    head.query.data.normal_()
    state = {name: tensor.double().numpy() for name, tensor in head.state_dict().items()}
    unit = tokens / np.sqrt((tokens**2).sum(axis=-1, keepdims=True))
    z = (unit - unit.mean(axis=(0, 1))) / unit.std(axis=(0, 1))
    layers = ["first", *(["hidden.2"] if len(hidden) == 2 else [])]
    for layer in layers:
        z = np.maximum(z @ state[f"{layer}.weight"].T + state[f"{layer}.bias"], 0)
    logits, attention = np.empty((9, LABELS)), np.empty((9, LABELS, n_tokens))
    for image in range(9):
        for label in range(LABELS):
            scores = z[image] @ state["query"][label] / hidden[-1] ** 0.5
            weights = np.exp(scores) / np.exp(scores).sum()
            pooled = sum(weight * token for weight, token in zip(weights, z[image], strict=True))
            attention[image, label] = weights
            logits[image, label] = pooled @ state["output.weight"][label]
    whole = z[:, 0] if n_tokens == TOKENS else z.mean(axis=1)
    logits += whole @ state["whole.weight"].T + state["output.bias"]
    given = torch.from_numpy(tokens)
    np.testing.assert_allclose(head(given).detach(), logits, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(head.attention(given).detach(), attention, atol=1e-5)
    torch.testing.assert_close(head(given.flatten(1)), head(given))


def test_default_head_has_less_than_a_million_parameters():
    config = HeadConfig(head="attentive", hidden=head_spec("attentive").hidden)
    head = head_spec("attentive").build(768, 14, None, config)
    assert sum(parameter.numel() for parameter in head.parameters()) < 1_000_000


def test_finding_is_recognized_wherever_it_is_and_attended_to(cache, problem, run):
    assert run.metrics.macro.auroc > 0.85
    rows = np.flatnonzero((problem["labels"].sum(axis=1) == 1) & (problem["split"] == "test"))
    label = problem["labels"][rows].argmax(axis=1)
    with torch.inference_mode():
        tokens = torch.from_numpy(cache.tokens[rows].astype(np.float32))
        attention = run.model.module.attention(tokens).numpy()
    highest = attention[np.arange(len(rows)), label].argmax(axis=1)
    assert (highest == problem["place"][rows, label]).mean() > 0.9


def test_controls_are_at_chance_and_thresholds_come_from_validation(run):
    for name in ("shuffled_labels", "random_features"):
        assert run.metrics.controls[name].macro.auroc == pytest.approx(0.5, abs=0.13), name
    assert run.metrics.controls["any_finding"].macro.auroc is not None
    assert run.metrics.familiarity.reason.startswith("the head takes tokens")
    assert {of.threshold_source for of in run.metrics.per_label.values()} == {"f1 on validation"}


def test_saved_head_predicts_bit_for_bit_the_same(cache, run, tmp_path):
    loaded = load_run(run.save(tmp_path / "run"))
    expected = run.model.probabilities(cache.tokens)
    assert np.array_equal(loaded.model.probabilities(cache.tokens), expected)
    test = cache.rows("test")
    assert np.array_equal(run.scored.probability[-80:], expected[test])
    assert loaded.evaluate(cache).metrics.macro.auroc == run.metrics.macro.auroc
    table = loaded.predict(cache)
    assert np.array_equal(table["Mass probability"], expected[:, 0])


def test_attention_of_an_ensemble_is_the_mean_of_its_members(cache):
    settings = {**QUICK, "epochs": 2, "n_bootstrap": 0, "controls": False}
    single = [
        train_head(cache, "attentive", seed=seed, **settings).model.attention(cache.tokens)
        for seed in range(2)
    ]
    joined = train_head(cache, "attentive", ensemble=2, **settings).model.attention(cache.tokens)
    np.testing.assert_allclose(joined, np.mean(single, axis=0), rtol=1e-5)


def test_same_seed_gives_the_same_head_and_batches_of_any_size_the_same_values(cache, monkeypatch):
    data = TrainingData(cache.tokens, cache.labels.values, cache.rows("train"), cache.rows("val"))
    config = HeadConfig(head="attentive", **{**QUICK, "epochs": 2})
    first = fit_head(data, config)
    monkeypatch.setattr("featurecache.heads.types._MAX_VALUES", 7 * TOKENS * DIM)
    monkeypatch.setattr("featurecache.heads.standardize._CHUNK_ROWS", 3 * TOKENS)
    second = fit_head(data, config)
    for name, tensor in first.module.state_dict().items():
        torch.testing.assert_close(second.module.state_dict()[name], tensor, msg=name)
    p = predict_probabilities(first.module, cache.tokens)
    np.testing.assert_allclose(p, predict_probabilities(second.module, cache.tokens), atol=1e-5)


def test_tokens_stay_in_the_file(cache):
    assert isinstance(cache.tokens.base, np.memmap)
    assert cache.tokens.shape == (300, TOKENS, DIM)


def test_views_studies_and_joined_rows_have_tokens(cache, tmp_path, problem):
    frontal = with_units(cache, Units(views="frontal"))
    assert np.array_equal(frontal.tokens, cache.tokens)
    arrays = {name: problem[name] for name in ("embedding", "labels", "split", "patient")}
    other = write_toy(tmp_path, **arrays, names=NAMES, spec=SPEC)
    other = replace(other, header=replace(other.header, dataset="others", collection="others"))
    joined = join_rows([cache, other])
    assert joined.tokens.shape == (600, TOKENS, DIM)
    order = np.argsort(np.concatenate([cache.images.id, other.images.id]), kind="stable")
    assert {len(joined), len(order)} == {600}
    assert np.array_equal(joined.tokens[:300], other.tokens)


def test_heads_are_refused_caches_that_they_cannot_take(cache, run, tmp_path, problem):
    vectors = write_toy(
        tmp_path,
        problem["embedding"],
        problem["labels"],
        problem["split"],
        names=NAMES,
        patient=problem["patient"],
    )
    with pytest.raises(UsageError, match=r"one vector for each image.*tokens:7"):
        train_head(vectors, "attentive")
    with pytest.raises(UsageError, match="choose the head attentive, or give the cache of"):
        train_head(cache, "linear")
    with pytest.raises(RunError, match="features"):
        run.evaluate(vectors)
    data = TrainingData(
        problem["embedding"], problem["labels"], vectors.rows("train"), vectors.rows("val")
    )
    with pytest.raises(UsageError, match="takes the tokens of each image"):
        fit_head(data, HeadConfig(head="attentive"))
    with pytest.raises(UsageError, match="takes one vector per image"):
        fit_head(replace(data, embedding=cache.tokens), HeadConfig(head="linear"))


def boxes_at(problem, cache, *, size=100, place=None):
    """Return a box in the quarter of each patch that has a finding, of images of this size."""
    half, rows = size / 2, []
    for image, label in zip(*np.nonzero(problem["labels"]), strict=True):
        patch = (problem["place"][image, label] if place is None else place) - 1
        edges = (half * (patch % 2), half * (patch // 2), half, half)
        rows.append([cache.ids[image], NAMES[label], *edges, size, size])
    return pd.DataFrame(rows, columns=list(BOX_COLUMNS))


def test_attention_is_scored_against_boxes(cache, run, problem, tmp_path):
    boxes = boxes_at(problem, cache)
    result = run.evaluate(cache, boxes=boxes, n_bootstrap=50).metrics.localization
    test = cache.rows("test")
    assert result.n == problem["labels"][test].sum()
    tokens = torch.from_numpy(cache.tokens[test].astype(np.float32))
    with torch.inference_mode():
        patch = run.model.module.attention(tokens).numpy()[..., 1:].argmax(axis=2) + 1
    positive = problem["labels"][test] == 1
    hits = (patch == problem["place"][test])[positive].mean()
    assert result.maps.pointing_game == pytest.approx(hits)
    assert hits > 0.7
    # The center is a corner of every box.
    assert result.center.pointing_game == 1
    assert result.maps.iou > 0.4
    assert result.n_validation == problem["labels"][cache.learning_rows("val")].sum()
    elsewhere = run.evaluate(cache, boxes=boxes_at(problem, cache, place=1), n_bootstrap=0)
    at_first = (patch == 1)[positive].mean()
    assert elsewhere.metrics.localization.maps.pointing_game == pytest.approx(at_first)
    # A file, without any box of a validation image.
    boxes[boxes["id"] >= cache.ids[220]].to_csv(tmp_path / "boxes.csv", index=False)
    saved = run.evaluate(cache, boxes=tmp_path / "boxes.csv", n_bootstrap=0)
    assert saved.metrics.localization.maps.iou is None
    assert any("no validation image has a box" in warning for warning in saved.warnings)
    assert load_run(saved.save(tmp_path / "external")).metrics.localization == (
        saved.metrics.localization
    )


def test_boxes_that_cannot_be_used_are_refused(cache, run, problem, tmp_path):
    boxes = boxes_at(problem, cache)
    with pytest.raises(UsageError, match=r"none of 80 scored images .* has a box .*'x.png'"):
        run.evaluate(cache, boxes=boxes.assign(id="x.png"))
    with pytest.raises(UsageError, match="has no column image_width"):
        run.evaluate(cache, boxes=boxes.drop(columns="image_width"))
    mean = problem["embedding"].reshape(300, TOKENS, DIM).mean(axis=1)
    arrays = {name: problem[name] for name in ("labels", "split", "patient")}
    vectors = write_toy(tmp_path, mean, names=NAMES, **arrays)
    linear = train_head(vectors, "prototype", controls=False, n_bootstrap=0)
    with pytest.raises(UsageError, match="not known which part of an image"):
        linear.evaluate(vectors, boxes=boxes)


def test_random_tokens_take_little_memory_and_share_no_token():
    tokens = random_features((40, 7, 12), seed=0)
    assert tokens.dtype == np.float16
    assert tokens.base.base is not None  # a view, not 40 x 7 x 12 values
    assert len(np.unique(tokens.reshape(-1, 12), axis=0)) == 40 * 7
    assert tokens.astype(float).std() == pytest.approx(1, abs=0.1)
    # Across images, a dimension of a token is independent.
    correlation = np.corrcoef(tokens[:, 3, 5], tokens[:, 3, 6])[0, 1]
    assert abs(correlation) < 0.5
