"""Logs: one JSON line for each request and failure, with no personal data in it."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import traceback
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import structlog

_FRAMES = 8
_SIZE = 6
"""Bytes of a digest: enough to follow one caller or contact through a log."""


def open_log(file: BinaryIO | None = None) -> structlog.typing.FilteringBoundLogger:
    """A log that writes lines to a file; standard error when not given.

    Lines are ASCII: control and bidirectional characters can neither break nor disguise one.
    """
    log: structlog.typing.FilteringBoundLogger = structlog.wrap_logger(
        structlog.BytesLogger(file or sys.stderr.buffer),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(serializer=_ascii),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )
    return log.bind()


def _ascii(line: dict[str, Any], **_options: Any) -> bytes:
    fast = orjson.dumps(line)
    return fast if fast.isascii() else json.dumps(line).encode()


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


def place_of(error: BaseException) -> str:
    """The lines of code that led to an error, the innermost last; its message may quote a contact."""
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    return " > ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames)


class JsonLines(logging.Formatter):
    """What libraries log, as lines like ours; without tracebacks, whose messages may quote a contact."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: dict[str, Any] = {
            "event": record.getMessage(),
            "logger": record.name,
            "level": record.levelname.lower(),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
            if record.exc_info[1] is not None:
                line["at"] = place_of(record.exc_info[1])
        return json.dumps(line)


def take_over_logging() -> None:
    """Have libraries' warnings and errors written as our lines."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
