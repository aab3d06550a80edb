"""CLIP- and SigLIP-shaped encoders against reference computations."""

import re
import string

import numpy as np
import pytest
import torch
from PIL import Image

from featurecache.encoders.loading import load_encoder
from featurecache.errors import CheckpointError, FeaturecacheWarning
from tests import published

TOLERANCE = 1e-4
MANY = [f"finding number {i} " + "effusion " * (i % 9) for i in range(70)]


def clip_pixels(image: Image.Image, side: int) -> np.ndarray:
    """Resize the shortest edge, bicubic; center crop; normalize with CLIP's mean and std."""
    rgb = image.convert("RGB")
    w, h = rgb.size
    short = min(w, h)
    rgb = rgb.resize((int(side * w / short), int(side * h / short)), Image.Resampling.BICUBIC)
    left, top = (rgb.width - side) // 2, (rgb.height - side) // 2
    crop = np.asarray(rgb, dtype=np.float64)[top : top + side, left : left + side] / 255
    normal = (crop - np.array(published.CLIP_MEAN)) / np.array(published.CLIP_STD)
    return normal.transpose(2, 0, 1).astype(np.float32)


def clip_image_reference(model, image: Image.Image) -> np.ndarray:
    pixels = torch.tensor(clip_pixels(image, model.config.vision_config.image_size))[None]
    with torch.no_grad():
        cls = model.vision_model(pixel_values=pixels).last_hidden_state[:, 0]
        return model.visual_projection(model.vision_model.post_layernorm(cls))[0].numpy()


def clip_text_reference(model, tokenizer, text: str) -> np.ndarray:
    """Embed one text alone, unpadded, pooled at the end-of-text token."""
    ids = tokenizer(text)["input_ids"]
    limit = model.config.text_config.max_position_embeddings
    if len(ids) > limit:
        ids = [*ids[: limit - 1], ids[-1]]
    with torch.no_grad():
        states = model.text_model(input_ids=torch.tensor([ids])).last_hidden_state
        end = ids.index(model.config.text_config.vocab_size - 1)
        return model.text_projection(states[0, end]).numpy()


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.fixture(scope="module")
def clip_b32(tmp_path_factory):
    """CLIP at ViT-B/32 width, two of its 12 layers; the folder, the model and its tokenizer."""
    import json

    from transformers import CLIPConfig, CLIPTokenizer

    folder = tmp_path_factory.mktemp("clip") / "clip"
    few = {"num_hidden_layers": 2}
    model = published.write_clip(folder, CLIPConfig(text_config=few, vision_config=few), seed=11)
    vocabulary = json.loads((folder / "vocab.json").read_text())
    lines = (folder / "merges.txt").read_text().splitlines()[1:]
    merges = [tuple(line.split()) for line in lines]
    return folder, model, CLIPTokenizer(vocab=vocabulary, merges=merges)


@pytest.mark.filterwarnings("ignore:.* is cut")
def test_clip_embeddings_equal_reference(clip_b32, images):
    folder, model, tokenizer = clip_b32
    encoder = load_encoder("clip", weights=folder, device="cpu")
    pixels = np.stack([encoder.preprocess(image) for image in images.values()])
    assert pixels.shape == (len(images), 3, 224, 224)
    assert pixels.dtype == np.float32
    got = encoder.embed_pixels(pixels)
    want = np.stack([clip_image_reference(model, image) for image in images.values()])
    assert got.shape == (len(images), 512)
    assert got.dtype == np.float32
    assert np.abs(got - want).max() < TOLERANCE

    texts = [*published.SENTENCES, "effusion " * 200]
    got = encoder.encode_texts(texts)
    want = np.stack([clip_text_reference(model, tokenizer, text) for text in texts])
    assert got.dtype == np.float32
    assert np.abs(got - want).max() < TOLERANCE
    # The reference distinguishes the texts and the images.
    assert np.abs(want[0] - want[1]).max() > 100 * TOLERANCE


def test_clip_has_scale_and_no_bias(tiny_clip):
    encoder = load_encoder(str(tiny_clip), device="cpu")
    assert encoder.scale == pytest.approx(np.exp(4.2), rel=1e-6)
    assert encoder.bias is None
    assert encoder.aligned
    assert encoder.name == "tiny-clip"


def test_clip_text_is_independent_of_its_batch(tiny_clip):
    encoder = load_encoder(str(tiny_clip), device="cpu")
    together = encoder.encode_texts(MANY)
    alone = np.concatenate([encoder.encode_texts([text]) for text in MANY])
    backwards = encoder.encode_texts(MANY[::-1])[::-1]
    assert np.abs(together - alone).max() < 1e-5
    assert np.abs(together - backwards).max() < 1e-5
    assert np.abs(together[0] - together[8]).max() > 1e-3


