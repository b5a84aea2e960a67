"""Bodies: read within bounds, and parsed as the one kind of JSON that everything behind can hold."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Any, NamedTuple, NoReturn

import orjson
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from crm_pipeline import jsonio
from crm_pipeline.api.headers import Headers
from crm_pipeline.api.problems import Problem, passing

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 32
MAX_DIGITS = 64
"""Of a whole number. What is too big for its field is rejected by name later; this bounds the work."""
_TOO_BIG = 10**MAX_DIGITS
MAX_ITEMS = 1000
"""In one array or object."""
MAX_VALUES = 100_000
"""In one body."""
MAX_TEXT = 65_536
"""Characters in one text."""
_SMALL = 2 * MAX_ITEMS
"""Bytes of a body that is too short for more items in one array."""
MAX_HELD = 64 * 1024 * 1024
"""Bytes of all bodies that are being read or worked on at once."""
_CALLERS = 4
"""So many callers can have their full share at once: one alone shuts nobody out."""


class Document(NamedTuple):
    """A body that is JSON within our bounds."""

    value: Any
    storable: bool
    """False where a text holds what no database stores: NUL, or half a character."""


class BodyReader:
    """Reads bodies; all that are held at once stay below a bound, and one caller's below a share of it."""

    def __init__(self, most: int = MAX_HELD) -> None:
        """``most`` in bytes."""
        self._most = most
        self._held = 0
        self._held_of: Counter[str] = Counter()

    @asynccontextmanager
    async def read(
        self, headers: Headers, receive: Receive, caller: str, media_type: str = "application/json"
    ) -> AsyncIterator[bytes]:
        """The raw body of a caller's request of this type, held until the block ends.

        Raises:
            Problem: it is another type, or compressed (415), too long, whatever its length header says (413),
                or too much is held already, of this caller (429) or of all (503).
            ClientDisconnect: the other end is gone.
        """
        require(media_type, headers)
        parts: list[bytes] = []
        length, more = 0, True
        try:
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                parts.append(message.get("body", b""))
                more = message.get("more_body", False)
                length += len(parts[-1])
                self.hold(caller, len(parts[-1]))
                if length > MAX_BYTES:
                    raise _too_long()
            yield b"".join(parts)
        finally:
            self.release(caller, length)

    def hold(self, caller: str, length: int) -> None:
        """Count more bytes of a caller's; they are to be released, also where this fails.

        Raises:
            Problem: too much is held already, of this caller (429) or of all (503).
        """
        self._held += length
        self._held_of[caller] += length
        if self._held_of[caller] > self._most // _CALLERS:
            raise passing(429, "Too much is being received from this address at once.", seconds=1)
        if self._held > self._most:
            raise passing(503, "Too much is being received at once.", seconds=1)

    def release(self, caller: str, length: int) -> None:
        """These bytes are held no more."""
        self._held -= length
        self._held_of[caller] -= length
        if not self._held_of[caller]:
            del self._held_of[caller]


def parse(body: bytes) -> Document:
    """Read a body as JSON.

    Stricter than the standard parser: UTF-8 only, no key twice, no ``NaN`` or infinity, and
    bounds on depth, digits, texts and lengths.

    Raises:
        Problem: it is not JSON, or beyond a bound (400).
    """
    return _parse_plain(body) or _parse_any(body)


def _parse_plain(body: bytes) -> Document | None:
    """Read usual JSON, four times as fast; None where it takes the careful parser to tell.

    Without escapes, two quotes make one text: if fewer texts are found than there are quotes
    for, a key came twice; and no text can hold what cannot be stored. A fraction may be a whole
    number that is too long for this parser. In few bytes with few brackets, nothing can be
    beyond a bound.
    """
    if b"\\" in body:
        return None
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if len(body) > _SMALL or body.count(b"{") + body.count(b"[") > MAX_DEPTH:
        _Walk(value)
    texts, fractions = _count(value)
    return Document(value, storable=True) if not fractions and 2 * texts == body.count(b'"') else None


