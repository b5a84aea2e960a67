"""HTTP on the wire, within bounds of size and time that uvicorn leaves open."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, TypeAlias

from httptools import HttpParserUpgrade, HttpRequestParser
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from crm_pipeline.api.headers import by_name
from crm_pipeline.api.lingering import Lingering
from crm_pipeline.api.problems import Problem
from crm_pipeline.api.whole import Heads, Whole

Note: TypeAlias = Callable[[str, Scope | None, int], Iterable[tuple[bytes, bytes]]]
"""Hears of a refusal: whose, of which request (None: of no whole head), its status. Gives it more headers."""


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
    heads: ClassVar[Heads] = Heads()
    """Those of requests that went such a way; as ``held``, each server has its own."""
    notes: ClassVar[Sequence[Note]] = ()
    """Who hears of refusals that no application has answered."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """As uvicorn's."""
        super().__init__(*arguments, **options)
        self.parser = _Parser(self)
        self._wants_another = False  # protocol, which it does not get
        self._deadline: asyncio.TimerHandle | None = None
        self._receiving = False  # a request has begun and is not complete
        self._head_open = False  # and neither is its head
        self._head_bytes = 0
        self._refusal = Problem(400, "The request is not HTTP.")
        self._draining = False
        self._address = ""
        self._broken = False  # nothing that still comes can be understood
        self._unread = 0  # bytes of a body that came after the answer
        self._framing = 0  # bytes that stand between and behind the pieces of a body
        self._fresh = False  # a request has begun within the bytes in hand
        self._parsing = False
        self._begun: tuple[RequestResponseCycle, Any] | None = None  # with the bytes in hand

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock."""
        self._wire = Lingering(transport, self.loop, self.drain, self.bounds.linger_seconds)
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
        """Parse, unless the answer is already given, or there is nothing to find."""
        if self._draining or self._broken or self.transport.is_closing():
            return
        rested = self._idle and not self._receiving
        if rested and self._take_known(data):
            return
        self._parsing = True
        super().data_received(data)
        self._parsing = False
        self._start(data if rested else b"")
        if self.transport.is_closing():
            return
        if self._receiving and self._idle:
            self._unread += len(data)
            if self._unread > self.bounds.unread_bytes:
                self.transport.close()
                return
        if self._head_open:
            self._head_bytes += len(data)
        elif not self._fresh:
            self._framing += len(data)
        self._fresh = False
        if max(self._head_bytes, self._framing) > self.bounds.head_bytes * 2:  # a header that does not end
            self._refuse(_TOO_LARGE)
            return
        if self._deadline is None and (self._receiving or self._idle):
            self._set_deadline(self.bounds.head_seconds if self._head_open else self.bounds.body_seconds)

    def eof_received(self) -> bool:  # type: ignore[override] # asyncio goes by the answer
        """Who has nothing more to say may still wait for an answer."""
        self._wire.flush()
        if self._answer_pending:
            self.cycle.keep_alive = False
        return self._answer_pending

    # What the parser finds.

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._wants_another = False
        self._receiving = self._head_open = self._fresh = True
        self._head_bytes = self._unread = self._framing = 0

    def on_url(self, url: bytes) -> None:
        """Hold its address against the bound."""
        super().on_url(url)
        if len(self.url) > self.bounds.url_bytes:
            self._abort(Problem(414, f"The address is longer than {self.bounds.url_bytes} bytes."))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Hold its headers against the bounds. What comes behind a body counts for nothing but its size."""
        if self._head_open:
            super().on_header(name, value)
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > self.bounds.head_bytes or len(self.headers) > self.bounds.headers:
            self._abort(_TOO_LARGE)

    def on_headers_complete(self) -> None:
        """Give its body a time of its own."""
        self._head_open = False
        self._clear_deadline()
        if not self.parser.should_upgrade():
            super().on_headers_complete()
        elif self.parser.get_method() == b"CONNECT":
            self._abort(Problem(405, "This is no proxy.", headers={"Allow": "GET, HEAD, POST"}))
        else:
            self._wants_another = True

    def on_body(self, body: bytes) -> None:
        """Take no more around it than the smallest pieces need."""
        super().on_body(body)
        self._framing -= len(body) * _FRAMED

    def on_message_complete(self) -> None:
        """The request is complete."""
        if self._wants_another:
            return
        self._receiving = False
        self._clear_deadline()
        super().on_message_complete()

    @property
    def plain_head(self) -> bytes:
        """The head that was read last, without the wish for another protocol."""
        version = self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
        for name, value in self.headers:
            tokens = value.split(b",") if name == b"connection" else [value]
            left = [token for token in tokens if token.strip().lower() not in _WISHES]
            if left and name not in _WISHES:
                lines.append(b"%b: %b" % (name, b",".join(left)))
        return b"\r\n".join((*lines, b"\r\n"))

    # Starting what was begun.

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Wait for the end of the bytes in hand: with them the request may be whole."""
        if self._parsing:
            self._begun = cycle, app
        else:
            super()._start_asgi_task(cycle, app)

    def _start(self, data: bytes) -> None:
        """Start it; ``data``: what it was parsed out of, as far as it began with it."""
        if self._begun is None:
            return
        (cycle, app), self._begun = self._begun, None
        scope: Any = cycle.scope
        short = self.whole.get((scope["method"], scope["path"]))
        waits = cycle.more_body or cycle.disconnected or cycle.waiting_for_100_continue
        if short is None or waits or self.flow.write_paused:
            super()._start_asgi_task(cycle, app)
            return
        headers, body = by_name(scope["headers"]), bytes(cycle.body)
        if cycle.keep_alive and cycle is self.cycle:
            self.heads.keep(data, scope, headers, body)
        short(scope, headers, body, partial(self._answer, cycle))

    def _take_known(self, data: bytes) -> bool:
        """Take a request whose head came before; the parser, which rests, is none the wiser."""
        found = self.heads.find(data)
        if found is None or self.flow.write_paused:
            return False
        head, body = found
        short = self.whole.get((head.scope["method"], head.scope["path"]))
        if short is None:
            return False
        self._unset_keepalive_if_required()
        self._clear_deadline()
        self._unread = self._framing = 0
        scope: Any = {**head.scope, "client": self.client, "server": self.server, "scheme": self.scheme}
        self.cycle = cycle = _Exchange(scope, self.server_state.default_headers, self.on_response_complete)
        short(scope, head.headers, body, partial(self._answer, cycle))
        return True

    def _answer(
        self, cycle: RequestResponseCycle, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes
    ) -> None:
        """Send a whole answer."""
        if cycle.disconnected:
            return
        said = [*cycle.default_headers, *headers]
        if any(name == b"connection" for name, _ in said):  # we say nothing but ``close``
            cycle.keep_alive = False
        elif not cycle.keep_alive:
            said.append((b"connection", b"close"))
        cycle.response_started = cycle.response_complete = True
        self._wire.send(b"".join((STATUS_LINE[status], _lines(said), b"\r\n", body)))
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
        if cycle is not None and cycle.response_complete:
            cycle = None
        scope: Any = cycle.scope if cycle is not None else None
        own = [header for note in self.notes for header in note(self._address, scope, problem.status)]
        lines = _lines([*response.raw_headers, (b"connection", b"close"), *own])
        self.transport.write(b"".join((STATUS_LINE[problem.status], lines, b"\r\n", response.body)))
        self.transport.close()
        if cycle is not None:
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


_FRAMED = 6
"""Bytes that one byte takes in a piece of its own."""
_WISHES = frozenset({b"upgrade", b"http2-settings"})
_TOO_LARGE = Problem(431, "The request's headers are too large.")


def _lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"".join([b"%b: %b\r\n" % header for header in headers])


class _Exchange(RequestResponseCycle):
    """A request that needed no parsing, and its answer: it is whole, and no task works on it."""

    _unheard = asyncio.Event()

    def __init__(
        self, scope: Any, default_headers: list[tuple[bytes, bytes]], on_response: Callable[..., None]
    ) -> None:
        self.scope = scope
        self.default_headers = default_headers
        self.on_response = on_response
        self.message_event = self._unheard
        self.keep_alive = True
        self.more_body = self.disconnected = self.response_started = self.response_complete = False


class _Parser(HttpRequestParser):
    """Reads a request that would rather go on in another protocol like any other.

    Left alone, it ends with its head, and uvicorn takes the body that follows for the next request:
    whoever wrote the body wrote a request past the proxy in front of us.
    """

    def __init__(self, protocol: GuardedProtocol) -> None:
        super().__init__(protocol)
        self.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self._protocol = protocol

    def feed_data(self, data: Any) -> None:
        try:
            super().feed_data(data)
        except HttpParserUpgrade as wish:
            self.feed_data(self._protocol.plain_head + data[wish.args[0] :])
