"""Encoders of one modality, and a pair of them, against reference computations."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from featurecache.encoders.loading import load_encoder
from featurecache.errors import CheckpointError, UsageError
from tests import published

TOLERANCE = 1e-4


def dinov2_pixels(image: Image.Image, *, edge: int, crop: int) -> np.ndarray:
    rgb = image.convert("RGB")
    w, h = rgb.size
    short = min(w, h)
    rgb = rgb.resize((int(edge * w / short), int(edge * h / short)), Image.Resampling.BICUBIC)
    left, top = (rgb.width - crop) // 2, (rgb.height - crop) // 2
    values = np.asarray(rgb, np.float64)[top : top + crop, left : left + crop] / 255
    values = (values - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    return values.transpose(2, 0, 1).astype(np.float32)


def direct_images(folder, images, *, edge: int, crop: int) -> np.ndarray:
    from transformers import Dinov2Model

    model = Dinov2Model.from_pretrained(folder).eval()
    pixels = torch.tensor(np.stack([dinov2_pixels(i, edge=edge, crop=crop) for i in images]))
    with torch.no_grad():
        return model(pixel_values=pixels).pooler_output.numpy()


def direct_texts(folder, texts) -> np.ndarray:
    """Embed each text alone: without padding the masked mean is the plain mean."""
    from transformers import BertModel

    model = BertModel.from_pretrained(folder).eval()
    rows = []
    with torch.no_grad():
        for text in texts:
            ids = torch.tensor([published.wordpiece_ids(folder, text)])
            rows.append(model(input_ids=ids).last_hidden_state[0].mean(0).numpy())
    return np.stack(rows)


def check_pair(root, images, *, edge: int, crop: int) -> None:
    encoder = load_encoder("dinov2-minilm", device="cpu")
    assert not encoder.aligned
    assert encoder.scale is None
    assert encoder.bias is None
    got = encoder.embed_pixels(np.stack([encoder.preprocess(i) for i in images]))
    want = direct_images(root / "dinov2-small", images, edge=edge, crop=crop)
    assert np.abs(got - want).max() < TOLERANCE
    assert np.abs(want[0] - want[1]).max() > 100 * TOLERANCE
    got = encoder.encode_texts(published.SENTENCES)
    want = direct_texts(root / "all-MiniLM-L6-v2", published.SENTENCES)
    assert np.abs(got - want).max() < TOLERANCE
    assert np.abs(want[0] - want[1]).max() > 100 * TOLERANCE


def test_pair_embeddings_equal_reference(tiny_pair, images, monkeypatch):
    monkeypatch.setenv("FEATURECACHE_MODELS", str(tiny_pair))
    check_pair(tiny_pair, list(images.values()), edge=32, crop=28)


def test_pair_of_real_weights_equals_reference(shared_models, images):
    check_pair(shared_models, [images["tall"], images["wide"]], edge=256, crop=224)


def test_specs_of_a_pair_are_those_of_its_members(tiny_pair, monkeypatch):
    monkeypatch.setenv("FEATURECACHE_MODELS", str(tiny_pair))
    pair = load_encoder("dinov2-minilm", device="cpu")
    vision = load_encoder("dinov2-small", device="cpu")
    assert pair.image_spec == vision.image_spec
    assert pair.text_spec == load_encoder("minilm", device="cpu").text_spec


def test_weights_for_a_pair_are_refused(tiny_pair):
    with pytest.raises(UsageError, match="dinov2-small and minilm into \\$FEATURECACHE_MODELS"):
        load_encoder("dinov2-minilm", weights=tiny_pair / "dinov2-small")


def test_vision_encoder_refuses_texts(tiny_pair):
    encoder = load_encoder("dinov2-small", weights=tiny_pair / "dinov2-small", device="cpu")
    assert encoder.has_images
    assert not encoder.has_text
    with pytest.raises(UsageError, match="images only"):
        encoder.encode_texts(["a"])
    with pytest.raises(UsageError, match="images only"):
        _ = encoder.text_spec


def test_text_encoder_refuses_images(tiny_pair):
    encoder = load_encoder("minilm", weights=tiny_pair / "all-MiniLM-L6-v2", device="cpu")
    assert encoder.has_text
    assert not encoder.has_images
    for refused in (
        lambda: encoder.preprocess(Image.new("L", (9, 9))),
        lambda: encoder.embed_pixels(np.zeros((1, 3, 9, 9), np.float32)),
        lambda: encoder.image_spec,
    ):
        with pytest.raises(UsageError, match="texts only"):
            refused()


def test_published_pooling_is_used(tiny_pair, tmp_path):
    folder = tmp_path / "bert"
    shutil.copytree(tiny_pair / "all-MiniLM-L6-v2", folder)
    mean = load_encoder(str(folder), device="cpu").encode_texts(["no effusion"])
    (folder / "1_Pooling").mkdir()
    pooling = folder / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps({"pooling_mode_cls_token": True}))
    cls = load_encoder(str(folder), device="cpu").encode_texts(["no effusion"])
    assert np.abs(mean - cls).max() > 100 * TOLERANCE
    pooling.write_text(json.dumps({"pooling_mode_max_tokens": True}))
    with pytest.raises(CheckpointError, match="pooling_mode_max_tokens"):
        load_encoder(str(folder), device="cpu")


@pytest.mark.filterwarnings("ignore:.* is cut")
def test_texts_are_truncated_at_the_published_length(tiny_pair, tmp_path):
    folder = tmp_path / "bert"
    shutil.copytree(tiny_pair / "all-MiniLM-L6-v2", folder)
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 6}))
    encoder = load_encoder(str(folder), device="cpu")
    short, long, other = encoder.encode_texts(
        ["no effusion no effusion", "no effusion no effusion no effusion", "no"]
    )
    assert np.abs(short - long).max() < 1e-5
    assert np.abs(short - other).max() > 1e-3


def test_vit_embedding_is_its_class_token(tmp_path, images):
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        image_size=32,
        patch_size=8,
    )
    model = ViTModel(config, add_pooling_layer=True).eval()
    published.randomize(model, seed=4)
    folder = tmp_path / "some-vit"
    model.save_pretrained(folder)
    published.write_json(
        folder / "preprocessor_config.json",
        {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}},
    )
    encoder = load_encoder(str(folder), device="cpu")
    pixels = encoder.preprocess(images["gray"])[None]
    with torch.no_grad():
        want = model(pixel_values=torch.tensor(pixels)).last_hidden_state[:, 0].numpy()
    assert np.abs(encoder.embed_pixels(pixels) - want).max() < TOLERANCE
