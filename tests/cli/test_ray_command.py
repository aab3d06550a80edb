"""The ``extract`` command with Ray."""

import json
import subprocess
import sys
from pathlib import Path

from featurecache.store.reader import read_cache


def test_ray_engine_writes_the_same_cache_and_prints_one_json_document(
    run, tiny_clip, extract_options, monkeypatch
):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    options = ["--precision", "fp32", "--shard", "1/2", "--limit", "28", "--json"]
    command = [
        *("extract", "--model", tiny_clip.name, *extract_options, *options),
        *("--engine", "ray", "--cache", "ray-cache"),
    ]
    # A relative path, as a user would type it; a process, because Ray writes to its stdout.
    Path(tiny_clip.name).symlink_to(tiny_clip)
    done = subprocess.run(
        [sys.executable, "-c", "from featurecache.cli import main; main()", *map(str, command)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (by_ray,) = json.loads(done.stdout)
    (locally,) = run("extract", "--model", tiny_clip, *extract_options, *options).json
    assert (by_ray["done"], by_ray["failed"]) == (locally["done"], locally["failed"]) == (28, {})
    first, second = (read_cache(Path(summary["path"])) for summary in (by_ray, locally))
    assert first.ids.tolist() == second.ids.tolist()
    assert first.embedding.tobytes() == second.embedding.tobytes()


def test_local_cluster_listens_on_the_loopback_interface_only(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    script = """
import psutil
from ipaddress import ip_address
from featurecache.extraction.ray_cluster import ray_cluster
with ray_cluster():
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    listening = {
        ip_address(connection.laddr.ip)
        for process in processes
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening
    for address in listening:
        assert getattr(address, "ipv4_mapped", address).is_loopback, address
"""
    # A process, because Ray reads the setting when it is imported.
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_missing_extra_error_names_the_install_command(run, monkeypatch):
    monkeypatch.setattr("featurecache.extraction.ray_cluster.find_spec", lambda name: None)
    outcome = run("extract", "--engine", "ray")
    assert outcome.code == 2
    assert outcome.stderr.endswith(" needs Ray Data: pip install 'featurecache[ray]'\n")
    assert len(outcome.stderr.splitlines()) == 1


def test_unknown_engine_gets_a_suggestion(run):
    outcome = run("extract", "--engine", "rya")
    assert outcome.code == 2
    assert "unknown engine 'rya': did you mean ray?" in outcome.stderr


def test_unreachable_cluster_is_refused(run, tiny_clip, extract_options, monkeypatch):
    for address in ("127.0.0.1:1", "auto"):
        monkeypatch.setenv("RAY_ADDRESS", address)
        outcome = run("extract", "--model", tiny_clip, *extract_options, "--engine", "ray")
        assert outcome.code == 2
        assert f"no Ray cluster responds at {address}, the value of RAY_ADDRESS" in outcome.stderr
