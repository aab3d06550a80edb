"""Clients that connect and send nothing do not keep others out."""

import socket
import time
from contextlib import ExitStack, suppress
from urllib.parse import urlsplit

import httpx2
import pytest

from featurecache import http_server


async def application(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def serve(ask):
    """Call a function with the address of a server that ends afterwards."""

    def announce():
        ask(f"http://127.0.0.1:{listener.getsockname()[1]}")
        raise KeyboardInterrupt

    with http_server.listen("127.0.0.1", 0) as listener:
        http_server.run_until_interrupted(application, listener, announce)


def connect(address, stack):
    url = urlsplit(address)
    return stack.enter_context(socket.create_connection((url.hostname, url.port), timeout=20))


@pytest.mark.timeout(60)
def test_connection_without_a_request_is_closed(monkeypatch):
    monkeypatch.setattr(http_server, "_REQUEST_TIMEOUT", 0.5)

    def ask(address):
        with ExitStack() as stack:
            silent, slow, kept = (connect(address, stack) for _ in range(3))
            slow.sendall(b"GET / HTTP/1.1\r\nHost: ")
            kept.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert kept.recv(1000).startswith(b"HTTP/1.1 204")
            assert silent.recv(1000) == slow.recv(1000) == b""
            kept.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert kept.recv(1000).startswith(b"HTTP/1.1 204")

    serve(ask)


@pytest.mark.timeout(60)
def test_too_many_connections_are_closed_and_others_answered_after_them(monkeypatch):
    monkeypatch.setattr(http_server, "_MAX_CONNECTIONS", 3)

    def ask(address):
        with ExitStack() as stack:
            for _ in range(3):
                connect(address, stack)
            assert connect(address, stack).recv(1000) == b""
        for _ in range(100):  # until the server noticed that they are gone
            with suppress(httpx2.TransportError):
                assert httpx2.get(address).status_code == 204
                return
            time.sleep(0.1)
        raise AssertionError("no answer")

    serve(ask)
