"""MedCLIP, read from a state dict in its published layout, against reference computations."""

import json
import pickle
import shutil
import socket
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from transformers.models.bert import BertConfig

from featurecache.encoders.loading import load_architecture, load_encoder
from featurecache.encoders.medclip_network import build_network
from featurecache.errors import CheckpointError, UsageError
from featurecache.features import parse_features
from tests import published

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def medclip_folder(tmp_path_factory):
    """The unpacked folder of the zip with a tokenizer, and the towers for the reference.

    The text tower has three of its twelve layers, here and where featurecache builds it.
    """
    folder = tmp_path_factory.mktemp("medclip") / "medclip-vit"
    published.write_wordpiece(folder, size=28996)
    towers = published.medclip_towers(seed=21, text_layers=3)
    torch.save(published.medclip_state(towers, logit_scale=5.0), folder / "pytorch_model.bin")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transformers.BertConfig", partial(BertConfig, num_hidden_layers=3))
        yield folder, towers


@pytest.fixture(scope="module")
def encoder(medclip_folder):
    return load_encoder("medclip", weights=medclip_folder[0], device="cpu")


def test_openvino_embeds_as_torch(encoder, medclip_folder):
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    pixels = np.random.default_rng(3).normal(size=(3, 3, 224, 224)).astype(np.float32)
    converted = load_encoder("medclip", weights=medclip_folder[0], device="cpu", backend="openvino")
    got, expected = converted.embed_pixels(pixels), encoder.embed_pixels(pixels)
    assert np.abs(got - expected).max() < TOLERANCE
    assert np.abs(converted.embed_pixels(pixels[:1]) - expected[:1]).max() < TOLERANCE


def reference_pixels(image: Image.Image) -> np.ndarray:
    gray = np.asarray(image.convert("L"))
    height, width = gray.shape
    side = max(224, height, width)
    square = np.zeros((side, side), np.uint8)
    top, left = int((side - height) / 2), int((side - width) / 2)
    square[top : top + height, left : left + width] = gray
    small = Image.fromarray(square).resize((224, 224), Image.Resampling.BICUBIC)
    plane = (np.asarray(small, np.float64) / 255 - 0.5862785803043838) / 0.27950088968644304
    return np.stack([plane] * 3).astype(np.float32)


def reference_ids(folder, text: str) -> list[int]:
    """Tokenize to at most 77 tokens, the last one [SEP]."""
    ids = published.wordpiece_ids(folder, text)
    return ids if len(ids) <= 77 else [*ids[:76], ids[-1]]


def reference_text(towers, ids: list[int], *, padding: int = 0) -> np.ndarray:
    """Average over all positions with padding, then over the hidden states 1, 2 and last."""
    mask = torch.tensor([[1] * len(ids) + [0] * padding])
    with torch.no_grad():
        states = towers["text_model"]["model"](
            input_ids=torch.tensor([ids + [0] * padding]),
            attention_mask=mask,
            output_hidden_states=True,
        ).hidden_states
        mean = (states[1].mean(1) + states[2].mean(1) + states[-1].mean(1)) / 3
        return (mean @ towers["text_model"]["projection_head"].weight.T)[0].numpy()


def test_state_dict_has_published_names(medclip_folder):
    keys = set(torch.load(medclip_folder[0] / "pytorch_model.bin", weights_only=True, mmap=True))
    block = "vision_model.model.encoder.layers.0.blocks.0."
    assert {
        "logit_scale",
        "vision_model.projection_head.weight",
        "text_model.projection_head.weight",
        "text_model.model.embeddings.position_ids",
        block + "attention.self.query.weight",
        block + "attention.self.relative_position_bias_table",
        block + "attention.self.relative_position_index",
        block + "attention.output.dense.bias",
        block + "intermediate.dense.weight",
        block + "output.dense.weight",
        "text_model.model.encoder.layer.0.attention.self.query.weight",
        "text_model.model.encoder.layer.2.output.dense.weight",
    } <= keys
    assert not any("q_proj" in key or "mlp.fc1" in key for key in keys)


def test_medclip_image_embeddings_equal_reference(encoder, medclip_folder, images):
    pixels = np.stack([encoder.preprocess(image) for image in images.values()])
    want = np.stack([reference_pixels(image) for image in images.values()])
    assert pixels.dtype == np.float32
    assert np.abs(pixels - want).max() < 1e-5
    towers = medclip_folder[1]["vision_model"]
    with torch.no_grad():
        pooled = towers["model"](torch.tensor(want[:2])).pooler_output
        want = (pooled @ towers["projection_head"].weight.T).numpy()
    got = encoder.embed_pixels(pixels[:2])
    assert got.shape == (2, 512)
    assert got.dtype == np.float32
    assert np.abs(got - want).max() < TOLERANCE
    assert np.abs(want[0] - want[1]).max() > 100 * TOLERANCE


