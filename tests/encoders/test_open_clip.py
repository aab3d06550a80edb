"""Image towers of open_clip against direct calls of open_clip, on random weights."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn.functional import avg_pool2d

import featurecache as fc
from featurecache.encoders.encoder import Encoder
from featurecache.encoders.open_clip import OpenClipEncoder
from featurecache.errors import UsageError
from featurecache.features import parse_features
from tests import published
from tests.extraction.stub_encoder import make_dataset, write_images
from tests.timm_library import import_open_clip

open_clip = import_open_clip()

VIT = {"image_size": 32, "layers": 3, "width": 16, "head_width": 8, "patch_size": 8}
TIMM = {"image_size": 160, "timm_pool": "", "timm_proj": "linear"}
TOWERS: dict[str, dict[str, Any]] = {
    "vit": VIT,
    "average": {**VIT, "pool_type": "avg"},
    "average, then norm": {**VIT, "pool_type": "avg", "final_ln_after_pool": True},
    "attention": {**VIT, "attentional_pool": True, "attn_pooler_heads": 2},
    "resnet": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 8},
    "timm": {**TIMM, "timm_model_name": "test_vit"},
    "timm, average": {
        **TIMM,
        "timm_model_name": "test_vit4",
        "timm_pool": "avg",
        "timm_proj": "",
    },
    "timm, attention": {
        **TIMM,
        "timm_model_name": "test_vit3",
        "timm_pool": "map",
        "timm_proj": "none",
    },
    "timm, maps": {
        **TIMM,
        "timm_model_name": "test_convnext",
        "timm_pool": "avg",
        "timm_proj": "mlp",
    },
}
WITH_CLASS_TOKEN = ["vit", "average", "average, then norm", "timm"]
EMBEDDING_ALONE = ["attention", "resnet"]


@pytest.fixture(scope="module", autouse=True)
def no_torchvision() -> Iterator[None]:
    """Without torchvision there is no transform."""
    with pytest.MonkeyPatch.context() as patch:
        if find_spec("torchvision") is None:
            patch.setattr("open_clip.transform.image_transform_v2", resized)
            libraries = ("torch", "open_clip_torch", "pillow")
            patch.setattr(OpenClipEncoder, "_image_libraries", libraries)
        yield


def resized(settings: Any, is_train: bool) -> Any:
    side = (settings.size, settings.size)

    def transform(image: Image.Image) -> torch.Tensor:
        values = np.asarray(image.resize(side), dtype=np.float32) / 255
        return torch.from_numpy(values.transpose(2, 0, 1))

    return transform


def dim_of(name: str) -> int:
    return 96 if name == "timm, attention" else 12  # which is what it pools


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("open_clip")
    for seed, (name, tower) in enumerate(TOWERS.items()):
        (root / name).mkdir()
        model = {
            "embed_dim": dim_of(name),
            "vision_cfg": tower,
            "text_cfg": {"context_length": 8, "width": 8, "heads": 2, "layers": 1},
        }
        published.write_json(root / name / "open_clip_config.json", {"model_cfg": model})
        torch.manual_seed(seed)
        network = open_clip.create_model(f"local-dir:{root / name}", load_weights=False)
        if name != "resnet":  # its images would all have the same embedding
            published.randomize(network, seed=seed)
        save_file(network.state_dict(), root / name / "open_clip_model.safetensors")
    return {name: root / name for name in TOWERS}


def load(folder: Path, features: str | None = None) -> Encoder:
    return fc.load_encoder("biomedclip", weights=folder, device="cpu", features=features)


def direct(folder: Path) -> tuple[Any, torch.Tensor]:
    """The network and its input, built by open_clip alone."""
    network = open_clip.create_model(f"local-dir:{folder}").eval()
    side = int(np.ravel(network.visual.image_size)[0])
    pixels = np.random.default_rng(2).normal(size=(2, 3, side, side)).astype(np.float32)
    return network, torch.from_numpy(pixels)


def assert_equal(got: np.ndarray, want: torch.Tensor) -> None:
    values = want.numpy()
    assert got.shape == values.shape
    assert np.abs(got - values).max() < 1e-5 * max(1, np.abs(values).max())
    assert np.abs(values[0] - values[1]).max() > 2e-5


@pytest.mark.parametrize("name", ["vit", "timm", *EMBEDDING_ALONE])
@torch.no_grad()
def test_embedding_equals_open_clip(folders: dict[str, Path], name: str) -> None:
    network, pixels = direct(folders[name])
    encoder = load(folders[name])
    assert str(encoder.features) == "projected"
    assert encoder.dim == dim_of(name)
    assert_equal(encoder.embed_pixels(pixels.numpy()), network.encode_image(pixels))


@pytest.mark.parametrize("name", [name for name in TOWERS if name not in EMBEDDING_ALONE])
@torch.no_grad()
def test_features_equal_open_clip(folders: dict[str, Path], name: str) -> None:
    network, pixels = direct(folders[name])
    has_maps = name == "timm, maps"
    output = network.visual.forward_intermediates(
        pixels, indices=3, normalize_intermediates=True, output_extra_tokens=not has_maps
    )
    last, earlier = (output["image_intermediates"][layer] for layer in (-1, -3))
    if name == "timm, average":  # it normalizes the mean of the patches, and no token
        norm = network.visual.trunk.fc_norm
        last, earlier = (norm(one.movedim(1, 3)).movedim(3, 1) for one in (last, earlier))
    side = last.shape[2] // (1 if has_maps else 2)
    cells = avg_pool2d(last, side).flatten(2).transpose(1, 2)
    means = [last.mean((2, 3)), earlier.mean((2, 3))]
    grid = last.shape[2] // side
    want = {
        "mean": means[0],
        "layers:-1,-3+mean": torch.cat(means, 1),
        f"tokens:{grid}": cells.flatten(1),
    }
    if name in WITH_CLASS_TOKEN:
        prefix = output["image_intermediates_prefix"]
        cls, earlier_cls = prefix[-1][:, 0], prefix[-3][:, 0]
        want |= {
            "cls": cls,
            "cls+mean": torch.cat([cls, means[0]], 1),
            "layers:-1,-3": torch.cat([cls, earlier_cls], 1),
            "layers:-1,-3+mean": torch.cat([cls, means[0], earlier_cls, means[1]], 1),
            f"tokens:{grid}": torch.cat([cls[:, None], cells], 1).flatten(1),
        }
    encoder = load(folders[name])
    assert encoder.dim == dim_of(name)
    kinds = [*want, "projected", *(["pooled"] if "pooled" in encoder.offered_features else [])]
    got = dict(
        zip(
            kinds,
            encoder.embed_features(pixels.numpy(), [parse_features(kind) for kind in kinds]),
            strict=True,
        )
    )
    for kind, features in want.items():
        assert_equal(got[kind], features)
    assert_equal(got["projected"], network.encode_image(pixels))
    if name not in WITH_CLASS_TOKEN:
        with pytest.raises(UsageError, match="no class token"):
            load(folders[name], "cls")
    if name == "timm, attention":
        with pytest.raises(UsageError, match="no pooled vector before a projection"):
            load(folders[name], "pooled")
    else:
        projected = project(network.visual, torch.from_numpy(got["pooled"]))
        assert_equal(projected.numpy(), network.encode_image(pixels))


def project(visual: Any, vectors: torch.Tensor) -> torch.Tensor:
    if hasattr(visual, "proj"):
        return vectors @ visual.proj
    projected: torch.Tensor = visual.head(visual.trunk.get_classifier()(vectors))
    return projected


@pytest.mark.parametrize("name", EMBEDDING_ALONE)
def test_tower_without_a_norm_of_tokens_offers_its_embedding(
    folders: dict[str, Path], name: str
) -> None:
    with pytest.raises(UsageError, match="does not offer the features mean, only projected"):
        load(folders[name], "mean")


@pytest.mark.parametrize("name", ["vit", "timm", "timm, average"])
@torch.no_grad()
def test_tokens_are_projected_one_by_one(folders: dict[str, Path], name: str) -> None:
    network, pixels = direct(folders[name])
    encoder = load(folders[name], "tokens:2")
    assert encoder.n_tokens == 4 + (name in WITH_CLASS_TOKEN)
    tokens = encoder.embed_pixels(pixels.numpy()).reshape(2, encoder.n_tokens, -1)
    projected = encoder.project_tokens(tokens)
    assert_equal(projected, project(network.visual, torch.from_numpy(tokens)))
    if name in WITH_CLASS_TOKEN:  # which is what it pools
        assert_equal(projected[:, 0], network.encode_image(pixels))


@pytest.mark.parametrize("name", ["timm, attention", "timm, maps", "resnet"])
def test_pooling_of_all_patches_projects_no_single_one(folders: dict[str, Path], name: str) -> None:
    with pytest.raises(UsageError, match="cannot project patches one by one"):
        load(folders[name]).project_tokens(np.zeros((1, 1, 16), np.float32))


@torch.no_grad()
def test_extraction_of_several_kinds(folders: dict[str, Path], tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "set", write_images(tmp_path / "set", 3))
    kinds = ["projected", "pooled", "tokens:1"]
    caches = fc.extract(
        dataset,
        "biomedclip",
        weights=folders["timm"],
        features=kinds,
        device="cpu",
        precision="exact",
        cache_dir=tmp_path / "cache",
    )
    assert [cache.features for cache in caches] == [None, "pooled", "tokens:1"]
    network, _ = direct(folders["timm"])
    encoder = load(folders["timm"])
    files = [dataset.root / path for path in dataset.images["path"]]
    pixels = torch.from_numpy(np.stack([encoder.preprocess(Image.open(file)) for file in files]))
    output = network.visual.forward_intermediates(
        pixels, indices=1, normalize_intermediates=True, output_extra_tokens=True
    )
    cls = output["image_intermediates_prefix"][0][:, 0]
    mean = output["image_intermediates"][0].mean((2, 3))
    for cache, want in zip(
        caches, [network.encode_image(pixels), cls, torch.cat([cls, mean], 1)], strict=True
    ):
        np.testing.assert_allclose(cache.mapped, want.numpy(), atol=1e-3, rtol=1e-3)
