"""Commands: what they take, and what they do where that is ambiguous."""

import json
import subprocess
import sys

import numpy as np
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
    (folder / "films.csv").write_text("\n".join(lines) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        run = isolate_commands(patch, folder)
        data = fc.load_dataset(
            "csv",
            "films.csv",
            labels=["Opacity", "Mass"],
            **{name: name for name in ("patient", "split", "view", "sex", "age")},
        )
        cache = fc.extract(data, "tiny")
        fc.train_head(cache, "prototype", controls=False, n_bootstrap=0).save("run")
        yield run


COLUMNS = (
    *("--label-column", "Opacity", "--label-column", "Mass", "--patient-column", "patient"),
    *("--split-column", "split", "--view-column", "view"),
    *("--sex-column", "sex", "--age-column", "age"),
)


def test_caches_of_one_extraction_are_listed_and_asked_for(workspace, tiny_clip):
    extract = ("extract", "--data-root", "films.csv", *COLUMNS, "--cache", "two")
    train = ("train-head", "--cache", "two", "--head", "knn", "--n-bootstrap", 0, "--no-controls")
    assert workspace(*extract, "--model", "tiny", "--model", tiny_clip).code == 0
    refused = workspace(*train)
    assert refused.code == 2
    files = "two/films/tiny-clip.h5, two/films/tiny.h5"
    assert f"give one of them as --cache: {files}" in refused.stderr
    # An extraction of one of them decides, although nothing changes in its file.
    assert workspace(*extract, "--model", "tiny").code == 0
    trained = workspace(*train)
    assert trained.code == 0
    assert "cache two/films/tiny.h5 (the newest), head knn" in trained.stderr


WITHOUT_TORCH = {
    "extract --data-root missing.csv": "missing.csv does not exist",
    "extract --dataset nope": "unknown data set 'nope'",
    "extract --model nope": "unknown model 'nope'",
    "extract --prompts nope.json": "prompt file nope.json",
    "extract --data-root films.csv --label-column nope": "has no column 'nope'",
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
    "evaluate missing": "no run folder at missing",
    "evaluate run --cache missing.h5": "no cache at missing.h5",
    "compare run missing": "no run folder at missing",
    "report missing": "no run folder at missing",
    "report run --dataset nope": "unknown data set 'nope'",
}
"""Mistakes in the names of files, columns, models and heads, and what the answer has to say."""


def test_mistakes_in_names_are_reported_before_torch_is_imported(workspace):
    code = """
import json, sys
from typer.testing import CliRunner
from featurecache.cli import main
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
