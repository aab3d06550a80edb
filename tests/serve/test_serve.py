"""Predictions over HTTP: those of ``Run.predict``, within limits, and only for those who may."""

import asyncio
import io
import json
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from dataclasses import replace

import httpx2
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from starlette.testclient import TestClient
from typer.testing import CliRunner

import featurecache as fc
from featurecache.cli import main
from featurecache.encoders import loading
from featurecache.errors import RunError, UsageError
from featurecache.serve import application as application_module
from featurecache.serve import serve as serve_module
from featurecache.serve.application import build_application
from featurecache.serve.limits import Limits
from featurecache.serve.service import PredictionService
from featurecache.units import Units
from tests.images.test_dicom import dicom_file

LOCAL = "http://localhost"
TOKEN = "0123456789abcdef"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return fc.load_dataset("phantom", tmp_path_factory.mktemp("serve") / "phantom", n_images=40)


@pytest.fixture(scope="module")
def cache(data, tmp_path_factory):
    return fc.extract(data, "tiny", cache_dir=tmp_path_factory.mktemp("serve-cache"))


@pytest.fixture(scope="module")
def run(cache, tmp_path_factory):
    run = fc.train_head(cache, "linear", controls=False, n_bootstrap=0)
    return run.save(tmp_path_factory.mktemp("serve-runs") / "linear")


@pytest.fixture(scope="module")
def service(run, cache):
    """Loaded once for all tests."""
    return PredictionService(
        run,
        cache=cache,
        models=None,
        weights=None,
        device="cpu",
        bit_depth=None,
        image_timeout=20.0,
    )


def client_of(service, *, token=None, **limits):
    application = build_application(service, token=token, limits=Limits(**limits))
    return TestClient(application, base_url=LOCAL, raise_server_exceptions=False)


@pytest.fixture(scope="module")
def client(service):
    return client_of(service, max_bytes=100_000)


def png(pixels):
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format="PNG")
    return content.getvalue()


def chunk(kind, content):
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def png_bomb(side):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000)))


RAMP = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
GOOD = png(RAMP.astype(np.uint8))


@pytest.mark.parametrize(
    ("suffix", "content"),
    [("png", GOOD), ("png", png(RAMP)), ("dcm", dicom_file(RAMP))],
    ids=["8 bits", "16 bits", "DICOM without a window"],
)
@pytest.mark.filterwarnings("ignore:gray values whose range")
def test_answer_is_that_of_predict(run, client, tmp_path, suffix, content):
    path = tmp_path / f"image.{suffix}"
    path.write_bytes(content)
    response = client.post("/predict", content=content)
    assert response.status_code == 200, response.text
    answer = response.json()
    assert "not a medical device" in answer["notice"]
    assert bool(answer["notes"]) == (content != GOOD)
    ((name, predicted),) = answer["predictions"].items()
    assert name == "linear"
    assert predicted["embedding"] is None
    expected = fc.load_run(run).predict(path).iloc[0]
    columns = (
        ("probabilities", "probability"),
        ("thresholds", "threshold"),
        ("positive", "positive"),
        ("calibrated", "calibrated"),
        ("answers", "answer"),
    )
    for field, column in columns:
        for label, value in predicted[field].items():
            of_label = expected[f"{label} {column}"]
            assert value == (None if pd.isna(of_label) else of_label)
    assert list(predicted["probabilities"]) == list(fc.load_run(run).scored.label_names)
    assert any(value is not None for value in predicted["probabilities"].values())
    printed = CliRunner().invoke(main, ["predict", str(run), str(path), "--json"])
    (document,) = json.loads(printed.stdout)
    assert {field: document[field] for field in predicted if field != "embedding"} == {
        field: value for field, value in predicted.items() if field != "embedding"
    }


