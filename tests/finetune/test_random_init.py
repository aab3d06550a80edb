"""Random weights in a model's architecture are a checkpoint like any other."""

import shutil

import numpy as np
import pytest
from safetensors.torch import load_file

from featurecache.errors import CheckpointError, UsageError
from featurecache.finetune.random_init import load_source, randomly_initialized


@pytest.fixture
def architecture(tiny_clip, tmp_path):
    folder = tmp_path / "small-clip"
    shutil.copytree(tiny_clip, folder)
    (folder / "model.safetensors").unlink()
    return folder


def random_encoder(model, folder, seed=0, **options):
    source = load_source(str(model), device="cpu", precision="fp32", **options)
    return randomly_initialized(source, folder=folder, seed=seed, precision="fp32")


def test_folder_needs_no_weights(architecture, tmp_path):
    encoder = random_encoder(architecture, tmp_path / "start")
    assert encoder.name == "small-clip"
    pixels = np.zeros((1, 3, 32, 32), dtype=np.float32)
    assert encoder.embed_pixels(pixels).shape == (1, 24)


def test_seed_decides_weights_and_checkpoint_is_not_used(tiny_clip, tmp_path):
    def weights(place, seed):
        name = random_encoder(tiny_clip, tmp_path / place, seed).name
        return load_file(tmp_path / place / f"seed-{seed}" / name / "model.safetensors")

    key = "visual_projection.weight"
    one = weights("a", 1)[key]
    assert one.equal(weights("b", 1)[key])
    assert not one.equal(weights("a", 2)[key])
    assert not one.equal(load_file(tiny_clip / "model.safetensors")[key])


def test_registered_model_gives_its_architecture(tiny_clip, tmp_path):
    assert random_encoder("clip", tmp_path / "start", weights=tiny_clip).name == "clip"


def test_existing_weights_are_reused(architecture, tmp_path):
    random_encoder(architecture, tmp_path / "start")
    path = tmp_path / "start/seed-0/small-clip/model.safetensors"
    before = path.stat().st_mtime_ns
    random_encoder(architecture, tmp_path / "start")
    assert path.stat().st_mtime_ns == before


def test_folder_without_model_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"config\.json"):
        random_encoder(tmp_path, tmp_path / "start")
    assert not (tmp_path / "start").exists()


def test_unused_weights_are_refused(architecture, tiny_clip, tmp_path):
    with pytest.raises(UsageError, match="would not be used: leave out `weights`"):
        random_encoder(architecture, tmp_path / "start", weights=tiny_clip)
