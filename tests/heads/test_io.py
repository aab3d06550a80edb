"""A head's run folder: whole, readable, and refused when it is not."""

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from featurecache.errors import RunError, UsageError
from featurecache.heads import io as saving
from featurecache.heads.config import HeadConfig
from featurecache.heads.experiment import run_experiment
from featurecache.heads.fit import predict_probabilities
from featurecache.heads.io import read_head, save_head
from featurecache.heads.registry import HEADS
from featurecache.provenance import read_provenance


@pytest.fixture(params=sorted(HEADS))
def any_head(request, aligned_cache, tmp_path):
    return saved(aligned_cache, tmp_path, head=request.param)


@pytest.fixture
def run(cache, tmp_path) -> Path:
    return saved(cache, tmp_path)[0]


def saved(cache, tmp_path, *, head="concat"):
    config = HeadConfig(head=head, seed=4)
    if HEADS[head].has_epochs:
        config = dataclasses.replace(config, hidden=(8, 4), epochs=2, batch_size=32)
    experiment = run_experiment(cache, config, n_bootstrap=0, controls=False)
    save_head(tmp_path / "runs" / head, cache, experiment, seeds=1)
    return tmp_path / "runs" / head, experiment


def rewrite(path, change):
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_a_saved_head_predicts_bit_for_bit_the_same(any_head, cache):
    folder, experiment = any_head
    module = read_head(folder).module
    assert not module.training
    assert np.array_equal(predict_probabilities(module, cache.embedding), experiment.probability)


def test_a_saved_head_knows_what_it_was_made_of(any_head, cache):
    folder, experiment = any_head
    head = read_head(folder)
    assert head.path == folder
    assert head.config == experiment.head.config
    assert head.labels == ("Mass", "Effusion", "Nodule")
    assert [(one.model, one.dim) for one in head.encoders] == [("toy-encoder", 12)]
    assert head.encoders[0].description == cache.header.encoder_spec
    per_label = experiment.metrics["per_label"]
    assert head.thresholds == tuple(per_label[name]["threshold"] for name in head.labels)


def test_a_run_folder_holds_its_files(run):
    names = {
        *("config.json", "head.safetensors", "history.csv", "metrics.json", "predictions.csv"),
        "provenance.json",
    }
    assert {path.name for path in run.iterdir()} == names
    assert [path.name for path in run.parent.iterdir()] == [run.name]


def test_the_config_holds_what_is_needed_to_repeat_the_run(run, cache):
    config = json.loads((run / "config.json").read_text())
    settings = config["settings"]
    assert HeadConfig(**{**settings, "hidden": tuple(settings["hidden"])}).seed == 4
    assert config["cache"]["fingerprint"] == cache.fingerprint
    assert config["prompts"] == {"name": "toy", "fingerprint": "fingerprint of toy"}
    assert (config["seeds"], config["n_train"]) == (1, 160)
    assert {"featurecache", "torch", "numpy", "python"} <= set(config["versions"])


def test_a_head_has_seen_what_it_and_its_encoder_learned_from(run, cache):
    held_out = set(cache.ids[cache.rows("test")])
    found = read_provenance(run).trained_on
    assert found == {
        "others": {"a.png", "b.png"},
        "toys": set(cache.ids) - held_out,
    }


def test_a_head_without_text_names_no_prompts(cache, tmp_path):
    folder, _ = saved(cache, tmp_path, head="baseline")
    assert json.loads((folder / "config.json").read_text())["prompts"] is None


def test_predictions_are_those_of_validation_and_test(any_head, cache):
    folder, experiment = any_head
    with (folder / "predictions.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    rows = [
        *np.flatnonzero(cache.splits == "val"),
        *np.flatnonzero(cache.splits == "test"),
    ]
    assert [line["id"] for line in lines] == cache.ids[rows].tolist()
    assert [line["patient"] for line in lines] == cache.patients[rows].tolist()
    assert [line["split"] for line in lines] == ["val"] * 60 + ["test"] * 80
    for column, name in enumerate(cache.labels.names):
        p = [float(line[f"{name} probability"]) for line in lines]
        assert p == experiment.probability[rows, column].tolist()
        truth = ["" if value < 0 else str(value) for value in cache.labels.values[rows, column]]
        assert [line[f"{name} truth"] for line in lines] == truth
        assert "" in truth


def test_the_metrics_and_history_files_are_those_of_the_experiment(any_head):
    folder, experiment = any_head
    assert json.loads((folder / "metrics.json").read_text()) == experiment.metrics
    history = folder / "history.csv"
    if not experiment.head.history:
        assert not history.exists()
        return
    with history.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert lines == [
        {name: str(value) for name, value in dataclasses.asdict(line).items()}
        for line in experiment.head.history
    ]


