"""``extract`` and ``finetune`` do the same on the command line and in Python."""

from pathlib import Path

import numpy as np
import pytest

import featurecache as fc


@pytest.fixture
def dataset(image_folder: Path) -> fc.Dataset:
    return fc.load_dataset(
        image_folder / "xrays.csv",
        labels=["Opacity", "Rare"],
        patient="patient",
        split="split",
        view="view",
    )


def test_extract_makes_the_same_cache(run, dataset, tiny_clip, extract_options):
    (summary,) = run("extract", "--model", tiny_clip, *extract_options, "--json").json
    by_command = fc.open_cache(summary["path"])
    by_function = fc.extract(dataset, tiny_clip, cache_dir="other")
    assert by_function.path == Path("other/xrays/tiny-clip.h5")
    assert by_function.header == by_command.header
    assert by_function.fingerprint == by_command.fingerprint
    np.testing.assert_array_equal(by_function.embedding, by_command.embedding)
    assert list(by_function.texts) == list(by_command.texts) == ["signs"]
    # Either continues what the other made.
    again = run("extract", "--model", tiny_clip, *extract_options, "--cache", "other", "--json")
    assert (again.json[0]["done"], again.json[0]["written"]) == (0, False)


def test_finetune_makes_the_same_run(run, dataset, tiny_clip, extract_options):
    options = ["--epochs", 1, "--batch-size", 12, "--n-bootstrap", 20, "--trainable", "last-1"]
    outcome = run(
        *("finetune", "--model", tiny_clip, *extract_options, "--objective", "bce"),
        *(*options, "--json"),
    )
    assert outcome.code == 0, outcome.stderr
    by_command = fc.load_run(outcome.json["run"])
    by_function = fc.finetune(
        dataset,
        tiny_clip,
        objective="bce",
        epochs=1,
        batch_size=12,
        n_bootstrap=20,
        trainable="last-1",
        out="runs/other",
    )
    assert by_command.path == Path("runs/xrays-tiny-clip-bce")
    assert by_function.metrics == by_command.metrics
    assert by_function.config == by_command.config
    assert by_function.predictions.equals(by_command.predictions)
    assert by_function.model.labels == ("Opacity", "Rare")
