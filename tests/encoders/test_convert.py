"""Published checkpoints, as their authors lay them out, converted and compared with their own code.

The layouts are those of the authors' code; the weights are random, and most networks small.
"""

import argparse
import os
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from featurecache.cli.app import app
from featurecache.encoders import convert as module
from featurecache.encoders.convert import convert_checkpoint
from featurecache.encoders.loading import load_encoder
from featurecache.encoders.published_layouts import LAYOUTS
from featurecache.encoders.registry import ENCODERS
from featurecache.errors import CheckpointError, UnknownNameError, UsageError
from tests import published
from tests.timm_library import import_timm, with_placeholders

timm = import_timm()


def pixels_of(side, n=2):
    return np.random.default_rng(2).normal(size=(n, 3, side, side)).astype(np.float32)


def check(folder, name, pixels, want):
    """The converted network embeds as the original, and says what it may have seen."""
    encoder = load_encoder(name, weights=folder, device="cpu")
    got = encoder.embed_pixels(pixels)
    want = want.detach().numpy()
    assert got.shape == want.shape
    assert np.abs(got - want).max() < 1e-5 * max(1, np.abs(want).max())
    assert np.abs(want[0] - want[1]).max() > 1e-4
    assert encoder.provenance.exposed_to == ENCODERS[name].exposed_to
    assert load_encoder(folder, device="cpu").provenance == encoder.provenance
    assert not list(folder.glob("*.bin"))
    return encoder


def shrink(monkeypatch, name, *, side=None, **arguments):
    """Make a published network small."""
    layout = LAYOUTS[name]
    preprocessing = dict(layout.preprocessing)
    if side is not None:
        preprocessing["input_size"] = [3, side, side]
    small = replace(
        layout, arguments={**layout.arguments, **arguments}, preprocessing=preprocessing
    )
    monkeypatch.setattr(module, "LAYOUTS", {**LAYOUTS, name: small})


@pytest.mark.parametrize("name", LAYOUTS)
def test_listed_sizes_are_those_of_the_networks(name):
    layout, spec = LAYOUTS[name], ENCODERS[name]
    if layout.architecture == "dinov2_with_registers":
        assert layout.arguments["hidden_size"] == spec.dim
        assert layout.arguments["image_size"] == spec.pixels
        return
    assert layout.preprocessing["input_size"][1:] == [spec.pixels, spec.pixels]
    with torch.device("meta"):
        network = timm.create_model(layout.architecture, num_classes=0, **layout.arguments)
    assert network.num_features == spec.dim
    assert spec.download
    assert spec.extra == "timm"


EVA_X = {
    "tiny": {"embed_dim": 192, "num_heads": 3},
    "base": {"embed_dim": 768, "num_heads": 12, "qkv_fused": False, "scale_mlp": True},
}


@pytest.mark.parametrize("size", EVA_X)
def test_eva_x(tmp_path, monkeypatch, size):
    name, depth = f"eva-x-{size}", 2  # of 12
    shrink(monkeypatch, name, depth=depth)
    network = timm.models.eva.Eva(  # as eva_x.py builds it
        img_size=224,
        patch_size=16,
        depth=depth,
        mlp_ratio=4 * 2 / 3,
        swiglu_mlp=True,
        use_rot_pos_emb=True,
        ref_feat_shape=(14, 14),
        **EVA_X[size],
    ).eval()
    published.randomize(network, seed=1)
    renames = (
        ("mlp.fc1_g", "mlp.w1"),
        ("mlp.fc1_x", "mlp.w2"),
        ("mlp.fc2", "mlp.w3"),
        ("mlp.norm", "mlp.ffn_ln"),
        ("q_proj.bias", "q_bias"),
        ("v_proj.bias", "v_bias"),
        ("fc_norm", "norm"),
    )
    state = {"mask_token": torch.zeros(1, 1, 8), "lm_head.weight": torch.zeros(512, 8)}
    state |= {"lm_head.bias": torch.zeros(512), "rope.freqs_cos": torch.zeros(196, 64)}
    for key, one in network.state_dict().items():
        for new, old in renames:
            key = key.replace(new, old)
        if not key.startswith("head."):
            state[key] = one
    torch.save({"module": state}, tmp_path / "eva_x.pt")
    convert_checkpoint(tmp_path / "eva_x.pt", tmp_path / name, model=name)
    pixels = pixels_of(224)
    with torch.no_grad():  # forward_features and forward_head(pre_logits=True) of eva_x.py
        x, rope = network._pos_embed(network.patch_embed(torch.tensor(pixels)))
        for block in network.blocks:
            x = block(x, rope=rope)
        want = network.fc_norm(network.norm(x)[:, 1:].mean(dim=1))
    encoder = check(tmp_path / name, name, pixels, want)
    config = encoder.image_spec["processor"]["config"]
    assert (config["mean"][0], config["std"][0]) == (0.49185243, 0.28509309)
    assert {"cls", "mean"} <= set(encoder.offered_features)


