"""``finetune`` from the command line, and its result through every other command."""

import pytest


@pytest.fixture
def finetuned(run, tiny_clip, extract_options):
    options = [o for o in extract_options if o not in ("--label-column", "Rare")]
    options[4:4] = ["--label-column"]
    outcome = run(
        *("finetune", "--model", tiny_clip, *options, "--objective", "contrastive"),
        *("--epochs", 3, "--batch-size", 12, "--learning-rate", 0.002, "--draws", 20, "--json"),
    )
    assert outcome.code == 0, outcome.stderr
    return outcome.json, options


def test_the_result_goes_through_every_command(run, films, finetuned):
    document, options = finetuned
    folder = document["run"]
    assert folder == "runs/films-tiny-clip-contrastive"
    predicted = run("predict", folder, films / "film-000.png", "--json")
    assert predicted.code == 0, predicted.stderr
    assert 0 <= predicted.json[0]["probabilities"]["Opacity"] <= 1
    extracted = run("extract", "--model", folder, *options, "--json")
    assert extracted.code == 0, extracted.stderr
    assert extracted.json[0]["path"] == "cache/films/films-tiny-clip-contrastive.h5"
    for command in (["zero-shot"], ["train-head", "--head", "weighted_sum"]):
        outcome = run(*command, "--draws", 0)
        assert outcome.code == 0, outcome.stderr


def test_bad_input_is_refused_and_nothing_is_written(
    run, tiny_clip, tiny_pair, extract_options, tmp_path, monkeypatch
):
    monkeypatch.setenv("FEATURECACHE_MODELS", str(tiny_pair))
    for arguments, words in (
        (["--model", tiny_clip], "--objective bce or contrastive"),
        (["--model", tiny_clip, "--objective", "bcee"], "did you mean bce"),
        (["--model", tiny_clip, "--recipe", "nih"], "did you mean nih-bce"),
        (["--model", tiny_clip, "--objective", "contrastive"], "Rare is unknown"),
        (["--model", "dinov2-small", "--objective", "contrastive"], "text tower"),
        (["--model", "dinov2-minilm", "--objective", "bce"], "dinov2-minilm"),
        (["--model", tiny_clip, "--objective", "bce", "--batch-size", 500], "36 training"),
        (["--model", tiny_clip, "--objective", "bce", "--train", "last-99"], "last-99"),
    ):
        outcome = run("finetune", *arguments, *extract_options)
        assert outcome.code == 2, (arguments, outcome.stderr)
        assert words in outcome.stderr
    assert not (tmp_path / "runs").exists()
