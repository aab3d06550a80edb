"""Trainings as tracking tools have them, read back by their own libraries."""

import csv
import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import featurecache as fc
from featurecache.cli.app import app
from featurecache.errors import FeaturecacheError, FeaturecacheWarning, UsageError
from featurecache.tracking.tracker import open_trackers

LOSSES = ("learning_rate", "train_loss", "val_loss")


# MLflow does it with SQLAlchemy 2.1.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")


@pytest.fixture(scope="module")
def cache(data, tmp_path_factory) -> fc.Cache:
    return fc.extract(data, "tiny", precision="exact", cache_dir=tmp_path_factory.mktemp("cache"))


def history(folder: Path) -> list[dict[str, str]]:
    with (folder / "history.csv").open() as file:
        return list(csv.DictReader(file))


def columns(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The epochs and values of each column of the file, in TensorBoard's 32 bits."""
    return {
        name: [(int(line["epoch"]), float(np.float32(line[name]))) for line in history(folder)]
        for name in LOSSES
    }


def check_scores(scores: dict[str, float], folder: Path) -> None:
    """Check scores against ``metrics.json``, in 32 bits."""
    document = json.loads((folder / "metrics.json").read_text())
    expected = {}
    for name in ("macro", "micro"):
        for metric, value in document[name].items():
            low, high = document["ci95"][name][metric] or (None, None)
            key = f"test/{name}_{metric}"
            expected |= {key: value, f"{key}_low": low, f"{key}_high": high}
    logged = {key: scores.get(key) for key in expected}
    assert logged == pytest.approx(expected, abs=1e-6)
    assert scores["test/micro_f1_low"] < scores["test/micro_f1"] < scores["test/micro_f1_high"]


def make_older(files: Path) -> None:
    """Date the event files of a folder back; their names count whole seconds."""
    for file in files.iterdir():
        file.rename(file.with_name(file.name.replace("tfevents.1", "tfevents.0")))


def test_a_head_is_logged_under_the_name_of_its_folder(cache, mlflow, events, tmp_path):
    out = tmp_path / "runs" / "first"
    arguments = [
        *("train-head", "--cache", cache.path, "--head", "baseline", "--epochs", 3, "--out", out),
        *(
            "--n-bootstrap",
            20,
            "--no-controls",
            "--log",
            "tensorboard",
            "--log",
            "mlflow",
            "--json",
        ),
    ]
    outcome = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.stderr
    assert json.loads(outcome.stdout)["run"] == str(out)
    assert len(history(out)) == 3

    board = events(out.parent / "tensorboard" / "first")
    assert {name: board.scalars[name] for name in LOSSES} == columns(out)
    check_scores({name: points[0][1] for name, points in board.scalars.items()}, out)
    assert '"head": "baseline"' in board.settings
    assert any(b"baseline" in content for content in board.hparams.values())

    experiment = mlflow.get_experiment_by_name("featurecache").experiment_id
    (run,) = mlflow.search_runs([experiment])
    assert (run.info.run_name, run.info.status) == ("first", "FINISHED")
    assert run.data.params["head"] == "baseline"
    assert run.data.params["dataset"] == "phantom"
    assert run.data.params["run"] == str(out)
    for name in LOSSES:
        points = mlflow.get_metric_history(run.info.run_id, name)
        assert [(p.step, p.value) for p in points] == [
            (int(line["epoch"]), float(line[name])) for line in history(out)
        ]
    check_scores(run.data.metrics, out)


@pytest.mark.parametrize(
    ("head", "options", "expected"),
    [
        ("baseline", {"ensemble": 2, "epochs": 2}, {f"val_loss/seed {i}": 2 for i in (0, 1)}),
        ("knn", {}, {"validation": 4}),
    ],
)
def test_members_and_candidates_are_series_of_their_own(
    cache, events, tmp_path, head, options, expected
):
    run = fc.train_head(cache, head, n_bootstrap=0, controls=False, log="tensorboard", **options)
    assert not (tmp_path / "tensorboard").exists()
    run.save(tmp_path / "run")
    scalars = events(tmp_path / "tensorboard" / "run").scalars
    assert {name: len(scalars[name]) for name in expected} == expected
    steps = [[step for step, _ in scalars[name]] for name in expected]
    assert steps == [list(range(1, number + 1)) for number in expected.values()]


def test_a_continued_finetuning_continues_its_log(data, mlflow, wandb_runs, events, tmp_path):
    out = tmp_path / "tuned"
    finetune = partial(
        *(fc.finetune, data, "tiny"),
        **{"objective": "bce", "trainable": "head", "epochs": 3, "batch_size": 16, "patience": 9},
        **{"n_bootstrap": 20, "out": out, "cache_dir": tmp_path, "learning_rate": 0.05},
        log=["tensorboard", "mlflow", "wandb"],
    )

    def stop(done, total, detail):
        if detail == "epoch 2":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(progress=stop)
    (run,) = mlflow.search_runs([mlflow.get_experiment_by_name("featurecache").experiment_id])
    assert run.info.status == "FAILED"
    make_older(tmp_path / "tensorboard" / "tuned")
    with pytest.warns(FeaturecacheWarning, match="wandb failed and ends here: the disk of the"):
        finetune()

    board = events(tmp_path / "tensorboard" / "tuned")
    assert {name: board.scalars[name] for name in LOSSES} == columns(out)
    assert len(history(out)) == 3
    check_scores({name: points[0][1] for name, points in board.scalars.items()}, out)

    (run,) = mlflow.search_runs([mlflow.get_experiment_by_name("featurecache").experiment_id])
    assert (run.info.run_name, run.info.status) == ("tuned", "FINISHED")
    assert run.data.params["objective"] == "bce"
    losses = mlflow.get_metric_history(run.info.run_id, "val_loss")
    assert [p.value for p in losses] == [float(line["val_loss"]) for line in history(out)]
    check_scores(run.data.metrics, out)

    first, second = wandb_runs
    assert first.arguments["resume"] is None
    assert first.arguments["config"]["objective"] == "bce"
    assert (first.arguments["name"], first.exit_code) == ("tuned", 1)
    assert [line["epoch"] for line in first.lines] == [1]
    assert (second.arguments["id"], second.arguments["resume"]) == ("made", "allow")
    assert [line["epoch"] for line in second.lines] == [2]
    assert not out.with_name("tuned.parts").exists()


def test_another_run_of_the_same_name_replaces_the_log(events, tmp_path):
    for loss in (1.0, 2.0):
        with open_trackers(["tensorboard"], tmp_path / "run", {"none": None, "ab": [1]}) as board:
            board.log_history([{"epoch": 1, "val_loss": loss}, {"epoch": 2, "val_loss": loss}])
            board.log_scores({"test/macro_auroc": loss})
        if loss == 1.0:
            make_older(tmp_path / "tensorboard" / "run")
    scalars = events(tmp_path / "tensorboard" / "run").scalars
    assert scalars == {"val_loss": [(1, 2.0), (2, 2.0)], "test/macro_auroc": [(0, 2.0)]}


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ("tensorbord", "unknown tracker 'tensorbord': did you mean tensorboard"),
        (
            ["absent"],
            r"logging to absent needs absent_library: pip install 'featurecache\[absent\]",
        ),
    ],
)
def test_a_missing_tool_is_reported_before_training(cache, data, monkeypatch, log, message):
    monkeypatch.setattr(
        "featurecache.tracking.tracker.TRACKERS",
        {"tensorboard": ("tensorboard", ""), "absent": ("absent_library", "")},
    )
    with pytest.raises(UsageError, match=message):
        fc.train_head(cache, "baseline", log=log)
    with pytest.raises(UsageError, match=message):
        fc.finetune(data, objective="bce", log=log)


def test_a_silent_server_does_not_cost_a_run(cache, wandb_runs, monkeypatch, tmp_path):
    def init(**_):
        raise sys.modules["wandb"].Error("no answer")

    monkeypatch.setattr(sys.modules["wandb"], "init", init)
    run = fc.train_head(cache, "prototype", n_bootstrap=0, controls=False, log="wandb")
    with pytest.warns(FeaturecacheWarning, match="logging to wandb failed: no answer"):
        run.save(tmp_path / "run")
    assert fc.load_run(tmp_path / "run").metrics == run.metrics
    with (
        pytest.raises(FeaturecacheError, match="logging to wandb failed: no answer"),
        open_trackers(["wandb"], tmp_path / "other", {}),
    ):
        pass


def test_a_damaged_state_is_reported(tmp_path):
    state = tmp_path / "tracking.json"
    state.write_text("{")
    with (
        pytest.raises(UsageError, match=r"tracking\.json is damaged: delete it"),
        open_trackers([], tmp_path / "run", {}, state=state),
    ):
        pass
