"""Serve an ASGI application until interrupted."""

import ipaddress
import socket
from collections.abc import Callable
from contextlib import suppress
from threading import Event, Thread
from typing import Any, Final

from featurecache.errors import UsageError

LOOPBACK: Final = "127.0.0.1"

_GRACE: Final = 2
"""Seconds that open requests may take once the server is to end."""

_REQUEST_TIMEOUT: Final = 10.0
"""Seconds in which the head of a request has to arrive on a new connection."""

_BACKLOG: Final = 100
"""Connections that are accepted at once, before any of them is counted."""

_MAX_CONNECTIONS: Final = 256
"""Connections at the same time. Further ones are closed, before there are no file handles left."""


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a server that listens on this host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Args:
        host: Address, or name of this machine.
        port: Port; 0 for any that is free.

    Raises:
        UsageError: The port is in use or not allowed, or this machine has no such address.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        raise UsageError(
            f"`port` {port} of {host} cannot be used ({error.strerror}): give another one, or 0"
        ) from error


def run_until_interrupted(
    application: Any, listener: socket.socket, announce: Callable[[], None]
) -> None:
    """Serve an ASGI application until ``KeyboardInterrupt``.

    Args:
        application: The application.
        listener: Where it listens.
        announce: Called once requests are accepted.
    """
    import uvicorn

    server = uvicorn.Server(
        uvicorn.Config(
            application,
            http=_protocol(),
            log_level="error",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_GRACE,
            backlog=_BACKLOG,
        )
    )
    # In a thread, because a notebook has an event loop of its own; and so that signals stay with
    # the caller.
    ended = Event()

    def run() -> None:
        try:
            server.run(sockets=[listener])
        finally:
            ended.set()

    thread = Thread(target=run)
    thread.start()
    try:
        with suppress(KeyboardInterrupt):  # the way to end it
            announce()
            # Python 3.11 takes a thread for ended if waiting for it is interrupted.
            ended.wait()
    finally:
        server.should_exit = True
        thread.join()


def _protocol() -> type:
    """Return uvicorn's HTTP, where idle clients do not keep others out."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Protocol(H11Protocol):  # type: ignore[misc]  # of a package without types
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) > _MAX_CONNECTIONS:
                transport.abort()
            self.loop.call_later(_REQUEST_TIMEOUT, self.close_if_idle)

        def close_if_idle(self) -> None:
            if self.cycle is None:  # no request so far
                self.transport.close()

    return Protocol