def test_ark_plus(tmp_path, monkeypatch):
    sizes = {"img_size": 96, "embed_dim": 12, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]}
    shrink(monkeypatch, "ark-plus", side=96, **sizes)
    network = timm.models.swin_transformer.SwinTransformer(
        num_classes=0, window_size=12, patch_size=4, **sizes
    ).eval()
    published.randomize(network, seed=2)

    def old_name(key):  # timm 0.5 merged patches at the end of a stage
        return re.sub(
            r"layers\.(\d)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", key
        )

    state = {f"module.{old_name(key)}": one for key, one in network.state_dict().items()}
    state |= {
        "module.layers.0.blocks.0.attn.relative_position_index": torch.zeros(144, 144).long(),
        "module.layers.0.blocks.1.attn_mask": torch.zeros(4, 144, 144),
        "module.projector.weight": torch.zeros(1376, 96),
        "module.omni_heads.0.weight": torch.zeros(14, 1376),
    }
    student = {key: torch.zeros_like(one) for key, one in state.items()}
    content = {"epoch": 50, "lossMIN": np.float64(0.2), "state_dict": student, "teacher": state}
    torch.save(content, tmp_path / "Ark6.pth.tar")
    convert_checkpoint(tmp_path / "Ark6.pth.tar", tmp_path / "ark", model="ark-plus")
    pixels = pixels_of(96)
    with torch.no_grad():
        want = network.forward_features(torch.tensor(pixels)).mean((1, 2))
    encoder = check(tmp_path / "ark", "ark-plus", pixels, want)
    wide = Image.new("L", (300, 100))
    assert encoder.preprocess(wide).shape == (3, 96, 96)


def test_chexfound(tmp_path, monkeypatch):
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 1, "image_size": 64}
    shrink(monkeypatch, "chexfound", **sizes)
    width, hidden = 64, 176  # of SwiGLU: two thirds of 4 * 64, in steps of 8
    generator = torch.Generator().manual_seed(3)
    shapes = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 17, width),
        "register_tokens": (1, 4, width),
        "mask_token": (1, width),
        "patch_embed.proj.weight": (width, 3, 16, 16),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
    }
    for i in range(2):
        shapes |= {
            f"blocks.{i}.{name}": shape
            for name, shape in {
                "norm1.weight": (width,),
                "norm1.bias": (width,),
                "attn.qkv.weight": (3 * width, width),
                "attn.qkv.bias": (3 * width,),
                "attn.proj.weight": (width, width),
                "attn.proj.bias": (width,),
                "ls1.gamma": (width,),
                "norm2.weight": (width,),
                "norm2.bias": (width,),
                "mlp.w12.weight": (2 * hidden, width),
                "mlp.w12.bias": (2 * hidden,),
                "mlp.w3.weight": (width, hidden),
                "mlp.w3.bias": (width,),
                "ls2.gamma": (width,),
            }.items()
        }
    state = {name: torch.randn(*shape, generator=generator) / 8 for name, shape in shapes.items()}
    content = {f"backbone.{name}": one for name, one in state.items()}
    content["dino_head.last_layer.weight_v"] = torch.zeros(3, 3)
    torch.save({"teacher": content}, tmp_path / "teacher_checkpoint.pth")
    convert_checkpoint(
        tmp_path / "teacher_checkpoint.pth", tmp_path / "chexfound", model="chexfound"
    )
    # The same network as timm knows it, which renames DINOv2's weights itself.
    network = timm.create_model(
        "vit_small_patch14_reg4_dinov2",
        patch_size=16,
        img_size=64,
        embed_dim=width,
        depth=2,
        num_heads=1,
        mlp_ratio=2 * hidden / width,
        mlp_layer=timm.layers.SwiGLUPacked,
        act_layer=torch.nn.SiLU,
        num_classes=0,
    ).eval()
    network.load_state_dict(timm.models.vision_transformer.checkpoint_filter_fn(state, network))
    pixels = pixels_of(64)
    with torch.no_grad():
        want = network.forward_features(torch.tensor(pixels))
    check(tmp_path / "chexfound", "chexfound", pixels, want[:, 0])
    mean = load_encoder(tmp_path / "chexfound", device="cpu", features="mean").embed_pixels(pixels)
    assert np.abs(mean - want[:, 5:].mean(1).numpy()).max() < 1e-5


