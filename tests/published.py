"""Checkpoints with seeded random weights, in the layouts of the published ones.

Nothing here calls featurecache.
"""

import json
from pathlib import Path

import torch

SENTENCES = [
    "There is a small pleural effusion on the left.",
    "No pneumothorax.",
    "Heart size is normal; the lungs are clear of focal consolidation, edema or effusion.",
    "A photo of COVID lungs",
    "x",
]
BOS, EOS = "<|startoftext|>", "<|endoftext|>"
CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
CLIP_STD = [0.26862954, 0.26130258, 0.27577711]


def randomize(module: torch.nn.Module, *, seed: int) -> None:
    """Replace the initial weights, many of them constant, by random ones."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in module.named_parameters():
            noise = torch.empty_like(value).uniform_(-1, 1, generator=generator)
            norm = "norm" in name.lower() and name.endswith("weight")
            width = value.shape[-1] if value.ndim > 1 else 100
            value.copy_(noise * (3 / width) ** 0.5 + (1.0 if norm else 0.0))


def random_model(model_class, config, *, seed: int):
    """Build a CLIP or SigLIP with random weights, skipping its own slow initialization."""
    with torch.device("meta"):
        model = model_class(config)
    model = model.to_empty(device="cpu").eval()
    for name, buffer in model.named_buffers():
        assert name.endswith("position_ids")
        buffer.copy_(torch.arange(buffer.shape[-1])[None])
    randomize(model, seed=seed)
    return model


def write_json(path: Path, content) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def write_clip_tokenizer(folder: Path, *, vocabulary_size: int) -> tuple[dict[str, int], list]:
    """Write CLIP's ``vocab.json`` and ``merges.txt``; start and end of text have the last ids."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    trained.normalizer = normalizers.Lowercase()
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=620,
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    trained.train_from_iterator(SENTENCES * 4, trainer)
    model = json.loads(trained.to_str())["model"]
    merges = [
        tuple(pair) if isinstance(pair, list) else tuple(pair.split()) for pair in model["merges"]
    ]
    pieces = list(model["vocab"])
    pieces += [letter + "</w>" for letter in alphabet if letter + "</w>" not in model["vocab"]]
    pieces += [f"<unused{i}>" for i in range(vocabulary_size - 2 - len(pieces))]
    vocabulary = {piece: i for i, piece in enumerate([*pieces, BOS, EOS])}
    assert len(vocabulary) == vocabulary_size
    write_json(folder / "vocab.json", vocabulary)
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges), ""]
    (folder / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "CLIPTokenizer",
            "unk_token": EOS,
            "bos_token": BOS,
            "eos_token": EOS,
            "pad_token": EOS,
            "do_lower_case": True,
            "model_max_length": 77,
        },
    )
    return vocabulary, merges


def write_clip(folder: Path, config, *, seed: int):
    from transformers import CLIPModel

    folder.mkdir(parents=True)
    write_clip_tokenizer(folder, vocabulary_size=config.text_config.vocab_size)
    model = random_model(CLIPModel, config, seed=seed)
    with torch.no_grad():
        model.logit_scale.fill_(4.2)
    model.save_pretrained(folder)
    side = config.vision_config.image_size
    # As in openai/clip-vit-base-patch32, with the old name of the class.
    write_json(
        folder / "preprocessor_config.json",
        {
            "crop_size": side,
            "do_center_crop": True,
            "do_normalize": True,
            "do_resize": True,
            "feature_extractor_type": "CLIPFeatureExtractor",
            "image_mean": CLIP_MEAN,
            "image_std": CLIP_STD,
            "resample": 3,
            "size": side,
        },
    )
    return model


def tiny_clip_config(*, seed_layers: int = 2):
    from transformers import CLIPConfig

    tower = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": seed_layers,
        "num_attention_heads": 4,
        "projection_dim": 24,
    }
    size = 1000
    return CLIPConfig(
        text_config={
            **tower,
            "vocab_size": size,
            "bos_token_id": size - 2,
            "eos_token_id": size - 1,
            "pad_token_id": size - 1,
        },
        vision_config={**tower, "image_size": 32, "patch_size": 8},
        projection_dim=24,
    )


