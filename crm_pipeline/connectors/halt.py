"""A halt for threads that call the CRM: what is not on the wire by then is not sent."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import ContextVar

_halt: ContextVar[threading.Event | None] = ContextVar("_halt", default=None)


def in_thread(work: Callable[[], None], halt: threading.Event) -> None:
    """Do work in a thread that sends nothing more once ``halt`` is set.

    No process that ends waits for it: a request may take minutes.
    """

    def do() -> None:
        _halt.set(halt)
        work()

    threading.Thread(target=do, name="call", daemon=True).start()


def halted() -> bool:
    """Whether this thread is to send nothing more."""
    halt = _halt.get()
    return halt is not None and halt.is_set()