def test_medclip_features_equal_the_stages_of_swin(encoder, medclip_folder):
    pixels = np.random.default_rng(3).normal(size=(2, 3, 224, 224)).astype(np.float32)
    towers = medclip_folder[1]["vision_model"]
    swin = towers["model"]
    with torch.no_grad():
        embedded, grid = swin.embeddings(torch.from_numpy(pixels))
        _, *stages = swin.encoder(
            embedded,
            grid,
            output_hidden_states=True,
            output_hidden_states_before_downsampling=True,
        ).reshaped_hidden_states
        last = swin(torch.from_numpy(pixels)).last_hidden_state
        projected = towers["projection_head"](last).numpy()
    last = last.numpy()
    means = [stage.mean(dim=(2, 3)).numpy() for stage in stages[:-1]]
    want = {
        "pooled": last.mean(axis=1),
        "mean": last.mean(axis=1),
        "layers:-1,-2,-3,-4+mean": np.concatenate([last.mean(axis=1), *means[::-1]], axis=1),
        "tokens:7": last.reshape(2, -1),
        "tokens:1": last.mean(axis=1),
    }
    got = encoder.embed_features(pixels, [*map(parse_features, want)])
    for (name, expected), values in zip(want.items(), got, strict=True):
        assert values.shape == expected.shape, name
        assert np.abs(values - expected).max() < 1e-5 * max(1, np.abs(expected).max()), name
    assert np.abs(encoder.project_tokens(last) - projected).max() < TOLERANCE


@pytest.mark.filterwarnings("ignore:.* is cut")
def test_medclip_text_embeddings_equal_reference(encoder, medclip_folder):
    folder, towers = medclip_folder
    texts = [*published.SENTENCES, "effusion " * 100]
    want = np.stack([reference_text(towers, reference_ids(folder, text)) for text in texts])
    got = encoder.encode_texts(texts)
    assert got.shape == (len(texts), 512)
    assert np.abs(got - want).max() < TOLERANCE
    assert np.abs(want[0] - want[1]).max() > 100 * TOLERANCE


def test_medclip_text_mean_has_no_mask_and_no_padding(encoder, medclip_folder):
    folder, towers = medclip_folder
    ids = reference_ids(folder, published.SENTENCES[1])
    got = encoder.encode_texts([published.SENTENCES[1]])[0]
    assert np.abs(got - reference_text(towers, ids)).max() < TOLERANCE
    assert np.abs(got - reference_text(towers, ids, padding=70)).max() > 100 * TOLERANCE


def test_medclip_text_is_independent_of_its_batch(encoder):
    together = encoder.encode_texts(published.SENTENCES)
    alone = np.concatenate([encoder.encode_texts([text]) for text in published.SENTENCES])
    assert np.array_equal(together, alone)


def test_medclip_texts_are_lower_cased(encoder):
    upper, lower = encoder.encode_texts(["No PNEUMOTHORAX.", "no pneumothorax."])
    assert np.array_equal(upper, lower)


def test_medclip_vision_has_published_parameter_count(encoder):
    with encoder._network.inference(encoder._load_network) as network:
        vision = network["vision_model"]
    assert sum(value.numel() for value in vision.parameters()) == 27_912_570


def test_medclip_text_tower_is_bert_base_cased(monkeypatch):
    monkeypatch.setattr("transformers.BertConfig", BertConfig)
    with torch.device("meta"):
        text = build_network()["text_model"]["model"]
    assert len(text.encoder.layer) == 12
    assert sum(value.numel() for value in text.parameters()) == 108_310_272


def test_medclip_scale_is_clamped_before_the_exponential(encoder):
    assert encoder.scale == pytest.approx(np.exp(4.6052))
    assert encoder.bias is None


def test_medclip_weights_may_be_a_file_or_its_parent_folders(medclip_folder):
    folder, _ = medclip_folder
    direct = load_encoder("medclip", weights=folder, device="cpu").image_spec
    for place in (folder / "pytorch_model.bin", folder.parent):
        encoder = load_encoder("medclip", weights=place, device="cpu")
        assert encoder.image_spec == direct


