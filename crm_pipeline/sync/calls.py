"""Calls: how many requests the CRM answered how, and how long they took, until somebody takes the figures."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Protocol

BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Seconds: a call counts in each bucket that it is not longer than."""
_TOO_MANY = 429


class Exchange(Protocol):
    """One request: what the connectors tell of it."""

    @property
    def status(self) -> int | None:
        """None when no answer came."""

    @property
    def seconds(self) -> float:
        """From the request to the whole answer."""


class CallFigures:
    """Of one process, for one step at a time; several threads may note."""

    def __init__(self) -> None:
        """Nothing sent."""
        self._lock = threading.Lock()
        self._figures: Counter[str] = Counter()
        self._seconds = 0.0

    def note(self, exchange: Exchange) -> None:
        """Count a request."""
        with self._lock:
            self._figures["calls"] += 1
            self._figures[f"calls_{answer_of(exchange.status)}"] += 1
            self._figures.update(f"calls_le_{bound:g}" for bound in BUCKETS if exchange.seconds <= bound)
            self._seconds += exchange.seconds

    def take(self) -> dict[str, float]:
        """The figures since they were last taken."""
        with self._lock:
            taken = {**self._figures, "call_seconds": self._seconds}
            self._figures, self._seconds = Counter(), 0.0
        return taken


ANSWERS = ("2xx", "3xx", "4xx", "429", "5xx", "none")


def answer_of(status: int | None) -> str:
    """The kind of an answer; ``none`` where there was none."""
    if status is None:
        return "none"
    return "429" if status == _TOO_MANY else f"{status // 100}xx"