def test_embedding_and_nearest_images_are_those_of_the_cache(data, cache, client):
    row = 5
    path = data.files()[cache.ids[row]]
    response = client.post("/predict?nearest=3&embedding=true", content=path.read_bytes())
    answer = response.json()
    (predicted,) = answer["predictions"].values()
    embedding = cache.embedding.astype(np.float64)
    assert predicted["embedding"] == embedding[row].tolist()
    unit = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
    cosines = unit @ unit[row]
    nearest = np.argsort(-cosines, kind="stable")[:3]
    assert [image["id"] for image in answer["nearest"]] == cache.ids[nearest].tolist()
    assert [image["cosine"] for image in answer["nearest"]] == pytest.approx(cosines[nearest])


HOSTILE = {
    "empty": (b"", {}, 422, "the body is empty"),
    "text": (b"hello", {}, 415, "not an image of a known format"),
    "zip": (b"PK\3\4" + bytes(200), {}, 415, "not an image of a known format"),
    "form": (GOOD, {"content-type": "multipart/form-data; boundary=x"}, 415, "send the content"),
    "JSON": (b"{}", {"content-type": "application/json"}, 415, "application/json"),
    "truncated": (GOOD[:60], {}, 422, "damaged"),
    "bomb": (png_bomb(60_000), {}, 422, "more than 80,000,000 pixels"),
    "too large": (bytes(100_001), {}, 413, "more than 100,000 bytes"),
    "too large, chunked": (iter([GOOD, bytes(100_000)]), {}, 413, "more than 100,000 bytes"),
    **{
        f"host {host}": (GOOD, {"host": host}, 403, "localhost only")
        for host in (
            *("attacker.example", "localhost.attacker.example", "attacker.example@localhost"),
            *("attacker.example/@localhost", "localhost@attacker.example", "[", ""),
        )
    },
}


