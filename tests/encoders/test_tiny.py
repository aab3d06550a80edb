"""The model that ships with the package."""

import os
import socket
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

import featurecache.encoders.loading as loading
from featurecache.datasets.kermany import load_kermany
from featurecache.datasets.load import load_dataset
from featurecache.datasets.nih import TEST_LIST
from featurecache.encoders.loading import load_encoder
from featurecache.encoders.registry import ENCODERS

FOLDER = Path(loading.__file__).parent / "tiny"
TEXTS = ["signs of pleural effusion", "no signs of pleural effusion", "Zebra!"]


def test_tiny_loads_without_network_models_or_data(monkeypatch, tmp_path):
    def no_network(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "socket", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr(os, "environ", {"PATH": "", "HOME": "/nonexistent"})
    monkeypatch.chdir(tmp_path)
    encoder = load_encoder("tiny")
    assert encoder.encode_texts(["signs of mass"]).shape == (1, 128)
    assert encoder.aligned
    assert encoder.bias is None
    assert 1 < encoder.scale < 101


def test_tiny_matches_its_registry_entry_and_size_limit():
    spec = ENCODERS["tiny"]
    encoder = load_encoder("tiny", device="cpu")
    pixels = np.zeros((2, 3, spec.pixels, spec.pixels), dtype=np.float32)
    assert encoder.embed_pixels(pixels).shape == (2, spec.dim)
    assert (FOLDER / "model.safetensors").stat().st_size <= 6_000_000


def test_tiny_embeds_as_plain_transformers():
    encoder = load_encoder("tiny", device="cpu")
    network = AutoModel.from_pretrained(FOLDER, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    pixels = np.random.default_rng(0).normal(size=(2, 3, 128, 128)).astype(np.float32)
    with torch.inference_mode():
        maps = network.vision_model(pixel_values=torch.tensor(pixels)).last_hidden_state
        images = network.visual_projection(maps.mean(dim=(2, 3)))
        texts = torch.cat(
            [
                _features(network.get_text_features(**tokenizer(text, return_tensors="pt")))
                for text in TEXTS
            ]
        )
    assert np.allclose(encoder.embed_pixels(pixels), images.numpy(), atol=1e-5)
    assert np.allclose(encoder.encode_texts(TEXTS), texts.numpy(), atol=1e-5)


def _features(output):
    return getattr(output, "pooler_output", output)


def test_tiny_distinguishes_words_outside_its_vocabulary():
    embedding = load_encoder("tiny", device="cpu").encode_texts([*TEXTS, "Yak?"])
    assert np.isfinite(embedding).all()
    assert not np.allclose(embedding[2], embedding[3])


def test_tiny_was_not_trained_on_test_images(shared_data):
    trained = load_encoder("tiny", device="cpu").provenance.trained_on
    assert set(trained) == {"kermany", "nih", "phantom-1"}
    trained_ids = {name: set(images.to_json()["id"]) for name, images in trained.items()}
    kermany = load_kermany(shared_data / "kermany")
    nih = load_dataset("nih", shared_data, split="patient")
    for dataset in (kermany, nih):
        patients = dataset.images.set_index("id")["patient"]
        test = set(patients[(dataset.images["split"] == "test").to_numpy()])
        ids = trained_ids[dataset.name]
        assert ids <= set(patients.index)
        assert not set(patients[list(ids)]) & test
        records = dataset.records(np.flatnonzero(dataset.images["id"].isin(ids)))
        assert np.array_equal(records.patient, trained[dataset.name].patient)
        assert trained[dataset.name].perceptual_hash.any(axis=1).all()
    official = set((shared_data / "nih" / TEST_LIST).read_text().split())
    assert not trained_ids["nih"] & official
    assert len(trained["kermany"]) > 2500
    assert len(trained["phantom-1"]) > 4000
