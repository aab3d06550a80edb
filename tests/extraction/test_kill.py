"""Extractions killed by SIGKILL keep what was stored and end with the same cache."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from featurecache.extraction.update import update_caches
from featurecache.prompts import PROMPT_SETS
from featurecache.store.reader import read_cache
from tests.extraction import killed
from tests.extraction.stub_encoder import StubEncoder, content, make_dataset, write_images


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_extraction_ends_like_undisturbed_one(tmp_path: Path) -> None:
    ids = write_images(tmp_path / "data", 72)
    script = Path(killed.__file__)
    done = subprocess.run(
        [sys.executable, script, tmp_path, "11"],
        capture_output=True,
        text=True,
        timeout=250,
        # NumPy's threads do not survive a fork.
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    kills = json.loads(done.stdout)
    for name, cache, asked in (("first", "cache-of-some", ids[::2]), ("second", "cache", ids)):
        assert kills[name]["chosen"] == list(killed.DEATHS)
        assert len(kills[name]["encoding"]) == len(kills[name]["writing"]) == killed.RANDOM_KILLS
        # They were killed at work, not before it started or after it finished.
        assert len(set(kills[name]["encoding"])) > 1
        assert kills[name]["writing"][0] == len(asked)
        dataset = make_dataset(tmp_path / "data", asked)
        undisturbed = tmp_path / f"undisturbed-{name}"
        update_caches(dataset, [StubEncoder()], cache_dir=undisturbed, prompts=PROMPT_SETS["signs"])
        assert content(read_cache(tmp_path / cache / "set" / "stub.h5")) == content(
            read_cache(undisturbed / "set" / "stub.h5")
        )
        # No temporary file and no chunk is left.
        assert {path.name for path in (tmp_path / cache / "set").iterdir()} == {
            *("stub.h5", "stub.h5.lock"),
        }
