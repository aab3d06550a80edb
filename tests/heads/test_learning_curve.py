"""Learning curves: each cell is what a head trained alone on that subset scores."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from featurecache.errors import UsageError
from featurecache.heads.config import HeadConfig
from featurecache.heads.experiment import run_experiment
from featurecache.heads.learning_curve import default_sizes, learning_curve, save_curve

CONFIGS = [
    HeadConfig(head="baseline", hidden=(6,), epochs=3, batch_size=16),
    HeadConfig(head="prototype"),
]


def test_sizes_go_from_sixteen_to_all_in_even_steps():
    sizes = default_sizes(2400)
    assert (len(sizes), sizes[0], sizes[-1]) == (8, 16, 2400)
    ratios = np.array(sizes[1:]) / sizes[:-1]
    assert ratios.max() / ratios.min() < 1.1
    assert default_sizes(40) == (16, 40)
    assert default_sizes(12) == (12,)


def test_cells_are_means_over_heads_trained_alone(cache):
    told = []
    curve = learning_curve(
        cache, CONFIGS, [40, 160], seeds=2, n_bootstrap=40, on_head=lambda: told.append(1)
    )
    assert len(told) == 2 * 2 * 2
    for config in CONFIGS:
        for size, cell in zip((40, 160), curve.cells[config.head], strict=True):
            alone = [
                run_experiment(
                    cache,
                    dataclasses.replace(config, train_size=size, seed=seed),
                    n_bootstrap=0,
                    controls=False,
                ).metrics["macro"]["auroc"]
                for seed in (0, 1)
            ]
            assert cell["labels"] == 3
            assert cell["seeds"] == pytest.approx(alone)
            assert cell["macro"]["auroc"] == pytest.approx(np.mean(alone))
            assert cell["ci95"]["auroc"][0] < np.mean(alone) < cell["ci95"]["auroc"][1]
    assert [cell["gain"] for cell in curve.cells["baseline"]] == [None, None]
    for place in (0, 1):
        first, other = (curve.cells[name][place] for name in ("baseline", "prototype"))
        difference = other["macro"]["auroc"] - first["macro"]["auroc"]
        assert other["gain"]["auroc"]["difference"] == pytest.approx(difference)


def test_where_no_label_can_be_learned_everything_is_null(cache):
    labels = cache.labels.values.copy()
    labels[cache.rows("train")[4:]] = 0
    labels[cache.rows("train")[:4]] = 1
    few = dataclasses.replace(cache, labels=dataclasses.replace(cache.labels, values=labels))
    curve = learning_curve(few, [CONFIGS[1]], [2], seeds=3, n_bootstrap=10)
    (cell,) = curve.cells["prototype"]
    assert cell["labels"] == 0
    assert cell["macro"]["auroc"] is None


def test_it_is_saved_with_its_figures_and_a_plot(cache, tmp_path):
    curve = learning_curve(cache, CONFIGS, [20, 160], seeds=2, n_bootstrap=10)
    save_curve(tmp_path / "curve", cache, curve)
    document = json.loads((tmp_path / "curve" / "curve.json").read_text())
    assert document["cells"] == curve.cells
    assert document["sizes"] == [20, 160]
    config = json.loads((tmp_path / "curve" / "config.json").read_text())
    assert (config["kind"], config["heads"]) == ("curve", ["baseline", "prototype"])
    with Image.open(tmp_path / "curve" / "curve.png") as plot:
        assert np.asarray(plot.convert("L")).std() > 5


@pytest.mark.parametrize(
    ("configs", "sizes", "said"),
    [
        (CONFIGS, [161], "there are 160 training images"),
        (CONFIGS, [1], "2 is the least"),
        ([CONFIGS[0], CONFIGS[0]], None, "each once"),
        ([], None, "one or more heads"),
    ],
)
def test_mistakes_are_named(cache, configs, sizes, said):
    with pytest.raises(UsageError, match=said):
        learning_curve(cache, configs, sizes, seeds=1)
