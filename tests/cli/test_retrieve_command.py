"""``retrieve`` as a user runs it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featurecache.encoders.loading import load_encoder
from featurecache.store.reader import read_cache


@pytest.fixture
def cache(run, tiny_clip, extract_options):
    outcome = run("extract", "--model", tiny_clip, *extract_options, "--json")
    assert outcome.code == 0, outcome.stderr
    return read_cache(Path(outcome.json[0]["path"]))


def assert_best(found: list[str], cache, query: np.ndarray, *, without: str | None = None) -> None:
    """The ids are those of the highest cosines, in order; single precision may swap equals."""
    images = cache.embedding.astype(np.float64)
    cosines = images @ query / np.linalg.norm(images, axis=1) / np.linalg.norm(query)
    of = dict(zip(cache.ids.tolist(), cosines.tolist(), strict=True))
    of.pop(without, None)
    assert len(set(found)) == len(found)
    best = sorted(of.values(), reverse=True)[: len(found)]
    assert [of[image] for image in found] == pytest.approx(best, abs=1e-6, rel=0)
    assert np.ptp(cosines) > 1e-3  # or any order would pass


def ids(outcome) -> list[str]:
    assert outcome.code == 0, outcome.stderr
    return [hit["id"] for hit in outcome.json["images"]]


def test_a_text_finds_the_images_with_the_highest_cosines(run, cache, tiny_clip):
    outcome = run("retrieve", "bright lungs", "--model", tiny_clip, "--top", 5, "--json")
    # In the precision that the machine and the films chose: bf16 moves cosines by some 1e-3.
    precision = cache.header.encoder_spec["precision"]
    encoder = load_encoder(str(tiny_clip), device="cpu", precision=precision)
    query = encoder.encode_texts(["bright lungs"])[0]
    assert len(ids(outcome)) == 5
    assert_best(ids(outcome), cache, query)
    first = outcome.json["images"][0]
    assert first["split"] in ("train", "val", "test")
    assert set(first["labels"]) <= {"Opacity", "Rare"}


def test_a_label_finds_images_without_an_encoder(run, cache):
    row = cache.labels.names.index("Opacity")
    found = ids(run("retrieve", "--label", "Opacity", "--top", 3, "--json"))
    assert len(found) == 3
    assert_best(found, cache, cache.text().positive.ensemble[row])


def test_a_split_is_searched_alone(run, cache):
    outcome = run("retrieve", "--label", "Opacity", "--split", "val", "--top", 60, "--json")
    assert set(ids(outcome)) == set(cache.ids[cache.rows("val")])


def test_a_cached_image_finds_others_and_the_file_finds_itself(run, cache, tiny_clip, films):
    image = str(cache.ids[7])
    query = cache.embedding[7].astype(np.float64)
    outcome = run("retrieve", "--image", image, "--top", 4, "--json")
    assert len(ids(outcome)) == 4
    assert_best(ids(outcome), cache, query, without=image)
    scores = list(outcome.json["descriptions"].values())
    assert len(scores) == 2
    assert scores == sorted(scores, reverse=True)
    by_file = run("retrieve", "--image", films / image, "--model", tiny_clip, "--top", 4, "--json")
    assert ids(by_file)[0] == image
    assert_best(ids(by_file), cache, query)


def test_an_image_that_crashes_the_decoder_is_named(run, cache, tiny_clip, films, bad_decoder):
    film = Path("film.png")
    for spoil in (bad_decoder.crash, bad_decoder.crash_later):
        film.write_bytes((films / str(cache.ids[7])).read_bytes())
        spoil(film)
        outcome = run("retrieve", "--image", film, "--model", tiny_clip)
        assert outcome.code == 1
        assert "film.png: the decoder crashed (SIGSEGV)" in outcome.stderr


def test_a_contact_sheet_shows_what_was_found(run, cache, films, extract_options, tmp_path):
    options = extract_options[: extract_options.index("--patient-column")]
    outcome = run(
        "retrieve", "--label", "Opacity", "--top", 7, "--contact-sheet", "a.png", *options
    )
    assert outcome.code == 0, outcome.stderr
    assert "contact sheet: a.png" in outcome.stdout
    with Image.open(tmp_path / "a.png") as sheet:
        assert sheet.width > sheet.height > 2 * 192
        assert np.asarray(sheet).std() > 10
    again = run("retrieve", "--label", "Opacity", "--contact-sheet", "a.png", *options)
    assert again.code == 2
    assert "a.png is there already" in again.stderr


def test_without_a_query_it_says_how_good_retrieval_is(run, cache):
    outcome = run("retrieve", "--top", 3, "--n-bootstrap", 20, "--json")
    assert outcome.code == 0, outcome.stderr
    document = outcome.json
    assert document["n"] == len(cache.rows("test"))
    assert 0 < document["text_to_image"]["per_label"]["Opacity"]["average_precision"] <= 1
    shown = run("retrieve", "--top", 3, "--n-bootstrap", 20).stdout
    assert "precision@3" in shown
    assert "images to images of other patients" in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a text", "--label", "Opacity"], "one of a text, --image and --label"),
        (["--label", "Opacty"], "did you mean Opacity?"),
        (["--image", "nowhere.png"], "neither a file nor the id of an image"),
        (["--label", "Opacity", "--split", "tset"], "no images of the split 'tset'"),
        (["--contact-sheet", "x.png"], "--contact-sheet shows what one query found"),
        ([" "], "the text to look for is empty"),
    ],
)
def test_mistakes_are_named(run, cache, tiny_clip, arguments, said):
    outcome = run("retrieve", *arguments, "--model", tiny_clip)
    assert outcome.code == 2
    assert said in outcome.stderr
    assert outcome.stdout == ""


def test_another_encoder_than_the_caches_is_refused(run, cache):
    outcome = run("retrieve", "a text", "--model", "tiny")
    assert outcome.code == 2
    assert "made with another encoder" in outcome.stderr
