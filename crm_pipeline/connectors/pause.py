"""A pause that the CRM asked for, kept by every thread that sends to it."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Pause:
    """Until when nothing new is to be sent. One thread was told; the others hear of it here."""

    def __init__(self) -> None:
        """Nothing was asked for."""
        self._until = -math.inf
        self._lock = threading.Lock()

    @contextmanager
    def kept(self, seconds: float) -> Iterator[None]:
        """Keep a pause of so many seconds, while the thread that was told waits in the block."""
        until = time.monotonic() + seconds
        with self._lock:
            self._until = max(self._until, until)
        yield
        with self._lock:
            if self._until <= until:  # else another thread was asked for a longer one
                self._until = -math.inf

    def left(self) -> float:
        """Seconds that are left of it; 0 where there is none."""
        return max(0.0, self._until - time.monotonic())
