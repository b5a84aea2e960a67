"""The log of the HTTP API: a line for each request and failure, with no personal data in it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import threading
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, BinaryIO

import orjson

from crm_pipeline.logs import LogFormat, as_text

_REMEMBERED = 4096
"""Names that are not worked out again."""
_SIZE = 6
"""Bytes of a digest: enough to follow one caller or contact through a log."""


class Log:
    """A log of events and their facts, a line each.

    Lines are ASCII: control and bidirectional characters can neither break nor disguise one.
    What the event loop logs in one turn is written at its end, in one go: a write for each
    request took as long as to check its key.
    """

    def __init__(self, file: BinaryIO | None = None, form: LogFormat = LogFormat.JSON) -> None:
        """Write to this file; to standard error when not given."""
        self._file = file or sys.stderr.buffer
        self._line = _as_json if form is LogFormat.JSON else _for_people
        self._kept: list[bytes] = []
        self._loop: asyncio.AbstractEventLoop | None = None  # in which they will be written
        self._one_by_one = threading.Lock()

    def info(self, event: str, **facts: Any) -> None:
        """Log what is as it should be."""
        self._log("info", event, facts)

    def warning(self, event: str, **facts: Any) -> None:
        """Log what somebody should know."""
        self._log("warning", event, facts)

    def error(self, event: str, **facts: Any) -> None:
        """Log what somebody has to see to."""
        self._log("error", event, facts)

    def flush(self) -> None:
        """Write what is kept."""
        with self._one_by_one:
            kept, self._kept, self._loop = self._kept, [], None
            self._file.write(b"".join(kept))
            self._file.flush()

    def _log(self, level: str, event: str, facts: dict[str, Any]) -> None:
        line = self._line({**facts, "event": event, "level": level, "timestamp": datetime.now(UTC)})
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # a thread beside it
            loop = None
        with self._one_by_one:
            self._kept.append(line + b"\n")
            due, self._loop = self._loop, loop or self._loop
        if loop is None:
            self.flush()
        elif due is not loop:
            loop.call_soon(self.flush)


def _as_json(line: dict[str, Any]) -> bytes:
    fast = orjson.dumps(line, option=orjson.OPT_UTC_Z)
    return fast if fast.isascii() else json.dumps(orjson.loads(fast)).encode()


def _for_people(line: dict[str, Any]) -> bytes:
    return as_text(orjson.loads(_as_json(line))).encode()


class Pseudonyms:
    """Names for addresses and contacts in logs: the same one, the same name, and no way back.

    The names are keyed. Phone numbers are few enough for a plain digest to be tried out.
    """

    def __init__(self, key: bytes) -> None:
        """``key`` is secret; with another one, all names are others."""
        self._key = hashlib.sha256(b"crm_pipeline logs:" + key).digest()
        self.of = lru_cache(_REMEMBERED)(self._of)
        """A name for this."""

    def _of(self, text: str) -> str:
        return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=_SIZE, key=self._key).hexdigest()
