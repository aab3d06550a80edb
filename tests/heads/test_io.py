"""Run folders of heads: what they hold, and damaged ones."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from featurecache.errors import RunError, UsageError
from featurecache.heads.config import HeadConfig
from featurecache.heads.io import load_model
from featurecache.heads.registry import HEADS
from featurecache.heads.train import train_head
from featurecache.metrics.thresholds import NOT_CHOSEN
from featurecache.provenance.records import ImageRecords
from featurecache.runs.run import load_run
from featurecache.store.records import Labels, to_utf8
from tests.heads.head_names import VECTOR_HEADS


def train(cache, head="concat"):
    settings = {"hidden": (8, 4), "epochs": 2, "batch_size": 32} if HEADS[head].has_epochs else {}
    return train_head(cache, head, seed=4, n_bootstrap=0, controls=False, **settings)


@pytest.fixture(scope="module", params=sorted(VECTOR_HEADS))
def saved(request, aligned_cache, tmp_path_factory):
    """Return a run of any head, and the folder that it was saved to."""
    run = train(aligned_cache, request.param)
    return run, run.save(tmp_path_factory.mktemp("runs") / request.param)


@pytest.fixture(scope="module")
def trained(cache):
    return train(cache)


@pytest.fixture
def run(trained, tmp_path) -> Path:
    return trained.save(tmp_path / "runs" / "concat")


def rewrite(path, change):
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_loaded_head_predicts_bit_for_bit_the_same(saved, cache):
    run, folder = saved
    model = load_run(folder).model
    assert not model.module.training
    expected = run.model.probabilities(cache.embedding)
    assert np.array_equal(model.probabilities(cache.embedding), expected)


def test_loaded_head_knows_what_it_was_trained_on(saved, cache):
    run, folder = saved
    model = load_run(folder).model
    assert model.config == run.model.config
    assert model.labels == ("Mass", "Effusion", "Nodule")
    assert [(encoder.name, encoder.dim) for encoder in model.encoders] == [("toy-encoder", 12)]
    assert model.encoder_specs() == [cache.header.encoder_spec]
    per_label = run.metrics.per_label
    assert model.thresholds == tuple(per_label[name].threshold for name in model.labels)


def test_run_folder_holds_its_files(run):
    names = {
        *("config.json", "head.safetensors", "history.csv", "metrics.json", "predictions.csv"),
        "provenance.json",
    }
    assert {path.name for path in run.iterdir()} == names
    assert [path.name for path in run.parent.iterdir()] == [run.name]


def test_config_holds_what_is_needed_to_repeat_the_run(run, cache):
    config = json.loads((run / "config.json").read_text())
    assert HeadConfig(**config["settings"]).seed == 4
    assert config["cache"]["fingerprint"] == cache.fingerprint
    assert config["prompts"] == {"name": "toy", "fingerprint": "fingerprint of toy"}
    assert (config["seeds"], config["n_train"]) == (1, 160)
    assert {"featurecache", "torch", "numpy", "python"} <= set(config["versions"])


def test_head_records_the_training_images_of_itself_and_its_encoder(run, cache):
    assert load_run(run).provenance.trained_on == {
        "others": ImageRecords.of("others", ["a.png", "b.png"]),
        "toys": cache.records(np.flatnonzero(cache.splits != "test"))[0],
    }


def test_predictions_are_those_of_validation_and_test(saved, cache):
    run, folder = saved
    table = pd.read_csv(folder / "predictions.csv")
    rows = np.concatenate([np.flatnonzero(cache.splits == split) for split in ("val", "test")])
    assert table["id"].tolist() == cache.ids[rows].tolist()
    assert table["patient"].tolist() == cache.patients[rows].tolist()
    assert table["split"].tolist() == ["val"] * 60 + ["test"] * 80
    p = run.model.probabilities(cache.embedding)[rows]
    for column, name in enumerate(cache.labels.names):
        np.testing.assert_allclose(table[f"{name} probability"], p[:, column], rtol=1e-15)
        truth = cache.labels.values[rows, column]
        assert table[f"{name} truth"].fillna(-1).tolist() == truth.tolist()
        assert (truth < 0).any()


def test_history_is_that_of_the_training(saved):
    run, folder = saved
    if not run.history:
        assert not (folder / "history.csv").exists()
        return
    assert load_run(folder).history == [
        {name: str(value) for name, value in line.items()} for line in run.history
    ]


def test_existing_folder_is_never_overwritten(trained, tmp_path):
    folder = trained.save(tmp_path / "run")
    before = (folder / "config.json").read_bytes()
    with pytest.raises(UsageError, match="already exists"):
        trained.save(folder)
    assert (folder / "config.json").read_bytes() == before


def test_nothing_is_left_behind_when_weights_cannot_be_written(trained, tmp_path, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("safetensors.torch.save_file", interrupt)
    with pytest.raises(KeyboardInterrupt):
        trained.save(tmp_path / "runs" / "concat")
    assert list((tmp_path / "runs").iterdir()) == []


def test_missing_folder_is_refused(tmp_path):
    with pytest.raises(RunError, match=r"no run folder at .*nowhere"):
        load_model(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["config.json", "head.safetensors"])
def test_missing_file_is_named(run, name):
    (run / name).unlink()
    with pytest.raises(RunError, match=f"{run} lacks {name}"):
        load_model(run)


@pytest.mark.parametrize("kept", [0, 5, 200])
def test_truncated_weights_are_refused(run, kept):
    path = run / "head.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(RunError, match=rf"{path} is damaged"):
        load_model(run)


@pytest.mark.parametrize(
    "content", [b"", b'{"format": "featurecache-run"', b"\xff\xfe", b"[1]", b"{}"]
)
def test_damaged_config_is_refused(run, content):
    path = run / "config.json"
    path.write_bytes(content)
    with pytest.raises(RunError, match=f"{path}"):
        load_model(run)


def test_newer_run_is_refused_with_advice(run):
    rewrite(run / "config.json", lambda config: config.update(version=2))
    with pytest.raises(RunError, match=r"run version 2.*pip install --upgrade featurecache"):
        load_model(run)


def test_run_of_another_kind_is_refused(run):
    rewrite(run / "config.json", lambda config: config.update(kind="zero-shot"))
    with pytest.raises(RunError, match=f"{run} is a run of kind 'zero-shot', expected 'head'"):
        load_model(run)


CONTRADICTIONS = {
    "no settings": lambda config: config.pop("settings"),
    "unknown setting": lambda config: config["settings"].update(color="red"),
    "unknown head": lambda config: config["settings"].update(head="transformer"),
    "another head": lambda config: config["settings"].update(head="baseline"),
    "setting out of range": lambda config: config["settings"].update(dropout=2.0),
    "other hidden sizes": lambda config: config["settings"].update(hidden=[16, 4]),
    "hidden sizes no list": lambda config: config["settings"].update(hidden="8,4"),
    "missing label": lambda config: config["labels"].pop(),
    "no thresholds": lambda config: config.pop("thresholds"),
    "missing threshold": lambda config: config["thresholds"].pop("Mass"),
    "threshold no number": lambda config: config["thresholds"].update(Mass="high"),
    "another dimension": lambda config: config["cache"].update(dim=13),
    "no cache": lambda config: config.pop("cache"),
    "no encoder": lambda config: config["cache"].pop("spec"),
    "encoder no table": lambda config: config["cache"].update(spec="vit"),
}


@pytest.mark.parametrize("contradiction", CONTRADICTIONS)
def test_run_that_contradicts_itself_is_refused(run, contradiction):
    rewrite(run / "config.json", CONTRADICTIONS[contradiction])
    with pytest.raises(RunError, match=f"{run} contradicts itself"):
        load_model(run)


@pytest.mark.parametrize("key", ["settings", "cache"])
def test_config_of_another_shape_is_refused(run, key):
    rewrite(run / "config.json", lambda config: config.update({key: [1]}))
    with pytest.raises(RunError, match=rf"config\.json is damaged \({key}: "):
        load_model(run)


@pytest.mark.parametrize("change", ["missing", "extra", "shape", "no text"])
def test_weights_that_do_not_fit_are_refused(run, change):
    state = load_file(run / "head.safetensors")
    if change == "missing":
        del state["output.bias"]
    elif change == "extra":
        state["output.scale"] = torch.ones(3)
    elif change == "shape":
        state["output.bias"] = torch.zeros(4)
    else:
        del state["text_projection.output"]
    save_file(state, run / "head.safetensors")
    with pytest.raises(RunError, match=f"{run} contradicts itself"):
        load_model(run)


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config["settings"].update(hidden=[10**9, 10**9]),
        lambda config: config["cache"].update(dim=10**9),
        lambda config: config.update(labels=[str(n) for n in range(100_000)]),
    ],
)
def test_sizes_beyond_those_of_the_weights_allocate_nothing(run, change):
    rewrite(run / "config.json", change)
    with pytest.raises(RunError, match=r"contradicts itself.*asks for the sizes"):
        load_model(run)


def test_weights_that_are_not_finite_are_refused(run):
    state = load_file(run / "head.safetensors")
    state["output.bias"][0] = torch.nan
    save_file(state, run / "head.safetensors")
    with pytest.raises(RunError, match=r"output\.bias is not finite"):
        load_model(run)


def test_dimension_of_an_empty_tensor_is_no_size(run):
    state = load_file(run / "head.safetensors")
    save_file({**state, "wide": torch.zeros(10**9, 0)}, run / "head.safetensors")
    rewrite(run / "config.json", lambda config: config["cache"].update(dim=10**9))
    with pytest.raises(RunError, match="asks for the sizes"):
        load_model(run)


def test_external_validation_leaves_out_what_the_run_never_learned(cache, tmp_path):
    """Its metrics are undefined and in no average, whatever the other data set holds of it."""
    values = cache.labels.values.copy()
    values[cache.rows("train"), 2] = 0
    some = cache.rows("train")[:7]
    trained_on = {cache.header.collection: cache.records(some)[0]}
    to_train = replace(
        cache,
        labels=Labels(cache.labels.names, values),
        header=replace(cache.header, trained_on=trained_on),
    )
    folder = train(to_train).save(tmp_path / "runs" / "rare")
    other = another_hospital(cache)
    external = load_run(folder).evaluate(other, n_bootstrap=20)
    metrics = external.metrics
    assert metrics.per_label["Nodule"].n_positive >= 5
    assert metrics.per_label["Nodule"].auroc is None
    assert metrics.per_label["Nodule"].confusion is None
    assert metrics.macro_labels == ["Mass", "Effusion"]
    assert metrics.calibration.labels == ["Mass", "Effusion"]
    scored = [metrics.per_label[name].auroc for name in ("Mass", "Effusion")]
    assert metrics.macro.auroc == pytest.approx(np.mean(scored))
    assert any("Nodule was not learned by" in warning for warning in external.warnings)
    # The encoder has seen images that the head was trained on: a property of the head.
    (warning,) = [text for text in external.warnings if "itself was trained" in text]
    assert warning.startswith("in the training of rare, toy-encoder itself was trained on 7")


def test_external_validation_ignores_an_encoder_that_saw_images_that_are_not_used(cache, trained):
    """Training images of the other data set are not what the head was trained on."""
    other = another_hospital(cache)
    seen = {other.header.collection: other.records(other.rows("train"))[0]}
    other = replace(other, header=replace(other.header, trained_on=seen))
    external = trained.evaluate(other, n_bootstrap=0)
    assert not any("itself was trained" in text for text in external.warnings)


def test_a_threshold_that_could_not_be_chosen_is_still_the_default_elsewhere(cache, tmp_path):
    """Was "f1 in training", which had no validation positives to choose it on."""
    values = cache.labels.values.copy()
    values[cache.rows("val"), 2] = 0
    run = train(replace(cache, labels=Labels(cache.labels.names, values)))
    folder = run.save(tmp_path / "runs" / "rare")
    metrics = load_run(folder).evaluate(another_hospital(cache), n_bootstrap=0).metrics
    nodule = metrics.per_label["Nodule"]
    assert (nodule.threshold, nodule.threshold_source) == (0.5, NOT_CHOSEN)
    assert not nodule.threshold_chosen
    assert metrics.per_label["Mass"].threshold_source == "f1 on validation of the training run"
    assert metrics.per_label["Mass"].threshold == run.metrics.per_label["Mass"].threshold


def another_hospital(cache):
    """Return the same embeddings and labels as those of other images and patients."""
    n = len(cache.images)
    return replace(
        cache,
        header=replace(cache.header, collection="elsewhere"),
        images=replace(
            cache.images,
            id=to_utf8([f"elsewhere {row}" for row in range(n)]),
            sha256=to_utf8([f"{n + row:064x}" for row in range(n)]),
            patient=to_utf8([f"elsewhere {patient}" for patient in cache.patients]),
        ),
    )