@pytest.fixture(scope="module")
def siglip_l16(tmp_path_factory):
    """SigLIP at l-16-512 width, with one or two of its 24 layers and a small vocabulary."""
    from transformers import SiglipConfig

    tower = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16}
    text = {"num_hidden_layers": 2, "vocab_size": 1000, "max_position_embeddings": 64}
    vision = {"num_hidden_layers": 1, "image_size": 512, "patch_size": 16}
    config = SiglipConfig(text_config=tower | text, vision_config=tower | vision)
    folder = tmp_path_factory.mktemp("siglip") / "xraysiglip"
    return folder, published.write_siglip(folder, config, seed=12)


def siglip_pixels(image: Image.Image, side: int) -> np.ndarray:
    """Resize to a square, bicubic, then scale to [-1, 1]."""
    square = image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
    return ((np.asarray(square, dtype=np.float64) / 255 - 0.5) / 0.5).transpose(2, 0, 1)


def siglip_ids(folder, text: str) -> list[int]:
    """Tokenize: lower-cased, without punctuation, one end token, not padded."""
    import sentencepiece

    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spiece.model"))
    bare = text.lower().translate(str.maketrans("", "", string.punctuation))
    return [*pieces.encode(re.sub(r"\s+", " ", bare).strip()), 1]


def siglip_text_reference(model, ids: list[int]) -> np.ndarray:
    """Pool the last position through the head, as the text model of transformers does."""
    with torch.no_grad():
        states = model.text_model(input_ids=torch.tensor([ids])).last_hidden_state
        return model.text_model.head(states[0, -1]).numpy()


def padded(ids: list[int]) -> list[int]:
    return (ids + [1] * 64)[:64] if len(ids) <= 64 else [*ids[:63], 1]


@pytest.mark.filterwarnings("ignore:.* is cut")
def test_siglip_embeddings_equal_reference(siglip_l16, images):
    folder, model = siglip_l16
    encoder = load_encoder("xraysiglip", weights=folder, device="cpu")
    some = {name: images[name] for name in ("tall", "palette")}
    pixels = np.stack([encoder.preprocess(image) for image in some.values()])
    assert pixels.shape == (len(some), 3, 512, 512)
    with torch.no_grad():
        reference = torch.tensor(
            np.stack([siglip_pixels(image, 512) for image in some.values()]), dtype=torch.float32
        )
        states = model.vision_model(pixel_values=reference).last_hidden_state
        want = model.vision_model.head(states).numpy()
    got = encoder.embed_pixels(pixels)
    assert got.shape == (len(some), 1024)
    assert np.abs(got - want).max() < TOLERANCE

    texts = [*published.SENTENCES, "effusion " * 80]
    ids = [siglip_ids(folder, text) for text in texts]
    want = np.stack([siglip_text_reference(model, padded(one)) for one in ids])
    assert np.abs(encoder.encode_texts(texts) - want).max() < TOLERANCE


def test_siglip_text_is_padded_without_a_mask(siglip_l16):
    folder, model = siglip_l16
    encoder = load_encoder("xraysiglip", weights=folder, device="cpu")
    ids = siglip_ids(folder, published.SENTENCES[1])
    got = encoder.encode_texts([published.SENTENCES[1]])[0]
    assert cosine(got, siglip_text_reference(model, ids)) < 0.9
    mask = torch.tensor([[1] * len(ids) + [0] * (64 - len(ids))])
    with torch.no_grad():
        states = model.text_model(input_ids=torch.tensor([padded(ids)]), attention_mask=mask)
        masked = model.text_model.head(states.last_hidden_state[0, -1]).numpy()
    assert np.abs(got - masked).max() > 100 * TOLERANCE


def test_siglip_has_scale_and_bias(siglip_l16):
    encoder = load_encoder("xraysiglip", weights=siglip_l16[0], device="cpu")
    assert encoder.scale == pytest.approx(np.exp(4.7), rel=1e-6)
    assert encoder.bias == pytest.approx(-12.9, rel=1e-6)


def test_clip_checkpoint_under_a_siglip_name_has_no_bias(tiny_clip):
    encoder = load_encoder("xraysiglip", weights=tiny_clip, device="cpu")
    assert encoder.bias is None
    assert encoder.text_spec["tokenizer"]["padding"] == "longest, masked"


# --- joined networks -----------------------------------------------------------------------


def joined_image_reference(model, image: Image.Image) -> np.ndarray:
    """Resize to a square, bicubic; average the last feature map; project."""
    square = image.convert("RGB").resize((32, 32), Image.Resampling.BICUBIC)
    values = (np.asarray(square, dtype=np.float64) / 255 - 0.5) / 0.25
    pixels = torch.tensor(values.transpose(2, 0, 1)[None], dtype=torch.float32)
    with torch.no_grad():
        maps = model.vision_model(pixel_values=pixels).last_hidden_state
        return (maps.mean(dim=(2, 3)) @ model.visual_projection.weight.T)[0].numpy()


