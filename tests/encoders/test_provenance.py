"""Provenance of encoders, and the check that test images were not trained on."""

import json
import shutil

import pytest

from featurecache.encoders.loading import load_encoder
from featurecache.errors import CheckpointError, UsageError
from featurecache.provenance import PROVENANCE_FILE, Provenance, read_provenance


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
    first = Provenance(("nih",)).with_training("kermany", ["a", "b"])
    second = first.with_training("kermany", ["c"]).with_training("xrays", ["a"])
    assert second.trained_on == {"kermany": frozenset("abc"), "xrays": frozenset("a")}
    assert second.exposed_to == ("nih",)


def test_only_test_images_of_the_training_are_refused():
    provenance = Provenance().with_training("kermany", ["a", "b"])
    provenance.require_unseen("kermany", ["c", "d"])
    provenance.require_unseen("xrays", ["a"])
    with pytest.raises(UsageError, match="trained on 1 of the 2 images of kermany to score, 'b'"):
        provenance.require_unseen("kermany", ["c", "b"])


def test_provenance_round_trips(tmp_path):
    provenance = Provenance(("nih",)).with_training("kermany", ["b", "a"])
    (tmp_path / PROVENANCE_FILE).write_text(json.dumps(provenance.to_json()))
    assert read_provenance(tmp_path) == provenance


@pytest.mark.parametrize("text", ["[]", "{}", '{"exposed_to": [], "trained_on": 3}', "nothing"])
def test_damaged_provenance_is_refused(tmp_path, text):
    (tmp_path / PROVENANCE_FILE).write_text(text)
    with pytest.raises(CheckpointError, match=r"provenance\.json"):
        read_provenance(tmp_path)
