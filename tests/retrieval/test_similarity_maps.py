"""Similarity of patches to a text, drawn over the images that the text retrieved."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import featurecache as fc
from featurecache.cli import main
from featurecache.datasets.phantom.folder import generate_phantom
from featurecache.errors import UsageError
from featurecache.retrieval.similarity_maps import load_map_encoder, map_similarity

TINY = Path(fc.__file__).parent / "encoders" / "tiny"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> fc.Cache:
    """A cache of tiny."""
    folder = tmp_path_factory.mktemp("maps")
    generate_phantom(folder / "phantom", n_images=20, size=64)
    data = fc.load_dataset("phantom", folder / "phantom")
    return fc.extract(data, "tiny", cache_dir=folder, precision="exact")


def test_maps_are_the_cosines_that_transformers_gives(cache: fc.Cache) -> None:
    from transformers import AutoModel

    pixels = np.random.default_rng(0).normal(size=(3, 128, 128)).astype(np.float32)
    text = np.random.default_rng(1).normal(size=cache.dim).astype(np.float32)
    text /= np.linalg.norm(text)
    model: Any = AutoModel.from_pretrained(TINY)
    with torch.no_grad():
        maps = model.vision_model(pixel_values=torch.from_numpy(pixels[None])).last_hidden_state
        patches = model.visual_projection(maps[0].permute(1, 2, 0))
    want = torch.nn.functional.cosine_similarity(patches, torch.from_numpy(text), dim=2).numpy()
    got = map_similarity(load_map_encoder(cache), pixels, text)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("query", [{"text": "large heart"}, {"label": "Effusion"}])
def test_the_images_that_a_text_finds_are_drawn(
    cache: fc.Cache, tmp_path: Path, query: dict[str, str]
) -> None:
    picture = tmp_path / "map.png"
    found = fc.retrieve(cache, **query, top=4, heatmap=picture)
    assert found["id"].tolist() == fc.retrieve(cache, **query, top=4)["id"].tolist()
    with Image.open(picture) as image:
        assert image.width > 6 * 192  # three images in a row, each beside its map
        colored = np.ptp(np.asarray(image).astype(int), axis=2)
    assert colored[:, :192].max() == 0
    assert colored[:, 200:392].max() > 50
    with pytest.raises(UsageError, match=r"map\.png already exists: give another `heatmap`"):
        fc.retrieve(cache, **query, heatmap=picture)


def test_command_writes_the_picture_of_the_library(cache: fc.Cache, tmp_path: Path) -> None:
    pictures = tmp_path / "library.png", tmp_path / "command.png"
    fc.retrieve(cache, label="Effusion", top=2, heatmap=pictures[0])
    arguments = ["--cache", str(cache.path), "--label", "Effusion", "--top", "2"]
    outcome = CliRunner().invoke(main, ["retrieve", *arguments, "--map", str(pictures[1])])
    assert outcome.exit_code == 0, outcome.output
    assert f"map: {pictures[1]}" in outcome.stdout.replace("\n", "")
    assert pictures[1].read_bytes() == pictures[0].read_bytes()


def test_maps_that_cannot_be_drawn_are_refused_by_name(cache: fc.Cache, tmp_path: Path) -> None:
    picture = tmp_path / "map.png"
    with pytest.raises(UsageError, match="where images fit a text: give `text` or `label`"):
        fc.retrieve(cache, image=cache.ids[0], heatmap=picture)
    with pytest.raises(UsageError, match="an `alignment` is of whole images"):
        fc.retrieve(cache, "edema", alignment="any.safetensors", heatmap=picture)
    data = fc.load_dataset("phantom", cache.path.parents[1] / "phantom")
    for arguments, reason in (
        ({"features": "pooled"}, "not in the space of any texts"),
        ({"views": 2}, r"`heatmap` cannot be drawn with tiny: it averages several views"),
    ):
        (other,) = fc.extract(data, ["tiny"], cache_dir=tmp_path, **arguments)
        with pytest.raises(UsageError, match=reason):
            fc.retrieve(other, label="Effusion", heatmap=picture)
    assert not picture.exists()
