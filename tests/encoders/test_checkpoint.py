"""A checkpoint folder from which other weights would be loaded than those that are hashed."""

import json
from pathlib import Path

import pytest

from featurecache.encoders.checkpoint import TRANSFORMERS, open_checkpoint
from featurecache.errors import CheckpointError


def test_weights_that_are_not_those_hashed_are_refused(tmp_path: Path) -> None:
    config, weights = tmp_path / "config.json", tmp_path / "model.safetensors"
    config.write_text("{}")
    weights.write_bytes(b"")
    assert open_checkpoint(tmp_path, TRANSFORMERS).weights == (weights,)
    config.write_text(json.dumps({"transformers_weights": "other.safetensors"}))
    with pytest.raises(CheckpointError, match=r"config.json takes .* from 'other.safetensors'"):
        open_checkpoint(tmp_path, TRANSFORMERS)
    config.write_text("{}")
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="holds a PEFT adapter"):
        open_checkpoint(tmp_path, TRANSFORMERS)
