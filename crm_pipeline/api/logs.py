"""The log of the HTTP API: a line for each request and failure, with no personal data in it."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from typing import Any, BinaryIO

import orjson
import structlog

from crm_pipeline.logs import LogFormat, as_text

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
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(serializer=_ascii if form is LogFormat.JSON else _for_people),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )
    return log.bind()


def _ascii(line: dict[str, Any], **_options: Any) -> bytes:
    fast = orjson.dumps(line)
    return fast if fast.isascii() else json.dumps(line).encode()


def _for_people(line: dict[str, Any], **_options: Any) -> bytes:
    return as_text(line).encode()


class Pseudonyms:
    """Names for addresses and contacts in logs: the same one, the same name, and no way back.

    The names are keyed. Phone numbers are few enough for a plain digest to be tried out.
    """

    def __init__(self, key: bytes) -> None:
        """``key`` is secret; with another one, all names are others."""
        self._key = hashlib.sha256(b"crm_pipeline logs:" + key).digest()

    def of(self, text: str) -> str:
        """A name for this."""
        return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=_SIZE, key=self._key).hexdigest()
