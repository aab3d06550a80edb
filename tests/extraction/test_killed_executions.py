"""An extraction that was killed goes on in its execution, to the same bytes."""

import shutil
from importlib.util import find_spec

import numpy as np

import featurecache as fc
from featurecache.extraction import pipeline
from featurecache.store.layout import chunks_path
from tests.extraction.stub_encoder import write_images

EXECUTIONS = ["torch:bf16-weights"]
if find_spec("openvino") and find_spec("nncf"):
    EXECUTIONS.append("openvino:int8")


def test_killed_extraction_is_resumed_to_the_same_bytes(
    tiny_clip, tmp_path, user_cache, monkeypatch
):
    """A copy of the disk after five images is what SIGKILL leaves then; test_kill.py sends it."""
    write_images(tmp_path / "images", 9)
    monkeypatch.setattr(pipeline, "FLUSH_SECONDS", 0.0)
    features = ["projected", "layers:-1,-2+mean", "tokens:2"]
    for execution in EXECUTIONS:
        backend, precision = execution.split(":")
        folder, killed_folder = tmp_path / "whole" / execution, tmp_path / "killed" / execution

        def keep_state(finished, _, folder=folder, killed_folder=killed_folder):
            if finished == 5:
                shutil.copytree(folder, killed_folder)

        options = {"features": features, "batch_size": 2}
        of_whole = fc.extract(
            tmp_path / "images",
            str(tiny_clip),
            cache_dir=folder,
            backend=backend,
            precision=precision,
            progress=keep_state,
            **options,
        )
        for whole in of_whole:
            killed = killed_folder / whole.path.parent.name / whole.path.name
            assert list(chunks_path(killed).glob("*")), execution
            assert not killed.exists()
        # A network that is converted again is the same.
        shutil.rmtree(user_cache, ignore_errors=True)
        resumed = fc.extract(
            tmp_path / "images", str(tiny_clip), cache_dir=killed_folder, **options
        )
        for again, whole in zip(resumed, of_whole, strict=True):
            assert again.header.encoder_spec == whole.header.encoder_spec
            np.testing.assert_array_equal(again.mapped, whole.mapped)
