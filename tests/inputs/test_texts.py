"""Texts and checkpoints through the command line: what is cut, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import featurecache as fc
from featurecache.errors import FeaturecacheWarning

ENCODER = fc.load_encoder("tiny", device="cpu", precision="fp32")
WINDOW = ENCODER.max_tokens
LONG = "word " * (2 * WINDOW)


@pytest.fixture
def extract(run, tmp_path):
    rng = np.random.default_rng(0)
    rows = ["path,Opacity,Edema,split"]
    for number in range(6):
        Image.fromarray(rng.integers(256, size=(40, 32)).astype(np.uint8)).save(
            tmp_path / f"{number}.png"
        )
        split = ("train", "val", "test")[number // 2]
        rows.append(f"{number}.png,{number % 2},{1 - number % 2},{split}")
    (tmp_path / "table.csv").write_text("\n".join(rows) + "\n")

    def call(**prompts: list[str]):
        Path("long.json").write_text(json.dumps({"name": "long", **prompts}))
        labels = ["--label-column", "Opacity", "--label-column", "Edema"]
        options = [*labels, "--split-column", "split", "--precision", "fp32"]
        return run("extract", "--data-root", "table.csv", *options, "--prompts", "long.json")

    return call


def one_line(outcome) -> str:
    return " ".join(outcome.stderr.split())


def test_cut_prompts_are_counted(run, extract):
    outcome = extract(
        templates=["{pathology} " + LONG, "{pathology}"], negatives=["no {pathology}"]
    )
    assert outcome.code == 0, outcome.stderr
    assert f"tiny reads {WINDOW} tokens of a text, and the end of 2 of 4 texts is cut" in one_line(
        outcome
    )
    text = fc.open_cache("cache/table/tiny.h5").text("long")
    assert (text.n_cut, text.max_tokens) == (2, WINDOW)
    outcome = run("zero-shot", "--n-bootstrap", 0, "--out", "zero", "--json")
    assert outcome.code == 0, outcome.stderr
    assert any("the end of 2 prompts of 'long' is cut" in w for w in outcome.json["warnings"])


def test_labels_that_are_cut_off_are_refused(extract):
    outcome = extract(templates=["{pathology}", LONG + "{pathology}"])
    assert outcome.code == 2
    assert "prompt set 'long': Opacity, Edema have the same embedding for the template 'word" in (
        one_line(outcome)
    )
    assert f"reads only {WINDOW} tokens of it: shorten it, or put {{pathology}} first" in one_line(
        outcome
    )


def test_a_long_query_is_the_mean_of_its_sentences(run, extract):
    assert extract(templates=["{pathology}"]).code == 0
    sentences = [f"Edema, level {number}." for number in range(4)]
    outcome = run("retrieve", " ".join(sentences), "--top", 6, "--json")
    assert outcome.code == 0, outcome.stderr
    assert "the query is the mean of the embeddings of its 4 sentences" in one_line(outcome)
    texts = ENCODER.encode_texts(sentences).astype(np.float64)
    query = (texts / np.linalg.norm(texts, axis=1, keepdims=True)).mean(0)
    cache = fc.open_cache("cache/table/tiny.h5")
    images = cache.embedding.astype(np.float64)
    cosines = images @ query / np.linalg.norm(images, axis=1) / np.linalg.norm(query)
    got = {hit["id"]: hit["cosine"] for hit in outcome.json["images"]}
    assert [got[name] for name in cache.ids.tolist()] == pytest.approx(cosines, abs=1e-5)


def test_a_long_sentence_is_refused(run, extract):
    assert extract(templates=["{pathology}"]).code == 0
    outcome = run("retrieve", "Short one. " + LONG)
    assert outcome.code == 2
    assert f"a sentence of more than {WINDOW} tokens, which tiny cannot read whole: shorten" in (
        one_line(outcome)
    )


def test_encode_texts_warns():
    with pytest.warns(FeaturecacheWarning, match=rf"reads {WINDOW} tokens .* of 1 of 2 texts"):
        ENCODER.encode_texts(["short", LONG])
    assert ENCODER.too_long(["short", LONG]) == [LONG]


@pytest.mark.parametrize("option", ["--weights", "--model"])
def test_a_checkpoint_file_is_refused_with_how_to_convert_it(run, extract, option):
    Path("best.pt").write_bytes(b"PK")
    model = ["--model", "clip"] if option == "--weights" else []
    outcome = run("extract", "--data-root", "table.csv", *model, option, "best.pt")
    assert outcome.code == 2
    assert "best.pt is a single file, and a checkpoint is a folder with config.json" in one_line(
        outcome
    )
    assert "with save_pretrained of the network" in one_line(outcome)
