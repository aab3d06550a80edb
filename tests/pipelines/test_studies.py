"""Each study runs on few synthetic films, repeats its figures, and says what a model cannot do."""

import json
import re
from pathlib import Path

import nih_clip
import numpy as np
import pediatric_transfer
import pytest
import squeeze_features
from page import cell
from sklearn.metrics import roc_auc_score
from study import run_script

from featurecache.runs.folder import read_metrics, read_predictions

STUDIES = {
    "nih_clip": nih_clip.main,
    "pediatric_transfer": pediatric_transfer.main,
    "squeeze_features": squeeze_features.main,
}


@pytest.fixture(scope="session")
def studied(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work folder of all three, of the model that ships with the package."""
    work = tmp_path_factory.mktemp("studies")
    for main in STUDIES.values():
        main(["--data", str(data), "--work", str(work), "--quick"])
    return work


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_leaves_figures(name: str, studied: Path):
    text = results_of(studied / f"{name}-tiny-quick")
    assert len(re.findall(r"\d\.\d{3}", text)) > 50


# Between them they do all that the third does.
@pytest.mark.parametrize("name", ["nih_clip", "pediatric_transfer"])
def test_a_study_run_twice_gives_the_same_figures(
    name: str, studied: Path, data: Path, tmp_path: Path
):
    STUDIES[name](["--data", str(data), "--work", str(tmp_path), "--quick"])
    folder = f"{name}-tiny-quick"
    first = (studied / folder / "results.md").read_text()
    assert (tmp_path / folder / "results.md").read_text() == first


def test_a_study_goes_on_with_what_is_there(
    studied: Path, data: Path, capsys: pytest.CaptureFixture[str]
):
    folder = studied / "squeeze_features-tiny-quick"
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("metrics.json")}
    squeeze_features.main(["--data", str(data), "--work", str(studied), "--quick"])
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("metrics.json")} == before
    assert (folder / "results.md").read_text() in capsys.readouterr().out


def test_tables_show_the_figures_of_the_runs(studied: Path):
    folder = studied / "nih_clip-tiny-quick"
    metrics = read_metrics(folder / "runs" / "bce")
    label = next(name for name, f in metrics["per_label"].items() if f["auroc"] is not None)
    figures, bounds = metrics["per_label"][label], metrics["ci95"]["per_label"][label]
    (row,) = re.findall(rf"^\| {label} \| .* \|$", results_of(folder), re.MULTILINE)[1:]
    cells = [text.strip() for text in row.strip("|").split("|")]
    assert cells[2:6] == [
        cell(figures[key], bounds[key]) for key in ("precision", "recall", "f1", "auroc")
    ]
    assert cells[6:] == [str(n) for line in figures["confusion"] for n in line]


def test_recall_of_a_group_is_the_mean_over_its_findings(studied: Path):
    folder = studied / "nih_clip-tiny-quick"
    metrics = read_metrics(folder / "runs" / "baseline-none")
    predictions = read_predictions(folder / "runs" / "baseline-none")
    learned = [name for name, f in metrics["per_label"].items() if f["confusion"] is not None]
    rows = [row for row in results_of(folder).splitlines() if row.startswith("| none | ")]
    common = [
        name
        for name in learned
        if name in predictions.label_names and share_in_training(folder, name) >= 0.05
    ]
    recalls = [metrics["per_label"][name]["recall"] for name in common]
    expected = np.mean([recall for recall in recalls if recall is not None])
    assert f"{expected:.3f}" in rows[1].split("|")[3]


def test_the_papers_auroc_takes_the_confidence_for_the_probability(studied: Path):
    run = studied / "pediatric_transfer-tiny-quick" / "runs" / "kermany-head"
    predictions = read_predictions(run)
    test = predictions.splits == "test"
    p, truth = predictions.probability[test, 0], predictions.truth[test, 0]
    expected = roc_auc_score(truth, np.where(p >= 0.5, p, 1 - p))
    assert pediatric_transfer.auroc_of_confidence(run) == pytest.approx(expected, abs=1e-6)


def test_a_pair_without_a_joint_space_does_all_but_zero_shot_and_retrieval_by_text(
    data: Path, tiny_pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FEATURECACHE_MODELS", str(tiny_pair))
    for main in (nih_clip.main, pediatric_transfer.main):
        main(["--model", "dinov2-minilm", "--data", str(data), "--work", str(tmp_path), "--quick"])
    clip = results_of(tmp_path / "nih_clip-dinov2-minilm-quick")
    transfer = results_of(tmp_path / "pediatric_transfer-dinov2-minilm-quick")
    for text in (clip, transfer):
        assert "no joint space" in text
        assert "zero-shot," not in text
    assert "image to images" in clip
    assert "to images |" in clip
    assert "fine-tuned here, bce" in transfer


def test_a_model_that_has_no_settings_of_its_own_is_trained_by_the_recipe(
    data: Path, tiny_clip: Path, tmp_path: Path
):
    arguments = ["--model", str(tiny_clip), "--data", str(data), "--work", str(tmp_path), "--quick"]
    pediatric_transfer.main(arguments)
    folder = tmp_path / "pediatric_transfer-tiny-clip-quick"
    assert "fine-tuned on the other, contrastive" in results_of(folder)
    settings = json.loads((folder / "runs/kermany-tuned/config.json").read_text())["settings"]
    assert (settings["prompts"], settings["weight_decay"], settings["optimizer"]) == (
        *("lungs", 0.1),
        "adam",
    )


def test_a_mistake_is_told_in_a_sentence(data: Path, tmp_path: Path):
    arguments = ["--model", "tinny", "--data", str(data), "--work", str(tmp_path)]
    with pytest.raises(SystemExit, match=r"error: .*did you mean tiny"):
        run_script(lambda: nih_clip.main(arguments))


def test_the_figures_of_a_quick_run_are_not_put_on_a_page(data: Path, tmp_path: Path):
    with pytest.raises(SystemExit):
        nih_clip.main(["--data", str(data), "--quick", "--page", str(tmp_path / "page.md")])


def results_of(folder: Path) -> str:
    return (folder / "results.md").read_text()


def share_in_training(folder: Path, name: str) -> float:
    from featurecache.store.reader import read_cache

    cache = read_cache(folder / "cache" / "nih" / "tiny.h5")
    truth = cache.labels.values[cache.rows("train"), cache.labels.names.index(name)]
    return float((truth == 1).mean())
