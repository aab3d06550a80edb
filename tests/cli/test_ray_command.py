"""``extract --engine ray`` on the command line."""

import json
import subprocess
import sys
from pathlib import Path

from featurecache.store.reader import read_cache


def test_ray_gives_the_same_cache_and_one_json_document(
    run, tiny_clip, extract_options, monkeypatch
):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    options = ["--precision", "fp32", "--shard", "1/2", "--limit", "28", "--json"]
    command = [
        *("extract", "--model", tiny_clip.name, *extract_options, *options),
        *("--engine", "ray", "--cache", "there"),
    ]
    # A relative name, as a user would type it, and a process whose output nobody else touches.
    Path(tiny_clip.name).symlink_to(tiny_clip)
    done = subprocess.run(
        [sys.executable, "-c", "from featurecache.cli import main; main()", *map(str, command)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (there,) = json.loads(done.stdout)
    (here,) = run("extract", "--model", tiny_clip, *extract_options, *options).json
    assert (there["done"], there["failed"]) == (here["done"], here["failed"]) == (28, {})
    one, other = (read_cache(Path(summary["path"])) for summary in (there, here))
    assert one.ids.tolist() == other.ids.tolist()
    assert one.embedding.tobytes() == other.embedding.tobytes()


def test_without_the_extra_one_line_says_what_to_type(run, monkeypatch):
    monkeypatch.setattr("featurecache.extraction.ray_cluster.find_spec", lambda name: None)
    outcome = run("extract", "--engine", "ray")
    assert outcome.code == 2
    assert outcome.stderr.endswith(" needs Ray Data: pip install 'featurecache[ray]'\n")
    assert len(outcome.stderr.splitlines()) == 1


def test_an_unknown_engine_is_told(run):
    outcome = run("extract", "--engine", "rya")
    assert outcome.code == 2
    assert "unknown engine 'rya': did you mean ray?" in outcome.stderr


def test_a_cluster_that_does_not_answer_is_told(run, tiny_clip, extract_options, monkeypatch):
    for address in ("127.0.0.1:1", "auto"):
        monkeypatch.setenv("RAY_ADDRESS", address)
        outcome = run("extract", "--model", tiny_clip, *extract_options, "--engine", "ray")
        assert outcome.code == 2
        assert f"no Ray cluster responds at {address}, the value of RAY_ADDRESS" in outcome.stderr
