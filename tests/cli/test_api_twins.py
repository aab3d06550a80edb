"""Each command and the public function behind it give the same result."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import featurecache as fc
from featurecache.retrieval.metrics import measure_retrieval


@dataclass(frozen=True)
class Workspace:
    """A data set, a cache of it and two runs; relative paths refer to its folder."""

    run: Any
    data: fc.Dataset
    data_options: tuple[object, ...]
    cache: fc.Cache

    def json(self, *arguments: object) -> Any:
        """Run a command that has to succeed, and return its JSON document."""
        outcome = self.run(*arguments, "--json")
        assert outcome.code == 0, outcome.stderr
        return outcome.json


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, isolate_commands):
    folder = tmp_path_factory.mktemp("twins")
    with pytest.MonkeyPatch.context() as patch:
        run = isolate_commands(patch, folder)
        data = fc.load_dataset("phantom", "phantom", n_images=80)
        cache = fc.extract(data, "tiny")
        for head in ("linear", "prototype"):
            controls = head == "prototype"  # whose training is fast
            fc.train_head(cache, head, controls=controls, n_bootstrap=20).save(f"runs/{head}")
        yield Workspace(run, data, ("--data-root", "phantom"), cache)


def as_json(document: Any) -> Any:
    """Return a document as JSON would have it: tuples as lists, numbers of NumPy as Python's."""
    return json.loads(json.dumps(document, default=lambda value: value.item()))


def without(document: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key not in keys}


def test_extract_some_labels(workspace):
    names = ("Mass", "Edema")
    given = (argument for name in names for argument in ("--only-labels", name))
    command = ("extract", *workspace.data_options, *given, "--cache", "some-labels")
    (summary,) = workspace.json(*command)
    by_command = fc.open_cache(summary["path"])
    data = fc.load_dataset("phantom", "phantom", only_labels=names)
    by_python = fc.extract(data, "tiny", cache_dir="some-labels-python")
    assert by_command.labels.names == by_python.labels.names
    assert set(by_command.labels.names) == set(names)
    pd.testing.assert_frame_equal(by_command.to_pandas(), by_python.to_pandas())


def test_extract(workspace):
    (summary,) = workspace.json("extract", *workspace.data_options, "--cache", "by-command")
    by_command = fc.open_cache(summary["path"])
    by_python = fc.extract(("phantom", "phantom"), "tiny", cache_dir="by-python")
    assert by_command.header.encoder_spec == by_python.header.encoder_spec
    pd.testing.assert_frame_equal(by_command.to_pandas(), by_python.to_pandas())
    texts = by_command.text_embeddings("signs"), by_python.text_embeddings("signs")
    np.testing.assert_array_equal(*texts)


def test_train_head(workspace):
    options = ("--head", "weighted_sum", "--seeds", 2, "--epochs", 3, "--n-bootstrap", 20)
    document = workspace.json("train-head", *options, "--out", "runs/command")
    run = fc.train_head(workspace.cache, "weighted_sum", seeds=2, epochs=3, n_bootstrap=20)
    assert without(document, "run") == as_json(run.metrics.to_json())
    by_command = fc.load_run("runs/command")
    pd.testing.assert_frame_equal(by_command.predictions, run.predictions)
    assert by_command.warnings == run.warnings


def test_zero_shot(workspace):
    options = ("--prevalence", 0.1, "--operating-point", "youden")
    document = workspace.json("zero-shot", "--n-bootstrap", 20, "--out", "runs/zero", *options)
    run = fc.zero_shot(workspace.cache, n_bootstrap=20, prevalence=0.1, operating_point="youden")
    assert without(document, "scoring", "prompts") == as_json(run.metrics.to_json())
    assert document["scoring"] == run.config["scoring"]
    pd.testing.assert_frame_equal(fc.load_run("runs/zero").predictions, run.predictions)


def test_zero_shot_by_prompt(workspace):
    document = workspace.json("zero-shot", "--prompt-sets", "--n-bootstrap", 20, "--out", "p.csv")
    comparison = fc.compare_prompts(workspace.cache, n_bootstrap=20)
    assert document == as_json(comparison.to_json())
    written = pd.read_csv("p.csv").astype({"reversed": bool})
    expected = comparison.to_pandas().replace({None: np.nan})
    pd.testing.assert_frame_equal(written, expected, check_dtype=False)
    outcome = workspace.run("zero-shot", "--prompt-sets", "--prevalence", 0.1)
    assert outcome.code == 2
    assert "--prevalence and" in outcome.stderr


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        (("large heart",), {"text": "large heart"}),
        (("--label", "Effusion", "--split", "test"), {"label": "Effusion", "split": "test"}),
    ],
)
def test_retrieve(workspace, options, arguments):
    document = workspace.json("retrieve", *options, "--top", 5)
    images = fc.retrieve(workspace.cache, top=5, **arguments)
    assert document["images"] == as_json(images.to_dict("records"))


def test_retrieve_without_a_query(workspace):
    document = workspace.json("retrieve", "--top", 5, "--n-bootstrap", 20)
    metrics = measure_retrieval(workspace.cache, k=5, n_bootstrap=20)
    assert document == as_json(metrics.to_json())


def test_predict(workspace):
    images = list(workspace.data.files().values())[:3]
    document = workspace.json("predict", "runs/linear", *images)
    table = fc.load_run("runs/linear").predict(images)
    assert [prediction["image"] for prediction in document] == table["image"].tolist()
    for prediction, (_, row) in zip(document, table.iterrows(), strict=True):
        for label, probability in prediction["probabilities"].items():
            assert probability == row[f"{label} probability"]
            assert (probability >= prediction["thresholds"][label]) == row[f"{label} positive"]