def _count(document: Any) -> tuple[int, bool]:
    """How many texts there are, keys included, and whether there is a fraction."""
    texts, fractions, level = 0, False, [document]
    while level:
        kinds = [*map(type, level)]
        texts += kinds.count(str)
        fractions = fractions or float in kinds
        below: list[Any] = []
        if dict in kinds or list in kinds:
            for value in level:
                if isinstance(value, dict):
                    texts += len(value)
                    below += value.values()
                elif isinstance(value, list):
                    below += value
        level = below
    return texts, fractions


def _parse_any(body: bytes) -> Document:
    try:
        value = _DECODER.decode(body.decode())
    except RecursionError:
        raise _too("nested too deeply") from None
    except ValueError:  # of JSON, UTF-8 or thousands of digits; the first two quote the body
        raise Problem(400, "The body is not JSON in UTF-8.") from None
    return Document(value, _Walk(value).storable)


def unstorable(record: dict[str, Any]) -> dict[str, str]:
    """What of a record no database stores, and why, by its own keys."""
    return {
        key if jsonio.storable(key) else "a key": "holds a character that cannot be stored"
        for key, value in record.items()
        if not _Walk({key: value}).storable
    }


def require(media_type: str, headers: Headers) -> None:
    """Refuse a body for what its headers say.

    Raises:
        Problem: it is another type, or compressed (415), or too long (413).
    """
    shown = headers.get("content-type", ())
    if len(shown) != 1 or not _is_plain(media_type, shown[0]):
        raise Problem(415, f"The Content-Type must be {media_type}.", headers={"Accept": media_type})
    if headers.get("content-encoding", ("identity",))[0].strip().lower() != "identity":
        raise Problem(415, "The body must not be compressed.", headers={"Accept-Encoding": "identity"})
    announced = headers.get("content-length", ("0",))[0]
    if not announced.isdecimal() or int(announced) > MAX_BYTES:
        raise _too_long()


@lru_cache(maxsize=64)
def _is_plain(media_type: str, shown: str) -> bool:
    """Whether a content type is this one, in UTF-8."""
    kind, *parameters = (part.strip().lower() for part in shown.split(";"))
    charsets = [text for name, _, text in (each.partition("=") for each in parameters) if name == "charset"]
    return kind == media_type and all(charset.strip('"') in {"utf-8", "utf8"} for charset in charsets)


def _too_long() -> Problem:
    return Problem(413, f"The body is longer than {MAX_BYTES} bytes.", headers={"Connection": "close"})


def _too(what: str) -> Problem:
    return Problem(400, f"The JSON is {what}.")


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise Problem(400, "The JSON has a key twice.")
    return made


def _refuse(_constant: str) -> NoReturn:
    raise Problem(400, "The JSON holds a number that is none, or too big to be one.")


_DECODER = json.JSONDecoder(object_pairs_hook=_no_key_twice, parse_constant=_refuse)


class _Walk:
    """Holds every value of a document against the bounds, level by level."""

    def __init__(self, document: Any) -> None:
        self.storable = True
        """Whether all texts can be stored."""
        seen, level = 0, [document]
        for _ in range(MAX_DEPTH + 1):
            seen += len(level)
            if seen > MAX_VALUES:
                raise _too("too large")
            level = self._below(level)
            if not level:
                return
        raise _too("nested too deeply")

    def _below(self, level: list[Any]) -> list[Any]:
        below: list[Any] = []
        for value in level:
            if isinstance(value, str):
                if not _storable(value):
                    self.storable = False
            elif isinstance(value, dict):
                below += _bounded(value)
                below += value.values()
            elif isinstance(value, list):
                below += _bounded(value)
            elif isinstance(value, int | float):
                _check_number(value)
        return below


def _check_number(number: float) -> None:
    if isinstance(number, int):
        if abs(number) >= _TOO_BIG:
            raise _too("holding a number of too many digits")
    elif not math.isfinite(number):  # 1e999
        _refuse("Infinity")


def _bounded(items: dict[str, Any] | list[Any]) -> dict[str, Any] | list[Any]:
    if len(items) > MAX_ITEMS:
        raise _too(f"longer than {MAX_ITEMS} items")
    return items


def _storable(text: str) -> bool:
    if len(text) > MAX_TEXT:
        raise Problem(400, f"The JSON holds a text of more than {MAX_TEXT} characters.")
    return jsonio.storable(text)