@pytest.mark.parametrize(("content", "headers", "status", "reason"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_request_gets_a_reason(client, content, headers, status, reason):
    response = client.post("/predict", content=content, headers=headers)
    assert (response.status_code, list(response.json())) == (status, ["detail"])
    assert reason in response.json()["detail"]
    assert client.post("/predict", content=GOOD).status_code == 200


@pytest.mark.parametrize("host", ["LOCALHOST", "localhost:8000", "127.0.0.1", "[::1]:65535"])
def test_this_machine_is_asked_under_any_of_its_names(client, host):
    assert client.post("/predict", content=GOOD, headers={"host": host}).status_code == 200


def test_slow_image_gets_its_answer_at_once(client, monkeypatch):
    monkeypatch.setattr(application_module, "BODY_TIMEOUT", 0.5)

    async def send():
        bodies = iter([{"type": "http.request", "body": b"\x89", "more_body": True}])
        sent = []

        async def receive():
            for body in bodies:
                return body
            await asyncio.sleep(60)

        async def reply(message):
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/predict", "query_string": b""}
        await client.app({**scope, "headers": [(b"host", b"localhost")]}, receive, reply)
        return sent[0]["status"]

    start = time.monotonic()
    assert asyncio.run(send()) == 408
    assert time.monotonic() - start < 10


def test_wrong_methods_paths_and_parameters_are_refused(run, client):
    assert client.get("/predict").status_code == 405
    assert client.get("/../etc/passwd").status_code == 404
    for query, reason in {
        "nearest=0": "nearest: Input should be greater than or equal to 1",
        "nearest=101": "nearest: ",
        "embedding=perhaps": "embedding: ",
        "view=up": "view=up is neither frontal nor lateral: give PA, AP, lateral, LL or RL",
        "views=PA&b=1": "unknown parameters: b, views; valid: view, nearest, embedding",
    }.items():
        response = client.post(f"/predict?{query}", content=GOOD)
        assert response.status_code == 422
        assert response.json()["detail"].startswith(reason)
    for view in ("", "PA", "postero-anterior", "lateral"):
        assert client.post(f"/predict?view={view}", content=GOOD).status_code == 200
    assert client.get("/docs").status_code == 404  # would load scripts from the network
    assert "/predict" in client.get("/openapi.json").json()["paths"]


def test_image_that_hangs_or_crashes_the_decoder_costs_only_itself(run, bad_decoder, tmp_path):
    hang, crash = tmp_path / "hang.png", tmp_path / "crash.png"
    for path, spoil in ((hang, bad_decoder.hang), (crash, bad_decoder.crash)):
        path.write_bytes(GOOD)
        spoil(path)
    app = fc.prediction_app(run, image_timeout=1.0)
    client = TestClient(app, base_url=LOCAL)
    response = client.post("/predict", content=hang.read_bytes())
    assert (response.status_code, response.json()) == (504, {"detail": "took longer than 1 s"})
    response = client.post("/predict", content=crash.read_bytes())
    assert response.status_code == 422
    assert "the decoder crashed" in response.json()["detail"]
    answer = client.post("/predict", content=GOOD).json()
    assert answer["nearest"] is None
    response = client.post("/predict?nearest=3", content=GOOD)
    assert (response.status_code, response.json()["detail"]) == (
        422,
        "this server has no cache to search",
    )


def test_failure_of_the_server_is_reported_without_details(service, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("secret")

    monkeypatch.setattr(service, "predict", fail)
    response = client_of(service).post("/predict", content=GOOD)
    assert response.status_code == 500
    assert "secret" not in response.text
    assert response.json() == {"detail": "the server failed: see its output"}


def test_requests_beyond_the_limit_are_to_be_sent_again(service, monkeypatch):
    release, begun, predict = threading.Event(), threading.Event(), service.predict

    def wait(*arguments, **options):
        begun.set()
        assert release.wait(10)
        return predict(*arguments, **options)

    monkeypatch.setattr(service, "predict", wait)
    app = build_application(service, token=None, limits=Limits(max_requests=1))

    async def send():
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url=LOCAL) as client:
            first = asyncio.create_task(client.post("/predict", content=GOOD))
            await asyncio.to_thread(begun.wait, 10)
            second = await client.post("/predict", content=GOOD)
            busy = (await client.get("/metrics")).text
            release.set()
            return (await first).status_code, second, busy, await client.get("/metrics")

    status, refused, busy, metrics = asyncio.run(send())
    assert status == 200
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert "featurecache_images_in_progress 1.0" in busy
    assert "featurecache_images_in_progress 0.0" in metrics.text
    for line in ('answers_total{status="200"} 1.0', 'answers_total{status="503"} 1.0'):
        assert f"featurecache_{line}" in metrics.text
    assert 'featurecache_stage_seconds_count{stage="decode"} 1.0' in metrics.text
    assert metrics.headers["content-type"].startswith("text/plain; version=")


@pytest.mark.parametrize("given", ["", "Bearer wrong", f"Basic {TOKEN}", "Bearer ä", TOKEN])
def test_other_clients_need_the_token(service, given):
    client = client_of(service, token=TOKEN)
    headers = {"authorization": given.encode()}
    for response in (
        client.post("/predict", content=GOOD, headers=headers),
        client.get("/", headers=headers),
        client.get("/metrics", headers=headers),
    ):
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
    assert client.get("/health").json() == {"status": "ok"}
    headers = {"authorization": f"bearer {TOKEN}", "host": "xray.example"}
    assert client.post("/predict", content=GOOD, headers=headers).status_code == 200
    about = client.get("/", headers=headers).json()
    assert about["runs"]["linear"]["model"] == "tiny"
    assert about["limits"]["max_requests"] == 16


def test_what_could_give_away_data_is_refused(run, cache, tmp_path):
    with pytest.raises(UsageError, match=r"reach `host` 0\.0\.0\.0: give a `token_file`"):
        fc.serve(run, host="0.0.0.0")
    token = tmp_path / "token"
    with pytest.raises(UsageError, match="cannot be read"):
        fc.prediction_app(run, token_file=token)
    token.write_text("short")
    with pytest.raises(UsageError, match="at least 16 characters"):
        fc.prediction_app(run, token_file=token)
    token.write_text(f"{TOKEN}\n")
    with pytest.raises(UsageError, match="set `share_ids`"):
        fc.prediction_app(run, cache=cache, token_file=token)
    app = fc.prediction_app(run, cache=cache, token_file=token, share_ids=True)
    headers = {"authorization": f"Bearer {TOKEN}"}
    assert TestClient(app).post("/predict", content=GOOD, headers=headers).json()["nearest"]


def test_runs_share_their_encoder_and_a_foreign_cache_is_refused(run, cache, data, monkeypatch):
    calls = []
    reload = loading.reload_encoder
    for module in ("featurecache.heads.io", "featurecache.encoders.loading"):
        monkeypatch.setattr(
            f"{module}.reload_encoder",
            lambda *arguments, **options: calls.append(arguments) or reload(*arguments, **options),
        )
    other = fc.train_head(cache, "prototype", controls=False, n_bootstrap=0)
    client = TestClient(fc.prediction_app([run, other]), base_url=LOCAL)
    assert len(calls) == 1
    answer = client.post("/predict", content=GOOD).json()
    assert list(answer["predictions"]) == ["linear", other.name]
    foreign = fc.extract(data, "tiny", views=2, cache_dir=cache.path.parent / "foreign", limit=8)
    with pytest.raises(RunError, match="views"):
        fc.prediction_app(run, cache=foreign)


def test_run_of_one_view_needs_to_know_the_view(run):
    loaded = fc.load_run(run)

    def of(units):
        config = {**loaded.config, "units": units}
        model = replace(loaded.model, units=Units().override(**units))
        return replace(loaded, config=config, load_model=lambda: model)

    client = TestClient(fc.prediction_app(of({"views": "frontal"})), base_url=LOCAL)
    response = client.post("/predict", content=GOOD)
    assert response.status_code == 422
    assert "such as view=PA" in response.json()["detail"]
    assert client.post("/predict?view=lateral", content=GOOD).status_code == 422
    seen = client.post("/predict?view=AP", content=GOOD)
    assert seen.status_code == 200, seen.text
    with pytest.raises(UsageError, match="a request has one image"):
        fc.prediction_app(of({"level": "study", "study_features": "frontal+lateral"}))


@pytest.mark.timeout(120)
def test_server_answers_until_interrupted(run):
    """With sockets: an answer is read though the client still sends, and a signal ends it."""
    command = [sys.executable, "-m", "featurecache", "serve", str(run), "--port", "0"]
    with subprocess.Popen(
        [*command, "--max-bytes", "1000000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        address = server.stdout.readline().strip()
        answers = [
            httpx2.get(f"{address}/health"),
            httpx2.post(f"{address}/predict", content=bytes(5_000_000)),
            httpx2.post(f"{address}/predict", content=GOOD, timeout=60),
        ]
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as slow:
            head = f"POST /predict HTTP/1.1\r\nHost: {host}\r\nContent-Length: 9\r\n\r\n"
            slow.sendall(head.encode())
            time.sleep(0.1)
            server.terminate()
            assert slow.recv(1000).startswith(b"HTTP/1.1 503 ")
        errors = server.stderr.read()
    assert server.returncode == 0
    assert [answer.status_code for answer in answers] == [200, 413, 200]
    assert "server" not in answers[0].headers
    assert "Traceback" not in errors


def test_command_passes_its_options_on(run, cache, monkeypatch):
    given = {}

    def run_until_interrupted(app, listener, announce):
        given.update(app=app)
        announce()

    monkeypatch.setattr(serve_module, "run_until_interrupted", run_until_interrupted)
    options = ["--cache", str(cache.path), "--port", "0", "--max-bytes", "10"]
    result = CliRunner().invoke(main, ["serve", str(run), *options, "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["address"].startswith("http://127.0.0.1:")
    client = TestClient(given["app"], base_url=LOCAL)
    assert client.get("/").json()["n_cached_images"] == 40
    assert client.post("/predict", content=GOOD).status_code == 413
    result = CliRunner().invoke(main, ["serve", str(run), "--host", "0.0.0.0"])
    assert result.exit_code == 2
    assert "--token-file" in result.stderr
    result = CliRunner().invoke(main, ["serve", str(run), "--max-requests", "0"])
    assert result.exit_code == 2


def test_missing_extra_is_reported(monkeypatch):
    monkeypatch.setattr(serve_module, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'featurecache\[serve\]'"):
        fc.prediction_app("runs/none")
