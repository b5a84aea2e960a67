"""A halt for threads that call the CRM: what is not on the wire by then is not sent."""

from __future__ import annotations

import threading
from contextvars import ContextVar

_halt: ContextVar[threading.Event | None] = ContextVar("_halt", default=None)


def heed(halt: threading.Event) -> None:
    """Let this thread send nothing more once ``halt`` is set."""
    _halt.set(halt)


def halted() -> bool:
    """Whether this thread is to send nothing more."""
    halt = _halt.get()
    return halt is not None and halt.is_set()
