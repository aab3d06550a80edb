"""An extraction that was killed goes on in its execution, to the same bytes."""

import os
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

import featurecache as fc
from featurecache.store.layout import chunks_path
from tests.extraction.killed_executions import FEATURES
from tests.extraction.stub_encoder import write_images

EXECUTIONS = ["torch:bf16-weights"]
if find_spec("openvino") and find_spec("nncf"):
    EXECUTIONS.append("openvino:int8")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_killed_extraction_is_resumed_to_the_same_bytes(tiny_clip, tmp_path):
    write_images(tmp_path / "images", 9)
    arguments = [tiny_clip, tmp_path / "images", tmp_path / "killed", *EXECUTIONS]
    subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.extraction.killed_executions", *arguments],
        check=True,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "xdg")},
    )
    for execution in EXECUTIONS:
        backend, precision = execution.split(":")
        options = {"features": FEATURES, "batch_size": 2}
        of_whole = fc.extract(
            tmp_path / "images",
            str(tiny_clip),
            cache_dir=tmp_path / "whole" / execution,
            backend=backend,
            precision=precision,
            **options,
        )
        folder = tmp_path / "killed" / execution
        for whole in of_whole:
            killed = folder / whole.path.parent.name / whole.path.name
            assert list(chunks_path(killed).glob("*")), execution
            assert not killed.exists()
        resumed = fc.extract(tmp_path / "images", str(tiny_clip), cache_dir=folder, **options)
        for again, whole in zip(resumed, of_whole, strict=True):
            assert again.header.encoder_spec == whole.header.encoder_spec
            np.testing.assert_array_equal(again.mapped, whole.mapped)
