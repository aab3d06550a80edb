"""Attention drawn over images, from the tokens of an encoder to the files of ``predict``."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import featurecache as fc
from featurecache.datasets.phantom.folder import generate_phantom
from featurecache.errors import FeaturecacheWarning, UsageError
from featurecache.evaluation import heatmaps
from featurecache.units import Units


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> fc.Run:
    """A head on tokens of tiny."""
    folder = tmp_path_factory.mktemp("heatmaps")
    generate_phantom(folder / "phantom", n_images=40, size=64)
    data = fc.load_dataset("phantom", folder / "phantom")
    (cache,) = fc.extract(data, ["tiny"], features="tokens:3", cache_dir=folder / "cache")
    return fc.train_head(cache, "attentive", epochs=2, controls=False, n_bootstrap=0)


def test_each_image_has_a_picture_and_the_same_prediction(run: fc.Run, tmp_path: Path) -> None:
    cache_file = Path(run.config["cache"]["path"])
    data = fc.load_dataset("phantom", cache_file.parents[2] / "phantom")
    files = list(data.files().values())[:2]
    (tmp_path / "broken.png").write_bytes(b"no image")
    table = run.predict([*files, tmp_path / "broken.png"], heatmap=tmp_path / "maps")
    plain = run.predict([*files, tmp_path / "broken.png"])
    np.testing.assert_allclose(
        table["Mass probability"].to_numpy(float), plain["Mass probability"].to_numpy(float)
    )
    assert table["heatmap"].tolist()[2] is None
    for number, (file, picture) in enumerate(zip(files, table["heatmap"], strict=False), start=1):
        assert Path(picture) == tmp_path / "maps" / f"{number:05d}-{file.stem}.png"
        with Image.open(picture) as image:
            assert image.mode == "RGB"
            colored = np.ptp(np.asarray(image).astype(int), axis=2).max()
        assert colored > 50


def test_captions_say_how_far_attention_is_from_even(
    run: fc.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sheets = []
    monkeypatch.setattr(heatmaps, "save_png", lambda sheet, path: None)
    monkeypatch.setattr(heatmaps, "contact_sheet", lambda rows, title: sheets.append(rows))
    file = tmp_path / "a.png"
    Image.new("L", (64, 64), 90).save(file)
    run.predict(file, heatmap=tmp_path / "maps")
    (encoder,) = run.model.load_encoders()
    tokens = encoder.encode_images([file]).reshape(1, encoder.n_tokens, -1).astype(np.float16)
    attention = run.model.attention(tokens)[0]
    captions = [caption for rows in sheets for row in rows for caption, _ in row if caption]
    learned = np.flatnonzero(run.model.learned)
    want = [f"attention to {attention[c].max() * attention.shape[1]:.1f} x even" for c in learned]
    assert [caption.partition("\n")[2] for caption in captions] == want


def test_heatmaps_that_cannot_be_drawn_are_refused(run: fc.Run, tmp_path: Path) -> None:
    cache = Path(run.config["cache"]["path"])
    with pytest.raises(UsageError, match=r"leave out .* `heatmap`"):
        run.predict(cache, heatmap=tmp_path / "maps")
    data = fc.load_dataset("phantom", cache.parents[2] / "phantom")
    vectors = fc.extract(data, "tiny", cache_dir=tmp_path)
    other = fc.train_head(vectors, "prototype", controls=False, n_bootstrap=0)
    with pytest.raises(UsageError, match="not known which part of an image the encoder sees"):
        other.predict(data, heatmap=tmp_path / "maps")
    assert not (tmp_path / "maps").exists()


def test_a_folder_that_cannot_take_pictures_is_refused_first(run: fc.Run, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    Image.new("L", (64, 64)).save(images / "a.png")
    (tmp_path / "file").touch()
    for folder, given, reason in (
        (tmp_path / "file", [images], "file is a file: give a folder as `heatmap`"),
        (images, [images / "a.png"], "is among the images"),
        (images / "maps", [images], "is among the images"),
        (images / "maps", images, "is among the images"),
    ):
        with pytest.raises(UsageError, match=reason):
            run.predict(given, heatmap=folder)
    assert [path.name for path in images.iterdir()] == ["a.png"]


def test_predictions_survive_what_cannot_be_drawn(
    run: fc.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [tmp_path / f"{letter * 244}.png" for letter in "ab"]
    for file in files:
        Image.new("L", (64, 64), 90).save(file)
    table = run.predict(files, heatmap=tmp_path / "maps")
    assert [Path(name).name[:8] for name in table["heatmap"]] == ["00001-aa", "00002-bb"]
    assert all(Path(name).is_file() for name in table["heatmap"])

    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(heatmaps, "save_png", fail)
    with pytest.warns(FeaturecacheWarning, match="2 heat maps could not be drawn.*disk is full"):
        again = run.predict(files, heatmap=tmp_path / "more")
    assert again["heatmap"].tolist() == [None, None]
    assert again["Mass probability"].tolist() == table["Mass probability"].tolist()


def test_studies_have_neither_heat_maps_nor_boxes(run: fc.Run, tmp_path: Path) -> None:
    model = replace(run.model, units=Units(level="study"))
    Image.new("L", (64, 64)).save(tmp_path / "a.png")
    advice = "is for a model of images, and this is one of studies: train the head at the `level`"
    with pytest.raises(UsageError, match=f"`heatmap` {advice}"):
        model.predict([tmp_path / "a.png"], heatmap=tmp_path / "maps")
    with pytest.raises(UsageError, match=f"`boxes` {advice}"):
        model.evaluate(run.config["cache"]["path"], name="run", boxes=tmp_path / "boxes.csv")
    with pytest.raises(UsageError, match="leave out `study_features`"):
        fc.open_cache(run.config["cache"]["path"], level="study", study_features="mean")