def test_medimageinsight(tmp_path, monkeypatch):
    from safetensors.torch import save_file
    from transformers import Florence2VisionConfig
    from transformers.models.florence2.modeling_florence2 import Florence2VisionBackbone

    heads = [1, 2, 2, 4]
    sizes = {"embed_dims": [8, 16, 32, 64], "depths": [1, 1, 2, 1], "num_heads": heads}
    shrink(monkeypatch, "medimageinsight", side=96, **sizes)
    # Florence-2 has the same DaViT, in another implementation, and no norm after its pooling.
    config = Florence2VisionConfig(
        embed_dim=sizes["embed_dims"],
        depths=sizes["depths"],
        num_heads=heads,
        num_groups=heads,
        drop_path_rate=0.0,
    )
    network = Florence2VisionBackbone(config).eval()
    norm = torch.nn.LayerNorm(64)
    for seed, one in enumerate((network, norm)):
        published.randomize(one, seed=seed)
    renames = (
        (r"(convs\.\d)\.conv\.", r"\1.proj."),
        (r"\.(conv[12])\.", r".\1.fn.dw."),
        (r"spatial_block\.norm1\.", "spatial_block.window_attn.norm."),
        (r"channel_block\.norm1\.", "channel_block.channel_attn.norm."),
        (r"\.norm2\.", ".ffn.norm."),
        (r"_attn\.(qkv|proj)\.", r"_attn.fn.\1."),
        (r"\.ffn\.(fc[12])\.", r".ffn.fn.net.\1."),
    )
    state = {"image_projection": torch.zeros(64, 32), "lang_encoder.positional": torch.zeros(1)}
    for key, one in network.state_dict().items():
        for pattern, name in renames:
            key = re.sub(pattern, name, key)
        state[f"image_encoder.{key}"] = one
    state |= {f"image_encoder.norms.{key}": one for key, one in norm.state_dict().items()}
    save_file(state, tmp_path / "medimageinsigt-v1.0.0.pt")  # published with this suffix
    convert_checkpoint(
        tmp_path / "medimageinsigt-v1.0.0.pt", tmp_path / "insight", model="medimageinsight"
    )
    pixels = pixels_of(96)
    with torch.no_grad():
        want = norm(network(torch.tensor(pixels)).last_hidden_state.mean((2, 3)))
    check(tmp_path / "insight", "medimageinsight", pixels, want)


@pytest.fixture(scope="module")
def torchxrayvision():
    folder = os.environ.get("FEATURECACHE_REFERENCE", "")
    wheel = next(Path(folder).glob("torchxrayvision-*.whl"), None)
    if not folder or wheel is None:
        pytest.skip("no torchxrayvision: run make reference, and set FEATURECACHE_REFERENCE")
    sys.path.insert(0, str(wheel))
    try:
        yield with_placeholders(
            "torchxrayvision",
            "skimage",
            "skimage.color",
            "skimage.io",
            "skimage.transform",
            "imageio",
            "requests",
            "tqdm",
        )
    finally:
        sys.path.remove(str(wheel))


