"""``align`` as a user runs it, and what it makes possible."""

import json
from pathlib import Path

import pytest

CACHE = "cache/films/dinov2-minilm.h5"
ALIGNMENT = "cache/films/dinov2-minilm.signs-{}.alignment.safetensors"


@pytest.fixture
def extracted(run, tiny_pair, extract_options, monkeypatch):
    monkeypatch.setenv("FEATURECACHE_MODELS", str(tiny_pair))
    outcome = run("extract", "--model", "dinov2-minilm", *extract_options, "--json")
    assert outcome.code == 0, outcome.stderr


@pytest.mark.parametrize("method", ["ridge", "contrastive"])
def test_a_pair_can_be_scored_once_it_is_aligned(run, extracted, method):
    refused = run("zero-shot")
    assert refused.code == 2
    assert "featurecache align" in refused.stderr
    outcome = run("align", "--method", method, "--json")
    assert outcome.code == 0, outcome.stderr
    made = outcome.json
    assert made["path"] == ALIGNMENT.format(method)
    assert made["labels"] == ["Opacity", "Rare"]
    assert made["scale"] > 0
    scored = run(
        "zero-shot", "--alignment", made["path"], "--n-bootstrap", 20, "--out", "runs/a", "--json"
    )
    assert scored.code == 0, scored.stderr
    assert (scored.json["scoring"], scored.json["n"]) == ("pair", 14)
    config = json.loads(Path("runs/a/config.json").read_text())
    assert config["alignment"]["fingerprint"] == made["fingerprint"]
    again = run("align", "--method", method)
    assert again.code == 2
    assert "is there already" in again.stderr


def test_retrieval_works_through_it_on_images_that_it_has_not_learned_from(run, extracted):
    shown = run("align", "--out", "a.safetensors")
    assert shown.code == 0, shown.stderr
    assert "alignment: a.safetensors" in shown.stdout
    options = ("--alignment", "a.safetensors", "--top", 3)
    for query in (["bright lungs"], ["--label", "Opacity"]):
        found = run("retrieve", *query, *options, "--split", "test", "--json")
        assert found.code == 0, found.stderr
        assert {hit["split"] for hit in found.json["images"]} == {"test"}
        everywhere = run("retrieve", *query, *options)
        assert everywhere.code == 2
        assert "--alignment learned from 46 of these 60 images" in everywhere.stderr
    measured = run("retrieve", *options, "--n-bootstrap", 20, "--json")
    assert measured.code == 0, measured.stderr
    assert measured.json["text_to_image"]["n_queries"] == 2


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["align", "--method", "rigde"], "did you mean ridge"),
        (["align", "--prompts", "sign"], "did you mean signs"),
        (["zero-shot", "--alignment", "none"], "no alignment at none"),
        (["zero-shot", "--alignment", CACHE], "cannot be read as safetensors"),
    ],
)
def test_mistakes_are_named(run, extracted, command, said):
    outcome = run(*command)
    assert outcome.code == 2
    assert said in outcome.stderr
    assert list(Path("cache/films").glob("*.safetensors")) == []
