"""A fine-tuning killed by SIGKILL at random moments ends like an undisturbed one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.finetune import killed_training


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_finetuning_ends_like_undisturbed_one(dataset, tiny_clip, tmp_path: Path) -> None:
    table = dataset.images.assign(
        Opacity=dataset.label_values[:, 0], Nodule=dataset.label_values[:, 1]
    )
    table.to_csv(tmp_path / "images.csv", index=False)
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    killed_training.tune(dataset.root, tiny_clip, undisturbed)
    done = subprocess.run(
        [sys.executable, killed_training.__file__, dataset.root, tiny_clip, disturbed, "5"],
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    kills = json.loads(done.stdout)
    assert len(kills) >= 3
    files = sorted(p.relative_to(undisturbed) for p in undisturbed.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(disturbed) for p in disturbed.rglob("*") if p.is_file())
    assert Path("encoder/model.safetensors") in files
    for name in files:
        assert (undisturbed / name).read_bytes() == (disturbed / name).read_bytes(), name
    assert not disturbed.with_name("disturbed.parts").exists()
