"""HTTP on the wire, within bounds of size and time that uvicorn leaves open."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, TypeAlias

import uvicorn
from starlette.types import ASGIApp, Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from crm_pipeline.api.problems import Problem

BACKLOG = 1024

Answer: TypeAlias = Callable[[int, Iterable[tuple[bytes, bytes]], bytes], None]
"""Sends a status, headers and a body."""
Whole: TypeAlias = Callable[[Scope, bytes, Answer], None]
"""Takes a request that has come whole, with its body, and has it answered, now or later."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one connection may cost."""

    head_bytes: int = 32 * 1024
    headers: int = 100
    url_bytes: int = 8 * 1024
    head_seconds: float = 10.0
    """For a request's head, from the first byte, or from the start of the connection."""
    body_seconds: float = 20.0
    """For its body."""
    unread_bytes: int = 1024 * 1024
    """Of a body that came after its request was answered, before the connection is closed."""
    linger_seconds: float = 2.0
    """After a refusal, to let the other end finish sending, so that it comes to read the answer."""
    connections: int = 1000
    """Of all callers."""
    share: float = 0.75
    """Of these, for one address: a proxy needs many, and none may shut the others out."""
    drain_seconds: int = 8
    """For requests under way, when the server is told to end."""


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with an end to everything; refusals are problem documents like all others."""

    bounds = Bounds()
    held: ClassVar[Counter[str]] = Counter()
    """Connections by address; each server has a class, and this, of its own."""
    whole: ClassVar[Mapping[tuple[str, str], Whole]] = {}
    """Shorter ways than the application's, by method and path, for requests that come whole at once."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """As uvicorn's."""
        super().__init__(*arguments, **options)
        self._deadline: asyncio.TimerHandle | None = None
        self._receiving = False  # a request has begun and is not complete
        self._head_open = False  # and neither is its head
        self._head_bytes = 0
        self._refusal = Problem(400, "The request is not HTTP.")
        self._draining = False
        self._address = ""
        self._broken = False  # nothing that still comes can be understood
        self._unread = 0  # bytes of a body that came after the answer
        self._parsing = False
        self._begun: tuple[RequestResponseCycle, Any] | None = None  # with the bytes in hand

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock."""
        self._wire = _Lingering(transport, self)
        super().connection_made(self._wire)  # type: ignore[arg-type] # a transport in all that is used
        self._address = (transport.get_extra_info("peername") or ("",))[0]
        self.held[self._address] += 1
        most = self.bounds.connections
        if len(self.connections) > most or self.held[self._address] > most * self.bounds.share:
            self._refuse(Problem(503, "Too many connections.", headers={"Retry-After": "1"}))
        else:
            self._set_deadline(self.bounds.head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._clear_deadline()
        self.held[self._address] -= 1
        if not self.held[self._address]:
            del self.held[self._address]
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, unless the answer is already given."""
        if self._draining or self._broken or self.transport.is_closing():
            return
        self._parsing = True
        super().data_received(data)
        self._parsing = False
        self._start()
        if self.transport.is_closing():
            return
        if self._receiving and self._idle:
            self._unread += len(data)
            if self._unread > self.bounds.unread_bytes:
                self.transport.close()
                return
        if self._head_open:
            self._head_bytes += len(data)
            if self._head_bytes > self.bounds.head_bytes * 2:  # a header that does not end
                self._refuse(_TOO_LARGE)
                return
        if self._deadline is None and (self._receiving or self._idle):
            self._set_deadline(self.bounds.head_seconds if self._head_open else self.bounds.body_seconds)

    # What the parser finds.

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._receiving = self._head_open = True
        self._head_bytes = self._unread = 0

    def on_url(self, url: bytes) -> None:
        """Hold its address against the bound."""
        super().on_url(url)
        if len(self.url) > self.bounds.url_bytes:
            self._abort(Problem(414, f"The address is longer than {self.bounds.url_bytes} bytes."))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Hold its headers against the bounds."""
        super().on_header(name, value)
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > self.bounds.head_bytes or len(self.headers) > self.bounds.headers:
            self._abort(_TOO_LARGE)

    def on_headers_complete(self) -> None:
        """Give its body a time of its own."""
        self._head_open = False
        self._clear_deadline()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is complete."""
        self._receiving = False
        self._clear_deadline()
        super().on_message_complete()

    # Starting what was begun.

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Wait for the end of the bytes in hand: with them the request may be whole."""
        if self._parsing:
            self._begun = cycle, app
        else:
            super()._start_asgi_task(cycle, app)

    def _start(self) -> None:
        if self._begun is None:
            return
        (cycle, app), self._begun = self._begun, None
        scope: Any = cycle.scope
        short = self.whole.get((scope["method"], scope["path"]))
        waits = cycle.more_body or cycle.disconnected or cycle.waiting_for_100_continue
        if short is None or waits or self.flow.write_paused:
            super()._start_asgi_task(cycle, app)
        else:
            short(scope, bytes(cycle.body), partial(self._answer, cycle))

    def _answer(
        self, cycle: RequestResponseCycle, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes
    ) -> None:
        """Send a whole answer."""
        if cycle.disconnected:
            return
        parts = [STATUS_LINE[status]]
        for name, value in (*cycle.default_headers, *headers):
            parts += (name, b": ", value, b"\r\n")
            cycle.keep_alive = cycle.keep_alive and name != b"connection"  # we say nothing but ``close``
        if not cycle.keep_alive:
            parts.append(b"connection: close\r\n")
        cycle.response_started = cycle.response_complete = True
        self._wire.send(b"".join((*parts, b"\r\n", body)))
        if not cycle.keep_alive:
            self.transport.close()
        cycle.on_response()

    # Refusals.

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, or beyond a bound."""
        del msg
        self._refuse(self._refusal)

    def _abort(self, problem: Problem) -> None:
        """Stop the parser, which then has the problem sent.

        Raises:
            ValueError: always.
        """
        self._refusal = problem
        raise ValueError(problem.detail)

    def _refuse(self, problem: Problem) -> None:
        """Answer for the application and close; it hears that the other end is gone.

        Where an answer is under way, that one is the last.
        """
        cycle = self._current
        if self._answer_pending:
            self._broken = True
            self.cycle.keep_alive = False
            return
        response = problem.response
        lines = [b": ".join(header) for header in (*response.raw_headers, *_HEADERS)]
        self.transport.write(
            b"".join((STATUS_LINE[problem.status], b"\r\n".join(lines), b"\r\n\r\n", response.body))
        )
        self.transport.close()
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()

    @property
    def _answer_pending(self) -> bool:
        """Whether an answer has been begun, or is due to an earlier request."""
        cycle = self._current
        if cycle is None or cycle.response_complete:
            return False
        return cycle.response_started or bool(self.pipeline) or not cycle.more_body

    @property
    def _idle(self) -> bool:
        return self._current is None or self._current.response_complete

    @property
    def _current(self) -> RequestResponseCycle | None:
        """The request that was parsed last; uvicorn's annotation does not know that there may be none."""
        return self.cycle

    # Time.

    def _set_deadline(self, seconds: float) -> None:
        self._clear_deadline()
        self._deadline = self.loop.call_later(seconds, self._too_slow)

    def _clear_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        self._deadline = None
        if self.transport.is_closing():
            return
        if self._answer_pending:  # slow are we
            self._set_deadline(self.bounds.body_seconds)
        elif self._receiving:
            self._refuse(Problem(408, "The request did not come in time."))
        else:
            self.transport.close()

    def drain(self) -> bool:
        """Throw away what still comes, for a short while; False when there is nothing to come."""
        if not self._receiving or self._draining:
            return False
        self._draining = True
        self._clear_deadline()
        return True


_HEADERS = (
    (b"connection", b"close"),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
)
_TOO_LARGE = Problem(431, "The request's headers are too large.")


class _Lingering:
    """A transport that closes in two steps where the other end is still sending.

    Closed at once, the unread rest would make the system reset the connection, and the other
    end would lose the answer that says why.

    What is written in one go, leaves in one go: uvicorn writes an answer's head and body apart,
    and each packet cost a tenth of all the work for a webhook.
    """

    def __init__(self, transport: asyncio.Transport, protocol: GuardedProtocol) -> None:
        self._transport = transport
        self._protocol = protocol
        self._closing = False
        self._kept: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        return self._closing or self._transport.is_closing()

    def write(self, data: bytes) -> None:
        if not self._kept:
            self._protocol.loop.call_soon(self._flush)
        self._kept.append(data)

    def send(self, data: bytes) -> None:
        """Write what has no more to follow."""
        if self._kept:
            self._kept.append(data)
        elif not self._transport.is_closing():
            self._transport.write(data)

    def _flush(self) -> None:
        kept, self._kept = self._kept, []
        if kept and not self._transport.is_closing():
            self._transport.write(b"".join(kept))

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        self._flush()
        if not (self._protocol.drain() and self._transport.can_write_eof()):
            self._transport.close()
            return
        with contextlib.suppress(OSError):  # the other end has gone first
            self._transport.write_eof()
        self._transport.resume_reading()
        self._protocol.loop.call_later(self._protocol.bounds.linger_seconds, self._transport.abort)


class Server(uvicorn.Server):
    """A server that says when it answers."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        """``on_ready`` is called once."""
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        if self.started:
            self._on_ready()


def server(
    app: ASGIApp,
    on_ready: Callable[[], None],
    *,
    bounds: Bounds | None = None,
    whole: Mapping[tuple[str, str], Whole] | None = None,
) -> Server:
    """A server for the application and its shorter ways; run it with the sockets to listen on."""
    bounds = bounds or Bounds()
    own = {"bounds": bounds, "held": Counter(), "whole": whole or {}}
    protocol = type("Protocol", (GuardedProtocol,), own)
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        log_level=logging.WARNING,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=bounds.drain_seconds,
    )
    return Server(config, on_ready)


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket; port 0 takes a free one.

    Raises:
        OSError: the address cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG)


def url_of(listener: socket.socket) -> str:
    """The base URL a listening socket answers at."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
