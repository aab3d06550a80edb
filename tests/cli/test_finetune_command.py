"""The ``finetune`` command, and its result as input of the other commands."""

import json
import shutil

import pytest


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
