"""Learning curves: every point is what heads trained alone on those subsets score."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from featurecache.errors import UsageError
from featurecache.heads.config import HeadConfig
from featurecache.heads.learning_curve import common_labels, default_sizes, learning_curve
from featurecache.heads.train import train_head
from featurecache.runs.folder import read_curve

BASELINE = HeadConfig(head="baseline", hidden=(6,), epochs=3, batch_size=16)
HEADS = [BASELINE, "prototype"]


@pytest.fixture(scope="module")
def curve(cache):
    return learning_curve(cache, HEADS, sizes=[160, 40], seeds=2)


def test_default_sizes_are_evenly_spaced_from_sixteen_to_all():
    sizes = default_sizes(2400)
    assert (len(sizes), sizes[0], sizes[-1]) == (8, 16, 2400)
    ratios = np.array(sizes[1:]) / sizes[:-1]
    assert ratios.max() / ratios.min() < 1.1
    assert default_sizes(40) == (16, 40)
    assert default_sizes(12) == (12,)


def test_points_are_means_over_heads_trained_alone(cache, curve):
    for head, settings in (
        ("baseline", {"hidden": (6,), "epochs": 3, "batch_size": 16}),
        ("prototype", {}),
    ):
        for size, point in zip((40, 160), curve.points[head], strict=True):
            alone = [
                train_head(
                    cache,
                    head,
                    train_size=size,
                    seed=seed,
                    n_bootstrap=0,
                    controls=False,
                    **settings,
                ).metrics.macro.auroc
                for seed in (0, 1)
            ]
            assert point.labels == 3
            assert point.seeds == pytest.approx(alone)
            assert point.macro.auroc == pytest.approx(np.mean(alone))
            assert point.macro.auroc_ci[0] < np.mean(alone) < point.macro.auroc_ci[1]
    assert [point.gain for point in curve.points["baseline"]] == [None, None]
    for first, other in zip(curve.points["baseline"], curve.points["prototype"], strict=True):
        difference = other.macro.auroc - first.macro.auroc
        assert other.auroc_gain.difference == pytest.approx(difference)


def test_every_training_is_reported(cache):
    reports = []
    learning_curve(
        cache,
        "prototype",
        sizes=[20, 40],
        seeds=3,
        on_head=lambda: reports.append(1),
    )
    assert len(reports) == 6


def test_labels_are_those_that_every_size_learned():
    learned = np.array([[0, 0, 1, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]], dtype=bool)
    labels, n_undefined = common_labels(learned)
    # With the smallest size no label remains; without it two of four.
    assert (labels.tolist(), n_undefined) == ([True, True, False, False], 1)
    labels, n_undefined = common_labels(learned[2:])
    assert (labels.sum(), n_undefined) == (3, 0)
    labels, n_undefined = common_labels(np.zeros((2, 3), dtype=bool))
    assert (labels.any(), n_undefined) == (False, 2)


def without(cache, column, rows, value=0):
    """Return a cache in which rows have the same value of one label."""
    labels = cache.labels.values.copy()
    labels[rows, column] = value
    return dataclasses.replace(cache, labels=dataclasses.replace(cache.labels, cells=labels))


def test_every_size_is_scored_on_the_same_labels(cache):
    train, test = cache.rows("train"), cache.rows("test")
    # Few images teach the first label, and few test images have the second.
    rare = without(without(cache, 0, train[4:]), 1, test[3:])
    curve = learning_curve(rare, HEADS, sizes=[8, 160], seeds=2)
    names = cache.labels.names
    assert curve.metrics.labels == [names[2]]
    assert [point.labels for point in curve.points["prototype"]] == [1, 2]
    for size, point in zip(curve.sizes, curve.points["prototype"], strict=True):
        areas = []
        for seed in (0, 1):
            run = train_head(
                rare, "prototype", train_size=size, seed=seed, n_bootstrap=0, controls=False
            )
            areas.append(run.metrics.per_label[names[2]].auroc)
        assert point.macro.auroc == pytest.approx(np.mean(areas))
    (warning,) = [text for text in curve.warnings if "the curve is over" in text]
    assert "1 of 3 labels" in warning
    assert warning.endswith(f"{names[0]}, {names[1]}")
    assert "AUROC, macro over 1 of 3 labels" in repr(curve)


def test_sizes_from_which_too_few_labels_can_be_learned_are_undefined(cache):
    train = cache.rows("train")
    rare = without(without(cache, 0, train[4:]), 1, train[4:])
    curve = learning_curve(rare, ["prototype"], sizes=[8, 160], seeds=2)
    small, large = curve.points["prototype"]
    assert (small.macro.auroc, small.labels) == (None, 1)
    assert large.labels == len(curve.metrics.labels) == 3
    assert "too few labels could be learned with every seed from 8 images" in curve.warnings


def test_a_curve_without_learnable_labels_is_undefined(cache, tmp_path):
    labels = cache.labels.values.copy()
    labels[cache.rows("train")[4:]] = 0
    labels[cache.rows("train")[:4]] = 1
    few = dataclasses.replace(cache, labels=dataclasses.replace(cache.labels, cells=labels))
    curve = learning_curve(few, ["prototype"], sizes=[2], seeds=3)
    (point,) = curve.points["prototype"]
    assert (point.labels, point.macro.auroc) == (0, None)
    assert curve.metrics.labels == []
    assert np.isnan(curve.to_pandas()["auroc"]).all()
    assert "prototype on 2: undefined" in repr(curve)
    assert any("the curve is undefined" in warning for warning in curve.warnings)
    curve.plot().savefig(tmp_path / "undefined.png")


def test_table_has_a_row_per_head_and_size(curve):
    table = curve.to_pandas()
    assert table["head"].tolist() == ["baseline", "baseline", "prototype", "prototype"]
    assert table["size"].tolist() == [40, 160, 40, 160]
    point = curve.points["prototype"][1]
    last = table.iloc[3]
    assert (last["auroc"], last["auroc_low"]) == (point.macro.auroc, point.macro.auroc_ci[0])
    assert last["auroc_gain_high"] == point.auroc_gain.ci95[1]
    assert table["auroc_gain"].isna().tolist() == [True, True, False, False]


def test_representations_show_scores(curve):
    score = f"{curve.points['baseline'][0].macro.auroc:.3f} ["
    assert f"baseline on 40: {score}" in repr(curve)
    assert score in curve._repr_html_()
    assert "80 test images of 40 patients, mean of 2 seeds" in repr(curve)


def test_saved_curve_holds_scores_and_plot(curve, tmp_path):
    folder = curve.save(tmp_path / "curve")
    assert read_curve(folder) == curve.metrics
    assert list(read_curve(folder).sizes) == [40, 160]
    config = json.loads((folder / "config.json").read_text())
    assert (config["kind"], config["heads"]) == ("curve", ["baseline", "prototype"])
    with Image.open(folder / "curve.png") as plot:
        assert np.asarray(plot.convert("L")).std() > 5


def test_default_folder_is_named_after_data_set_and_model(curve, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = curve.save(), curve.save()
    assert first.name.endswith("-toy-curve")
    assert second.name == f"{first.name}-2"


@pytest.mark.parametrize(
    ("heads", "arguments", "message"),
    [
        (HEADS, {"sizes": [161]}, "give numbers from 2 to 160"),
        (HEADS, {"sizes": [1]}, "give numbers from 2 to 160"),
        (HEADS, {"seeds": 0}, "`seeds` is 0"),
        (["linear", "linear"], {}, "each once"),
        ([], {}, "one or more heads"),
    ],
)
def test_invalid_arguments_are_refused(cache, heads, arguments, message):
    with pytest.raises(UsageError, match=message):
        learning_curve(cache, heads, **arguments)
