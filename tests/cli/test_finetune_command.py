"""The ``finetune`` command, and its result as input of the other commands."""

import json
import shutil

import numpy as np
import pytest

import featurecache as fc


@pytest.fixture
def finetuned(run, tiny_clip, extract_options):
    options = [o for o in extract_options if o not in ("--label-column", "Rare")]
    options[4:4] = ["--label-column"]
    outcome = run(
        *("finetune", "--model", tiny_clip, *options, "--objective", "contrastive"),
        *(
            "--epochs",
            3,
            "--batch-size",
            12,
            "--learning-rate",
            0.002,
            "--n-bootstrap",
            20,
            "--json",
        ),
    )
    assert outcome.code == 0, outcome.stderr
    return outcome.json, options


def test_result_works_with_the_other_commands(run, image_folder, finetuned):
    document, options = finetuned
    folder = document["run"]
    assert folder == "runs/xrays-tiny-clip-contrastive"
    predicted = run("predict", folder, image_folder / "image-000.png", "--json")
    assert predicted.code == 0, predicted.stderr
    assert 0 <= predicted.json[0]["probabilities"]["Opacity"] <= 1
    extracted = run("extract", "--model", folder, *options, "--json")
    assert extracted.code == 0, extracted.stderr
    assert extracted.json[0]["path"] == "cache/xrays/xrays-tiny-clip-contrastive.h5"
    for command in (["zero-shot"], ["train-head", "--head", "weighted_sum"]):
        outcome = run(*command, "--n-bootstrap", 0)
        assert outcome.code == 0, outcome.stderr


def test_result_is_evaluated_on_unseen_images_only(run, image_folder, finetuned, tmp_path):
    document, options = finetuned
    folder = document["run"]
    assert run("extract", "--model", folder, *options).code == 0
    evaluated = run("evaluate", folder, "--n-bootstrap", 0, "--json")
    assert evaluated.code == 0, evaluated.stderr
    expected = document["per_label"]["Opacity"]["auroc"]
    # The cache holds float16.
    assert evaluated.json["per_label"]["Opacity"]["auroc"] == pytest.approx(expected, abs=0.03)
    refused = run("evaluate", folder, "--split", "all")
    assert refused.code == 2
    assert "was trained on 46 of the 60 images of xrays" in refused.stderr
    # Another split makes training images test images.
    table = (
        (image_folder / "xrays.csv").read_text().replace("train", "swap").replace("test", "train")
    )
    (image_folder / "swapped").mkdir(exist_ok=True)
    (image_folder / "swapped/xrays.csv").write_text(table.replace("swap", "test"))
    swapped = [
        *("--dataset", "csv", "--data-root", image_folder / "swapped/xrays.csv"),
        *("--images-root", image_folder, *options[4:]),
    ]
    outcome = run("extract", "--model", folder, *swapped, "--cache", tmp_path / "other")
    assert outcome.code == 2
    assert "trained on 36 of the 36 images" in outcome.stderr
    assert not list((tmp_path / "other").rglob("*.h5*"))


def test_random_weights_need_no_checkpoint_and_result_in_one(
    run, tiny_clip, extract_options, tmp_path
):
    folder = tmp_path / "architecture"
    shutil.copytree(tiny_clip, folder)
    (folder / "model.safetensors").unlink()
    arguments = [
        *("finetune", "--model", folder, *extract_options, "--objective", "bce"),
        *("--epochs", 1, "--batch-size", 12, "--n-bootstrap", 0),
    ]
    refused = run(*arguments)
    assert refused.code == 2
    assert "has no weights" in refused.stderr
    outcome = run(*arguments, "--init", "random", "--json")
    assert outcome.code == 0, outcome.stderr
    config = json.loads((tmp_path / outcome.json["run"] / "config.json").read_text())
    assert (config["model"], config["settings"]["init"]) == ("architecture", "random")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["xrays-architecture-bce"]
    assert run("predict", outcome.json["run"], tmp_path / "no.png").code == 2


