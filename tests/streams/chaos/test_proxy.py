"""The proxy before an echo: open, slow, silent, forgetful, away, and mended each time."""

from __future__ import annotations

import errno
import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest

from streams.chaos.proxy import HOST, Proxy

LARGE = bytes(range(256)) * 4_000


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(65_536):
            self.request.sendall(data)


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A connection that was cut off is none."""


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with Server((HOST, 0), Echo) as echo, socket.socket() as free:
        threading.Thread(target=echo.serve_forever, daemon=True).start()
        free.bind((HOST, 0))
        port = free.getsockname()[1]
        free.close()
        made = Proxy(port, echo.server_address[1])
        made.start()
        yield made
        made.close()
        echo.shutdown()


def client(proxy: Proxy, timeout: float = 5.0) -> socket.socket:
    return socket.create_connection((HOST, proxy.port), timeout)


def told(sock: socket.socket, data: bytes) -> bytes:
    """What the echo says to `data`."""
    threading.Thread(target=sock.sendall, args=(data,), daemon=True).start()
    return heard(sock, len(data))


def heard(sock: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size and (piece := sock.recv(65_536)):
        found += piece
    return found


def is_silent(sock: socket.socket, data: bytes = b"?") -> bool:
    """Whether nothing comes back, while nobody says that the connection is at an end."""
    sock.sendall(data)
    sock.settimeout(0.3)
    try:
        return sock.recv(1) is None
    except TimeoutError:
        return True
    finally:
        sock.settimeout(5.0)


def is_ended(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


def test_an_open_proxy_carries_everything_on_every_connection(proxy: Proxy) -> None:
    with client(proxy) as one, client(proxy) as other:
        assert told(one, LARGE) == LARGE
        assert told(other, b"other") == b"other"
        one.close()
        assert told(other, b"still") == b"still"


def test_a_slow_one_takes_its_time_and_loses_nothing(proxy: Proxy) -> None:
    with client(proxy) as sock:
        proxy.slow(0.1, 0.0)
        begun = time.monotonic()
        assert told(sock, b"late") == b"late"
        assert time.monotonic() - begun >= 0.2, "there and back"
        proxy.slow(0.0, 1e6)
        begun = time.monotonic()
        assert told(sock, LARGE) == LARGE
        assert time.monotonic() - begun >= 0.9 * len(LARGE) / 1e6
        proxy.slow(0.0, 0.0)
        begun = time.monotonic()
        assert told(sock, b"soon") == b"soon"
        assert time.monotonic() - begun < 0.1


def test_what_is_held_arrives_when_it_is_mended(proxy: Proxy) -> None:
    with client(proxy) as old:
        proxy.hold()
        assert is_silent(old)
        with client(proxy) as new:
            assert is_silent(new)
            proxy.mend()
            assert (heard(old, 1), heard(new, 1)) == (b"?", b"?")
            assert told(old, b"more") == b"more"


def test_half_open_connections_are_silent_until_it_is_mended_and_then_at_an_end(
    proxy: Proxy,
) -> None:
    with client(proxy) as old:
        assert told(old, b"a") == b"a"
        proxy.forget()
        assert is_silent(old)
        with client(proxy) as new:
            assert is_silent(new)
            proxy.mend()
            assert is_ended(old)
            assert is_ended(new)
    with client(proxy) as after:
        assert told(after, LARGE) == LARGE


def test_a_cut_ends_what_there_is_and_refuses_what_comes(proxy: Proxy) -> None:
    with client(proxy) as old:
        assert told(old, b"a") == b"a"
        proxy.cut()
        assert is_ended(old)
        with pytest.raises(ConnectionRefusedError) as refused:
            client(proxy)
        assert refused.value.errno == errno.ECONNREFUSED
        proxy.mend()
    with client(proxy) as after:
        assert told(after, b"b") == b"b"


def test_a_broker_that_is_not_there_ends_the_connection() -> None:
    with socket.socket() as nobody, socket.socket() as free:
        nobody.bind((HOST, 0))  # bound, and does not listen
        free.bind((HOST, 0))
        port = free.getsockname()[1]
        free.close()
        proxy = Proxy(port, nobody.getsockname()[1])
        proxy.start()
        try:
            with client(proxy) as sock:
                assert is_ended(sock)
        finally:
            proxy.close()


def test_a_port_that_is_taken_is_said(proxy: Proxy) -> None:
    other = Proxy(proxy.port, proxy.target)
    with pytest.raises(OSError, match="in use"):
        other.start()
    other.close()
