"""A transport that lets the other end read an answer it did not wait for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any


class Lingering:
    """A transport that closes in two steps where the other end is still sending.

    Closed at once, the unread rest would make the system reset the connection, and the other
    end would lose the answer that says why.

    What is written in one go, leaves in one go: uvicorn writes an answer's head and body apart,
    and each packet cost a tenth of all the work for a webhook.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        drain: Callable[[], bool],
        seconds: float,
    ) -> None:
        """``drain`` is asked whether there is more to come, which is then waited for, so many seconds."""
        self._transport = transport
        self._loop = loop
        self._drain = drain
        self._seconds = seconds
        self._closing = False
        self._kept: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        """All else is the transport's."""
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        """Whether it is, or is about to."""
        return self._closing or self._transport.is_closing()

    def write(self, data: bytes) -> None:
        """Write, with what follows in this turn of the loop."""
        if not self._kept:
            self._loop.call_soon(self.flush)
        self._kept.append(data)

    def send(self, data: bytes) -> None:
        """Write what has no more to follow."""
        if self._kept:
            self._kept.append(data)
        elif not self._transport.is_closing():
            self._transport.write(data)

    def flush(self) -> None:
        """Write what was kept."""
        kept, self._kept = self._kept, []
        if kept and not self._transport.is_closing():
            self._transport.write(b"".join(kept))

    def close(self) -> None:
        """Close, at once or in two steps."""
        if self._closing:
            return
        self._closing = True
        self.flush()
        if not (self._drain() and self._transport.can_write_eof()):
            self._transport.close()
            return
        with contextlib.suppress(OSError):  # the other end has gone first
            self._transport.write_eof()
        self._transport.resume_reading()
        self._loop.call_later(self._seconds, self._transport.abort)
