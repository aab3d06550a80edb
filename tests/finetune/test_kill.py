"""Fine-tunings that are killed, or whose decoder crashes, end like undisturbed ones."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.extraction.bad_decoder.sitecustomize import CRASH, CRASH_LATER
from tests.finetune import killed_training

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

BAD_DECODER = Path(__file__).parents[1] / "extraction" / "bad_decoder"
# In the training, validation and test splits.
BAD = {"010.png": CRASH, "050.png": CRASH_LATER, "070.png": CRASH}
CRASHED = "the decoder crashed (SIGSEGV)"


class Forked(NamedTuple):
    """The folder of the runs, and the report of the script that made two of them."""

    folder: Path
    report: dict[str, Any]


@pytest.fixture(scope="module")
def forked(dataset, tiny_clip, tmp_path_factory) -> Forked:
    """Runs made at once, and by processes that were killed or that crashed.

    One interpreter forks all of them, since its imports take most of the time.
    """
    folder = tmp_path_factory.mktemp("forked")
    table = dataset.images.assign(
        Opacity=dataset.label_values[:, 0], Nodule=dataset.label_values[:, 1]
    )
    table.to_csv(folder / "images.csv", index=False)
    shutil.copytree(dataset.root, folder / "images")
    bad = shutil.copytree(dataset.root, folder / "bad-images")
    killed_training.tune(folder / "images", tiny_clip, folder / "undisturbed")
    for name in BAD:
        (bad / name).write_bytes(b"no image")
    killed_training.tune(bad, tiny_clip, folder / "undecodable")
    for name, how in BAD.items():
        (bad / name).write_bytes((dataset.root / name).read_bytes() + how)
    done = subprocess.run(
        [sys.executable, killed_training.__file__, folder, tiny_clip, "5"],
        capture_output=True,
        text=True,
        timeout=200,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(BAD_DECODER), *filter(None, sys.path)]),
            "OPENBLAS_NUM_THREADS": "1",
        },
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Forked(folder, json.loads(done.stdout))


def same_files(run: Path, other: Path) -> list[Path]:
    """Return the files of a run, which another one must have, too."""
    files, others = (
        sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
        for folder in (run, other)
    )
    assert files == others
    assert Path("encoder/model.safetensors") in files
    return files


def test_killed_finetuning_ends_like_undisturbed_one(forked) -> None:
    undisturbed, disturbed = forked.folder / "undisturbed", forked.folder / "disturbed"
    assert len(forked.report["kills"]) >= 2
    for name in same_files(undisturbed, disturbed):
        assert (undisturbed / name).read_bytes() == (disturbed / name).read_bytes(), name
    assert not disturbed.with_name("disturbed.parts").exists()


def test_crashing_images_are_left_out_like_undecodable_ones(forked) -> None:
    undecodable, crashed = forked.folder / "undecodable", forked.folder / "crashed"
    *deaths, last = forked.report["ended"]
    assert (deaths, last) == ([signal.SIGSEGV] * len(deaths), 0)
    assert 1 <= len(deaths) <= len(BAD)
    for name in set(same_files(undecodable, crashed)) - {Path("config.json")}:
        assert (undecodable / name).read_bytes() == (crashed / name).read_bytes(), name
    config, other_config = (
        json.loads((run / "config.json").read_text()) for run in (undecodable, crashed)
    )
    assert other_config.pop("failures") == dict.fromkeys(BAD, CRASHED)
    assert config.pop("failures").keys() == BAD.keys()
    # Named after the reasons.
    for document in (config, other_config):
        assert sum(document.pop("excluded").values()) == 3
        assert sum(document["cohort"].pop("failed").values()) == 3
    assert config == other_config
    assert not crashed.with_name("crashed.parts").exists()
