"""The ``retrieve`` command."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from featurecache.encoders.loading import load_encoder
from featurecache.store.reader import read_cache


@pytest.fixture
def cache(extracted):
    return read_cache(Path(extracted["path"]))


def assert_best(ids: list[str], cache, query: np.ndarray, *, without: str | None = None) -> None:
    """Check that the ids have the highest cosines, in order, up to rounding to float32."""
    images = cache.embedding.astype(np.float64)
    cosines = images @ query / np.linalg.norm(images, axis=1) / np.linalg.norm(query)
    cosine_of = dict(zip(cache.ids.tolist(), cosines.tolist(), strict=True))
    cosine_of.pop(without, None)
    assert len(set(ids)) == len(ids)
    best = sorted(cosine_of.values(), reverse=True)[: len(ids)]
    assert [cosine_of[image] for image in ids] == pytest.approx(best, abs=1e-6, rel=0)
    assert np.ptp(cosines) > 1e-3  # otherwise any order would pass


def result_ids(outcome) -> list[str]:
    assert outcome.code == 0, outcome.stderr
    return [hit["id"] for hit in outcome.json["images"]]


def test_text_query_returns_the_images_with_the_highest_cosines(run, cache, tiny_clip):
    outcome = run("retrieve", "bright lungs", "--model", tiny_clip, "--top", 5, "--json")
    # In the precision of the cache: bf16 changes cosines by about 1e-3.
    precision = cache.header.encoder_spec["precision"]
    encoder = load_encoder(str(tiny_clip), device="cpu", precision=precision)
    query = encoder.encode_texts(["bright lungs"])[0]
    assert len(result_ids(outcome)) == 5
    assert_best(result_ids(outcome), cache, query)
    first = outcome.json["images"][0]
    assert first["split"] in ("train", "val", "test")
    assert set(first["labels"]) <= {"Opacity", "Rare"}


def test_label_query_needs_no_encoder(run, cache):
    row = cache.labels.names.index("Opacity")
    ids = result_ids(run("retrieve", "--label", "Opacity", "--top", 3, "--json"))
    assert len(ids) == 3
    assert_best(ids, cache, cache.text().positive.ensemble[row])


def test_search_is_limited_to_a_split(run, cache):
    outcome = run("retrieve", "--label", "Opacity", "--split", "val", "--top", 60, "--json")
    assert set(result_ids(outcome)) == set(cache.ids[cache.rows("val")])


def test_query_image_is_excluded_by_its_id_and_by_its_content(run, cache, tiny_clip, image_folder):
    image = str(cache.ids[7])
    query = cache.embedding[7].astype(np.float64)
    outcome = run("retrieve", "--image", image, "--top", 4, "--json")
    assert len(result_ids(outcome)) == 4
    assert_best(result_ids(outcome), cache, query, without=image)
    scores = list(outcome.json["descriptions"].values())
    assert len(scores) == 2
    assert scores == sorted(scores, reverse=True)
    by_file = run(
        "retrieve", "--image", image_folder / image, "--model", tiny_clip, "--top", 4, "--json"
    )
    assert result_ids(by_file) == result_ids(outcome)
    assert by_file.json["copies"] == outcome.json["copies"] == [image]
    # Encoded again, it is another file with the same content.
    Image.open(image_folder / image).save("again.webp", lossless=True)
    again = run("retrieve", "--image", "again.webp", "--model", tiny_clip, "--out", "hits.csv")
    assert f"left out, as it is the query image: {image}" in again.stderr
    hits = pd.read_csv("hits.csv", dtype=str, keep_default_na=False)
    assert hits["id"][:4].tolist() == result_ids(outcome)
    records = cache.to_pandas().set_index("id").loc[hits["id"]]
    assert hits["view"].tolist() == records["view"].tolist()
    assert hits["labels"].eq("Opacity").tolist() == records["Opacity"].eq(1).tolist()


def test_image_that_crashes_the_decoder_is_reported(
    run, cache, tiny_clip, image_folder, bad_decoder
):
    image = Path("image.png")
    for spoil in (bad_decoder.crash, bad_decoder.crash_later):
        image.write_bytes((image_folder / str(cache.ids[7])).read_bytes())
        spoil(image)
        outcome = run("retrieve", "--image", image, "--model", tiny_clip)
        assert outcome.code == 1
        assert "image.png: the decoder crashed (SIGSEGV)" in outcome.stderr


def test_contact_sheet_shows_the_result(run, cache, image_folder, extract_options, tmp_path):
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
    assert "a.png already exists" in again.stderr


def test_retrieval_is_measured_without_a_query(run, cache):
    outcome = run("retrieve", "--top", 3, "--n-bootstrap", 20, "--json")
    assert outcome.code == 0, outcome.stderr
    metrics = outcome.json
    assert metrics["n"] == len(cache.rows("test"))
    assert 0 < metrics["text_to_image"]["per_label"]["Opacity"]["average_precision"] <= 1
    printed = run("retrieve", "--top", 3, "--n-bootstrap", 20).stdout
    assert "precision@3" in printed
    assert "images to images of other patients" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a text", "--label", "Opacity"], "exactly one of"),
        (["--label", "Opacty"], "did you mean Opacity?"),
        (["--image", "nowhere.png"], "neither a file nor the id of an image"),
        (["--label", "Opacity", "--split", "tset"], "unknown split 'tset': did you mean test?"),
        (["--contact-sheet", "x.png"], "shows the result of a query"),
        ([" "], "is empty"),
    ],
)
def test_user_errors_are_explained(run, cache, tiny_clip, arguments, message):
    outcome = run("retrieve", *arguments, "--model", tiny_clip)
    assert outcome.code == 2
    assert message in outcome.stderr
    assert outcome.stdout == ""


def test_other_encoder_is_refused(run, cache):
    outcome = run("retrieve", "a text", "--model", "tiny")
    assert outcome.code == 2
    assert "made with another encoder" in outcome.stderr
