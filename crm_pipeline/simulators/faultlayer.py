"""Faults between the wire and a CRM: an ASGI layer that spoils requests and answers.

Cutting a connection is beyond ASGI. The server (``serve.py``) puts a function that closes
the connection into the request's ``extensions`` under ``CUT``; other servers cannot cut.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import timedelta
from email.utils import format_datetime
from typing import Protocol

import orjson
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from crm_pipeline.simulators.answers import error_body, json_answer
from crm_pipeline.simulators.crm import utc_now
from crm_pipeline.simulators.faults import CallKind, Faults, FaultTurns

CUT = "crm_simulator.cut"
DRIPS = 20
"""Pieces a slow answer comes in."""

LOGIN_PAGE = (
    "<!doctype html><title>Sign in</title><form method=post><input name=user><input name=password></form>"
)


class Faulty(Protocol):
    """A CRM that faults may strike."""

    requests: int

    @property
    def lock(self) -> threading.RLock:
        """Held while it changes."""

    @property
    def faults(self) -> Faults:
        """What goes wrong at present."""

    @property
    def turns(self) -> FaultTurns:
        """Whose turn it is."""


class FaultLayer:
    """Counts the CRM's requests and lets its faults strike those whose turn it is."""

    def __init__(
        self,
        app: ASGIApp,
        crm: Faulty,
        kind: Callable[[Scope], CallKind | None],
        error: Callable[[str, str], object] = error_body,
    ) -> None:
        """``kind`` tells what a request is, None for one that is never spoilt; ``error`` words errors."""
        self._app = app
        self._crm = crm
        self._kind = kind
        self._error = error
        self._answers: dict[str, Callable[[Scope], Response]] = {
            "rate_limit": self._too_many,
            "server_error": self._server_error,
            "html_login": lambda _scope: HTMLResponse(LOGIN_PAGE),
            "error_in_200": lambda _scope: _json(
                200, {"success": False, **error_body("internal", "Try again.")}
            ),
            "foreign_redirect": self._elsewhere,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        kind = self._kind(scope) if scope["type"] == "http" else None
        if kind is None:
            await self._app(scope, receive, send)
            return
        with self._crm.lock:
            self._crm.requests += 1
        if self._crm.faults.latency:
            await asyncio.sleep(self._crm.faults.latency)
        fault = self._crm.turns.next(kind)
        if fault in self._answers:
            await self._answers[fault](scope)(scope, receive, send)
        elif fault == "cut_before_write":
            await _cut(scope, receive)
        elif fault:
            await self._spoil(fault, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _spoil(self, fault: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the CRM answer, then do something to the answer."""
        start, body = await _captured(self._app, scope, receive)
        if fault == "cut_after_write":
            await _cut(scope, receive)
        elif fault == "cut_in_answer":
            await send(start)
            await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
            await _cut(scope, receive)
        elif fault == "truncated_json":
            await json_answer(body[: len(body) // 2], start["status"])(scope, receive, send)
        else:
            await send(start)
            await _drip(body, self._crm.faults.slow_drip / DRIPS, send)

    def _too_many(self, _scope: Scope) -> Response:
        faults, wait = self._crm.faults, self._crm.turns.retry_after()
        # A date has whole seconds: without one more it could already lie in the past.
        until = utc_now() + timedelta(seconds=wait + 1)
        text = format_datetime(until, usegmt=True) if faults.retry_after_date else str(wait)
        return _json(429, self._error("rate_limited", "Too many requests."), {"Retry-After": text})

    def _server_error(self, _scope: Scope) -> Response:
        return _json(self._crm.faults.server_error_status, self._error("internal", "Something went wrong."))

    def _elsewhere(self, scope: Scope) -> Response:
        return Response(
            status_code=307, headers={"Location": self._crm.faults.foreign_redirect + scope["path"]}
        )


def _json(status: int, content: object, headers: dict[str, str] | None = None) -> Response:
    return json_answer(orjson.dumps(content), status, headers)


async def _captured(app: ASGIApp, scope: Scope, receive: Receive) -> tuple[Message, bytes]:
    """Run an application and keep its answer: the opening message and the whole body."""
    messages: list[Message] = []

    async def keep(message: Message) -> None:
        messages.append(message)

    await app(scope, receive, keep)
    return messages[0], b"".join(message.get("body", b"") for message in messages[1:])


async def _cut(scope: Scope, receive: Receive) -> None:
    """Close the connection and wait until the server has noticed, so that it answers nothing."""
    scope["extensions"][CUT]()
    while (await receive())["type"] != "http.disconnect":
        pass


async def _drip(body: bytes, pause: float, send: Send) -> None:
    piece = max(-(-len(body) // DRIPS), 1)
    for start in range(0, len(body), piece):
        await asyncio.sleep(pause)
        await send({"type": "http.response.body", "body": body[start : start + piece], "more_body": True})
    await send({"type": "http.response.body", "body": b""})