def write_sentencepiece(path: Path) -> None:
    import io

    import sentencepiece

    trained = io.BytesIO()
    text = [s.lower().replace(".", "").replace(";", "").replace(",", "") for s in SENTENCES]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text * 20),
        model_writer=trained,
        vocab_size=90,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    path.write_bytes(trained.getvalue())


def write_siglip(folder: Path, config, *, seed: int):
    from transformers import SiglipModel

    folder.mkdir(parents=True)
    write_sentencepiece(folder / "spiece.model")
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "SiglipTokenizer",
            "model_max_length": 64,
            "do_lower_case": True,
            "eos_token": "</s>",
            "pad_token": "</s>",
            "unk_token": "<unk>",
        },
    )
    model = random_model(SiglipModel, config, seed=seed)
    with torch.no_grad():
        model.logit_scale.fill_(4.7)
        model.logit_bias.fill_(-12.9)
    model.save_pretrained(folder)
    side = config.vision_config.image_size
    write_json(
        folder / "preprocessor_config.json",
        {
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": [0.5, 0.5, 0.5],
            "image_processor_type": "SiglipImageProcessor",
            "image_std": [0.5, 0.5, 0.5],
            "processor_class": "SiglipProcessor",
            "resample": 3,
            "rescale_factor": 1 / 255,
            "size": {"height": side, "width": side},
        },
    )
    return model


def write_wordpiece(folder: Path, *, size: int) -> None:
    """Write only a ``vocab.txt`` of a cased BERT, as Bio_ClinicalBERT is published."""
    folder.mkdir(parents=True, exist_ok=True)
    words = sorted({w.strip(".;,").lower() for s in SENTENCES for w in s.split()})
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    pieces = [
        "[PAD]",
        *(f"[unused{i}]" for i in range(1, 100)),
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
    ]
    pieces += [*letters, *(f"##{c}" for c in letters), ".", ",", ";"]
    pieces += [w for w in words if w not in pieces]
    pieces += [f"[unused{i}]" for i in range(100, 100 + size - len(pieces))]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")


def write_joined(folder: Path, *, seed: int, vision: str = "bit"):
    """Write a VisionTextDualEncoder of a small vision network and a small BERT."""
    from transformers import (
        BertConfig,
        BitConfig,
        VisionTextDualEncoderConfig,
        VisionTextDualEncoderModel,
        ViTConfig,
    )

    write_wordpiece(folder, size=400)
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer"})
    towers = {
        "bit": BitConfig(
            embedding_size=16,
            hidden_sizes=[32, 64],
            depths=[1, 2],
            num_groups=4,
            layer_type="preactivation",
            hidden_size=64,
        ),
        "vit": ViTConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=4,
            image_size=32,
            patch_size=8,
        ),
    }
    text = BertConfig(
        vocab_size=1 + len((folder / "vocab.txt").read_text().splitlines()),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=40,
    )
    config = VisionTextDualEncoderConfig.from_vision_text_configs(
        towers[vision], text, projection_dim=24
    )
    model = VisionTextDualEncoderModel(config).eval()
    randomize(model, seed=seed)
    with torch.no_grad():
        model.logit_scale.fill_(3.1)
    model.save_pretrained(folder)
    write_json(
        folder / "preprocessor_config.json",
        {
            "image_processor_type": "CLIPImageProcessor",
            "do_center_crop": False,
            "size": {"height": 32, "width": 32},
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.25, 0.25, 0.25],
            "resample": 3,
        },
    )
    return model


