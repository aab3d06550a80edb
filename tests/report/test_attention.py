"""The attention of a head beside the example images of a report."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import featurecache as fc
from featurecache.datasets.phantom.folder import generate_phantom
from featurecache.evaluation.heatmaps import above_even
from featurecache.features import parse_features
from featurecache.report.attention import attention_of
from featurecache.report.examples import ExampleImages
from featurecache.report.load_runs import load_runs


def picture(url: str) -> np.ndarray:
    """Return the image of a data URL, (H, W, 3) or (H, W)."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))))


def test_example_images_are_shown_with_the_attention_to_them(tmp_path: Path) -> None:
    generate_phantom(tmp_path / "phantom", n_images=24, size=64)
    data = fc.load_dataset("phantom", tmp_path / "phantom")
    (cache,) = fc.extract(data, ["tiny"], features="tokens:2", cache_dir=tmp_path / "cache")
    run = fc.train_head(cache, "attentive", epochs=1, controls=False, n_bootstrap=0)
    head = run.model.module
    head.query.data[:, 0] += 50  # else its attention is nearly even
    (scored,) = load_runs([run])
    images = ExampleImages(data.files(), []).of_label(scored, "Effusion")
    examples = [example for _, of_group in images["groups"] for example in of_group]
    assert examples
    for example in examples:
        assert picture(example["thumbnail"]).ndim == 2  # gray
        assert np.ptp(picture(example["attention"]).astype(int), axis=2).max() > 50
    moved = cache.path.rename(tmp_path / "moved.h5")
    attention, reason = attention_of(scored, [])
    assert attention is None
    assert reason.startswith("the run's cache is not at")
    attention, reason = attention_of(scored, [moved])
    assert reason is None
    row = int(np.flatnonzero(cache.ids == scored.scored.ids[3])[0])
    tokens = fc.open_cache(moved).tokens[row]
    label = run.model.labels.index("Effusion")
    even = run.model.attention(tokens[np.newaxis])[0, label] - 1 / len(tokens)
    np.testing.assert_allclose(attention.of_image(3, "Effusion").ravel(), even[-4:])


@pytest.mark.parametrize("token", [0, 1, 2, 3])
def test_maps_are_above_even_attention(token: int) -> None:
    attention = np.full(5, 0.1)  # the first is the class token's
    attention[1 + token] = 0.6
    values = above_even(attention, parse_features("tokens:2"))
    assert np.unravel_index(values.argmax(), (2, 2)) == divmod(token, 2)
    assert (values > 0).sum() == 1