def test_a_run_is_never_written_over_another(cache, tmp_path):
    folder, experiment = saved(cache, tmp_path)
    before = (folder / "config.json").read_bytes()
    with pytest.raises(UsageError, match="already exists"):
        save_head(folder, cache, experiment, seeds=1)
    assert (folder / "config.json").read_bytes() == before


@pytest.mark.parametrize("step", ["write_config", "write_predictions", "write_history"])
def test_nothing_is_left_behind_when_saving_fails(cache, tmp_path, monkeypatch, step):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saving, step, full)
    with pytest.raises(OSError, match="No space left"):
        saved(cache, tmp_path)
    assert list((tmp_path / "runs").iterdir()) == []


def test_nothing_is_left_behind_when_the_weights_cannot_be_written(cache, tmp_path, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("safetensors.torch.save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        saved(cache, tmp_path)
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(RunError, match=r"no run folder at .*nowhere.*train-head"):
        read_head(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["config.json", "head.safetensors"])
def test_a_missing_file_is_named(run, name):
    (run / name).unlink()
    with pytest.raises(RunError, match=f"{run} lacks {name}"):
        read_head(run)


@pytest.mark.parametrize("kept", [0, 5, 200])
def test_weights_cut_short_are_refused(run, kept):
    path = run / "head.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(RunError, match=rf"{path} is damaged"):
        read_head(run)


@pytest.mark.parametrize(
    "content", [b"", b'{"format": "featurecache-run"', b"\xff\xfe", b"[1]", b"{}"]
)
def test_a_damaged_config_is_refused(run, content):
    path = run / "config.json"
    path.write_bytes(content)
    with pytest.raises(RunError, match=f"{path}"):
        read_head(run)


def test_a_newer_run_is_refused_with_the_way_out(run):
    rewrite(run / "config.json", lambda config: config.update(version=2))
    with pytest.raises(RunError, match=r"run version 2.*pip install --upgrade featurecache"):
        read_head(run)


def test_a_run_of_another_kind_is_refused(run):
    rewrite(run / "config.json", lambda config: config.update(kind="zero-shot"))
    with pytest.raises(RunError, match=f"{run} is a run of kind 'zero-shot', expected 'head'"):
        read_head(run)


CONTRADICTIONS = {
    "no settings": lambda config: config.pop("settings"),
    "a setting of the future": lambda config: config["settings"].update(colour="red"),
    "a head of the future": lambda config: config["settings"].update(head="transformer"),
    "another head": lambda config: config["settings"].update(head="baseline"),
    "a setting out of range": lambda config: config["settings"].update(dropout=2.0),
    "other sizes": lambda config: config["settings"].update(hidden=[16, 4]),
    "sizes no list": lambda config: config["settings"].update(hidden="8,4"),
    "a label too few": lambda config: config["labels"].pop(),
    "no thresholds": lambda config: config.pop("thresholds"),
    "a label without threshold": lambda config: config["thresholds"].pop("Mass"),
    "a threshold no number": lambda config: config["thresholds"].update(Mass="high"),
    "another dimension": lambda config: config["cache"].update(dim=13),
    "no cache": lambda config: config.pop("cache"),
    "no encoder": lambda config: config["cache"].pop("spec"),
    "an encoder no table": lambda config: config["cache"].update(spec="vit"),
}


@pytest.mark.parametrize("contradiction", CONTRADICTIONS)
def test_a_run_that_contradicts_itself_is_refused(run, contradiction):
    rewrite(run / "config.json", CONTRADICTIONS[contradiction])
    with pytest.raises(RunError, match=f"{run} contradicts itself"):
        read_head(run)


@pytest.mark.parametrize("key", ["settings", "cache"])
def test_a_config_of_another_shape_is_refused(run, key):
    rewrite(run / "config.json", lambda config: config.update({key: [1]}))
    with pytest.raises(RunError, match=rf"config\.json cannot be read: {key}: "):
        read_head(run)


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
        read_head(run)


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config["settings"].update(hidden=[10**9, 10**9]),
        lambda config: config["cache"].update(dim=10**9),
        lambda config: config.update(labels=[str(n) for n in range(100_000)]),
    ],
)
def test_sizes_that_the_weights_do_not_have_take_no_memory(run, change):
    rewrite(run / "config.json", change)
    with pytest.raises(RunError, match=r"contradicts itself.*asks for the sizes"):
        read_head(run)


def test_weights_that_are_not_finite_are_refused(run):
    state = load_file(run / "head.safetensors")
    state["output.bias"][0] = torch.nan
    save_file(state, run / "head.safetensors")
    with pytest.raises(RunError, match=r"output\.bias is not finite"):
        read_head(run)


def test_a_side_of_an_empty_tensor_is_no_size(run):
    state = load_file(run / "head.safetensors")
    save_file({**state, "wide": torch.zeros(10**9, 0)}, run / "head.safetensors")
    rewrite(run / "config.json", lambda config: config["cache"].update(dim=10**9))
    with pytest.raises(RunError, match="asks for the sizes"):
        read_head(run)