def medclip_towers(*, seed: int, text_layers: int) -> torch.nn.ModuleDict:
    from transformers import BertConfig, BertModel, SwinConfig, SwinModel
    from transformers.initialization import no_init_weights

    vision_config = SwinConfig(
        image_size=224,
        patch_size=4,
        num_channels=3,
        embed_dim=96,
        depths=[2, 2, 6, 2],
        num_heads=[3, 6, 12, 24],
        window_size=7,
        mlp_ratio=4.0,
        qkv_bias=True,
        layer_norm_eps=1e-5,
    )
    text_config = BertConfig(
        vocab_size=28996,
        hidden_size=768,
        num_hidden_layers=text_layers,
        num_attention_heads=12,
        intermediate_size=3072,
        max_position_embeddings=512,
        layer_norm_eps=1e-12,
    )
    with no_init_weights():  # `randomize` follows
        vision, text = SwinModel(vision_config), BertModel(text_config)
    towers = torch.nn.ModuleDict(
        {
            name: torch.nn.ModuleDict(
                {"model": model, "projection_head": torch.nn.Linear(768, 512, bias=False)}
            )
            for name, model in (("vision_model", vision), ("text_model", text))
        }
    ).eval()
    randomize(towers, seed=seed)
    return towers


_OLD_SWIN_NAMES = (
    (
        ".attention.relative_position_bias.relative_position_bias_table",
        ".attention.self.relative_position_bias_table",
    ),
    (".attention.q_proj.", ".attention.self.query."),
    (".attention.k_proj.", ".attention.self.key."),
    (".attention.v_proj.", ".attention.self.value."),
    (".attention.o_proj.", ".attention.output.dense."),
    (".mlp.fc1.", ".intermediate.dense."),
    (".mlp.fc2.", ".output.dense."),
)


def medclip_state(towers: torch.nn.ModuleDict, *, logit_scale: float) -> dict[str, torch.Tensor]:
    """Return the published state dict, with Swin's old names and the constants saved then."""
    state = {"logit_scale": torch.tensor(logit_scale)}
    for key, tensor in towers.state_dict().items():
        if key.startswith("vision_model."):
            for new, old in _OLD_SWIN_NAMES:
                key = key.replace(new, old)
        state[key] = tensor
    for key in [k for k in state if k.endswith("self.relative_position_bias_table")]:
        index = key.removesuffix("bias_table") + "index"
        # Wrong on purpose: the network computes these values itself.
        state.setdefault(index, torch.zeros(49, 49, dtype=torch.int64))
    state["text_model.model.embeddings.position_ids"] = torch.arange(512)[None]
    return state


def write_dinov2(folder: Path, *, seed: int) -> None:
    from transformers import Dinov2Config, Dinov2Model

    folder.mkdir(parents=True)
    config = Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, image_size=28, patch_size=14
    )
    model = Dinov2Model(config)
    randomize(model, seed=seed)
    model.save_pretrained(folder)
    write_json(
        folder / "preprocessor_config.json",
        {
            "image_processor_type": "BitImageProcessor",
            "do_resize": True,
            "size": {"shortest_edge": 32},
            "resample": 3,
            "do_center_crop": True,
            "crop_size": {"height": 28, "width": 28},
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": [0.485, 0.456, 0.406],
            "image_std": [0.229, 0.224, 0.225],
        },
    )


def write_bert(folder: Path, *, seed: int) -> None:
    from transformers import BertConfig, BertModel

    write_wordpiece(folder, size=300)
    write_json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "BertTokenizer", "do_lower_case": True},
    )
    config = BertConfig(
        vocab_size=300,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
    )
    model = BertModel(config)
    randomize(model, seed=seed)
    model.save_pretrained(folder)


def wordpiece_ids(folder: Path, text: str) -> list[int]:
    """Tokenize by lower-cased WordPiece between [CLS] and [SEP], using only ``vocab.txt``."""
    from tokenizers import BertWordPieceTokenizer

    lines = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
    vocabulary = {piece: i for i, piece in enumerate(lines)}
    return BertWordPieceTokenizer(vocabulary, lowercase=True).encode(text).ids
