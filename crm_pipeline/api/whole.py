"""Requests that come whole at once: ways shorter than the application's, and heads that need no reading."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

from starlette.types import Scope

from crm_pipeline.api.headers import Headers

Answer: TypeAlias = Callable[[int, Iterable[tuple[bytes, bytes]], bytes], None]
"""Sends a status, headers and a body."""
Whole: TypeAlias = Callable[[Scope, Headers, bytes, Answer], None]
"""Takes a request that has come whole, its headers by name and its body; has it answered, now or later."""

_MOST = 1000
_LONGEST = 2048
"""Bytes of a head that is kept."""


class Head(NamedTuple):
    """What the parser found in a request's head."""

    scope: Mapping[str, Any]
    headers: Headers
    length: int
    """Of the body that follows, in bytes."""


class Heads:
    """Heads that came before: who says the same again with the next request need not be read again.

    A caller's head changes with the length of what follows, if at all, and to parse one is a
    fifth of all the work for a webhook. What the parser found is kept by the very bytes it was
    found in; what is decided by it, the key above all, is decided anew.
    """

    def __init__(self) -> None:
        """None has come."""
        self._known: dict[bytes, Head] = {}

    def find(self, data: bytes) -> tuple[Head, bytes] | None:
        """A head that came before, and its body, where the bytes are one such request and no more."""
        end = _end(data)
        head = self._known.get(data[:end])
        return (head, data[end:]) if head is not None and len(data) == end + head.length else None

    def keep(self, data: bytes, scope: Mapping[str, Any], headers: Headers, body: bytes) -> None:
        """Keep the head of a request that was parsed out of these bytes, if they hold nothing else."""
        end = _end(data)
        if end > _LONGEST or data[end:] != body:
            return
        if len(self._known) >= _MOST:
            del self._known[next(iter(self._known))]
        self._known[data[:end]] = Head(scope, headers, len(body))


def _end(data: bytes) -> int:
    """Where a head ends: behind its first empty line."""
    return data.find(b"\r\n\r\n") + 4