def test_evaluate(workspace):
    options = ("--by", "sex,view", "--negatives", "healthy", "--prevalence", "Mass=0.1")
    document = workspace.json("evaluate", "runs/linear", "--n-bootstrap", 20, *options)
    run = fc.load_run("runs/linear").evaluate(
        workspace.cache,
        n_bootstrap=20,
        by=["sex", "view"],
        negatives="healthy",
        prevalence={"Mass": 0.1},
    )
    assert document == as_json(run.metrics.to_json())


def test_compare(workspace):
    runs = ["runs/linear", "runs/prototype"]
    document = workspace.json("compare", *runs)
    assert document == as_json(fc.compare(runs).to_json())


def test_learning_curve(workspace):
    options = ("--head", "knn", "--head", "prototype", "--sizes", "16,32", "--seeds", 2)
    document = workspace.json("learning-curve", *options)
    curve = fc.learning_curve(workspace.cache, ["knn", "prototype"], sizes=[16, 32], seeds=2)
    assert without(document, "run") == as_json(curve.metrics.to_json())


def test_finetune(workspace):
    options = ("--objective", "bce", "--trainable", "head", "--epochs", 1, "--n-bootstrap", 20)
    document = workspace.json("finetune", *workspace.data_options, *options)
    run = fc.finetune(
        workspace.data, objective="bce", trainable="head", epochs=1, n_bootstrap=20, out="tuned"
    )
    assert without(document, "run", "best_epoch") == as_json(run.metrics.to_json())
    by_command = fc.load_run(document["run"])
    pd.testing.assert_frame_equal(by_command.predictions, run.predictions)


def test_cache_export(workspace):
    document = workspace.json("cache", "export", workspace.cache.path, "command.npy")
    assert fc.export_cache(workspace.cache, "python.npy") == Path("python.npy")
    assert document == {
        "path": "command.npy",
        "level": "image",
        "n": 80,
        "dim": 128,
        "tokens": None,
    }
    for suffix in (".npy", ".images.csv", ".texts.npy", ".texts.csv", ".json"):
        assert Path(f"command{suffix}").read_bytes() == Path(f"python{suffix}").read_bytes()


def test_cache_import(workspace):
    np.save("vectors.npy", workspace.cache.arrays()[0])
    table = workspace.cache.to_pandas().fillna({"view": ""})
    table.to_csv("vectors.csv", index=False)
    columns = ("--patient-column", "patient", "--label-column", "Mass", "--split-column", "split")
    cache = ("--cache", "imported")  # where other tests do not look for the newest
    document = workspace.json("cache", "import", "vectors.npy", "--model", "m", *columns, *cache)
    columns = {"patient": "patient", "labels": "Mass", "split": "split", "cache_dir": "imported"}
    by_python = fc.import_cache("vectors.npy", model="m", name="python", **columns)
    by_command = fc.open_cache(document["path"])
    pd.testing.assert_frame_equal(by_command.to_pandas(), by_python.to_pandas())
    np.testing.assert_array_equal(by_python.embedding, workspace.cache.embedding)
    assert (document["images"], document["labels"]) == (80, ["Mass"])
    outcome = workspace.run("cache", "import", "vectors.npy", "--model", "n")
    assert outcome.code == 2
    assert "looks like patients: give --patient-column" in " ".join(outcome.stderr.split())
    with pytest.raises(fc.errors.UsageError, match="does not know the files of its images"):
        fc.audit(by_python, workspace.data, n_bootstrap=0)


def test_align(workspace, tiny_pair, image_folder, monkeypatch):
    monkeypatch.setenv("FEATURECACHE_MODELS", str(tiny_pair))
    columns = {"patient": "patient", "split": "split", "labels": ["Opacity", "Rare"]}
    data = fc.load_dataset("csv", image_folder / "xrays.csv", **columns)
    cache = fc.extract(data, "dinov2-minilm", cache_dir="pair")
    document = workspace.json("align", "--cache", cache.path, "--out", "command.safetensors")
    alignment = fc.align(cache)
    assert document["fingerprint"] == alignment.fingerprint
    assert document["validation"] == as_json(alignment.spec["validation"])
    loaded = fc.Alignment.load("command.safetensors")
    np.testing.assert_array_equal(loaded.weight, alignment.weight)


def test_audit(workspace):
    document = workspace.json("audit", *workspace.data_options, "--n-bootstrap", 20, "--labels")
    audit = fc.audit(workspace.cache, workspace.data, labels=True, n_bootstrap=20)
    assert document == as_json(audit.to_json())


def test_suggest(workspace):
    images = workspace.data.images
    unlabeled = fc.Dataset(name="unlabeled", root=workspace.data.root, images=images)
    fc.extract(unlabeled, "tiny")
    options = ("--run", "runs/linear", "--n", 5, "--split", "all", "--seed", 1)
    document = workspace.json("suggest", *options, "--cache", "cache/unlabeled")
    chosen = fc.suggest("cache/unlabeled", 5, run="runs/linear", split="all", seed=1)
    assert document == as_json(chosen.astype(object).where(chosen.notna(), None).to_dict("records"))
    written = pd.read_csv("suggestions.csv", dtype=str)
    assert written["path"].tolist() == chosen["path"].tolist()


def test_report(workspace):
    runs = ["runs/linear", "runs/prototype"]
    document = workspace.json("report", *runs, "--out", "command.html")
    fc.report(runs, "python.html")
    by_command, by_python = (
        re.sub(r"command|python", "", Path(name).read_text())
        for name in (document["report"], "python.html")
    )
    assert by_command == by_python
