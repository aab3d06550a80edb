"""Attention drawn over images, from the tokens of an encoder to the files of ``predict``."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import featurecache as fc
from featurecache.datasets.phantom.folder import generate_phantom
from featurecache.errors import UsageError


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
