"""Trainable encoders: gradients, frozen weights, and saved checkpoints."""

import json
import shutil

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from featurecache.encoders.loading import RUN_FORMAT, load_architecture, load_encoder
from featurecache.encoders.open_clip import OpenClipEncoder
from featurecache.errors import CheckpointError, UsageError
from featurecache.provenance.provenance import PROVENANCE_FILE, Provenance
from featurecache.runs import folder as runs
from tests import published

PIXELS = np.random.default_rng(3).normal(size=(3, 3, 32, 32)).astype(np.float32)
DUAL = ("clip", "siglip", "joined")
VISION = ("dinov2", "vit")
# With gradients torch computes attention in another way: the last digits differ.
TOLERANCE = 1e-5


@pytest.fixture
def load(folders):
    return lambda shape, **options: load_encoder(str(folders[shape]), device="cpu", **options)


def pixels(shape: str) -> np.ndarray:
    return PIXELS[..., :28, :28].copy() if shape == "dinov2" else PIXELS


def step(trainable, shape: str) -> None:
    """Take a step of SGD; each parameter that is not frozen has a gradient."""
    embedding = trainable.embed_images(torch.tensor(pixels(shape)))
    loss = embedding.square().mean() + sum(value.sum() for value in trainable.module.parameters())
    loss.backward()
    torch.optim.SGD(trainable.module.parameters(), lr=1e-3).step()
    trainable.module.zero_grad()


def state(trainable) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in trainable.module.named_parameters()}


# --- embedding -----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [*DUAL, *VISION])
def test_trainable_encoder_embeds_as_the_frozen_one(load, shape):
    encoder = load(shape, precision="bf16")
    trainable = encoder.trainable()
    assert {value.dtype for value in trainable.module.parameters()} == {torch.float32}
    assert all(value.requires_grad for value in trainable.module.parameters())
    frozen = load(shape)
    got = trainable.embed_images(torch.tensor(pixels(shape))).detach().numpy()
    assert np.abs(got - frozen.embed_pixels(pixels(shape))).max() < TOLERANCE
    if shape in DUAL:
        texts = published.SENTENCES * 8  # more than one batch
        got = trainable.embed_texts(texts).detach().numpy()
        assert np.abs(got - frozen.encode_texts(texts)).max() < TOLERANCE


@pytest.mark.parametrize(
    ("shape", "contrastive", "scale", "bias"),
    [
        ("clip", "softmax", 4.2, None),
        ("siglip", "sigmoid", 4.7, -12.9),
        ("joined", "softmax", 3.1, None),
        ("dinov2", None, None, None),
    ],
)
def test_trainable_scale_and_bias_equal_the_checkpoint(load, shape, contrastive, scale, bias):
    encoder = load(shape)
    trainable = encoder.trainable()
    assert trainable.contrastive == contrastive
    if scale is None:
        assert trainable.log_scale is None
        assert trainable.scale() is None
    else:
        assert trainable.log_scale.item() == pytest.approx(scale)
        assert trainable.scale().item() == pytest.approx(encoder.scale)
    if bias is None:
        assert trainable.bias is None
    else:
        assert trainable.bias.item() == pytest.approx(bias)


# transformers 5.0, as in load_tokenizer.
@pytest.mark.filterwarnings("ignore:.*will not create from files:DeprecationWarning")
@pytest.mark.parametrize("shape", ["clip", "siglip"])
def test_gradients_equal_those_of_the_loss_in_transformers(load, folders, shape):
    from transformers import AutoModel, AutoTokenizer

    texts = published.SENTENCES[: len(PIXELS)]
    model = AutoModel.from_pretrained(folders[shape]).eval()
    tokenizer = AutoTokenizer.from_pretrained(folders[shape])
    if shape == "siglip":
        ids = tokenizer(texts, padding="max_length", max_length=64, return_tensors="pt").input_ids
        tokens = {"input_ids": ids}
    else:
        tokens = tokenizer(texts, padding=True, return_tensors="pt")
    model(**tokens, pixel_values=torch.tensor(PIXELS), return_loss=True).loss.backward()

    trainable = load(shape).trainable()
    images = normalize(trainable.embed_images(torch.tensor(PIXELS)))
    logits = images @ normalize(trainable.embed_texts(texts)).T * trainable.scale()
    if trainable.contrastive == "sigmoid":
        signs = 2 * torch.eye(len(texts)) - 1
        loss = -torch.nn.functional.logsigmoid(signs * (logits + trainable.bias)).sum(1).mean()
    else:
        rows = torch.arange(len(texts))
        cross_entropy = torch.nn.functional.cross_entropy
        loss = (cross_entropy(logits, rows) + cross_entropy(logits.T, rows)) / 2
    loss.backward()

    want = {name: value.grad for name, value in model.named_parameters()}
    got = {name: value.grad for name, value in trainable.module.named_parameters()}
    assert got.keys() == want.keys()
    for name, gradient in want.items():
        assert torch.allclose(got[name], gradient, rtol=1e-4, atol=1e-5), name
    moved = ["logit_scale"]
    moved += (
        ["visual_projection.weight", "text_projection.weight"]
        if shape == "clip"
        else ["logit_bias", "vision_model.head.mlp.fc2.weight", "text_model.head.weight"]
    )
    for name in moved:
        assert got[name].abs().max() > 1e-4, name


