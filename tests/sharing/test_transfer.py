"""Large files go by way of the hub's storage, and arrive whole or not at all."""

import re
import socket
from collections.abc import Callable
from datetime import datetime, tzinfo
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import featurecache as fc
from tests.sharing.hub_server import Hub
from tests.sharing.secret_cache import REPO, SECRETS, TOKEN, make_cache

# The library gives its HTTP client a file as ``data``.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def cache(hub: Hub, tmp_path: Path) -> fc.Cache:
    return make_cache(tmp_path / "cache" / "toy" / "m.h5")


def use_xet(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("hf_xet")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False)
    hub.xet = folder


@pytest.mark.parametrize("way", ["one part", "several parts", "xet"])
def test_a_cache_comes_back_byte_by_byte_and_no_request_identifies_anybody(
    way: str, hub: Hub, cache: fc.Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.part_bytes = 10_000 if way == "several parts" else 2**24
    if way == "xet":
        use_xet(hub, tmp_path / "storage", monkeypatch)
    fc.push_cache(cache, REPO, yes=True)
    (content,) = hub.objects.values()
    uploads = [request for request in hub.requests if request.startswith("PUT")]
    assert len(uploads) == {"one part": 1, "several parts": -(-len(content) // 10_000)}.get(way, 0)
    pulled = fc.pull_cache(REPO, cache_dir="pulled")
    assert pulled.path.read_bytes() == content
    assert any(request.startswith("GET /storage/") for request in hub.requests) == (way != "xet")
    received = b"".join(hub.sent)
    for secret in (*SECRETS, str(tmp_path).encode(), socket.gethostname().encode()):
        assert secret not in received, secret
    # The storage is another host than the hub, and no user of it.
    with_token = [request for request in hub.sent if TOKEN.encode() in request]
    assert with_token
    assert not [request for request in with_token if b"/storage/" in request.partition(b"\n")[0]]


def test_the_same_cache_is_the_same_file_whenever_it_is_sent(
    hub: Hub, cache: fc.Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Later(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Later":
            return cls(2099, 1, 1, tzinfo=tz)

    fc.push_cache(cache, REPO, yes=True)
    monkeypatch.setattr("featurecache.store.writer.datetime", Later)
    fc.push_cache(cache, REPO, yes=True)
    assert len(hub.objects) == 1
    assert fc.pull_cache(REPO, cache_dir="pulled").created == cache.created


@pytest.mark.parametrize("way", ["lfs", "xet"])
def test_after_an_interrupted_upload_another_one_succeeds(
    way: str, hub: Hub, cache: fc.Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "xet":
        use_xet(hub, tmp_path / "storage", monkeypatch)
    hub.upload_status = 403
    with pytest.raises(
        fc.FeaturecacheError,
        match=r"transfer to or from my-lab/set was interrupted .*403 Forbidden",
    ):
        fc.push_cache(cache, REPO, yes=True)
    assert hub.repos[f"datasets/{REPO}"].files == {}
    assert [path.name for path in (tmp_path / "cache" / "toy").iterdir()] == ["m.h5"]
    hub.upload_status = None
    fc.push_cache(cache, REPO, yes=True)
    assert len(fc.pull_cache(REPO, cache_dir="pulled")) == len(cache)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda content: content[:-1000], "was interrupted .*should be of size"),
        (lambda content: content + b"x", "was interrupted .*should be of size"),
        (lambda content: b"x" + content[1:], "m.h5 of my-lab/set is not the file that was sent"),
    ],
)
def test_damaged_downloads_are_refused_and_leave_nothing(
    damage: Callable[[bytes], bytes], problem: str, hub: Hub, cache: fc.Cache, tmp_path: Path
) -> None:
    fc.push_cache(cache, REPO, yes=True)
    hub.stored = damage
    with pytest.raises(fc.FeaturecacheError, match=problem) as raised:
        fc.pull_cache(REPO, cache_dir="pulled")
    assert not re.search("force_download", str(raised.value))
    assert not [path for path in Path("pulled").rglob("*") if path.is_file()]
    hub.stored = bytes
    assert len(fc.pull_cache(REPO, cache_dir="pulled")) == len(cache)


@pytest.mark.parametrize("head", ["knn", "tip_adapter"])
def test_stored_embeddings_do_not_tell_the_order_of_the_training_images(
    head: str, cache: fc.Cache
) -> None:
    path = fc.train_head(cache, head, controls=False, n_bootstrap=0).save("runs/one")
    state = load_file(path / "head.safetensors")
    row_of = {row.tobytes(): number for number, row in enumerate(cache.embedding)}
    for name in ("keys", "familiarity.reference"):
        rows = np.array([row_of[row.tobytes()] for row in state[name]])
        assert len(rows) >= 20
        assert abs(np.corrcoef(rows, np.arange(len(rows)))[0, 1]) < 0.6
    train = np.array([row_of[row.tobytes()] for row in state["keys"]])
    labels = state["labels" if head == "knn" else "values"]
    np.testing.assert_array_equal(labels > 0, cache.cells[train] == 1)


def test_a_run_comes_back_with_its_weights_and_fits_its_encoder(hub: Hub, tmp_path: Path) -> None:
    spec = {"checkpoint": "0123", "weights": ["ab" * 32]}
    cache = make_cache(tmp_path / "toy" / "m.h5", encoder_spec=spec)
    fc.train_head(cache, "linear", controls=False, n_bootstrap=0).save("runs/one")
    push = fc.push_run("runs/one", REPO, yes=True)
    weights = {name for name in push.files if name.endswith(".safetensors")}
    assert weights
    assert {hub.repos[f"models/{REPO}"].files[name] for name in weights} == set(
        hub.objects.values()
    )
    pulled = fc.pull_run(REPO, "runs/two")
    assert pulled.config["cache"]["spec"] == spec
    for name in weights:
        assert Path("runs/two", name).read_bytes() == Path("runs/one", name).read_bytes()
