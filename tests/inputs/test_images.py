"""Image files of every kind through the command line: what is assumed, and what is refused."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import featurecache as fc
from featurecache.errors import FeaturecacheWarning
from featurecache.runs.prediction import classify_images
from tests.images.test_dicom import data_set, dicom_file

RNG = np.random.default_rng(0)
SCENES = RNG.random((6, 48, 40))
SCENES[:, 0, :2] = 0, 1
"""Images with values from 0 to 1, both among them."""

ENCODER = fc.load_encoder("tiny", device="cpu", precision="fp32")


def quantized(scene: np.ndarray, bits: int) -> np.ndarray:
    return (scene * (2**bits - 1)).round().astype(np.uint16)


def write(folder: Path, bits: int, kind: str) -> None:
    folder.mkdir()
    for number, scene in enumerate(SCENES):
        values = quantized(scene, bits)
        if kind == "dcm":
            (folder / f"{number}.dcm").write_bytes(dicom_file(values, bits=16))
        else:
            Image.fromarray(values).save(folder / f"{number}.{kind}")
    rows = [f"{path.name},{number % 2}" for number, path in enumerate(sorted(folder.iterdir()))]
    (folder / "table.csv").write_text("\n".join(["path,Opacity", *rows]) + "\n")


def extract(run, folder: Path, *options: object):
    arguments = ["--data-root", folder / "table.csv", "--label-column", "Opacity"]
    return run("extract", *arguments, "--precision", "fp32", *options)


def embeddings() -> np.ndarray:
    return fc.open_cache("cache/table/tiny.h5").embedding.astype(np.float64)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def reference(scenes: np.ndarray = SCENES) -> np.ndarray:
    """Embeddings of the scenes as 8-bit images, whose range is defined."""
    images = [Image.fromarray((scene * 255).round().astype(np.uint8)) for scene in scenes]
    return ENCODER.encode_images(images).astype(np.float64)


@pytest.mark.parametrize(
    ("kind", "bits"),
    [("png", 12), ("tif", 14), ("png", 15), ("dcm", 13)],
)
def test_bit_depth_is_judged_over_the_set_and_reported(run, tmp_path, kind, bits):
    write(tmp_path / "deep", bits, kind)
    outcome = extract(run, tmp_path / "deep")
    assert outcome.code == 0, outcome.stderr
    message = " ".join(outcome.stderr.split())
    assert f"read as {bits} bits, 0 to {2**bits - 1:,}: of 6 that were measured, 6 use {bits}" in (
        message
    )
    assert "give --bit-depth if this is wrong" in message
    assert cosines(embeddings(), reference()).min() > 0.9999
    header = fc.open_cache("cache/table/tiny.h5").header
    assert header.bit_depth == bits
    assert any(f"read as {bits} bits" in note for note in header.notes)


def test_a_dark_image_is_not_stretched(run, tmp_path):
    write(tmp_path / "deep", 12, "png")
    Image.fromarray(quantized(SCENES[0], 12) // 8).save(tmp_path / "deep/0.png")
    outcome = extract(run, tmp_path / "deep")
    assert "1 use 9, 5 use 12" in " ".join(outcome.stderr.split())
    assert cosines(embeddings()[:1], reference(SCENES[:1] / 8))[0] > 0.999
    assert cosines(embeddings()[:1], reference(SCENES[:1]))[0] < 0.999


def test_one_image_that_needs_far_more_bits_is_not_the_range_of_all(run, tmp_path):
    write(tmp_path / "deep", 13, "png")
    pixels = quantized(SCENES[0], 13)
    pixels[0, 0] = 65535  # a marker
    Image.fromarray(pixels).save(tmp_path / "deep/0.png")
    outcome = extract(run, tmp_path / "deep")
    assert outcome.code == 2
    assert "5 use 13, 1 use 16 bits. Give --bit-depth, such as 13" in " ".join(
        outcome.stderr.split()
    )


def test_bit_depth_can_be_given_and_other_images_fail(run, tmp_path):
    write(tmp_path / "deep", 13, "png")
    Image.fromarray(quantized(SCENES[0], 14)).save(tmp_path / "deep/0.png")
    outcome = extract(run, tmp_path / "deep", "--bit-depth", 13)
    assert outcome.code == 0, outcome.stderr
    assert "0.png: its gray values use 14 bits, more than the 13 bits" in outcome.stderr
    assert "that were measured" not in outcome.stderr
    assert len(embeddings()) == 5


def test_a_continued_extraction_keeps_the_bit_depth(run, tmp_path):
    folder = tmp_path / "deep"
    write(folder, 12, "png")
    table = (folder / "table.csv").read_text().splitlines(keepends=True)
    (folder / "table.csv").write_text("".join(table[:4]))
    assert extract(run, folder).code == 0
    first = embeddings()
    (folder / "table.csv").write_text("".join(table))
    # Dark images follow: judged alone, they would be stretched.
    for number in range(3, 6):
        Image.fromarray(quantized(SCENES[number], 12) // 4).save(folder / f"{number}.png")
    outcome = extract(run, folder)
    assert outcome.code == 0, outcome.stderr
    cache = fc.open_cache("cache/table/tiny.h5")
    assert cache.header.bit_depth == 12
    np.testing.assert_array_equal(embeddings()[:3], first)
    with pytest.warns(FeaturecacheWarning, match="read as 10 bits"):
        alone = ENCODER.encode_images([folder / "4.png"])
    assert cosines(embeddings()[4:5], alone)[0] < 0.999
    as_stored = ENCODER.encode_images([folder / "4.png"], bit_depth=12)
    assert cosines(embeddings()[4:5], as_stored)[0] > 0.9999
    # Another depth is refused, and new files are read with that of the cache.
    outcome = extract(run, folder, "--bit-depth", 10)
    assert outcome.code == 2
    assert "was made with a bit depth of 12, not 10: give --bit-depth as 12" in outcome.stderr
    by_file, by_id = (fc.retrieve(cache, image=image) for image in (folder / "4.png", "4.png"))
    assert by_file["id"].tolist() == by_id["id"].tolist()
    np.testing.assert_allclose(by_file["cosine"], by_id["cosine"], atol=1e-3)


def test_a_query_image_decides_its_bit_depth_where_the_cache_has_none(run, tmp_path):
    folder = tmp_path / "a"
    write(folder, 8, "png")
    for number, scene in enumerate(SCENES):
        Image.fromarray((scene * 255).round().astype(np.uint8)).save(folder / f"{number}.png")
    assert extract(run, folder).code == 0
    Image.fromarray(quantized(SCENES[3], 13)).save(tmp_path / "query.png")
    with pytest.warns(FeaturecacheWarning, match="are read as 13 bits"):
        found = fc.retrieve("cache/table/tiny.h5", image=tmp_path / "query.png", top=6)
    assert sorted(found["id"]) == ["0.png", "1.png", "2.png", "4.png", "5.png"]  # not its copy


def test_shards_have_the_bit_depth_of_the_whole_set(run, tmp_path):
    folder = tmp_path / "deep"
    write(folder, 12, "png")
    for number in (1, 3, 5):  # the second shard alone would be judged to have 10 bits
        Image.fromarray(quantized(SCENES[number], 12) // 4).save(folder / f"{number}.png")
    for shard in ("1/2", "2/2"):
        assert extract(run, folder, "--shard", shard).code == 0
    shards = sorted(Path("cache/table").glob("*.h5"))
    assert [fc.open_cache(path).header.bit_depth for path in shards] == [12, 12]
    assert run("cache", "merge", *shards).code == 0
    assert fc.open_cache("cache/table/tiny.h5").header.bit_depth == 12


def test_a_run_keeps_the_bit_depth_for_new_images(run, tmp_path):
    folder = tmp_path / "deep"
    write(folder, 12, "png")
    rows = [f"{n}.png,{n % 2},{'train' if n < 2 else 'val' if n < 4 else 'test'}" for n in range(6)]
    (folder / "table.csv").write_text("\n".join(["path,Opacity,split", *rows]) + "\n")
    assert extract(run, folder, "--split-column", "split").code == 0
    cache = fc.open_cache("cache/table/tiny.h5")
    fc.train_head(cache, "prototype", controls=False, n_bootstrap=0).save("run")
    model = fc.load_run("run").model
    assert model.bit_depth == 12
    dark = tmp_path / "dark.png"
    Image.fromarray(quantized(SCENES[0], 12) // 8).save(dark)
    expected = ENCODER.encode_images([dark], bit_depth=12).astype(np.float16)
    np.testing.assert_allclose(
        model.predict(dark)["Opacity probability"], model.probabilities(expected)[:, 0], atol=1e-6
    )
    # The bit depth of new images can be given.
    given = tmp_path / "given.csv"
    options = ("--bit-depth", 9, "--out", given)
    outcome = run("predict", "run", dark, *options)
    assert outcome.code == 0, outcome.stderr
    as_9_bits = ENCODER.encode_images([dark], bit_depth=9).astype(np.float16)
    np.testing.assert_allclose(
        pd.read_csv(given)["Opacity probability"],
        model.probabilities(as_9_bits)[:, 0],
        atol=1e-6,
    )
    refused = run("predict", "run", "cache/table/tiny.h5", "--bit-depth", 9)
    assert refused.code == 2
    assert "leave out --model, --weights, --bit-depth and --heatmap" in refused.stderr
    query = ("retrieve", "--cache", "cache/table/tiny.h5", "--image")
    found = run(*query, dark, "--bit-depth", 9, "--json").json
    assert found["copies"] == ["0.png"]  # bright again, it is the image that it was made from
    nearest = found["images"][0]
    row = cache.ids.tolist().index(nearest["id"])
    expected_cosine = cosines(as_9_bits.astype(float), cache.embedding[[row]].astype(float))[0]
    assert nearest["cosine"] == pytest.approx(expected_cosine, abs=1e-4)
    refused = run(*query, "0.png", "--bit-depth", 9)
    assert refused.code == 2
    assert "--bit-depth is that of an image file: give one as --image" in refused.stderr
    with pytest.warns(FeaturecacheWarning, match="read as 9 bits"):
        (judged,) = classify_images(model.load_encoders(), model.probabilities, [dark])
    assert judged.output != pytest.approx(model.probabilities(expected)[0], abs=1e-6)


def test_dicom_without_header_or_suffix_is_read_and_counted(run, tmp_path):
    folder = tmp_path / "pacs"
    folder.mkdir()
    window = {"WindowCenter": 2048, "WindowWidth": 4096}
    for number, scene in enumerate(SCENES):
        values = quantized(scene, 12)
        if number < 2:
            bare = data_set(values, **window)
            bare.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
            bare.save_as(folder / f"{number}", implicit_vr=True)
        else:
            (folder / f"{number}").write_bytes(dicom_file(values, **window))
    rows = "\n".join(f"{number},{number % 2}" for number in range(6))
    (folder / "table.csv").write_text(f"path,Opacity\n{rows}\n")
    outcome = extract(run, folder)
    assert outcome.code == 0, outcome.stderr
    assert "note: 2 of 6 files that were looked at are DICOM without a preamble" in " ".join(
        outcome.stderr.split()
    )
    cache = fc.open_cache("cache/table/tiny.h5")
    assert len(cache) == 6
    assert cache.header.bit_depth is None
