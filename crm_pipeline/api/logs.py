"""The log of the HTTP API: a line for each request and failure, with no personal data in it."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from collections.abc import MutableMapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, BinaryIO

import orjson
import structlog

from crm_pipeline.logs import LogFormat, as_text

_REMEMBERED = 4096
"""Names that are not worked out again."""
_SIZE = 6
"""Bytes of a digest: enough to follow one caller or contact through a log."""


def open_log(
    file: BinaryIO | None = None, form: LogFormat = LogFormat.JSON
) -> structlog.typing.FilteringBoundLogger:
    """A log that writes lines to a file; standard error when not given.

    Lines are ASCII: control and bidirectional characters can neither break nor disguise one.
    """
    log: structlog.typing.FilteringBoundLogger = structlog.wrap_logger(
        structlog.BytesLogger(file or sys.stderr.buffer),
        processors=[_as_json if form is LogFormat.JSON else _for_people],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )
    return log.bind()


def _stamped(line: MutableMapping[str, Any], level: str) -> dict[str, Any]:
    at = datetime.now(UTC).replace(tzinfo=None).isoformat()
    return {**line, "level": level, "timestamp": f"{at}Z"}


def _as_json(_log: Any, level: str, line: MutableMapping[str, Any]) -> bytes:
    stamped = _stamped(line, level)
    fast = orjson.dumps(stamped)
    return fast if fast.isascii() else json.dumps(stamped).encode()


def _for_people(_log: Any, level: str, line: MutableMapping[str, Any]) -> bytes:
    return as_text(_stamped(line, level)).encode()


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