def test_training_does_not_change_the_frozen_network(load):
    encoder = load("clip")
    before = encoder.embed_pixels(PIXELS)
    trainable = encoder.trainable()
    step(trainable, "clip")
    assert np.array_equal(encoder.embed_pixels(PIXELS), before)
    assert not np.allclose(trainable.embed_images(torch.tensor(PIXELS)).detach(), before)


# --- what trains ---------------------------------------------------------------------------

# Per shape and part, the prefixes of the parameters that train.
TRAINS = {
    ("clip", "all"): [""],
    ("clip", "vision"): ["vision_model.", "visual_projection.", "logit_scale"],
    ("clip", "last-1"): [
        "vision_model.encoder.layers.1.",
        "vision_model.post_layernorm.",
        "visual_projection.",
        "logit_scale",
    ],
    ("clip", "last-2"): [
        "vision_model.encoder.layers.",
        "vision_model.post_layernorm.",
        "visual_projection.",
        "logit_scale",
    ],
    ("clip", "head"): ["visual_projection.", "text_projection.", "logit_scale"],
    ("siglip", "all"): [""],
    ("siglip", "vision"): ["vision_model.", "logit_scale", "logit_bias"],
    ("siglip", "last-1"): [
        "vision_model.encoder.layers.1.",
        "vision_model.post_layernorm.",
        "vision_model.head.",
        "logit_scale",
        "logit_bias",
    ],
    ("siglip", "head"): ["vision_model.head.", "text_model.head.", "logit_scale", "logit_bias"],
    ("joined", "all"): [""],
    ("joined", "vision"): ["vision_model.", "visual_projection.", "logit_scale"],
    ("joined", "last-1"): [
        "vision_model.encoder.stages.1.",
        "vision_model.norm.",
        "visual_projection.",
        "logit_scale",
    ],
    ("joined", "head"): ["visual_projection.", "text_projection.", "logit_scale"],
    ("dinov2", "all"): [""],
    ("dinov2", "vision"): [""],
    ("dinov2", "last-1"): ["encoder.layer.1.", "layernorm."],
    ("dinov2", "head"): [],
    # Where ViT keeps its blocks depends on the release of transformers.
    ("vit", "last-1"): ["layers.1.", "encoder.layer.1.", "layernorm."],
}


@pytest.mark.parametrize(("shape", "part"), TRAINS)
def test_step_changes_only_the_trainable_group(load, shape, part):
    trainable = load(shape).trainable()
    before = state(trainable)
    count = trainable.set_trainable(part)
    expected = {name for name in before if name.startswith(tuple(TRAINS[shape, part]))}
    assert count == sum(before[name].numel() for name in expected)
    assert {n for n, v in trainable.module.named_parameters() if v.requires_grad} == expected
    if expected:
        step(trainable, shape)
    after = state(trainable)
    assert {name for name in before if not torch.equal(before[name], after[name])} == expected


def test_trainable_group_replaces_the_previous_one(load):
    trainable = load("clip").trainable()
    few = trainable.set_trainable("head")
    assert trainable.set_trainable("all") > few
    assert trainable.set_trainable("head") == few


@pytest.mark.parametrize("part", ["last-3", "last-0", "last-", "last--1", "last", "text", ""])
def test_unknown_group_is_refused_with_the_number_of_blocks(load, part):
    trainable = load("clip").trainable()
    trainable.set_trainable("head")
    frozen = [value.requires_grad for value in trainable.module.parameters()]
    with pytest.raises(UsageError, match=f"'{part}'.* 2 blocks.*last-2.*all, vision, head"):
        trainable.set_trainable(part)
    assert [value.requires_grad for value in trainable.module.parameters()] == frozen


