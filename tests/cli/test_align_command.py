"""The ``align`` command, and zero-shot and retrieval with its result."""

import json
from pathlib import Path

import pytest

CACHE = "cache/xrays/dinov2-minilm.h5"
ALIGNMENT = "cache/xrays/dinov2-minilm.signs-{}.alignment.safetensors"


@pytest.fixture
def extracted(run, tiny_pair, extract_options, monkeypatch):
    monkeypatch.setenv("FEATURECACHE_MODELS", str(tiny_pair))
    outcome = run("extract", "--model", "dinov2-minilm", *extract_options, "--json")
    assert outcome.code == 0, outcome.stderr


@pytest.mark.parametrize("method", ["ridge", "contrastive"])
def test_unaligned_pair_is_scored_with_an_alignment(run, extracted, method):
    refused = run("zero-shot")
    assert refused.code == 2
    assert "never trained together" in refused.stderr
    outcome = run("align", "--method", method, "--json")
    assert outcome.code == 0, outcome.stderr
    summary = outcome.json
    assert summary["path"] == ALIGNMENT.format(method)
    assert summary["labels"] == ["Opacity", "Rare"]
    assert summary["scale"] > 0
    scored = run(
        "zero-shot",
        "--alignment",
        summary["path"],
        "--n-bootstrap",
        20,
        "--out",
        "runs/a",
        "--json",
    )
    assert scored.code == 0, scored.stderr
    assert (scored.json["scoring"], scored.json["n"]) == ("pair", 14)
    config = json.loads(Path("runs/a/config.json").read_text())
    assert config["alignment"]["fingerprint"] == summary["fingerprint"]
    # As after an interruption once the file was in place: the same file is recognized.
    content = Path(summary["path"]).read_bytes()
    assert run("align", "--method", method, "--json").json == summary
    assert Path(summary["path"]).read_bytes() == content
    other = run("align", "--method", {"ridge": "contrastive"}.get(method, "ridge"), "--out",
        summary["path"])  # fmt: skip
    assert other.code == 2
    Path(summary["path"]).write_bytes(b"something else")
    again = run("align", "--method", method)
    assert again.code == 2
    assert "already exists" in other.stderr
    assert "already exists" in again.stderr


def test_retrieval_with_an_alignment_is_limited_to_unseen_images(run, extracted):
    printed = run("align", "--out", "a.safetensors")
    assert printed.code == 0, printed.stderr
    assert "alignment: a.safetensors" in printed.stdout
    options = ("--alignment", "a.safetensors", "--top", 3)
    for query in (["bright lungs"], ["--label", "Opacity"]):
        searched = run("retrieve", *query, *options, "--split", "test", "--json")
        assert searched.code == 0, searched.stderr
        assert {hit["split"] for hit in searched.json["images"]} == {"test"}
        refused = run("retrieve", *query, *options)
        assert refused.code == 2
        assert "was trained on 46 of the 60 images" in refused.stderr
    measured = run("retrieve", *options, "--n-bootstrap", 20, "--json")
    assert measured.code == 0, measured.stderr
    assert measured.json["text_to_image"]["n_queries"] == 2


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["align", "--method", "rigde"], "did you mean ridge"),
        (["align", "--prompts", "sign"], "did you mean signs"),
        (["zero-shot", "--alignment", "none"], "there is no alignment file at none"),
        (["zero-shot", "--alignment", CACHE], "cannot be read as safetensors"),
    ],
)
def test_user_errors_are_explained(run, extracted, command, message):
    outcome = run(*command)
    assert outcome.code == 2
    assert message in outcome.stderr
    assert list(Path("cache/xrays").glob("*.safetensors")) == []
