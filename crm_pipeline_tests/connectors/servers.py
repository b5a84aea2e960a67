"""A tiny HTTP server that answers exactly the bytes a test wants, however wrong."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, urlsplit

CUT: list[bytes] = []
"""No answer: the connection is closed."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as it came."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        """Path, still percent-encoded."""
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        """Query parameters."""
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))

    @property
    def json(self) -> Any:
        """Body as JSON."""
        return json.loads(self.body)


Reply: TypeAlias = bytes | Iterable[bytes]
"""A whole answer on a connection that stays open, or pieces after which it is closed."""
Answering: TypeAlias = Callable[[Seen], Reply]


@dataclass
class Server:
    """A running server: where it is, and what it was asked."""

    url: str
    seen: list[Seen] = field(default_factory=list)
    connections: int = 0


def reply(status: int = 200, body: Any = b"", **headers: str) -> bytes:
    """Bytes of an answer; anything but bytes is sent as JSON. ``Retry_After`` names ``Retry-After``."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {"Content-Type": "application/json", "Content-Length": str(len(content))}
    named |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"HTTP/1.1 {status} Word", *(f"{name}: {value}" for name, value in named.items())]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + content


FINE = reply(200, {"ok": True})
SHORT = {"connect_timeout": 0.3, "read_timeout": 0.3, "total_timeout": 0.6}
"""Limits of a connection that is not waited for long."""


def script(*replies: Reply) -> Answering:
    """Answer with these in turn; the last one again and again."""
    left = list(replies)
    return lambda _seen: left.pop(0) if len(left) > 1 else left[0]


def drip(whole: bytes, pause: float) -> Iterator[bytes]:
    """Give an answer byte by byte, with so many seconds before each."""
    for position in range(len(whole)):
        time.sleep(pause)
        yield whole[position : position + 1]


@contextlib.contextmanager
def serving(answer: Answering, greeting: bytes = b"") -> Iterator[Server]:
    """Serve on a free loopback port, one thread for each connection.

    ``greeting`` is sent before anything is asked, as other protocols do.
    """
    sockets: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(f"http://127.0.0.1:{listener.getsockname()[1]}")

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    server.connections += 1
                    sockets.append(connection)
                    connection.sendall(greeting)
                    threading.Thread(target=_converse, args=(connection, server, answer), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(5)
            for each in sockets:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)


def closed_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _converse(connection: socket.socket, server: Server, answer: Answering) -> None:
    with contextlib.suppress(OSError, ValueError), connection, connection.makefile("rb") as stream:
        while line := stream.readline():
            method, target, _ = line.decode("latin-1").split(" ", 2)
            headers = {}
            while (header := stream.readline().decode("latin-1").strip()) != "":
                name, _, value = header.partition(":")
                headers[name.lower()] = value.strip()
            body = stream.read(int(headers.get("content-length", "0")))
            seen = Seen(method, target, headers, body)
            server.seen.append(seen)
            said = answer(seen)
            if isinstance(said, bytes):
                connection.sendall(said)
                continue
            for piece in said:
                connection.sendall(piece)
            return