def joined_text_reference(model, tokenizer, text: str) -> np.ndarray:
    """Embed one text alone, its first token through BERT's pooler."""
    ids = tokenizer(text, truncation=True, max_length=40)["input_ids"]
    with torch.no_grad():
        states = model.text_model(input_ids=torch.tensor([ids])).last_hidden_state
        pooled = torch.tanh(model.text_model.pooler.dense(states[0, 0]))
        return model.text_projection(pooled).numpy()


# transformers 5.0, as in load_tokenizer.
@pytest.mark.filterwarnings("ignore:.*will not create from files:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.* is cut")
def test_joined_bit_and_bert_embeddings_equal_reference(tmp_path, images):
    from transformers import AutoTokenizer

    model = published.write_joined(tmp_path / "joined", seed=6)
    encoder = load_encoder(str(tmp_path / "joined"), device="cpu")
    pixels = np.stack([encoder.preprocess(image) for image in images.values()])
    want = np.stack([joined_image_reference(model, image) for image in images.values()])
    got = encoder.embed_pixels(pixels)
    assert got.shape == (len(images), 24)
    assert np.abs(got - want).max() < TOLERANCE
    assert np.abs(want[0] - want[1]).max() > 100 * TOLERANCE

    texts = [*published.SENTENCES, "effusion " * 80]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "joined")
    want = np.stack([joined_text_reference(model, tokenizer, text) for text in texts])
    assert np.abs(encoder.encode_texts(texts) - want).max() < TOLERANCE
    assert np.abs(want[0] - want[1]).max() > 100 * TOLERANCE
    assert encoder.scale == pytest.approx(np.exp(3.1), rel=1e-6)
    assert encoder.bias is None


def test_image_of_joined_encoder_is_independent_of_its_batch(tmp_path):
    published.write_joined(tmp_path / "joined", seed=6)
    module = load_encoder(str(tmp_path / "joined"), device="cpu").trainable()
    module.module.vision_model.train()
    pixels = torch.tensor(np.random.default_rng(1).normal(size=(5, 3, 32, 32)), dtype=torch.float32)
    with torch.no_grad():
        together = module.embed_images(pixels)
        alone = torch.cat([module.embed_images(pixels[row : row + 1]) for row in range(5)])
    assert (together - alone).abs().max() < 1e-4


def test_unsupported_joined_towers_are_named(tmp_path):
    published.write_joined(tmp_path / "joined", seed=6, vision="vit")
    with pytest.raises(CheckpointError, match=r"joins the towers vit and bert.*bit and bert"):
        load_encoder(str(tmp_path / "joined"), device="cpu")


def test_siglip2_texts_equal_reference(tmp_path):
    """Texts as in big_vision: ``lower|tok(length=64, model="gemma", bos="no", eos="sticky")``."""
    import transformers
    from transformers import GemmaTokenizer, SiglipConfig

    folder = tmp_path / "siglip2"
    tower = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 4,
        "num_hidden_layers": 1,
    }
    model = published.write_siglip(
        folder,
        SiglipConfig(
            text_config={**tower, "vocab_size": 120, "max_position_embeddings": 64},
            vision_config={**tower, "image_size": 32, "patch_size": 16},
        ),
        seed=5,
    )
    (folder / "spiece.model").unlink()
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *map(chr, range(33, 127))]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    # transformers 5.0 has no tokenizer of its own for SigLIP 2.
    tokenizer_class = getattr(transformers, "Siglip2Tokenizer", GemmaTokenizer)
    tokenizer = tokenizer_class(vocabulary, [], add_bos_token=False, add_eos_token=True)
    tokenizer.save_pretrained(folder)

    def ids(text: str) -> list[int]:
        pieces = text.lower().replace(" ", "▁")[:63]
        return [*(vocabulary[piece] for piece in pieces), 1, *[0] * (63 - len(pieces))]

    encoder = load_encoder(str(folder), device="cpu", precision="fp32")
    texts = ["No Effusion, no edema.", "no effusion no edema", "a", "Signs of (mild) EDEMA! " * 4]
    want = np.stack([siglip_text_reference(model, ids(text)) for text in texts])
    with pytest.warns(FeaturecacheWarning, match="reads 64 tokens .* of 1 of 4 texts"):
        got = encoder.encode_texts(texts)
    assert np.abs(got - want).max() < TOLERANCE
    assert np.abs(want[0] - want[1]).max() > 100 * TOLERANCE  # punctuation is kept
