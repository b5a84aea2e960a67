"""Landing: requests that meet share one transaction, and each is answered when it is durable."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from crm_pipeline.api.problems import DATABASE_AWAY, Problem, passing
from crm_pipeline.sync.errors import DisabledError

T = TypeVar("T")
R = TypeVar("R")

MOST_WAITING = 5000
"""Items that may wait; past that, callers are told to come again."""
MOST_TOGETHER = 500
"""Items to one transaction; only a single request may bring more."""
_FOR_ALL = (*DATABASE_AWAY, DisabledError, Problem)
"""Failures that have nothing to do with what was in the group."""


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[T, R]):
    items: Sequence[T]
    done: asyncio.Future[list[R]]


class Group(Generic[T, R]):
    """Work that is done for all who wait at once: whoever comes meanwhile shares the next turn.

    One turn costs one commit. Under load the groups grow by themselves; alone, nobody waits.
    """

    def __init__(self, work: Callable[[list[T]], list[R]], name: str) -> None:
        """``work`` takes the items of a group, in order, and returns one result each."""
        self._work = work
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._queue: deque[_Waiting[T, R]] = deque()
        self._waiting = 0
        self._turns: asyncio.Task[None] | None = None

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
        self._queue.append(waiting)
        self._waiting += len(items)
        if self._turns is None or self._turns.done():
            self._turns = asyncio.create_task(self._take_turns())
        patience = loop.call_later(seconds, _give_up, waiting.done)
        try:
            return await waiting.done
        finally:
            patience.cancel()

    def close(self) -> None:
        """Wait for the turn that is under way."""
        self._thread.shutdown()

    async def _take_turns(self) -> None:
        while self._queue:
            group = [self._queue.popleft()]
            size = len(group[0].items)
            while self._queue and size + len(self._queue[0].items) <= MOST_TOGETHER:
                size += len(self._queue[0].items)
                group.append(self._queue.popleft())
            await self._turn(group)
            self._waiting -= size

    async def _turn(self, group: Sequence[_Waiting[T, R]]) -> None:
        items = [item for waiting in group for item in waiting.items]
        try:
            results = await asyncio.get_running_loop().run_in_executor(self._thread, self._work, items)
        except Exception as error:  # noqa: BLE001 - passed on to everybody it concerns
            if len(group) > 1 and not isinstance(error, _FOR_ALL):
                for waiting in group:  # the fault of one must not be paid by all
                    await self._turn([waiting])
                return
            for waiting in group:
                if not waiting.done.done():
                    waiting.done.set_exception(error)
            return
        start = 0
        for waiting in group:
            end = start + len(waiting.items)
            if not waiting.done.done():
                waiting.done.set_result(results[start:end])
            start = end


def _give_up(done: asyncio.Future[list[R]]) -> None:
    if not done.done():
        done.set_exception(TimeoutError())