def test_densenet_of_torchxrayvision(tmp_path, torchxrayvision):
    torch.manual_seed(4)
    network = torchxrayvision.models.DenseNet().eval()
    with torch.no_grad():
        for name, one in network.state_dict().items():
            if "norm" in name and one.is_floating_point():
                one.uniform_(0.5, 1.5)
    path = tmp_path / "densenet.pt"
    torch.save(network, path)  # as it is published
    with pytest.raises(CheckpointError, match=r"torch\.save\(model\.state_dict"):
        convert_checkpoint(path, tmp_path / "x", model="densenet121-res224-nih")
    torch.save(network.state_dict(), path)
    name = "densenet121-res224-nih"
    convert_checkpoint(path, tmp_path / name, model=name)
    pixels = pixels_of(224)
    with torch.no_grad():
        want = network.features2(torch.tensor(pixels[:, :1]))
    encoder = check(tmp_path / name, name, pixels, want)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (224, 224), dtype=np.uint8))
    expected = torchxrayvision.utils.normalize(np.asarray(image, np.float32), 255)
    assert np.abs(encoder.preprocess(image)[0] - expected).max() < 1e-3  # of -1024 to 1024
    assert encoder.preprocess(Image.new("L", (400, 300), 255)).max() == 1024


def test_any_architecture_of_timm_and_the_entries_of_a_training_checkpoint(tmp_path):
    network = timm.create_model("resnet18", pretrained=False, num_classes=3).eval()
    state = network.state_dict()
    content = {"model": state, "args": argparse.Namespace(lr=0.1), "epoch": 3}
    torch.save(content, tmp_path / "training.pth")
    folder = convert_checkpoint(tmp_path / "training.pth", tmp_path / "out", model="timm:resnet18")
    encoder = load_encoder("timm:resnet18", weights=folder, device="cpu")
    with torch.no_grad():
        pixels = pixels_of(224)
        want = network.forward_head(network.forward_features(torch.tensor(pixels)), pre_logits=True)
    assert np.abs(encoder.embed_pixels(pixels) - want.numpy()).max() < 1e-5
    torch.save({"state_dict": state, "model": state}, tmp_path / "two.pth")
    with pytest.raises(CheckpointError, match=r"which of its entries .*state_dict, model"):
        convert_checkpoint(tmp_path / "two.pth", tmp_path / "two", model="timm:resnet18")
    with pytest.raises(UsageError, match="already exists"):
        convert_checkpoint(tmp_path / "training.pth", folder, model="timm:resnet18")
    with pytest.raises(CheckpointError, match="do not fit"):
        convert_checkpoint(tmp_path / "training.pth", tmp_path / "x", model="timm:resnet34")
    assert not (tmp_path / "x").exists()
    with pytest.raises(UnknownNameError, match="did you mean eva-x-base"):
        convert_checkpoint(tmp_path / "training.pth", tmp_path / "x", model="eva-x-bas")


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit('code was run')",)


@pytest.mark.parametrize("content", [Evil(), {"model": Evil()}, torch.nn.LSTM(2, 2)])
def test_code_in_a_file_is_never_run(tmp_path, content):
    torch.save(content, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match="holds more than weights"):
        convert_checkpoint(tmp_path / "evil.pth", tmp_path / "out", model="timm:resnet18")
    assert not (tmp_path / "out").exists()


def test_what_to_do_without_weights(tmp_path):
    with pytest.raises(CheckpointError, match=r"MapleF/eva_x.*models convert"):
        load_encoder("eva-x-base", device="cpu")
    (tmp_path / "eva.pt").touch()
    with pytest.raises(CheckpointError, match="models convert"):
        load_encoder("eva-x-base", weights=tmp_path / "eva.pt", device="cpu")


def test_command(tmp_path):
    network = timm.create_model("resnet18", pretrained=False)
    torch.save(network.state_dict(), tmp_path / "resnet.pth")
    arguments = ["models", "convert", str(tmp_path / "resnet.pth"), str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*arguments, "--model", "timm:resnet18"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out" / "model.safetensors").is_file()
    assert CliRunner().invoke(app, [*arguments, "--model", "resnet18"]).exit_code == 2
