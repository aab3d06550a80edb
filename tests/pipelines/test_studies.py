"""Each study runs on a few synthetic images, and tabulates the metrics of its runs."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import nih_clip
import numpy as np
import pediatric_transfer
import pytest
import squeeze_features
import study
from sklearn.metrics import roc_auc_score
from study import open_study, run_script

import featurecache as fc
from featurecache.report.table import format_interval

STUDIES = {
    "nih_clip": nih_clip.main,
    "pediatric_transfer": pediatric_transfer.main,
    "squeeze_features": squeeze_features.main,
}


@pytest.fixture(autouse=True, scope="module")
def few_runs() -> Iterator[None]:
    """Leave out runs that a study treats like others: heads, ablations, remedies.

    ``tests/heads`` trains every head, and with every ablation and remedy.
    """
    heads = squeeze_features.REGISTERED_HEADS
    few = ("baseline", "concat")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "QUICK_SIZES", {"train": 72, "val": 32, "test": 40})
        patch.setattr(squeeze_features, "HEADS", few)
        patch.setattr(squeeze_features, "TEXT_HEADS", few[1:])
        patch.setattr(squeeze_features, "TEXT_ABLATIONS", ("none", "permuted"))
        patch.setattr(
            squeeze_features,
            "REGISTERED_HEADS",
            {name: heads[name] for name in (*few, "prototype")},
        )
        remedies = {name: nih_clip.REMEDIES[name] for name in ("none", "balanced subset")}
        patch.setattr(nih_clip, "REMEDIES", remedies)
        yield


@pytest.fixture(scope="module")
def work(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work folder of the three studies of tiny."""
    work = tmp_path_factory.mktemp("studies")
    for main in STUDIES.values():
        main(["--data", str(data), "--work", str(work), "--quick"])
    return work


@pytest.mark.parametrize("name", STUDIES)
def test_study_tabulates_metrics(name: str, work: Path):
    text = read_results(work / f"{name}-tiny-quick")
    assert len(re.findall(r"\d\.\d{3}", text)) > 50


def test_deleted_runs_are_made_again_with_the_same_numbers(work: Path, data: Path, tmp_path: Path):
    folder = "nih_clip-tiny-quick"
    shutil.copytree(work / folder, tmp_path / folder)
    shutil.rmtree(tmp_path / folder / "cache")
    runs = ["zero-signs-pair", "baseline-balanced subset", "bce-10"]
    for run in runs:
        shutil.rmtree(tmp_path / folder / "runs" / run)
    nih_clip.main(["--data", str(data), "--work", str(tmp_path), "--quick"])
    assert read_results(tmp_path / folder) == read_results(work / folder)
    for run in runs:
        remade, original = (
            fc.load_run(root / folder / "runs" / run).metrics for root in (tmp_path, work)
        )
        assert remade == original


def test_study_continues_from_existing_runs(
    work: Path, data: Path, capsys: pytest.CaptureFixture[str]
):
    folder = work / "squeeze_features-tiny-quick"
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("metrics.json")}
    squeeze_features.main(["--data", str(data), "--work", str(work), "--quick"])
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("metrics.json")} == before
    assert read_results(folder) in capsys.readouterr().out


def test_tables_show_the_metrics_of_the_runs(work: Path):
    folder = work / "nih_clip-tiny-quick"
    per_label = fc.load_run(folder / "runs" / "bce").metrics.per_label
    label, scores = next((n, s) for n, s in per_label.items() if s.auroc is not None)
    (row,) = re.findall(rf"^\| {label} \| .* \|$", read_results(folder), re.MULTILINE)[1:]
    cells = [text.strip() for text in row.strip("|").split("|")]
    assert cells[2:6] == [
        format_interval(getattr(scores, name), scores.interval(name))
        for name in ("precision", "recall", "f1", "auroc")
    ]
    assert cells[6:] == [str(n) for line in scores.confusion for n in line]


def test_recall_of_a_group_is_the_mean_over_its_findings(work: Path):
    folder = work / "nih_clip-tiny-quick"
    metrics = fc.load_run(folder / "runs" / "baseline-none").metrics
    cache = fc.open_cache(folder / "cache" / "nih" / "tiny.h5")
    common = nih_clip.common_findings(cache)
    recalls = [
        scores.recall
        for scores, is_common in zip(metrics.per_label.values(), common, strict=True)
        if is_common and scores.learned and scores.recall is not None
    ]
    rows = [row for row in read_results(folder).splitlines() if row.startswith("| none | ")]
    assert f"{np.mean(recalls):.3f}" in rows[1].split("|")[3]


def test_auroc_of_confidence_ignores_which_class_is_predicted(work: Path):
    run = fc.load_run(work / "pediatric_transfer-tiny-quick" / "runs" / "kermany-head")
    test = run.scored.splits == "test"
    p, truth = run.scored.probability[test, 0], run.scored.truth[test, 0]
    expected = roc_auc_score(truth, np.where(p >= 0.5, p, 1 - p))
    assert pediatric_transfer.auroc_of_confidence(run) == pytest.approx(expected, abs=1e-6)


def test_pair_without_joint_space_skips_zero_shot_and_text_retrieval(
    data: Path, tiny_pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FEATURECACHE_MODELS", str(tiny_pair))
    for main in (nih_clip.main, pediatric_transfer.main):
        main(["--model", "dinov2-minilm", "--data", str(data), "--work", str(tmp_path), "--quick"])
    clip = read_results(tmp_path / "nih_clip-dinov2-minilm-quick")
    transfer = read_results(tmp_path / "pediatric_transfer-dinov2-minilm-quick")
    for text in (clip, transfer):
        assert "no joint space" in text
        assert "zero-shot," not in text
    assert "image to images" in clip
    assert "to images |" in clip
    assert "fine-tuned here, bce" in transfer


def test_model_without_own_settings_is_trained_by_the_recipe(
    data: Path, tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    arguments = ["--model", str(tiny_clip), "--data", str(data), "--work", str(tmp_path), "--quick"]
    opened = open_study("pediatric_transfer", __doc__, arguments)
    monkeypatch.setattr(fc, "finetune", lambda dataset, encoder, **settings: settings)
    settings = opened.finetune("tuned", opened.load("nih", split="patient"), "pediatric-clip-ucsd")
    assert (settings["prompts"], settings["weight_decay"], settings["optimizer"]) == (
        *("lungs", 0.1),
        "adam",
    )


def test_mistakes_are_reported_in_one_line(data: Path, tmp_path: Path):
    arguments = ["--model", "tinny", "--data", str(data), "--work", str(tmp_path)]
    with pytest.raises(SystemExit, match=r"error: .*did you mean tiny"):
        run_script(lambda: nih_clip.main(arguments))


def test_quick_results_are_not_written_to_a_page(data: Path, tmp_path: Path):
    with pytest.raises(SystemExit):
        nih_clip.main(["--data", str(data), "--quick", "--page", str(tmp_path / "page.md")])


def read_results(folder: Path) -> str:
    return (folder / "results.md").read_text()
