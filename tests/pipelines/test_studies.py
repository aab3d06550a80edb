"""Each study runs on a few synthetic images, and tabulates the metrics of its runs."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nih_clip
import numpy as np
import pediatric_transfer
import pytest
import squeeze_features
import study
from sklearn.metrics import roc_auc_score
from study import listed, open_study, read_study, run_script
from typer.testing import CliRunner

import featurecache as fc
from featurecache.cli.app import app
from featurecache.errors import FeaturecacheError
from featurecache.heads.registry import HEADS
from featurecache.report.table import format_interval
from featurecache.study import plan as study_plan
from featurecache.study import results as study_results
from featurecache.study import run as study_run
from featurecache.study.run import StudyResult

STUDIES = {
    "nih_clip": nih_clip.main,
    "pediatric_transfer": pediatric_transfer.main,
    "squeeze_features": squeeze_features.main,
}
FEW_HEADS = ("baseline", "concat", "prototype")
PIPELINES = Path(study.__file__).parent


def read_few(script: str) -> dict[str, Any]:
    """Read a study file without the runs that are like others: heads, ablations, remedies.

    ``tests/heads`` trains every head, and with every ablation and remedy.
    """
    content = read_study(script)
    steps = []
    for step in content["train_head"]:
        few = {"head": [head for head in listed(step["head"]) if head in FEW_HEADS]}
        few |= {"text_ablation": "permuted"} if "text_ablation" in step else {}
        few |= {"resample": "undersample"} if "resample" in step else {}
        if "train_size" in step and "text_ablation" not in step:
            few["head"] = ["baseline"]
        if few["head"] and "pos_weight" not in step:
            steps.append({**step, **few})
    return {**content, "train_head": steps}


@pytest.fixture(autouse=True, scope="module")
def few_runs() -> Iterator[None]:
    """Leave out some runs, and the report, which takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "QUICK_SIZES", {"train": 72, "val": 32, "test": 40})
        patch.setattr(study, "read_study", read_few)
        patch.setattr(study_results, "report", lambda runs, out, *, names: out.touch())
        yield


