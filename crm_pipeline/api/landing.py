"""Landing: requests that meet share one transaction, and each is answered when it is durable."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Generic, TypeVar

from crm_pipeline.api.problems import DATABASE_AWAY, Problem, passing
from crm_pipeline.sync.errors import DisabledError

T = TypeVar("T")
R = TypeVar("R")

MOST_WAITING = 5000
"""Items that may wait; past that, callers are told to come again."""
MOST_TOGETHER = 500
"""Items to one transaction; only a single request may bring more."""
_CLOSE_SECONDS = 10.0
_FOR_ALL = (*DATABASE_AWAY, DisabledError, Problem)
"""Failures that have nothing to do with what was in the group."""


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[T, R]):
    items: Sequence[T]
    done: asyncio.Future[list[R]]


class Group(Generic[T, R]):
    """Work that is done for all who wait at once: whoever comes meanwhile shares the next turn.

    One turn costs one commit. Under load the groups grow by themselves; alone, nobody waits.
    The turns are taken by a thread that asks nobody: where the event loop had to start each
    one, half of the time nothing was being stored.
    """

    def __init__(self, work: Callable[[list[T]], list[R]], name: str) -> None:
        """``work`` takes the items of a group, in order, and returns one result each."""
        self._work = work
        self._queue: deque[_Waiting[T, R]] = deque()
        self._waiting = 0
        self._something = threading.Event()  # to do, or the end
        self._closed = False
        self._thread = threading.Thread(target=self._take_turns, name=name, daemon=True)
        self._thread.start()

    async def __call__(self, items: Sequence[T], seconds: float) -> list[R]:
        """Have items worked on, together with those of others; one result each.

        Raises:
            Problem: too many wait already (503).
            TimeoutError: it was not done within so many seconds. It will be all the same.
        """
        if self._waiting >= MOST_WAITING:
            raise passing(503, "Too much is waiting to be stored.", seconds=1)
        loop = asyncio.get_running_loop()
        waiting: _Waiting[T, R] = _Waiting(items, loop.create_future())
        self._waiting += len(items)
        self._queue.append(waiting)
        if not self._something.is_set():  # else the thread will look, or is looking
            self._something.set()
        patience = loop.call_later(seconds, _give_up, waiting.done)
        try:
            return await waiting.done
        finally:
            patience.cancel()

    def close(self) -> None:
        """Wait for what is under way, but not for ever."""
        self._closed = True
        self._something.set()
        self._thread.join(_CLOSE_SECONDS)

    # In the thread.

    def _take_turns(self) -> None:
        while not self._closed:
            self._something.wait()
            self._something.clear()
            while self._queue:
                group = [self._queue.popleft()]
                size = len(group[0].items)
                while self._queue and size + len(self._queue[0].items) <= MOST_TOGETHER:
                    size += len(self._queue[0].items)
                    group.append(self._queue.popleft())
                outcomes = self._turn(group)
                loop = group[0].done.get_loop()
                with suppress(RuntimeError):  # the loop has ended, and with it all who waited
                    loop.call_soon_threadsafe(self._tell, group, outcomes)

    def _turn(self, group: Sequence[_Waiting[T, R]]) -> list[list[R] | Exception]:
        """What became of each one's items."""
        try:
            results = self._work([item for waiting in group for item in waiting.items])
        except Exception as error:  # noqa: BLE001 - passed on to everybody it concerns
            if len(group) == 1 or isinstance(error, _FOR_ALL):
                return [error] * len(group)
            return [outcome for waiting in group for outcome in self._turn([waiting])]  # the fault of one
        ends = list(accumulate(len(waiting.items) for waiting in group))
        return [results[start:end] for start, end in pairwise([0, *ends])]

    # In the loop.

    def _tell(self, group: Sequence[_Waiting[T, R]], outcomes: Sequence[list[R] | Exception]) -> None:
        for waiting, outcome in zip(group, outcomes, strict=True):
            self._waiting -= len(waiting.items)
            if waiting.done.done():
                continue  # it waited too long, or is gone
            if isinstance(outcome, Exception):
                waiting.done.set_exception(outcome)
            else:
                waiting.done.set_result(outcome)


def _give_up(done: asyncio.Future[list[R]]) -> None:
    if not done.done():
        done.set_exception(TimeoutError())
