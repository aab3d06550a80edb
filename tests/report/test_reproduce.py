"""The commands that a report prints make its runs again, from an empty folder."""

import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import featurecache as fc
from featurecache.cli import main
from featurecache.encoders.encoder import Encoder
from featurecache.report.load_runs import load_runs
from featurecache.report.reproduce import reproduction_commands
from tests import published

FINDINGS = ("Edema", "Mass")


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV file of 48 small images of 24 patients, one of them damaged."""
    folder = tmp_path_factory.mktemp("hospital")
    rng = np.random.default_rng(0)
    lines = ["file,who,Edema,Mass,seen,gender"]
    for number in range(48):
        edema, mass = number % 2, number // 2 % 2
        pixels = rng.integers(0, 100, (96, 64)) + 100 * edema
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:02}.png")
        lines.append(f"{number:02}.png,p{number // 2},{edema},{mass},PA,F")
    (folder / "47.png").write_bytes(b"damaged")
    (folder / "list.csv").write_text("\n".join(lines))
    rows = ["path,Oedema,Tumor"]
    for number in range(20):
        pixels = rng.integers(0, 100, (64, 96)) + 100 * (number % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"other{number:02}.png")
        rows.append(f"other{number:02}.png,{number % 2},{number % 3 % 2}")
    (folder / "other.csv").write_text("\n".join(rows))
    (folder / "mine.json").write_text('{"name": "mine", "templates": ["{pathology} it is"]}')
    published.write_clip(folder / "small-clip", published.tiny_clip_config(), seed=1)
    return folder


def run_all(commands: Sequence[str]) -> None:
    """Run command lines as a shell would."""
    for command in commands:
        assert not command.startswith("#"), command
        program, *arguments = shlex.split(command.replace("\\\n", " "))
        assert program == "featurecache"
        outcome = CliRunner().invoke(main, arguments, catch_exceptions=False)
        assert outcome.exit_code == 0, f"{command}\n{outcome.output}"


def commands_of(run: Path) -> list[str]:
    return reproduction_commands(*load_runs([run]))


def metrics_of(run: Path) -> Any:
    name = "curve.json" if (run / "curve.json").exists() else "metrics.json"
    return json.loads((run / name).read_text())


def assert_reproduces(run: str, first: Path, second: Path) -> list[str]:
    """Check that the commands of a run in the first folder make the same run in the second."""
    os.chdir(first)
    commands = commands_of(Path(run))
    second.mkdir()
    os.chdir(second)
    run_all(commands)
    assert metrics_of(second / run) == metrics_of(first / run)
    for name in ("predictions.csv", "history.csv"):
        if (first / run / name).exists():
            assert (second / run / name).read_text() == (first / run / name).read_text()
    return commands


def extract_from_csv(hospital: Path, *models: object, **options: Any) -> list[fc.Cache]:
    data = fc.load_dataset(
        hospital / "list.csv", labels=FINDINGS, path="file", patient="who", view="seen", seed=3
    )
    return fc.extract(data, list(models), cache_dir="store", batch_size=7, **options)


@pytest.fixture
def first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "first"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_head_on_several_caches_with_prompts_from_a_file(
    hospital: Path, first: Path, tmp_path: Path
) -> None:
    models = ("tiny", hospital / "small-clip")
    caches = extract_from_csv(hospital, *models, prompts=hospital / "mine.json", resize="pad")
    fc.train_head(
        fc.open_cache([cache.path for cache in caches]),
        "concat",
        seeds=2,
        seed=5,
        fusion="late",
        epochs=3,
        hidden=(16, 8),
        dropout=0.1,
        controls=False,
        n_bootstrap=7,
    ).save("runs/late")
    commands = assert_reproduces("runs/late", first, tmp_path / "second")
    assert len(commands) == 3
    words = shlex.split(commands[0].replace("\\\n", " "))
    assert "--precision" in words
    assert words[words.index("--resize") + 1] == "pad"


def test_evaluation_of_a_head_on_all_images_of_another_data_set(
    hospital: Path, first: Path, tmp_path: Path
) -> None:
    (cache,) = extract_from_csv(hospital, "tiny")
    fc.train_head(
        cache, "prototype", controls=False, n_bootstrap=0, operating_point="specificity=0.8"
    ).save("runs/head")
    data = fc.load_dataset(hospital / "other.csv", labels=["Oedema", "Tumor"])
    other = fc.extract(data, "tiny", prompts="lungs", limit=18)
    run = fc.load_run("runs/head").evaluate(
        other,
        label_map={"Edema": "Oedema", "Mass": "Tumor"},
        split="all",
        n_bootstrap=9,
        prevalence={"Oedema": 0.25},
        negatives="diseased",
    )
    run.save("runs/other")
    commands = assert_reproduces("runs/other", first, tmp_path / "second")
    assert [shlex.split(command)[1] for command in commands] == [
        *("extract", "train-head", "extract", "evaluate")
    ]


def test_zero_shot_with_an_alignment(
    tmp_path: Path, first: Path, tiny_pair: Path, hospital: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEATURECACHE_MODELS", str(tiny_pair))
    (cache,) = extract_from_csv(hospital, "dinov2-minilm", prompts="showing")
    alignment = fc.align(fc.open_cache(cache, level="study", study_features="mean")).save()
    fc.zero_shot(cache, alignment=alignment, scoring="sigmoid", n_bootstrap=11).save("runs/zero")
    assert_reproduces("runs/zero", first, tmp_path / "second")


def test_learning_curve(hospital: Path, first: Path, tmp_path: Path) -> None:
    (cache,) = extract_from_csv(hospital, "tiny")
    heads = ["prototype", "knn"]
    fc.learning_curve(cache, heads, sizes=[8, 16], seeds=2, seed=4).save("runs/c")
    assert_reproduces("runs/c", first, tmp_path / "second")


def test_head_on_the_encoder_of_a_fine_tuning(hospital: Path, first: Path, tmp_path: Path) -> None:
    data = fc.load_dataset(
        hospital / "list.csv", labels=FINDINGS, path="file", patient="who", sex="gender"
    )
    tuned = fc.finetune(
        data,
        hospital / "small-clip",
        objective="bce",
        trainable="head",
        epochs=1,
        augment=False,
        n_bootstrap=5,
        out="runs/tuned",
    )
    assert tuned.config["excluded"] == {"not an image of a known format": 1}
    cache = fc.extract(data, "runs/tuned", prompts="lungs")
    fc.train_head(cache, "linear", controls=False, n_bootstrap=0).save("runs/head")
    commands = assert_reproduces("runs/head", first, tmp_path / "second")
    assert metrics_of(tmp_path / "second/runs/tuned") == metrics_of(first / "runs/tuned")
    assert [shlex.split(command)[1] for command in commands] == [
        *("finetune", "extract", "train-head")
    ]


def test_what_the_command_line_cannot_express_is_stated(hospital: Path, first: Path) -> None:
    class Mean(Encoder):
        dim = 3
        image_spec = MappingProxyType({"mean": 1})

        def preprocess(self, image):
            return np.asarray(image.convert("RGB").resize((4, 4)), np.float32).transpose(2, 0, 1)

        def embed_pixels(self, pixels):
            return pixels.mean(axis=(2, 3))

    data = fc.load_dataset(hospital / "list.csv", labels=FINDINGS, path="file", patient="who")
    cache = fc.extract(data.take(np.arange(40)), Mean(name="mean\n& rm"))
    run = fc.train_head(cache, "prototype", controls=False, n_bootstrap=0)
    run.save("runs/head")
    comments = [text for text in commands_of(Path("runs/head")) if text.startswith("#")]
    assert comments == [
        "# the encoder mean & rm was made in Python",
        "# the data set list was made in Python",
    ]


def test_pseudonymized_data_set_names_no_path(hospital: Path, first: Path) -> None:
    Path("key").write_text("0" * 64)
    data = fc.load_dataset(
        hospital / "list.csv", labels=FINDINGS, path="file", patient="who", pseudonymize="key"
    )
    cache = fc.extract(data, "tiny")
    fc.train_head(cache, "prototype", controls=False, n_bootstrap=0).save("runs/head")
    extraction = commands_of(Path("runs/head"))[0]
    assert "--data-root DATA_ROOT --pseudonymize KEYFILE" in extraction
    assert str(hospital) not in extraction


def test_report_prints_its_own_options(hospital: Path, first: Path, tmp_path: Path) -> None:
    (cache,) = extract_from_csv(hospital, "tiny")
    run = fc.train_head(cache, "prototype", controls=False, n_bootstrap=0)
    run.save("runs/head")
    data = fc.load_dataset(
        hospital / "list.csv", labels=FINDINGS, path="file", patient="who", view="seen", seed=3
    )
    options = {"plots": "plots", "plot_format": "svg", "finding": "Mass"}
    fc.report("runs/head", "out.html", data=data, **options)
    page = Path("out.html").read_text()
    command = page.partition("<h3>This report</h3>")[2].partition("<pre")[2].partition("</pre>")[0]
    command = command.partition(">")[2].replace("&#39;", "'")
    Path("out.html").rename("expected.html")
    folders = ("plots", "expected")
    Path("plots").rename("expected")
    run_all([command])
    assert Path("out.html").read_text() == page
    plots, expected = (sorted(file.name for file in Path(name).iterdir()) for name in folders)
    assert plots == expected
    assert "Excluded: 1 (1 not an image of a known format)." in page
    assert "<dt>excluded images</dt><dd>1 (1 not an image of a known format)</dd>" in page


def test_run_that_names_itself_ends(hospital: Path, first: Path) -> None:
    (cache,) = extract_from_csv(hospital, "tiny")
    fc.train_head(cache, "prototype", controls=False, n_bootstrap=0).save("runs/head")
    fc.load_run("runs/head").evaluate(cache, n_bootstrap=0).save("runs/same")
    config = Path("runs/same/config.json")
    config.write_text(config.read_text().replace('"runs/head"', '"runs/same"'))
    assert commands_of(Path("runs/same"))[0].startswith("# the run runs/same is not here")
