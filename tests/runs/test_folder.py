"""Run folders on disk: complete or absent, and safe to read from strangers."""

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featurecache.errors import RunError, UsageError
from featurecache.io.atomic import require_absent
from featurecache.metrics.metrics import (
    CurveMetrics,
    CurvePoint,
    RankingIntervals,
    RankingScores,
)
from featurecache.runs.folder import (
    free_folder,
    new_run,
    read_config,
    read_curve,
    read_history,
    read_metrics,
    write_config,
    write_history,
    write_json,
)
from featurecache.runs.predictions import read_predictions


def write_run(folder: Path, **changes: object) -> Path:
    """Write a run folder with a valid config.json; a change to None removes a key."""
    folder.mkdir()
    config = {"format": "featurecache-run", "version": 1, "kind": "head", "seed": 3, **changes}
    kept = {key: value for key, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept))
    return folder


# --- folders -----------------------------------------------------------------------------------


def test_a_free_folder_is_the_first_that_does_not_exist(tmp_path: Path) -> None:
    assert free_folder(tmp_path / "runs", "mlp") == tmp_path / "runs" / "mlp"
    (tmp_path / "mlp").mkdir()
    assert free_folder(tmp_path, "mlp") == tmp_path / "mlp-2"
    (tmp_path / "mlp-2").touch()  # a file is in the way as well
    (tmp_path / "mlp-4").mkdir()
    assert free_folder(tmp_path, "mlp") == tmp_path / "mlp-3"


def test_a_free_folder_has_a_name_that_can_be_written(tmp_path: Path) -> None:
    first = free_folder(tmp_path, "胸" * 100)
    with new_run(first):
        pass
    with new_run(free_folder(tmp_path, "胸" * 100)) as folder:
        assert folder.parent == tmp_path
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_run_never_overwrites_anything(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "run"
    target.mkdir() if kind == "folder" else target.touch()
    with pytest.raises(UsageError, match="run already exists: give another `out`"):
        require_absent(target)
    with pytest.raises(UsageError, match="exists: give another `path`"), new_run(target):
        pytest.fail("the body must not run: it may train for hours")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_run_is_written_completely_or_not_at_all(tmp_path: Path) -> None:
    def fail() -> None:
        with new_run(tmp_path / "runs" / "mlp") as folder:
            write_json(folder / "metrics.json", {"macro": {"f1": 0.5}})
            write_json(folder / "history.json", {"loss": float("nan")})

    with pytest.raises(ValueError, match="JSON"):
        fail()
    assert list((tmp_path / "runs").iterdir()) == []
    with new_run(tmp_path / "runs" / "mlp") as folder:
        write_json(folder / "metrics.json", {"macro": {"f1": 0.5}})
    assert [path.name for path in (tmp_path / "runs" / "mlp").iterdir()] == ["metrics.json"]


# --- documents ---------------------------------------------------------------------------------


def test_a_document_round_trips(tmp_path: Path) -> None:
    document = {"macro": {"f1": 0.1, "auroc": None}, "name": "Röntgen", "n": 3}
    write_json(tmp_path / "metrics.json", document)
    text = (tmp_path / "metrics.json").read_bytes().decode("utf-8")
    assert json.loads(text) == document
    assert "Röntgen" in text
    assert text.endswith("}\n")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), np.float64("nan")])
def test_nan_and_infinity_are_refused_and_nothing_is_written(tmp_path: Path, number: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "metrics.json", {"per_label": {"Mass": {"auroc": number}}})
    assert list(tmp_path.iterdir()) == []


def test_a_config_records_kind_settings_and_versions(tmp_path: Path) -> None:
    write_config(tmp_path, "head", {"head": "mlp", "seed": 3})
    config = json.loads((tmp_path / "config.json").read_text())
    assert config == {
        "format": "featurecache-run",
        "version": 1,
        "kind": "head",
        "head": "mlp",
        "seed": 3,
        "versions": {
            "python": platform.python_version(),
            "featurecache": version("featurecache"),
            "torch": version("torch"),
            "numpy": np.__version__,
            "scikit-learn": version("scikit-learn"),
        },
    }
    assert read_config(tmp_path, "head") == config


def test_a_config_is_read_when_its_files_exist(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "head.safetensors").touch()
    assert read_config(folder, "head", files=["head.safetensors"])["seed"] == 3


