"""Fresh weights in a model's architecture are a checkpoint like any other."""

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


def fresh(model, folder, seed=0, **options):
    source = load_source(str(model), device="cpu", precision="fp32", **options)
    return randomly_initialized(source, folder=folder, seed=seed, precision="fp32")


def test_a_folder_needs_no_weights(architecture, tmp_path):
    encoder = fresh(architecture, tmp_path / "start")
    assert encoder.name == "small-clip"
    pixels = np.zeros((1, 3, 32, 32), dtype=np.float32)
    assert encoder.embed_pixels(pixels).shape == (1, 24)


def test_the_seed_decides_the_weights_and_those_of_the_checkpoint_are_not_used(tiny_clip, tmp_path):
    def weights(place, seed):
        name = fresh(tiny_clip, tmp_path / place, seed).name
        return load_file(tmp_path / place / f"seed-{seed}" / name / "model.safetensors")

    key = "visual_projection.weight"
    one = weights("a", 1)[key]
    assert one.equal(weights("b", 1)[key])
    assert not one.equal(weights("a", 2)[key])
    assert not one.equal(load_file(tiny_clip / "model.safetensors")[key])


def test_a_registered_model_lends_its_architecture(tiny_clip, tmp_path):
    assert fresh("clip", tmp_path / "start", weights=tiny_clip).name == "clip"


def test_what_is_there_already_is_taken(architecture, tmp_path):
    fresh(architecture, tmp_path / "start")
    path = tmp_path / "start/seed-0/small-clip/model.safetensors"
    before = path.stat().st_mtime_ns
    fresh(architecture, tmp_path / "start")
    assert path.stat().st_mtime_ns == before


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"config\.json"):
        fresh(tmp_path, tmp_path / "start")
    assert not (tmp_path / "start").exists()


def test_weights_that_would_not_be_used_are_refused(architecture, tiny_clip, tmp_path):
    with pytest.raises(UsageError, match=r"would not be used.*leave one of them out"):
        fresh(architecture, tmp_path / "start", weights=tiny_clip)
