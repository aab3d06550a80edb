"""Images that crash the decoder are left out of a fine-tuning."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.finetune import bad_training, killed_training

CRASHED = "the decoder crashed (SIGSEGV)"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_crashing_images_are_left_out_like_undecodable_ones(
    dataset, tiny_clip, tmp_path: Path, bad_decoder
) -> None:
    table = dataset.images.assign(
        Opacity=dataset.label_values[:, 0], Nodule=dataset.label_values[:, 1]
    )
    table.to_csv(tmp_path / "images.csv", index=False)
    root = tmp_path / "images"
    shutil.copytree(dataset.root, root)
    # In the training, validation and test splits.
    bad = {"010.png": bad_decoder.crash, "050.png": bad_decoder.crash_later}
    bad["070.png"] = bad_decoder.crash
    for name in bad:
        (root / name).write_bytes(b"no image")
    undecodable, crashed = tmp_path / "undecodable", tmp_path / "crashed"
    killed_training.tune(root, tiny_clip, undecodable)
    for name, spoil in bad.items():
        shutil.copy(dataset.root / name, root / name)
        spoil(root / name)
    done = subprocess.run(
        [sys.executable, bad_training.__file__, root, tiny_clip, crashed],
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *deaths, last = json.loads(done.stdout)
    assert (deaths, last) == ([signal.SIGSEGV] * len(deaths), 0)
    assert 1 <= len(deaths) <= len(bad)
    files = sorted(p.relative_to(undecodable) for p in undecodable.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(crashed) for p in crashed.rglob("*") if p.is_file())
    assert Path("encoder/model.safetensors") in files
    for name in files:
        if name == Path("config.json"):
            continue
        assert (undecodable / name).read_bytes() == (crashed / name).read_bytes(), name
    config, other_config = (
        json.loads((run / "config.json").read_text()) for run in (undecodable, crashed)
    )
    assert other_config.pop("failures") == dict.fromkeys(bad, CRASHED)
    assert config.pop("failures").keys() == bad.keys()
    # Named after the reasons.
    assert sum(config.pop("excluded").values()) == sum(other_config.pop("excluded").values()) == 3
    assert config == other_config
    assert not crashed.with_name("crashed.parts").exists()