def test_medclip_tokenizer_is_found_among_local_models(
    medclip_folder, encoder, tmp_path, monkeypatch
):
    folder, _ = medclip_folder
    (tmp_path / "models" / "medclip").mkdir(parents=True)
    (tmp_path / "models" / "medclip" / "pytorch_model.bin").hardlink_to(
        folder / "pytorch_model.bin"
    )
    monkeypatch.setenv("FEATURECACHE_MODELS", str(tmp_path / "models"))
    lone = load_encoder("medclip", device="cpu")
    with pytest.raises(CheckpointError, match="emilyalsentzer/Bio_ClinicalBERT"):
        _ = lone.text_spec
    (tmp_path / "models" / "Bio_ClinicalBERT").mkdir()
    shutil.copy(folder / "vocab.txt", tmp_path / "models" / "Bio_ClinicalBERT")
    lone = load_encoder("medclip", device="cpu")
    assert lone.text_spec == encoder.text_spec


@pytest.mark.parametrize("change", ["keys", "shape"])
def test_medclip_weights_that_do_not_fit_are_refused(medclip_folder, tmp_path, change):
    state = torch.load(medclip_folder[0] / "pytorch_model.bin", weights_only=True, mmap=True)
    # One stored number per tensor: a small file.
    state = {name: tensor.new_zeros(()).expand(tensor.shape) for name, tensor in state.items()}
    head = "vision_model.projection_head.weight"
    state[head] = torch.zeros(3, 3)
    if change == "keys":
        del state[head]
        state["vision_model.surprise"] = torch.zeros(1)
    torch.save(state, tmp_path / "pytorch_model.bin")
    encoder = load_encoder("medclip", weights=tmp_path, device="cpu")
    named = r"vision_model\.projection_head\.weight"
    if change == "keys":
        named = rf"1 missing \({named}\) and 1 unexpected \(vision_model\.surprise\)"
    with pytest.raises(CheckpointError, match=named):
        encoder.embed_pixels(np.zeros((1, 3, 224, 224), np.float32))


def test_medclip_without_weights_or_network_names_the_zip(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)

    def no_network(*args, **kwargs):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    with pytest.raises(CheckpointError, match=r"medclip-vit-pretrained\.zip.*`weights`"):
        load_encoder("medclip", device="cpu")


def test_medclip_zip_is_downloaded_once(tmp_path, monkeypatch):
    from zipfile import ZipFile

    from featurecache.encoders import medclip_download

    archive = tmp_path / "published.zip"
    with ZipFile(archive, "w") as content:
        content.writestr("medclip-vit-pretrained/pytorch_model.bin", b"weights")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(medclip_download, "URL", archive.as_uri())
    folder = medclip_download.download_medclip()
    assert (folder / "pytorch_model.bin").read_bytes() == b"weights"
    archive.unlink()
    assert medclip_download.download_medclip() == folder


def test_medclip_zip_without_weights_leaves_no_files(tmp_path, monkeypatch):
    from zipfile import ZipFile

    from featurecache.encoders import medclip_download

    archive = tmp_path / "published.zip"
    with ZipFile(archive, "w") as content:
        content.writestr("readme.txt", b"none")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(medclip_download, "URL", archive.as_uri())
    with pytest.raises(CheckpointError, match="could not be downloaded"):
        medclip_download.download_medclip()
    assert not list((tmp_path / "no-home").rglob("*.bin"))
    assert not (tmp_path / "no-home" / "featurecache" / "medclip-vit-pretrained").exists()


# --- training ------------------------------------------------------------------------------

PIXELS = np.random.default_rng(1).normal(size=(2, 3, 224, 224)).astype(np.float32)


def test_medclip_preprocess_can_be_pickled(encoder, images):
    sent = pickle.dumps(encoder.picklable_preprocess)
    assert len(sent) < 1_000
    got = pickle.loads(sent)(images["tall"])  # noqa: S301
    np.testing.assert_array_equal(got, encoder.preprocess(images["tall"]))


@pytest.fixture(scope="module")
def saved(encoder, tmp_path_factory):
    """A modified MedCLIP, the folder where it was saved, and its embeddings."""
    trainable = encoder.trainable()
    with torch.no_grad():
        trainable.log_scale.fill_(3.0)
        trainable.groups.projections[0].weight.mul_(2)
    folder = tmp_path_factory.mktemp("saved") / "tuned"
    trainable.save(folder)
    with torch.no_grad():
        images = trainable.embed_images(torch.tensor(PIXELS))
        texts = trainable.embed_texts(published.SENTENCES[:2])
    return trainable, folder, images.numpy(), texts.numpy()


def test_trainable_medclip_embeds_as_the_frozen_one(encoder, saved):
    trainable, _, images, texts = saved
    assert np.abs(images / 2 - encoder.embed_pixels(PIXELS)).max() < 1e-5
    assert np.abs(texts - encoder.encode_texts(published.SENTENCES[:2])).max() < 1e-5
    assert trainable.contrastive == "softmax"
    assert trainable.bias is None


