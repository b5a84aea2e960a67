"""Limits: how many requests a minute one caller may make, counted in a window that moves."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from limits import RateLimitItemPerMinute
from limits.aio.storage import Storage
from limits.aio.strategies import MovingWindowRateLimiter
from limits.errors import ConfigurationError
from limits.storage import storage_from_string

from crm_pipeline.api.logs import Log
from crm_pipeline.api.problems import Problem

KEY_SHARE = 10
"""A key may be used from so many addresses to the full."""
MOST_CALLERS = 100_000
"""Callers remembered at once in this process; of more, those seen longest ago are forgotten."""
WINDOW = 60
_PATIENCE = 1.0
"""Seconds a shared store may take."""

Clock: TypeAlias = Callable[[], float]
Asked: TypeAlias = Callable[[tuple[str, str], int], Awaitable[float | None]]
"""Counts a request of a caller up to a limit, somewhere else; as ``Window.hit``."""


class Window:
    """Requests of the last minute by caller, in this process.

    The library's own store keeps every caller it ever saw in the window, and visits them all
    each hundredth of a second.
    """

    def __init__(self, clock: Clock, most: int = MOST_CALLERS) -> None:
        """``clock`` in seconds, from any start; ``most`` callers are kept."""
        self._clock = clock
        self._most = most
        self._hits: OrderedDict[tuple[str, str], deque[float]] = OrderedDict()

    def __len__(self) -> int:
        """How many callers are remembered."""
        return len(self._hits)

    def hit(self, caller: tuple[str, str], limit: int) -> float | None:
        """Count a request, unless there are ``limit`` in the window: then, seconds until one leaves it."""
        now = self._clock()
        hits = self._hits.get(caller)
        if hits is None:
            hits = self._hits[caller] = deque()
            if len(self._hits) > self._most:
                self._hits.popitem(last=False)
        else:
            self._hits.move_to_end(caller)
        while hits and hits[0] <= now - WINDOW:
            hits.popleft()
        if len(hits) >= limit:
            return hits[0] + WINDOW - now
        hits.append(now)
        return None


def _asking(store: MovingWindowRateLimiter) -> Asked:
    """Ask a store of the library's."""

    async def hit(caller: tuple[str, str], limit: int) -> float | None:
        item = RateLimitItemPerMinute(limit, namespace="crm_pipeline")
        if await store.hit(item, *caller):
            return None
        return (await store.get_window_stats(item, *caller)).reset_time - time.time()

    return hit


class Limiter:
    """Counts callers, in a store that processes share or in this one.

    When a shared store cannot be reached, each process counts for itself: neither open nor shut.
    """

    def __init__(
        self,
        per_minute: int,
        *,
        shared: Storage | None = None,
        asked: Asked | None = None,
        clock: Clock = time.monotonic,
        log: Log,
    ) -> None:
        """Allow one address ``per_minute`` requests in any 60 seconds, and one key ``KEY_SHARE`` times that.

        Args:
            per_minute: requests.
            shared: where other processes count as well, on other machines too.
            asked: counts for several processes of this machine.
            clock: seconds from any start, for what is counted here.
            log: told when the shared store fails.
        """
        self._limits = {"address": per_minute, "key": per_minute * KEY_SHARE}
        self._own = Window(clock)
        self._elsewhere = _asking(MovingWindowRateLimiter(shared)) if shared is not None else asked
        self._log = log

    @property
    def alone(self) -> bool:
        """Whether this process counts for itself."""
        return self._elsewhere is None

    def count_here(self, kind: str, name: str) -> None:
        """Count a request of an ``address`` or a ``key`` in this process.

        Raises:
            Problem: it was one too many (429); it says when to come again.
        """
        wait = self._own.hit((kind, name), self._limits[kind])
        if wait is not None:
            raise self._refusal(kind, wait)

    async def count(self, kind: str, name: str) -> None:
        """Count a request of an ``address`` or a ``key``, with all who share the store.

        Raises:
            Problem: it was one too many (429); it says when to come again.
        """
        if self._elsewhere is None:
            self.count_here(kind, name)
            return
        try:
            async with asyncio.timeout(_PATIENCE):
                wait = await self._elsewhere((kind, name), self._limits[kind])
        except Exception as error:  # noqa: BLE001 - whatever its driver raises: we count on without it
            self._log.error("the rate limit's store fails", error=type(error).__name__)
            self.count_here(kind, name)
            return
        if wait is not None:
            raise self._refusal(kind, wait)

    def _refusal(self, kind: str, seconds: float) -> Problem:
        wait = min(max(math.ceil(seconds), 1), WINDOW)
        headers = {
            "Retry-After": str(wait),
            "RateLimit": f'"{kind}";r=0;t={wait}',
            "RateLimit-Policy": f'"{kind}";q={self._limits[kind]};w={WINDOW}',
        }
        return Problem(429, "Too many requests.", headers=headers)


def shared_storage(url: str) -> Storage:
    """Open the store that a URL names.

    Raises:
        ValueError: there is no such store, or its driver is not installed; the text does not hold the URL.
    """
    try:
        store = storage_from_string(f"async+{url.removeprefix('async+')}")
    except ConfigurationError as error:
        driver = str(error) if "prerequisite" in str(error) else "the URL is of no known kind"
        msg = f"RATE_LIMIT_STORAGE cannot be used: {driver}"
        raise ValueError(msg) from None
    if not isinstance(store, Storage) or not hasattr(store, "acquire_entry"):
        msg = "RATE_LIMIT_STORAGE cannot be used: this kind of store counts no moving window"
        raise ValueError(msg)
    return store