def test_adapters_result_in_a_normal_encoder(run, tiny_clip, extract_options):
    outcome = run(
        *("finetune", "--model", tiny_clip, *extract_options, "--objective", "bce"),
        *("--trainable", "lora-2", "--epochs", 1, "--batch-size", 12, "--n-bootstrap", 0, "--json"),
    )
    assert outcome.code == 0, outcome.stderr
    extracted = run("extract", "--model", outcome.json["run"], *extract_options, "--json")
    assert extracted.code == 0, extracted.stderr
    assert extracted.json[0]["done"] == 60


def test_user_errors_are_explained_and_nothing_is_written(
    run, tiny_clip, tiny_pair, extract_options, tmp_path, monkeypatch
):
    monkeypatch.setenv("FEATURECACHE_MODELS", str(tiny_pair))
    for arguments, words in (
        (["--model", tiny_clip], "bce or contrastive"),
        (["--model", tiny_clip, "--objective", "bcee"], "did you mean bce"),
        (["--model", tiny_clip, "--recipe", "nih"], "did you mean nih-bce"),
        (["--model", "dinov2-small", "--objective", "contrastive"], "text tower"),
        (["--model", "dinov2-minilm", "--objective", "bce"], "dinov2-minilm"),
        (["--model", tiny_clip, "--objective", "bce", "--batch-size", 500], "36 training"),
        (["--model", tiny_clip, "--objective", "bce", "--trainable", "last-99"], "last-99"),
    ):
        outcome = run("finetune", *arguments, *extract_options)
        assert outcome.code == 2, (arguments, outcome.stderr)
        assert words in outcome.stderr
    assert not (tmp_path / "runs").exists()


def test_corrected_label_leaves_the_test_patients_of_the_cache(
    run, tiny_clip, image_folder, tmp_path
):
    """Was a split of its own, so that ``extract --model RUN`` was refused as a leak."""
    table = tmp_path / "xrays.csv"
    header, *lines = (image_folder / "xrays.csv").read_text().splitlines()
    columns = ("--label-column", "Opacity", "--patient-column", "patient")
    data = ("--data-root", table, "--images-root", image_folder, *columns, "--name", "clinic")

    def correct(row):
        """Exchange the value of Opacity in a row; return the split that would be drawn."""
        changed = lines.copy()
        if row is not None:
            *cells, opacity, rare = lines[row].split(",")
            changed[row] = ",".join([*cells, str(1 - int(opacity)), rare])
        table.write_text("\n".join([header, *changed]))
        drawn = fc.load_dataset(
            *("csv", table),
            images_root=image_folder,
            labels=["Opacity"],
            patient="patient",
            name="clinic",
        )
        return drawn.images["split"].to_numpy()

    before = correct(None)
    assert run("extract", "--model", tiny_clip, *data, "--cache", "caches").code == 0
    # Only some corrections change the draw.
    assert any((correct(row) != before).any() for row in range(60))
    tuned = run(
        *("finetune", "--model", tiny_clip, *data, "--objective", "bce", "--out", "tuned"),
        *("--trainable", "head", "--epochs", 1, "--batch-size", 12, "--n-bootstrap", 0),
        *("--cache", "caches"),
    )
    assert tuned.code == 0, tuned.stderr
    assert "Patients that were cached before keep their split" in " ".join(tuned.stderr.split())
    cached = fc.open_cache("caches")
    test = sorted(np.array(cached.ids)[cached.rows("test")])
    predictions = fc.load_run("tuned").predictions
    assert sorted(predictions.query("split == 'test'")["id"]) == test
    extracted = run("extract", "--model", "tuned", *data, "--cache", "caches", "--json")
    assert extracted.code == 0, extracted.stderr
    cache = extracted.json[0]["path"]
    head = run("train-head", "--head", "linear", "--cache", cache, "--out", "head", "--no-controls")
    assert head.code == 0, head.stderr
    predictions = fc.load_run("head").predictions
    assert sorted(predictions.query("split == 'test'")["id"]) == test
