"""Logs: lines for machines or people, with run and event ids, and with no personal data."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

_FRAMES = 8
_STEPS = logging.getLogger("crm_pipeline.steps")
_STEPS.addHandler(logging.NullHandler())  # where nobody takes the log over, Python would print the bare word


class LogFormat(StrEnum):
    """What a line is written in."""

    JSON = "json"
    TEXT = "text"


def step(name: str, run_id: str, end: str, **figures: int) -> None:
    """Log that a step of a run has ended."""
    level = logging.INFO if end == "done" else logging.ERROR
    _STEPS.log(level, "step", extra={"facts": {"step": name, "state": end, "run_id": run_id, **figures}})


def place_of(error: BaseException) -> str:
    """The lines of code that led to an error, the innermost last; its message may quote a contact."""
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    return " > ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames)


class Lines(logging.Formatter):
    """What is logged, as lines; without tracebacks, whose messages may quote a contact."""

    def __init__(self, form: LogFormat = LogFormat.JSON) -> None:
        """``form``: of each line."""
        super().__init__()
        self._form = form

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat().replace("+00:00", "Z")
        line: dict[str, Any] = {
            "event": record.getMessage(),
            "logger": record.name,
            "level": record.levelname.lower(),
            "timestamp": at,
            **getattr(record, "facts", {}),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
            if record.exc_info[1] is not None:
                line["at"] = place_of(record.exc_info[1])
        return json.dumps(line) if self._form is LogFormat.JSON else as_text(line)


def as_text(line: dict[str, Any]) -> str:
    """A line for people: time, level, event, then the rest; still one line, in ASCII."""
    rest = {name: value for name, value in line.items() if name not in {"timestamp", "level", "event"}}
    facts = " ".join(f"{name}={json.dumps(value)}" for name, value in rest.items() if value is not None)
    return f"{line.get('timestamp')} {line.get('level')} {json.dumps(line['event'])[1:-1]} {facts}"


def take_over_logging(form: LogFormat = LogFormat.JSON) -> None:
    """Have libraries' warnings and errors, and the ends of our steps, written as our lines."""
    handler = logging.StreamHandler()
    handler.setFormatter(Lines(form))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    _STEPS.setLevel(logging.INFO)


def log_steps(form: LogFormat) -> None:
    """Have the ends of our steps written to standard error, in a process that logs in its own way."""
    if not _STEPS.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(Lines(form))
        _STEPS.addHandler(handler)
        _STEPS.setLevel(logging.INFO)
        _STEPS.propagate = False
