"""A snare before a simulated CRM: it kills a client at a chosen request, or makes the first one wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Literal, TypeAlias, get_args

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

Place: TypeAlias = Literal["asked", "done", "answered"]
"""Where in a request: the CRM has done nothing yet, it has done all but answer, or it has answered."""
_LATEST = 0.03
"""Seconds after the answer within which a client deals with it."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment in a client's life, counted from its start."""

    request: int
    """At its so many-th request, from 1."""
    place: Place
    delay: float = 0.0
    """Seconds after the answer."""
    writes: bool = False
    """Only requests that change something count."""
    held: bool = False
    """Those before it are done and not answered, so that all are under way at once."""

    @classmethod
    def drawn(cls, random: Random, most: int, *, writes: bool = False) -> Moment:
        """Any place of any of the first ``most`` requests."""
        place = random.choice(get_args(Place))
        delay = random.uniform(0, _LATEST) if place == "answered" else 0.0
        return cls(random.randint(1, most), place, delay, writes)

    def __str__(self) -> str:
        """For people who want to see it again."""
        kind = "write" if self.writes else "request"
        return f"{kind} {self.request} {self.place}" + (f" +{self.delay:.3f} s" if self.delay else "")


class Snare:
    """ASGI layer around a CRM; it is set for one client at a time."""

    def __init__(self, app: ASGIApp) -> None:
        """Let everything pass."""
        self._app = app
        self._moment: Moment | None = None
        self._kill: Callable[[], None] = lambda: None
        self._seen = 0
        self._opens: Callable[[], bool] | None = None

    def set(self, moment: Moment, kill: Callable[[], None]) -> None:
        """Call ``kill`` at that moment of the client that comes next."""
        self._seen, self._kill, self._moment = 0, kill, moment

    def clear(self) -> None:
        """Let everything pass."""
        self._moment = self._opens = None

    def hold(self, until: Callable[[], bool]) -> None:
        """Let no request through before that is true."""
        self._opens = until

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        while self._opens is not None and not self._opens():  # noqa: ASYNC110 - it asks other processes
            await asyncio.sleep(_TICK)
        self._opens = None
        moment = self._due(scope)
        if moment is None and self._holds(scope):
            await self._answered(scope, receive)
            while self._moment is not None:  # noqa: ASYNC110 - another process has to end first
                await asyncio.sleep(_TICK)
            await Response(status_code=503)(scope, receive, send)
        elif moment is None:
            await self._app(scope, receive, send)
        elif moment.place == "asked":
            self._kill()
            await Response(status_code=503)(scope, receive, send)
        elif moment.place == "done":
            answer = await self._answered(scope, receive)
            self._kill()
            for message in answer:
                await send(message)
        else:
            await self._app(scope, receive, send)
            await asyncio.sleep(moment.delay)
            self._kill()

    def _due(self, scope: Scope) -> Moment | None:
        """The moment that has come with this request."""
        moment = self._moment
        if moment is None or (moment.writes and scope["method"] == "GET"):
            return None
        self._seen += 1
        return moment if self._seen == moment.request else None

    def _holds(self, scope: Scope) -> bool:
        moment = self._moment
        return moment is not None and moment.held and not (moment.writes and scope["method"] == "GET")

    async def _answered(self, scope: Scope, receive: Receive) -> list[Message]:
        """Let the CRM do what it was asked for, and keep the answer."""
        answer: list[Message] = []

        async def keep(message: Message) -> None:
            answer.append(message)

        await self._app(scope, receive, keep)
        return answer


_TICK = 0.01