# --- saving --------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [*DUAL, *VISION])
def test_saved_encoder_can_be_read_by_plain_transformers(load, tmp_path, shape):
    from transformers import AutoModel

    trainable = load(shape).trainable()
    step(trainable, shape)
    trainable.save(tmp_path / "saved")
    # Only our own class leaves out the pooler of a ViT.
    options = {"add_pooling_layer": False} if shape == "vit" else {}
    model, report = AutoModel.from_pretrained(
        tmp_path / "saved", output_loading_info=True, **options
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    values = torch.tensor(pixels(shape))
    with torch.no_grad():
        if shape == "joined":
            pooled = model.eval().vision_model(pixel_values=values).pooler_output
            want = model.visual_projection(pooled.flatten(1))
        elif shape in DUAL:
            features = model.eval().get_image_features(pixel_values=values)
            want = getattr(features, "pooler_output", features)
        else:
            want = model.eval()(pixel_values=values).last_hidden_state[:, 0]
        assert (trainable.embed_images(values) - want).abs().max() < 1e-6
    for name, value in trainable.module.named_parameters():
        assert torch.equal(value, model.get_parameter(name)), name


@pytest.mark.parametrize("shape", [*DUAL, *VISION])
def test_saved_encoder_can_be_loaded(load, folders, tmp_path, images, shape):
    source = load(shape)
    trainable = source.trainable()
    step(trainable, shape)
    trainable.save(tmp_path / "tuned")
    tuned = load_encoder(str(tmp_path / "tuned"), device="cpu")
    assert tuned.name == "tuned"
    assert tuned.image_spec["weights"] != source.image_spec["weights"]
    assert tuned.image_spec["processor"] == source.image_spec["processor"]
    want = trainable.embed_images(torch.tensor(pixels(shape))).detach().numpy()
    assert np.abs(tuned.embed_pixels(pixels(shape)) - want).max() < TOLERANCE
    image = images["tall"]
    assert np.array_equal(tuned.preprocess(image), source.preprocess(image))
    if shape in DUAL:
        texts = published.SENTENCES
        want = trainable.embed_texts(texts).detach().numpy()
        assert np.abs(tuned.encode_texts(texts) - want).max() < TOLERANCE
        assert tuned.text_spec["tokenizer"] == source.text_spec["tokenizer"]
        assert tuned.scale == pytest.approx(trainable.scale().item(), rel=1e-6)
        assert tuned.scale != source.scale
    if shape == "siglip":
        assert tuned.bias == trainable.bias.item()
        assert tuned.bias != source.bias
    written = {path.name for path in (tmp_path / "tuned").iterdir()}
    assert written == {path.name for path in folders[shape].iterdir()}
    for name in written - {"config.json", "model.safetensors"}:
        assert (tmp_path / "tuned" / name).read_bytes() == (folders[shape] / name).read_bytes()


def test_weights_are_saved_as_safetensors(load, folders, tmp_path):
    from safetensors.torch import load_file

    pickled = tmp_path / "pickled"
    shutil.copytree(folders["clip"], pickled)
    (pickled / "model.safetensors").unlink()
    torch.save(load_file(folders["clip"] / "model.safetensors"), pickled / "pytorch_model.bin")
    load_encoder(str(pickled), device="cpu").trainable().save(tmp_path / "saved")
    assert (tmp_path / "saved" / "model.safetensors").is_file()
    assert not list((tmp_path / "saved").glob("*.bin"))


def test_saved_config_contains_no_source_path(load, folders, tmp_path):
    load("clip").trainable().save(tmp_path / "saved")
    config = (tmp_path / "saved" / "config.json").read_text()
    assert json.loads(config)["model_type"] == "clip"
    assert str(folders["clip"].parent) not in config


def test_save_does_not_overwrite(load, tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(UsageError, match="there already exists"):
        load("dinov2").trainable().save(tmp_path / "there")
    assert not list((tmp_path / "there").iterdir())


def test_failed_save_leaves_no_files(folders, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folders["dinov2"], copy)
    trainable = load_encoder(str(copy), device="cpu").trainable()
    (copy / "preprocessor_config.json").unlink()
    with pytest.raises(FileNotFoundError):
        trainable.save(tmp_path / "saved")
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


# --- run folders ---------------------------------------------------------------------------


def test_run_folder_loads_its_encoder(load, tmp_path):
    trainable = load("clip").trainable()
    step(trainable, "clip")
    run = tmp_path / "my-run"
    with runs.new_run(run) as folder:
        runs.write_config(folder, "finetune", {})
        runs.write_json(folder / PROVENANCE_FILE, Provenance().to_json())
        trainable.save(folder / "encoder")
    encoder = load_encoder(str(run), device="cpu")
    assert encoder.name == "my-run"
    want = trainable.embed_images(torch.tensor(PIXELS)).detach().numpy()
    assert np.abs(encoder.embed_pixels(PIXELS) - want).max() < TOLERANCE


def test_run_without_encoder_is_refused(tmp_path):
    with runs.new_run(tmp_path / "head-run") as folder:
        runs.write_config(folder, "head", {})
    with pytest.raises(CheckpointError, match=r"head-run is a run without an encoder"):
        load_encoder(str(tmp_path / "head-run"), device="cpu")


def test_run_format_equals_that_of_run_folders():
    assert RUN_FORMAT == runs.FORMAT


# --- fresh weights -------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [*DUAL, *VISION])
def test_random_weights_equal_transformers_initialization(load, folders, shape):
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.from_pretrained(folders[shape])
    options = {"add_pooling_layer": False} if shape == "vit" else {}
    torch.manual_seed(7)
    want = AutoModel.from_config(config, **options).eval()
    torch.manual_seed(99)
    before = torch.get_rng_state()
    trainable = load(shape).trainable(init_seed=7)
    assert torch.equal(torch.get_rng_state(), before)
    got = trainable.module.state_dict()
    assert got.keys() == want.state_dict().keys()
    assert all(torch.equal(got[name], value) for name, value in want.state_dict().items())
    assert not trainable.module.training
    other = load(shape).trainable(init_seed=8).module.state_dict()
    assert any(not torch.equal(got[name], value) for name, value in other.items())


@pytest.mark.parametrize("shape", [*DUAL, "dinov2"])
def test_architecture_is_trained_from_random_weights(folders, tmp_path, images, shape):
    bare = tmp_path / "bare"
    shutil.copytree(folders[shape], bare, ignore=shutil.ignore_patterns("*.safetensors"))
    with pytest.raises(CheckpointError, match=r"no weights: expected model\.safetensors"):
        load_encoder(str(bare), device="cpu")
    encoder = load_architecture(bare, device="cpu")
    assert encoder.name == "bare"
    trainable = encoder.trainable(init_seed=1)
    want = load_encoder(str(folders[shape]), device="cpu").trainable(init_seed=1)
    batch = torch.tensor(encoder.preprocess(images["wide"]))[None]
    assert torch.equal(trainable.embed_images(batch), want.embed_images(batch))
    step(trainable, shape)
    trainable.save(tmp_path / "trained")
    trained = load_encoder(str(tmp_path / "trained"), device="cpu")
    got = trained.embed_pixels(batch.numpy())
    assert np.abs(got - trainable.embed_images(batch).detach().numpy()).max() < TOLERANCE


def test_architecture_refuses_whatever_needs_weights(folders):
    encoder = load_architecture(folders["siglip"], device="cpu")
    uses = {
        "images": lambda: encoder.embed_pixels(PIXELS),
        "texts": lambda: encoder.encode_texts(["x"]),
        "image spec": lambda: encoder.image_spec,
        "text spec": lambda: encoder.text_spec,
        "scale": lambda: encoder.scale,
        "bias": lambda: encoder.bias,
        "training": encoder.trainable,
    }
    for use in uses.values():
        with pytest.raises(CheckpointError, match="architecture alone: train it from random"):
            use()


def test_architecture_without_config_is_refused(folders, tmp_path):
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        load_architecture(tmp_path, device="cpu")
    with pytest.raises(CheckpointError, match="not a folder"):
        load_architecture(tmp_path / "nowhere", device="cpu")
    shutil.copy(folders["clip"] / "config.json", tmp_path)
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json"):
        load_architecture(tmp_path, device="cpu")


# --- what cannot be trained ----------------------------------------------------------------


@pytest.mark.parametrize("name", ["minilm", "dinov2-minilm"])
def test_text_encoders_and_pairs_cannot_be_trained(tiny_pair, monkeypatch, name):
    monkeypatch.setenv("FEATURECACHE_MODELS", str(tiny_pair))
    with pytest.raises(UsageError, match=rf"{name} cannot be trained.*medclip.*dinov2-small"):
        load_encoder(name, device="cpu").trainable()


def test_open_clip_cannot_be_trained():
    encoder = object.__new__(OpenClipEncoder)
    encoder.name = "biomedclip"
    with pytest.raises(UsageError, match="biomedclip cannot be trained"):
        encoder.trainable()


def test_trainable_vision_encoder_refuses_texts(load):
    with pytest.raises(UsageError, match="images only"):
        load("dinov2").trainable().embed_texts(["x"])
