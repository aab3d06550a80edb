"""Commands: what they take, and what they do where that is ambiguous."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import featurecache as fc


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, isolate_commands):
    """A folder with 24 images of 12 patients, a cache of them and a run; and ``run``."""
    folder = tmp_path_factory.mktemp("commands")
    rng = np.random.default_rng(0)
    lines = ["path,patient,split,view,sex,age,Opacity,Mass"]
    (folder / "images").mkdir()
    for number in range(24):
        opacity, mass = number % 2, number // 2 % 2
        pixels = rng.integers(20, 120, (32, 32)).astype(np.uint8)
        pixels[4:16, 4:16] += np.uint8(100 * opacity)
        pixels[18:30, 18:30] += np.uint8(100 * mass)
        Image.fromarray(pixels).save(folder / f"images/image-{number:02d}.png")
        split = ("train", "val", "test")[number // 2 % 3]
        lines.append(
            f"images/image-{number:02d}.png,p{number // 2},{split},AP,F,{50 + number},"
            f"{opacity},{mass}"
        )
    (folder / "clinic.csv").write_text("\n".join(lines) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        run = isolate_commands(patch, folder)
        data = fc.load_dataset(
            "csv",
            "clinic.csv",
            labels=["Opacity", "Mass"],
            **{name: name for name in ("patient", "split", "view", "sex", "age")},
        )
        cache = fc.extract(data, "tiny")
        fc.train_head(cache, "prototype", controls=False, n_bootstrap=0).save("run")
        yield run


def predictions(workspace, *arguments):
    outcome = workspace("predict", "run", *arguments, "--json")
    assert outcome.stderr.count("error: ") == sum(p["reason"] is not None for p in outcome.json)
    return outcome, {Path(p["image"]).name: p["probabilities"] for p in outcome.json}


def test_predict_takes_files_folders_tables_and_caches(workspace):
    Path("table.csv").write_text("file\nimages/image-03.png\nimages/none.png\n")
    Path("folder/below").mkdir(parents=True)
    Path("folder/below/image-03.png").write_bytes(Path("images/image-03.png").read_bytes())
    _, by_file = predictions(workspace, "images/image-03.png")
    _, by_folder = predictions(workspace, "folder")
    by_table, of_table = predictions(workspace, "table.csv", "--path-column", "file")
    _, by_cache = predictions(workspace, "cache/clinic/tiny.h5")
    assert len(by_cache) == 24
    expected = pytest.approx(by_file["image-03.png"], rel=1e-3)
    assert by_folder == {"image-03.png": expected}
    assert of_table == {"image-03.png": expected, "none.png": None}
    assert by_table.code == 2
    assert by_cache["image-03.png"] == expected


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_predictions_and_failures_are_written_to_a_file(workspace, suffix):
    Path("bad.png").write_text("no image")
    out = f"predictions{suffix}"
    outcome = workspace("predict", "run", "images/image-03.png", "bad.png", "--out", out)
    assert (outcome.code, outcome.stdout.splitlines()[-1]) == (
        0,
        f"predictions: {out} (2 images, 1 not read)",
    )
    table = pd.read_csv(out) if suffix == ".csv" else pd.read_parquet(out)
    assert table["image"].tolist() == ["images/image-03.png", "bad.png"]
    expected = fc.load_run("run").predict(["images/image-03.png", "bad.png"])
    assert table.columns.tolist() == expected.columns.tolist()
    assert table["Mass probability"][0] == pytest.approx(expected["Mass probability"][0])
    assert bool(table["Mass positive"][0]) == expected["Mass positive"][0]
    assert table["error"][1] == expected["error"][1]
    assert pd.isna(table["Mass positive"][1])


def test_many_predictions_are_summarized_by_label(workspace):
    outcome = workspace("predict", "run", "cache/clinic/tiny.h5")
    assert outcome.code == 0
    rows = [line.split("\t") for line in outcome.stdout.splitlines()[1:4]]
    table = fc.load_run("run").predict("cache/clinic/tiny.h5")
    positive = int(table["Opacity positive"].sum())
    assert rows[0][:4] == ["label", "threshold", "at or above it", "median probability"]
    assert rows[1][0] == "Opacity"
    assert rows[1][2] == f"{positive} ({positive / 24:.0%})"


COLUMNS = (
    *("--label-column", "Opacity", "--label-column", "Mass", "--patient-column", "patient"),
    *("--split-column", "split", "--view-column", "view"),
    *("--sex-column", "sex", "--age-column", "age"),
)


def test_caches_of_one_extraction_are_listed_and_asked_for(workspace, tiny_clip):
    extract = ("extract", "--data-root", "clinic.csv", *COLUMNS, "--cache", "two")
    train = ("train-head", "--cache", "two", "--head", "knn", "--n-bootstrap", 0, "--no-controls")
    assert workspace(*extract, "--model", "tiny", "--model", tiny_clip).code == 0
    refused = workspace(*train)
    assert refused.code == 2
    files = "two/clinic/tiny-clip.h5, two/clinic/tiny.h5"
    assert f"give one of them as --cache: {files}" in refused.stderr
    # An extraction of one of them decides, although nothing changes in its file.
    assert workspace(*extract, "--model", "tiny").code == 0
    trained = workspace(*train)
    assert trained.code == 0
    assert "training knn on two/clinic/tiny.h5 (the newest) with seed 0" in trained.stderr


@pytest.fixture(scope="module")
def two_runs(workspace):
    fc.train_head("cache/clinic/tiny.h5", "knn", controls=False, seeds=2).save("saved/k_nn")
    fc.train_head("cache/clinic/tiny.h5", "prototype", controls=False).save("saved/prototype")
    return ["saved/k_nn", "saved/prototype"]


def test_runs_are_listed_with_their_scores(workspace, two_runs):
    Path("saved/broken").mkdir()
    Path("saved/broken/config.json").write_text("{}")
    outcome = workspace("runs", "ls", "saved")
    assert outcome.code == 0
    rows = [line.split("\t") for line in outcome.stdout.splitlines()[1:] if line]
    assert [row[0] for row in rows] == ["run", "saved/broken", *two_runs]
    metrics = [json.loads(Path(run, "metrics.json").read_text()) for run in two_runs]
    assert rows[1][-1].startswith("saved/broken/config.json is not the config")
    assert rows[2][1].startswith(f"{metrics[0]['seeds']['macro']['auroc']['mean']:.3f}")
    assert rows[3][1].startswith(f"{metrics[1]['macro']['auroc']:.3f}")
    assert rows[3][2:] == ["head", "prototype", "clinic", "tiny", "–"]


def test_metrics_are_written_as_latex_markdown_and_csv(workspace, two_runs):
    table = ("table", *two_runs, "--name", "saved/k_nn=A & B_1", "--format")
    names = ["macro AUROC", "macro AUPRC", "macro F1", "micro AUROC"]
    with io.StringIO(workspace(*table, "csv").stdout) as file:
        numbers = pd.read_csv(file)
    assert numbers["run"].tolist() == ["A & B_1", "prototype"]
    spread = json.loads(Path(two_runs[0], "metrics.json").read_text())["seeds"]
    for name in names:
        average, metric = name.lower().split()
        expected = spread[average][metric]
        row = numbers.loc[0, [f"{name}{suffix}" for suffix in ("", " sd", " low", " high")]]
        interval = expected["ci95"] or [np.nan, np.nan]
        assert row.tolist() == pytest.approx(
            [expected["mean"], expected["sd"], *interval], nan_ok=True
        )
    markdown = workspace(*table, "markdown").stdout.splitlines()
    latex = workspace(*table, "latex").stdout
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in markdown]
    assert rows[0] == ["run", *names]
    assert r"A \& B\_1 & " in latex
    for column, name in enumerate(names, start=1):
        for row, value in enumerate(numbers[name]):
            is_best = bool(value == numbers[name].max())
            assert rows[2 + row][column].startswith(f"{'**' * is_best}{value:.3f}")
            assert (rf"\textbf{{{value:.3f}" in latex) or not is_best


def test_name_of_another_run_is_refused(workspace, two_runs):
    refused = workspace("table", *two_runs, "--name", "other=X")
    assert refused.code == 2
    assert "'other' is none of the runs: name one of k_nn, prototype" in refused.stderr


WITHOUT_TORCH = {
    "extract --data-root missing.csv": "missing.csv does not exist",
    "extract --dataset nope": "unknown data set 'nope'",
    "extract --model nope": "unknown model 'nope'",
    "extract --prompts nope.json": "prompt file nope.json",
    "extract --data-root clinic.csv --label-column nope": "has no column 'nope'",
    "finetune --objective bce --data-root missing.csv": "missing.csv does not exist",
    "finetune --objective bce --model nope": "unknown model 'nope'",
    "finetune --objective bce --out run": "run already exists",
    "train-head --head nope": "unknown head 'nope'",
    "train-head --head linear --cache missing.h5": "no cache at missing.h5",
    "learning-curve --head nope": "unknown head 'nope'",
    "zero-shot --cache missing.h5": "no cache at missing.h5",
    "retrieve --label nope": "unknown label 'nope'",
    "align --cache missing.h5 --out x": "no cache at missing.h5",
    "audit --dataset nope": "unknown data set 'nope'",
    "predict missing x.png": "no run folder at missing",
    "predict run clinic.csv --path-column nope": "has no column 'nope'",
    "predict run missing.png": "missing.png does not exist",
    "predict run clinic.csv --out clinic.csv": "clinic.csv already exists",
    "predict run clinic.csv --out clinic.txt": "ends in .csv or .parquet",
    "evaluate missing": "no run folder at missing",
    "evaluate run --cache missing.h5": "no cache at missing.h5",
    "table run missing": "no run folder at missing",
    "runs ls missing": "no folder missing",
    "compare run missing": "no run folder at missing",
    "report missing": "no run folder at missing",
    "report run --dataset nope": "unknown data set 'nope'",
}
"""Mistakes in the names of files, columns, models and heads, and what the answer has to say."""


def test_mistakes_in_names_are_reported_before_torch_is_imported(workspace):
    code = """
import functools, json, sys
import typer.testing
from typer.testing import CliRunner
from featurecache.cli import main
typer.testing._get_command = functools.cache(typer.testing._get_command)
for command in json.load(sys.stdin):
    result = CliRunner().invoke(main, command.split())
    print(json.dumps([result.exit_code, result.stderr, "torch" in sys.modules]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(list(WITHOUT_TORCH)),
        capture_output=True,
        text=True,
        check=True,
    )
    answers = map(json.loads, done.stdout.splitlines())
    for (command, message), (exit_code, error, torch_is_imported) in zip(
        WITHOUT_TORCH.items(), answers, strict=True
    ):
        assert exit_code == 2, (command, error)
        assert message in error, (command, error)
        assert not torch_is_imported, command
