"""Landing: requests that meet share one transaction, and each is answered when it is durable."""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from itertools import accumulate, pairwise
from typing import Generic, TypeAlias, TypeVar

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

Outcome: TypeAlias = list[R] | Exception
"""One result for each item of a request, or why there is none."""
Told: TypeAlias = Callable[[Outcome[R]], None]


class Waiting(Generic[T, R]):
    """Somebody's items; told once what became of them, or that it took too long."""

    __slots__ = ("_patience", "_told", "items")

    def __init__(self, items: Sequence[T], seconds: float, told: Told[R]) -> None:
        """``told`` hears a ``TimeoutError`` after so many seconds, and then nothing more."""
        self.items = items
        self._told: Told[R] | None = told
        self._patience = asyncio.get_running_loop().call_later(seconds, self.tell, TimeoutError())

    def tell(self, outcome: Outcome[R]) -> None:
        """Tell, unless it was told."""
        told, self._told = self._told, None
        if told is not None:
            self._patience.cancel()
            told(outcome)


class Queue(ABC, Generic[T, R]):
    """Work that is done for all who wait at once: whoever comes meanwhile shares the next turn.

    One turn costs one commit. Under load the groups grow by themselves; alone, nobody waits.
    """

    def __init__(self) -> None:
        """Nobody waits."""
        self._waiting = 0

    def put(self, items: Sequence[T], seconds: float, told: Told[R]) -> None:
        """Have items worked on, together with those of others; ``told`` hears of it, in the event loop.

        It hears a ``TimeoutError`` where it was not done within so many seconds. It will be all the same.

        Raises:
            Problem: too many wait already (503).
        """
        if self._waiting >= MOST_WAITING:
            raise passing(503, "Too much is waiting to be stored.", seconds=1)
        self._waiting += len(items)
        self._add(Waiting(items, seconds, told))

    async def __call__(self, items: Sequence[T], seconds: float) -> list[R]:
        """Have items worked on; one result each.

        Raises:
            Problem: too many wait already (503).
            TimeoutError: it was not done within so many seconds. It will be all the same.
        """
        done: asyncio.Future[list[R]] = asyncio.get_running_loop().create_future()
        self.put(items, seconds, partial(_settle, done))
        return await done

    @abstractmethod
    def _add(self, waiting: Waiting[T, R]) -> None:
        """See to it that these have their turn."""

    @abstractmethod
    def close(self) -> None:
        """Wait for what is under way, but not for ever."""

    def _tell(self, group: Iterable[Waiting[T, R]], outcomes: Iterable[Outcome[R]]) -> None:
        for waiting, outcome in zip(group, outcomes, strict=True):
            self._waiting -= len(waiting.items)
            try:
                waiting.tell(outcome)
            except Exception as error:  # noqa: BLE001 - one that cannot be told keeps it from nobody else
                told = {"message": "an answer failed", "exception": error}
                asyncio.get_running_loop().call_exception_handler(told)


class Group(Queue[T, R]):
    """Takes the turns in a thread of this process, which asks nobody."""

    def __init__(self, work: Callable[[list[T]], list[R]], name: str) -> None:
        """``work`` takes the items of a group, in order, and returns one result each."""
        super().__init__()
        self._work = work
        self._queue: deque[Waiting[T, R]] = deque()
        self._something = threading.Event()  # to do, or the end
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._take_turns, name=name, daemon=True)
        self._thread.start()

    def _add(self, waiting: Waiting[T, R]) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue.append(waiting)
        if not self._something.is_set():  # else the thread will look, or is looking
            self._something.set()

    def close(self) -> None:
        """Wait for what is under way, but not for ever."""
        self._closed = True
        self._something.set()
        self._thread.join(_CLOSE_SECONDS)

    def _take_turns(self) -> None:
        while not self._closed:
            self._something.wait()
            self._something.clear()
            while self._queue:
                group = together(self._queue, lambda waiting: len(waiting.items))
                outcomes = turn(self._work, [waiting.items for waiting in group])
                with suppress(RuntimeError):  # the loop has ended, and with it all who waited
                    if self._loop is not None:
                        self._loop.call_soon_threadsafe(self._tell, group, outcomes)


def together(queue: deque[T], size: Callable[[T], int]) -> list[T]:
    """Take from a queue what has its turn together: no more than may be, but always the first."""
    group = [queue.popleft()]
    total = size(group[0])
    while queue and total + size(queue[0]) <= MOST_TOGETHER:
        total += size(queue[0])
        group.append(queue.popleft())
    return group


def turn(work: Callable[[list[T]], list[R]], group: Sequence[Sequence[T]]) -> list[Outcome[R]]:
    """Do the work of a group; what became of each one's items."""
    try:
        results = work([item for items in group for item in items])
    except Exception as error:  # noqa: BLE001 - passed on to everybody it concerns
        if len(group) == 1 or isinstance(error, _FOR_ALL):
            return [error] * len(group)
        return [outcome for items in group for outcome in turn(work, [items])]  # the fault of one
    ends = list(accumulate(len(items) for items in group))
    return [results[start:end] for start, end in pairwise([0, *ends])]


def _settle(done: asyncio.Future[list[R]], outcome: Outcome[R]) -> None:
    if done.done():  # whoever waited is gone
        return
    if isinstance(outcome, Exception):
        done.set_exception(outcome)
    else:
        done.set_result(outcome)
