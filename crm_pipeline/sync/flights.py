"""Flights: calls under way at once, each in a thread of its own; one thread takes what they bring."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from types import TracebackType
from typing import Generic, Self, TypeVar

from crm_pipeline.connectors.halt import in_thread

What = TypeVar("What")
Came = TypeVar("Came")


class Flights(Generic[What, Came]):
    """At most so many calls at once; where that is one, it is made by the thread that asks for it.

    At the end of the block those still under way are left to themselves: what is on the wire may
    arrive, as after a kill, and nothing more is sent. The threads hold up no process that ends.
    """

    def __init__(self, most: int) -> None:
        """None under way."""
        self.under_way = 0
        """Calls that were started and whose end has not been taken."""
        self._most, self._halt = most, threading.Event()
        self._landed: SimpleQueue[tuple[What, Came | BaseException]] = SimpleQueue()

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Let nothing more be sent."""
        self._halt.set()

    def are_full(self) -> bool:
        """Whether no other call may be started."""
        return self.under_way >= self._most

    def have_landed(self) -> bool:
        """Whether all that are under way have ended."""
        return self._landed.qsize() >= self.under_way

    def start(self, what: What, call: Callable[[], Came]) -> None:
        """Make a call about something."""
        self.under_way += 1
        if self._most == 1:
            self._fly(what, call)
        else:
            in_thread(partial(self._fly, what, call), self._halt)

    def landed(self, *, wait: bool) -> list[tuple[What, Came | BaseException]]:
        """What calls have brought, or how they failed, as they ended; with ``wait`` at least one."""
        found = [self._landed.get()] if wait else []
        while not self._landed.empty():
            found.append(self._landed.get())
        self.under_way -= len(found)
        return found

    def _fly(self, what: What, call: Callable[[], Came]) -> None:
        try:
            came: Came | BaseException = call()
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is for the thread that waits
            came = error
        self._landed.put((what, came))
