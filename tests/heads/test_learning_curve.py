"""Learning curves: every point is what heads trained alone on those subsets score."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from featurecache.errors import UsageError
from featurecache.heads.config import HeadConfig
from featurecache.heads.learning_curve import default_sizes, learning_curve
from featurecache.heads.train import train_head
from featurecache.runs.folder import read_curve

BASELINE = HeadConfig(head="baseline", hidden=(6,), epochs=3, batch_size=16)
HEADS = [BASELINE, "prototype"]


@pytest.fixture
def curve(cache):
    return learning_curve(cache, HEADS, sizes=[160, 40], seeds=2, n_bootstrap=40)


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
        n_bootstrap=0,
        on_head=lambda: reports.append(1),
    )
    assert len(reports) == 6


def test_point_without_learnable_labels_is_undefined(cache):
    labels = cache.labels.values.copy()
    labels[cache.rows("train")[4:]] = 0
    labels[cache.rows("train")[:4]] = 1
    few = dataclasses.replace(cache, labels=dataclasses.replace(cache.labels, values=labels))
    curve = learning_curve(few, ["prototype"], sizes=[2], seeds=3, n_bootstrap=10)
    (point,) = curve.points["prototype"]
    assert (point.labels, point.macro.auroc) == (0, None)
    assert np.isnan(curve.to_pandas()["auroc"]).all()
    assert "prototype on 2: undefined" in repr(curve)


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
