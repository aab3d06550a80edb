"""Features of every network, against the hidden states that transformers returns for it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

import featurecache as fc
from featurecache.encoders.compatibility import library_difference
from featurecache.errors import RunError, UsageError
from featurecache.features import parse_features
from tests import published

TOLERANCE = 1e-5
Array = np.ndarray

FEATURES = {
    "clip": ["projected", "pooled", "cls", "mean", "cls+mean", "layers:-1,-2+mean", "tokens:3"],
    "siglip": ["projected", "mean", "layers:-2,-1+mean", "tokens:3"],
    "dinov2": ["pooled", "cls", "cls+mean", "layers:-1,-2", "tokens:1", "tokens:2"],
    "registers": ["pooled", "cls+mean", "layers:-2+mean", "tokens:4"],
    "vit": ["cls", "layers:-2,-1", "layers:-1,-2+mean", "tokens:3"],
    "joined": ["projected", "pooled", "mean", "layers:-1,-2+mean", "tokens:1"],
}


class Reference(NamedTuple):
    """What a network computes for B images.

    Attributes:
        grids: Patch tokens by layer, (B, rows, columns, W).
        cls: Class tokens by layer, (B, W); none if there is no class token.
        pooled: (B, W).
        projected: (B, D).
    """

    grids: Mapping[int, Array]
    cls: Mapping[int, Array]
    pooled: Array | None = None
    projected: Array | None = None


def reference(folder: Path, pixels: Array) -> Reference:
    """Run the network of a folder with transformers alone."""
    from transformers import AutoModel

    model: Any = AutoModel.from_pretrained(folder)
    family = model.config.model_type
    tower = getattr(model, "vision_model", model)
    blocks = tower.encoder.layers if family in ("clip", "siglip") else []
    passed: list[Any] = []  # transformers 5.0 has no hidden states of these towers
    for block in blocks:
        block.register_forward_hook(lambda _, __, output: passed.append(output))
    with torch.no_grad():
        output = tower(pixel_values=torch.from_numpy(pixels), output_hidden_states=True)
        last = output.last_hidden_state
        hidden = output.hidden_states or passed
        if family == "vision-text-dual-encoder":
            maps = {-1: last, -2: output.hidden_states[-2]}
            grids = {layer: one.permute(0, 2, 3, 1).numpy() for layer, one in maps.items()}
            pooled = last.mean(dim=(2, 3))
            projected = pooled @ model.visual_projection.weight.T
            return Reference(grids, {}, pooled.numpy(), projected.numpy())
        norm = tower.layernorm if tower is model else tower.post_layernorm
        # The last layer is normalized already, except by CLIP.
        states = {-1: norm(last) if family == "clip" else last}
        states |= {
            layer: norm(hidden[layer]) for layer in range(-min(4, len(blocks or hidden)), -1)
        }
        n_special = 0 if family == "siglip" else 1 + getattr(model.config, "num_register_tokens", 0)
        side = round((last.shape[1] - n_special) ** 0.5)
        grids = {
            layer: one[:, n_special:].unflatten(1, (side, side)).numpy()
            for layer, one in states.items()
        }
        cls = {layer: one[:, 0].numpy() for layer, one in states.items()} if n_special else {}
        if family == "siglip":
            return Reference(grids, cls, None, tower.head(last).numpy())
        if family == "clip":
            projected = states[-1][:, 0] @ model.visual_projection.weight.T
            return Reference(grids, cls, cls[-1], projected.numpy())
        return Reference(grids, cls, cls[-1])


def average(grid: Array, side: int) -> Array:
    """Average (B, n, n, W) to (B, side * side, W); cells that a border cuts count on both sides."""
    n = grid.shape[1]
    spans = [slice(i * n // side, -(-(i + 1) * n // side)) for i in range(side)]
    cells = [grid[:, rows, columns].mean(axis=(1, 2)) for rows in spans for columns in spans]
    return np.stack(cells, axis=1)


def expected(reference: Reference, features: str) -> Array:
    if features in ("projected", "pooled"):
        return getattr(reference, features)
    if features.startswith("tokens:"):
        patches = average(reference.grids[-1], int(features.removeprefix("tokens:")))
        first = [reference.cls[-1][:, None]] if reference.cls else []
        return np.concatenate([*first, patches], axis=1).reshape(len(patches), -1)
    names = {"cls": "layers:-1", "mean": "layers:-1+mean", "cls+mean": "layers:-1+mean"}
    layers, _, mean = names.get(features, features).removeprefix("layers:").partition("+")
    parts = []
    for layer in map(int, layers.split(",")):
        if reference.cls and features != "mean":
            parts.append(reference.cls[layer])
        if mean:
            parts.append(reference.grids[layer].mean(axis=(1, 2)))
    return np.concatenate(parts, axis=1)


@pytest.fixture(scope="module")
def checkpoints(
    folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    folder = tmp_path_factory.mktemp("features") / "registers"
    config = Dinov2WithRegistersConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=32,
        patch_size=8,
        num_register_tokens=3,
    )
    model = Dinov2WithRegistersModel(config)
    published.randomize(model, seed=8)
    model.save_pretrained(folder)
    processor = (folders["vit"] / "preprocessor_config.json").read_text()
    (folder / "preprocessor_config.json").write_text(processor)
    return {**folders, "registers": folder}


@pytest.mark.parametrize("family", FEATURES)
def test_features_equal_hidden_states(
    checkpoints: dict[str, Path], images: dict[str, Any], family: str
) -> None:
    folder = checkpoints[family]
    default = fc.load_encoder(folder, device="cpu")
    pixels = np.stack([default.preprocess(images[name]) for name in ("tall", "palette", "small")])
    of_network = reference(folder, pixels)
    for features in FEATURES[family]:
        encoder = fc.load_encoder(folder, device="cpu", features=features)
        want = expected(of_network, features)
        got = encoder.embed_pixels(pixels)
        assert got.shape == want.shape == (3, encoder.dim)
        assert np.abs(got - want).max() < TOLERANCE * max(1, np.abs(want).max())
        assert np.abs(want[0] - want[1]).max() > 100 * TOLERANCE
        assert encoder.aligned == (features == "projected")
        is_default = features == str(default.features)
        assert (encoder.image_spec == default.image_spec) == is_default
        tokens = parse_features(features).grid
        n_tokens = None if tokens is None else tokens**2 + bool(of_network.cls)
        assert encoder.n_tokens == n_tokens
        assert encoder.image_spec.get("tokens") == n_tokens
        assert encoder.network_id == default.network_id
    together = default.embed_features(pixels, [*map(parse_features, FEATURES[family])])
    for features, got in zip(FEATURES[family], together, strict=True):
        want = expected(of_network, features)
        assert np.abs(got - want).max() < TOLERANCE * max(1, np.abs(want).max())


def test_features_of_real_weights_equal_hidden_states(
    shared_models: Path, images: dict[str, Any]
) -> None:
    folder = shared_models / "dinov2-small"
    encoder = fc.load_encoder(folder, device="cpu")
    pixels = np.stack([encoder.preprocess(images[name]) for name in ("tall", "palette")])
    of_network = reference(folder, pixels)
    names = ["pooled", "cls", "mean", "cls+mean", "layers:-1,-2,-3,-4+mean", "tokens:7"]
    got = encoder.embed_features(pixels, [*map(parse_features, names)])
    for name, values in zip(names, got, strict=True):
        want = expected(of_network, name)
        assert values.shape == want.shape
        assert np.abs(values - want).max() < TOLERANCE * max(1, np.abs(want).max()), name
        assert np.abs(want[0] - want[1]).max() > 100 * TOLERANCE


@pytest.mark.parametrize("family", ["clip", "joined"])
def test_projecting_pooled_vectors_gives_projected_ones(
    checkpoints: dict[str, Path], family: str
) -> None:
    pixels = np.random.default_rng(3).normal(size=(3, 3, 32, 32)).astype(np.float32)
    encoder = fc.load_encoder(checkpoints[family], device="cpu", features="pooled")
    kinds = [*map(parse_features, ("pooled", "projected", "tokens:2"))]
    pooled, projected, tokens = encoder.embed_features(pixels, kinds)
    got = encoder.project_tokens(pooled[:, None].astype(np.float16))[:, 0]
    assert np.abs(got - projected).max() < 1e-3 * np.abs(projected).max()
    single = tokens.reshape(3, -1, pooled.shape[1])
    if family == "joined":  # its pooling is the mean of the tokens, and its projection is linear
        mean = encoder.project_tokens(single).mean(axis=1)
        assert np.abs(mean - projected).max() < TOLERANCE * max(1, np.abs(projected).max())


def test_siglip_tokens_are_pooled_one_by_one(checkpoints: dict[str, Path]) -> None:
    from transformers import AutoModel

    tokens = np.random.default_rng(3).normal(size=(2, 4, 32)).astype(np.float32)
    head = AutoModel.from_pretrained(checkpoints["siglip"]).vision_model.head
    with torch.no_grad():
        want = head(torch.from_numpy(tokens).reshape(8, 1, 32)).reshape(2, 4, 32).numpy()
    got = fc.load_encoder(checkpoints["siglip"], device="cpu").project_tokens(tokens)
    assert np.abs(got - want).max() < TOLERANCE
    with pytest.raises(UsageError, match="projects images into no space of texts"):
        fc.load_encoder(checkpoints["vit"], device="cpu").project_tokens(tokens)


@pytest.mark.parametrize("family", ["registers", "joined"])
def test_openvino_computes_the_same_features(checkpoints: dict[str, Path], family: str) -> None:
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    features = [*map(parse_features, FEATURES[family])]
    pixels = np.random.default_rng(3).normal(size=(3, 3, 32, 32)).astype(np.float32)
    torch_encoder = fc.load_encoder(checkpoints[family], device="cpu")
    encoder = fc.load_encoder(checkpoints[family], device="cpu", backend="openvino")
    want = torch_encoder.embed_features(pixels, features)
    for a, b in zip(encoder.embed_features(pixels, features), want, strict=True):
        assert np.abs(a - b).max() < 10 * TOLERANCE * max(1, np.abs(b).max())
    for a, b in zip(encoder.embed_features(pixels, features[:1]), want, strict=False):
        assert np.abs(a - b).max() < 10 * TOLERANCE * max(1, np.abs(b).max())
    assert encoder.network_id != torch_encoder.network_id


@pytest.mark.parametrize(
    ("family", "features", "reason"),
    [
        ("clip", "tokens:5", "grid is of 4 x 4 patches"),
        ("clip", "layers:-1,-3", "it has 2 layers"),
        ("siglip", "pooled", "no pooled vector before a projection"),
        ("siglip", "cls+mean", "no class token"),
        ("siglip", "layers:-1", r"add \+mean, as in layers:-1\+mean"),
        ("dinov2", "projected", "no space of images and texts"),
        ("joined", "cls", "no class token: choose `features` from projected pooled mean layers"),
    ],
)
def test_features_that_a_network_lacks_are_refused_by_name(
    folders: dict[str, Path], family: str, features: str, reason: str
) -> None:
    message = f"does not offer the features {features}, because "
    with pytest.raises(UsageError, match=f"{re.escape(message)}.*{reason}"):
        fc.load_encoder(folders[family], device="cpu", features=features)


@pytest.mark.parametrize(
    ("text", "name", "suffix"),
    [
        ("CLS + mean", "cls+mean", "cls+mean"),
        ("layers:-1,-2,-3,-4 +mean", "layers:-1,-2,-3,-4+mean", "layers-1-2-3-4+mean"),
        ("layers: -12, -1", "layers:-12,-1", "layers-12-1"),
        ("tokens:07", "tokens:7", "tokens-7"),
    ],
)
def test_features_have_one_spelling(text: str, name: str, suffix: str) -> None:
    features = parse_features(text)
    assert (str(features), features.suffix) == (name, suffix)
    assert parse_features(name) == features


@pytest.mark.parametrize(
    "text",
    ["", "patches", "layers:", "layers:3", "layers:-0", "layers:-1,-1", "tokens:0", "mean+cls"],
)
def test_other_features_do_not_exist(text: str) -> None:
    with pytest.raises(UsageError, match=r"there are no features .*layers:-1,-2"):
        parse_features(text)


def test_encoders_that_are_loaded_or_read_texts_keep_their_features(
    folders: dict[str, Path],
) -> None:
    encoder = fc.load_encoder("tiny", device="cpu", features="pooled")
    assert encoder.cache_name == "tiny.pooled"
    assert (encoder.scale, encoder.bias) == (None, None)
    with pytest.raises(UsageError, match="is loaded already: give `features` to load_encoder"):
        fc.extract("phantom", encoder, features="mean")
    with pytest.raises(UsageError, match="texts only"):
        fc.load_encoder(folders["dinov2"].parent / "all-MiniLM-L6-v2", features="mean")
    with pytest.raises(UsageError, match="is fine-tuned as published: leave out `features`"):
        encoder.trainable()
    spec = encoder.image_spec
    with pytest.raises(
        RunError, match="used `features` 'default', but these embeddings `features` 'pooled'"
    ):
        library_difference(fc.load_encoder("tiny", device="cpu").image_spec, spec, source="a run")