@pytest.fixture(scope="module")
def work(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work folder of the three studies of tiny."""
    work = tmp_path_factory.mktemp("studies")
    for main in STUDIES.values():
        main(options(data, work))
    return work


def options(data: Path, work: Path, model: str = "tiny") -> list[str]:
    return ["--model", model, "--data", str(data), "--work", str(work), "--quick"]


def result_of(name: str, data: Path, work: Path) -> StudyResult:
    """Return what was found by a study that was run."""
    return open_study(name, __doc__, options(data, work)).run()


@pytest.mark.parametrize("name", STUDIES)
def test_study_tabulates_metrics(name: str, work: Path):
    text = read_results(work / f"{name}-tiny-quick")
    assert len(re.findall(r"\d\.\d{3}", text)) > 50


def test_deleted_runs_are_made_again_with_the_same_numbers(work: Path, data: Path, tmp_path: Path):
    folder = "nih_clip-tiny-quick"
    shutil.copytree(work / folder, tmp_path / folder)
    shutil.rmtree(tmp_path / folder / "cache")
    result = result_of("nih_clip", data, work)
    runs = [
        result.run(prompts="signs", scoring="pair"),
        result.run(head="baseline", resample="undersample"),
        result.run(method="fine-tuned", train_size=10),
    ]
    for run in runs:
        shutil.rmtree(tmp_path / folder / "runs" / run.name)
    nih_clip.main(options(data, tmp_path))
    assert read_results(tmp_path / folder) == read_results(work / folder)
    for run in runs:
        assert fc.load_run(tmp_path / folder / "runs" / run.name).metrics == run.metrics


def test_study_continues_from_existing_runs(
    work: Path, data: Path, capsys: pytest.CaptureFixture[str]
):
    folder = work / "squeeze_features-tiny-quick"
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("metrics.json")}
    squeeze_features.main(options(data, work))
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("metrics.json")} == before
    assert read_results(folder) in capsys.readouterr().out


def test_tables_show_the_metrics_of_the_runs(work: Path, data: Path):
    run = result_of("nih_clip", data, work).run(method="fine-tuned", train_size=None)
    per_label = run.metrics.per_label
    label, scores = next((n, s) for n, s in per_label.items() if s.auroc is not None)
    text = read_results(work / "nih_clip-tiny-quick")
    (row,) = re.findall(rf"^\| {label} \| .* \|$", text, re.MULTILINE)[1:]
    cells = [text.strip() for text in row.strip("|").split("|")]
    assert cells[2:6] == [
        format_interval(getattr(scores, name), scores.interval(name))
        for name in ("precision", "recall", "f1", "auroc")
    ]
    assert cells[6:] == [str(n) for line in scores.confusion for n in line]


def test_recall_of_a_group_is_the_mean_over_its_findings(work: Path, data: Path):
    folder = work / "nih_clip-tiny-quick"
    metrics = result_of("nih_clip", data, work).run(head="baseline", resample=None).metrics
    cache = fc.open_cache(folder / "cache" / "nih" / "tiny.h5")
    common = nih_clip.common_findings(cache)
    recalls = [
        scores.recall
        for scores, is_common in zip(metrics.per_label.values(), common, strict=True)
        if is_common and scores.learned and scores.recall is not None
    ]
    rows = [row for row in read_results(folder).splitlines() if row.startswith("| none | ")]
    assert f"{np.mean(recalls):.3f}" in rows[1].split("|")[3]


def test_auroc_of_confidence_ignores_which_class_is_predicted(work: Path, data: Path):
    result = result_of("pediatric_transfer", data, work)
    run = result.run(dataset="kermany", head="baseline", trained_on="kermany")
    test = run.scored.splits == "test"
    p, truth = run.scored.probability[test, 0], run.scored.truth[test, 0]
    expected = roc_auc_score(truth, np.where(p >= 0.5, p, 1 - p))
    assert pediatric_transfer.auroc_of_confidence(run) == pytest.approx(expected, abs=1e-6)


def test_pair_without_joint_space_skips_zero_shot_and_text_retrieval(
    data: Path, tiny_pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FEATURECACHE_MODELS", str(tiny_pair))
    for main in (nih_clip.main, pediatric_transfer.main):
        main(options(data, tmp_path, "dinov2-minilm"))
    clip = read_results(tmp_path / "nih_clip-dinov2-minilm-quick")
    transfer = read_results(tmp_path / "pediatric_transfer-dinov2-minilm-quick")
    for text in (clip, transfer):
        assert "no joint space" in text
        assert "zero-shot," not in text
    assert "image to images" in clip
    assert "to images |" in clip
    assert "fine-tuned here, bce" in transfer


def test_model_without_own_settings_is_trained_by_the_recipe(
    data: Path, tiny_clip: Path, tmp_path: Path
):
    opened = open_study("pediatric_transfer", __doc__, options(data, tmp_path, str(tiny_clip)))
    assert opened.content["finetune"][0] == {
        "dataset": "kermany",
        "recipe": "pediatric-clip-ucsd",
        "evaluate_on": ["nih"],
        "epochs": 1,  # --quick
        "batch_size": 36,  # half of the training images
    }


@pytest.mark.parametrize("name", STUDIES)
def test_script_does_the_experiments_of_its_study_file(
    name: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(study, "read_study", read_study)
    monkeypatch.setattr(study_plan, "find_shortage", lambda *_: None)  # of the few images
    monkeypatch.setenv("FEATURECACHE_DATA", str(data))
    opened = open_study(name, __doc__, ["--data", str(data), "--work", str(tmp_path)])
    folders = [one.folder for one in fc.plan_study(opened.content).experiments]
    written = [one.folder for one in fc.plan_study(PIPELINES / f"{name}.toml").experiments]
    # The name of a folder has a hash of everything that the result depends on.
    assert [path.name for path in folders] == [path.name for path in written]
    assert {path.parent.parent.name for path in (*folders, *written)} == {f"{name}-tiny"}


NIH_CLIP = """\
zero-shot, prompts showing, scoring pair
zero-shot, prompts showing, scoring sigmoid
zero-shot, prompts signs, scoring pair
zero-shot, prompts signs, scoring sigmoid
baseline
baseline, pos_weight balanced, controls False
baseline, resample weighted, controls False
baseline, resample undersample, controls False
fine-tuned, train_size 10, batch_size 10
fine-tuned, batch_size 32"""

PEDIATRIC_TRANSFER = """\
kermany: zero-shot, prompts lungs
kermany: zero-shot, prompts signs
nih: zero-shot, prompts lungs
nih: zero-shot, prompts signs
kermany: baseline
nih: baseline, trained on kermany
nih: baseline
kermany: baseline, trained on nih
kermany: fine-tuned, recipe pediatric-clip-ucsd
nih: fine-tuned, recipe pediatric-clip-ucsd, trained on kermany
nih: fine-tuned, recipe pediatric-clip
kermany: fine-tuned, recipe pediatric-clip, trained on nih"""


def squeeze_features_titles() -> Iterator[str]:
    repeated = "seeds 5, controls False"
    yield "baseline, seeds 5"
    for head in ("concat", "weighted_sum"):
        yield f"{head}, prompts signs, seeds 5"
        for ablation in ("permuted", "random", "zero"):
            yield f"{head}, prompts signs, text_ablation {ablation}, {repeated}"
    for head in ("linear", "knn", "prototype", "svm"):
        yield head
    for head in ("text_residual", "lp_plus_plus", "clap", "tip_adapter"):
        yield f"{head}, prompts signs"
    for size in (50, 100, 200, 400):
        balanced = f"train_size {size}, resample undersample, {repeated}"
        yield f"baseline, {balanced}"
        for head in ("concat", "weighted_sum"):
            yield f"{head}, prompts signs, {balanced}"
            yield f"{head}, prompts signs, text_ablation permuted, {balanced}"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nih_clip", [f"nih: {title}" for title in NIH_CLIP.splitlines()]),
        ("pediatric_transfer", PEDIATRIC_TRANSFER.splitlines()),
        ("squeeze_features", [f"nih: {title}" for title in squeeze_features_titles()]),
    ],
)
def test_dry_run_lists_the_experiments_of_a_study_file(
    name: str, expected: list[str], data: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(study_plan, "find_shortage", lambda *_: None)  # of the few images
    monkeypatch.setenv("FEATURECACHE_DATA", str(data))
    file = str(PIPELINES / f"{name}.toml")
    result = CliRunner().invoke(app, ["study", file, "--dry-run", "--json"])
    listed = json.loads(result.stdout)["experiments"]
    assert sorted(f"{one['dataset']}: {one['title']}" for one in listed) == sorted(expected)


def test_every_head_on_vectors_is_squeezed():
    heads = {head for step in read_study("squeeze_features")["train_head"] for head in step["head"]}
    assert heads == {name for name, spec in HEADS.items() if not spec.takes_tokens}


def test_failed_experiments_end_a_script_with_an_error(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def broken(*args: Any, **kwargs: Any) -> None:
        raise FeaturecacheError("broken")

    monkeypatch.setattr(study_run, "extract", broken)
    monkeypatch.setattr(
        study, "read_study", lambda script: {**read_few(script), "train_head": [], "finetune": []}
    )
    with pytest.raises(SystemExit, match=r"error: nih: .*, scoring sigmoid: broken$"):
        run_script(lambda: nih_clip.main(options(data, tmp_path)))


def test_mistakes_are_reported_in_one_line(data: Path, tmp_path: Path):
    with pytest.raises(SystemExit, match=r"error: .*did you mean tiny"):
        run_script(lambda: nih_clip.main(options(data, tmp_path, "tinny")))


def test_quick_results_are_not_written_to_a_page(data: Path, tmp_path: Path):
    with pytest.raises(SystemExit):
        nih_clip.main(["--data", str(data), "--quick", "--page", str(tmp_path / "page.md")])


def read_results(folder: Path) -> str:
    return (folder / "results.md").read_text()
