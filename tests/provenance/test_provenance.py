"""Provenance of encoders, and the check that test images were not trained on."""

import json
import shutil

import numpy as np
import pytest

from featurecache.encoders.loading import load_encoder
from featurecache.errors import CheckpointError
from featurecache.provenance.provenance import PROVENANCE_FILE, Provenance, read_provenance
from featurecache.provenance.records import ImageRecords


@pytest.mark.parametrize(
    ("model", "exposed"),
    [("xraysiglip", ("nih",)), ("xrayclip", ("nih",)), ("clip", ())],
)
def test_registered_encoder_has_its_exposure(tiny_clip, model, exposed):
    assert load_encoder(model, weights=tiny_clip).provenance == Provenance(exposed)


def test_hub_repository_of_registered_encoder_has_its_exposure(tiny_clip, tmp_path, monkeypatch):
    monkeypatch.setenv("FEATURECACHE_MODELS", str(tmp_path))
    name = "XraySigLIP__vit-l-16-siglip-384__webli"
    shutil.copytree(tiny_clip, tmp_path / name)
    assert load_encoder(f"hf:StanfordAIMI/{name}").provenance == Provenance(("nih",))
    shutil.copytree(tiny_clip, tmp_path / "other")
    assert load_encoder("hf:someone/other").provenance == Provenance()


def test_trainings_accumulate():
    first = Provenance(("nih",)).with_training(ImageRecords.of("kermany", ["b", "a"]))
    second = first.with_training(ImageRecords.of("kermany", ["c", "a"]))
    third = second.with_training(ImageRecords.of("xrays", ["a"]))
    assert third.trained_on == {
        "kermany": ImageRecords.of("kermany", ["a", "b", "c"]),
        "xrays": ImageRecords.of("xrays", ["a"]),
    }
    assert third.exposed_to == ("nih",)


def test_images_of_one_id_and_different_files_are_both_kept():
    first = ImageRecords.of("train", ["im/1.png"], sha256=["a" * 64])
    other = ImageRecords.of("train", ["im/1.png"], sha256=["b" * 64])
    assert len(Provenance().with_training(first).with_training(other).trained_on["train"]) == 2


def test_provenance_round_trips(tmp_path):
    records = ImageRecords.of(
        "kermany",
        ["a", "größer"],
        patients=["p", ""],
        sha256=["", "b" * 64],
        perceptual_hash=np.array([[0] * 32, [7] * 32], dtype=np.uint8),
    )
    provenance = Provenance(("nih",)).with_training(records)
    (tmp_path / PROVENANCE_FILE).write_text(json.dumps(provenance.to_json()))
    assert read_provenance(tmp_path) == provenance


def _columns(**columns):
    unknown = {name: [""] for name in ("id", "patient", "sha256", "perceptual_hash")}
    return json.dumps({"exposed_to": [], "trained_on": {"nih": {**unknown, **columns}}})


@pytest.mark.parametrize(
    "text",
    [
        *("[]", "{}", '{"exposed_to": [], "trained_on": 3}', "nothing"),
        *(_columns(id=["a", "b"]), _columns(perceptual_hash=["00"])),
        *(_columns(perceptual_hash=["x" * 64]), _columns(sha256=[3])),
    ],
)
def test_damaged_provenance_is_refused(tmp_path, text):
    (tmp_path / PROVENANCE_FILE).write_text(text)
    with pytest.raises(CheckpointError, match=r"provenance\.json"):
        read_provenance(tmp_path)
