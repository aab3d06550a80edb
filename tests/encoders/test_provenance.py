"""What an encoder has seen follows it, and test images that it was trained on are refused."""

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
def test_a_registered_encoder_says_what_its_training_may_have_seen(tiny_clip, model, exposed):
    assert load_encoder(model, weights=tiny_clip).provenance == Provenance(exposed)


def test_a_hub_repository_of_a_registered_encoder_says_the_same(tiny_clip, tmp_path, monkeypatch):
    monkeypatch.setenv("FEATURECACHE_MODELS", str(tmp_path))
    name = "XraySigLIP__vit-l-16-siglip-384__webli"
    shutil.copytree(tiny_clip, tmp_path / name)
    assert load_encoder(f"hf:StanfordAIMI/{name}").provenance == Provenance(("nih",))
    shutil.copytree(tiny_clip, tmp_path / "other")
    assert load_encoder("hf:someone/other").provenance == Provenance()


def test_trainings_add_up():
    first = Provenance(("nih",)).with_training("kermany", ["a", "b"])
    second = first.with_training("kermany", ["c"]).with_training("films", ["a"])
    assert second.trained_on == {"kermany": frozenset("abc"), "films": frozenset("a")}
    assert second.exposed_to == ("nih",)


def test_test_images_of_the_training_are_refused_and_others_are_not():
    provenance = Provenance().with_training("kermany", ["a", "b"])
    provenance.require_unseen("kermany", ["c", "d"])
    provenance.require_unseen("films", ["a"])
    with pytest.raises(UsageError, match="trained on 1 of the 2 test images of kermany, 'b'"):
        provenance.require_unseen("kermany", ["c", "b"])


def test_it_is_read_as_it_was_written(tmp_path):
    provenance = Provenance(("nih",)).with_training("kermany", ["b", "a"])
    (tmp_path / PROVENANCE_FILE).write_text(json.dumps(provenance.to_json()))
    assert read_provenance(tmp_path) == provenance


@pytest.mark.parametrize("text", ["[]", "{}", '{"exposed_to": [], "trained_on": 3}', "nothing"])
def test_a_damaged_file_is_refused(tmp_path, text):
    (tmp_path / PROVENANCE_FILE).write_text(text)
    with pytest.raises(CheckpointError, match=r"provenance\.json"):
        read_provenance(tmp_path)