def test_a_missing_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no run folder at .*gone: train a head"):
        read_config(tmp_path / "gone", "head")
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"no run folder at .*file"):
        read_config(tmp_path / "file", "head")


def test_a_run_that_lacks_a_file_is_refused(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    with pytest.raises(RunError, match=r"run lacks head\.safetensors: restore it"):
        read_config(folder, "head", files=["head.safetensors"])
    (folder / "head.safetensors").mkdir()
    with pytest.raises(RunError, match=r"lacks head\.safetensors"):
        read_config(folder, "head", files=["head.safetensors"])
    (folder / "config.json").unlink()
    with pytest.raises(RunError, match=r"lacks config\.json"):
        read_config(folder, "head")


@pytest.mark.parametrize("text", [b"", b'{"format": ', b"\xff\xfe{}", b"\x00" * 40])
def test_a_damaged_config_is_refused(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "config.json").write_bytes(text)
    with pytest.raises(RunError, match=r"config\.json is damaged \(\S"):
        read_config(tmp_path, "head")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "another"}, "is not the config of a featurecache run"),
        ({"format": None}, "is not the config of a featurecache run"),
        ({"version": 2}, r"has run version 2, but this featurecache reads 1: .*upgrade"),
        ({"version": "1"}, "has run version '1', but this featurecache reads 1"),
        ({"version": None}, "has run version None"),
        ({"kind": "zero-shot"}, "is a run of kind 'zero-shot', expected 'head'"),
        ({"kind": None}, "is a run of kind None, expected 'head'"),
    ],
)
def test_a_config_of_another_format_version_or_kind_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(RunError, match=message):
        read_config(write_run(tmp_path / "run", **changes), "head")


@pytest.mark.parametrize("text", ["[]", "null", '"featurecache-run"'])
def test_a_config_that_is_not_an_object_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(RunError, match="is not the config of a featurecache run"):
        read_config(tmp_path, "head")


def test_a_history_and_a_curve_round_trip(tmp_path):
    intervals = RankingIntervals(auroc=(0.25, 0.75))
    scores = RankingScores(auroc=0.5, auprc=None)
    point = CurvePoint(macro=scores, ci95=intervals, seeds=[0.5], gain=None, labels=2)
    curve = CurveMetrics(n=9, n_patients=4, sizes=[16], labels=["a"], cells={"baseline": [point]})
    with new_run(tmp_path / "run") as folder:
        write_config(folder, "curve", {})
        write_json(folder / "curve.json", curve.to_json())
        write_history(folder, [{"epoch": 1, "val_loss": 0.5}, {"epoch": 2, "val_loss": 0.25}])
    read = read_curve(tmp_path / "run")
    assert read == curve
    assert read.cells["baseline"][0].macro.auroc_ci == (0.25, 0.75)
    assert read_history(tmp_path / "run") == [
        {"epoch": "1", "val_loss": "0.5"},
        {"epoch": "2", "val_loss": "0.25"},
    ]
    (tmp_path / "run" / "history.csv").unlink()
    assert read_history(tmp_path / "run") == []


# --- untrusted runs -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 100 + "1" + "}" * 100,
        '{"macro": NaN}',
        '{"macro": 1e999}',
        '{"n": 1' + "0" * 400 + "}",
        '{"n": 1' + "0" * 5000 + "}",
        '{"n": 1, "n": 2}',
    ],
)
@pytest.mark.parametrize("name", ["config.json", "metrics.json"])
def test_malicious_json_is_refused(tmp_path: Path, name: str, text: str) -> None:
    folder = write_run(tmp_path / "run")
    (folder / name).write_text(text)
    with pytest.raises(RunError, match=name.replace(".", r"\.")):
        read_metrics(folder)


READERS = {
    "config.json": read_metrics,
    "metrics.json": read_metrics,
    "predictions.csv": read_predictions,
    "history.csv": read_history,
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_links_out_of_a_run_and_pipes_are_refused(tmp_path: Path, name: str, kind: str) -> None:
    folder = write_run(tmp_path / "run")
    (tmp_path / "secret").write_text("{}")
    (folder / name).unlink(missing_ok=True)
    if kind == "link":
        (folder / name).symlink_to("../secret")
    else:
        os.mkfifo(folder / name)
    with pytest.raises(RunError, match=r"a link out of the run folder|lacks"):
        READERS[name](folder)