def test_saved_medclip_has_published_names(medclip_folder, saved):
    _, folder, _, _ = saved
    source = medclip_folder[0]
    want = torch.load(source / "pytorch_model.bin", weights_only=True, mmap=True)
    changed = {"logit_scale", "vision_model.projection_head.weight"}
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        assert set(file.keys()) == set(want)
        for key in want.keys() - changed:
            # The published file of these tests has wrong values there on purpose.
            if not key.endswith("relative_position_index"):
                assert torch.equal(file.get_tensor(key), want[key]), key
    assert json.loads((folder / "config.json").read_text()) == {"model_type": "medclip"}
    assert (folder / "vocab.txt").read_bytes() == (source / "vocab.txt").read_bytes()
    names = {path.name for path in folder.iterdir()}
    assert names == {"config.json", "model.safetensors", "vocab.txt"}


def test_saved_medclip_can_be_loaded(encoder, saved):
    _, folder, images, texts = saved
    tuned = load_encoder(str(folder), device="cpu")
    assert tuned.name == "tuned"
    assert tuned.scale == pytest.approx(np.exp(3.0), rel=1e-6)
    assert tuned.image_spec["weights"] != encoder.image_spec["weights"]
    assert tuned.text_spec["tokenizer"] == encoder.text_spec["tokenizer"]
    assert np.abs(tuned.embed_pixels(PIXELS) - images).max() < 1e-6
    assert np.abs(tuned.encode_texts(published.SENTENCES[:2]) - texts).max() < 1e-6
    by_option = load_encoder("medclip", weights=folder, device="cpu")
    assert by_option.image_spec["weights"] == tuned.image_spec["weights"]


def test_medclip_blocks_are_those_of_all_stages(saved):
    trainable = saved[0]
    swin = trainable.module["vision_model"]["model"]
    layers = swin.encoder.layers
    projection = 768 * 512

    def size(*modules) -> int:
        return sum(value.numel() for module in modules for value in module.parameters())

    assert trainable.set_trainable("all") == size(trainable.module)
    assert trainable.set_trainable("vision") == 27_912_570 + 1
    assert trainable.set_trainable("head") == 2 * projection + 1
    end = size(swin.layernorm) + projection + 1
    assert trainable.set_trainable("last-2") == size(layers[3]) + end
    # The patch merging is between the third stage and the fourth.
    third = size(layers[2].blocks[5], layers[2].downsample)
    assert trainable.set_trainable("last-3") == third + size(layers[3]) + end
    assert trainable.set_trainable("last-12") == size(*layers) + end
    with pytest.raises(UsageError, match="12 blocks"):
        trainable.set_trainable("last-13")


@pytest.mark.parametrize(("learned", "clamped"), [(5.0, 4.6052), (-0.5, 0.0), (2.0, 2.0)])
def test_trainable_medclip_clamps_scale_and_keeps_its_gradient(saved, learned, clamped):
    trainable = saved[0]
    trainable.set_trainable("all")
    with torch.no_grad():
        trainable.log_scale.fill_(learned)
    trainable.log_scale.grad = None
    scale = trainable.scale()
    scale.backward()
    assert scale.item() == pytest.approx(np.exp(clamped))
    assert trainable.log_scale.item() == pytest.approx(clamped)
    # The derivative of the exponential is the exponential.
    assert trainable.log_scale.grad.item() == pytest.approx(np.exp(clamped))


def test_random_medclip_needs_only_config_and_tokenizer(medclip_folder, tmp_path):
    from transformers import SwinConfig, SwinModel

    shutil.copy(medclip_folder[0] / "vocab.txt", tmp_path)
    published.write_json(tmp_path / "config.json", {"model_type": "medclip"})
    trainable = load_architecture(tmp_path, device="cpu").trainable(init_seed=3)
    assert trainable.log_scale.item() == pytest.approx(np.log(1 / 0.07))
    assert not trainable.module.training
    assert trainable.embed_texts(["no effusion"]).isfinite().all()
    torch.manual_seed(3)
    want = SwinModel(SwinConfig()).state_dict()  # Swin-T is the default
    got = trainable.module["vision_model"]["model"].state_dict()
    assert got.keys() == want.keys()
    assert all(torch.equal(got[name], value) for name, value in want.items())


def test_medclip_pads_as_published_or_stretches(medclip_folder, images):
    folder, _ = medclip_folder
    padded = load_encoder("medclip", weights=folder, resize="pad")
    as_published = load_encoder("medclip", weights=folder)
    assert padded.image_spec == as_published.image_spec
    stretched = load_encoder("medclip", weights=folder, resize="stretch")
    assert stretched.image_spec == {**as_published.image_spec, "resize": "stretch"}
    image = images["tall"]
    resized = image.convert("L").resize((224, 224), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(stretched.preprocess(image), reference_pixels(resized), atol=1e-6)
