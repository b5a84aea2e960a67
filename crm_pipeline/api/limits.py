"""Limits: how many requests a minute one caller may make, counted in a window that moves."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import TypeAlias

import structlog
from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage, Storage
from limits.aio.strategies import MovingWindowRateLimiter
from limits.errors import ConfigurationError
from limits.storage import storage_from_string

from crm_pipeline.api.problems import Problem

KEY_SHARE = 10
"""A key may be used from so many addresses to the full."""
MOST_CALLERS = 100_000
"""Callers remembered at once in this process; of more, those seen longest ago are forgotten."""
WINDOW = 60
_PATIENCE = 1.0
"""Seconds a shared store may take."""

Clock: TypeAlias = Callable[[], float]


class BoundedMemory(MemoryStorage):
    """Hits by caller, in this process.

    The library's own store keeps every caller it ever saw in the window, and visits them all
    each hundredth of a second.
    """

    STORAGE_SCHEME = ["async+bounded-memory"]  # noqa: RUF012 - as the library declares it

    def __init__(self, clock: Clock, most: int = MOST_CALLERS) -> None:
        """``clock`` in seconds, from any start; ``most`` callers are kept."""
        super().__init__()
        self._clock = clock
        self._most = most
        self._hits: OrderedDict[str, deque[float]] = OrderedDict()

    def __len__(self) -> int:
        """How many callers are remembered."""
        return len(self._hits)

    async def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Count a hit, unless there are ``limit`` within the last ``expiry`` seconds."""
        hits = self._recent(key, expiry)
        self._hits[key] = hits
        self._hits.move_to_end(key)
        if len(self._hits) > self._most:
            self._hits.popitem(last=False)
        if len(hits) + amount > limit:
            return False
        hits.extend([self._clock()] * amount)
        return True

    async def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """When the oldest hit of the window was, and how many there are."""
        del limit
        hits = self._recent(key, expiry)
        return (hits[0], len(hits)) if hits else (self._clock(), 0)

    def _recent(self, key: str, expiry: int) -> deque[float]:
        hits = self._hits.get(key) or deque()
        oldest = self._clock() - expiry
        while hits and hits[0] <= oldest:
            hits.popleft()
        return hits


class Limiter:
    """Counts callers, in a store that processes share or in this one.

    When a shared store cannot be reached, each process counts for itself: neither open nor shut.
    """

    def __init__(
        self,
        per_minute: int,
        *,
        shared: Storage | None = None,
        clock: Clock = time.monotonic,
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        """Allow one address ``per_minute`` requests in any 60 seconds, and one key ``KEY_SHARE`` times that.

        Args:
            per_minute: requests.
            shared: where other processes count as well.
            clock: seconds from any start, for what is counted here.
            log: told when the shared store fails.
        """
        self._items = {
            "address": RateLimitItemPerMinute(per_minute, namespace="crm_pipeline"),
            "key": RateLimitItemPerMinute(per_minute * KEY_SHARE, namespace="crm_pipeline"),
        }
        self._own = MovingWindowRateLimiter(BoundedMemory(clock))
        self._clock = clock
        self._shared = MovingWindowRateLimiter(shared) if shared is not None else None
        self._log = log

    async def count(self, kind: str, name: str) -> None:
        """Count a request of an ``address`` or a ``key``.

        Raises:
            Problem: it was one too many (429); it says when to come again.
        """
        if self._shared is not None:
            try:
                async with asyncio.timeout(_PATIENCE):
                    await self._count(self._shared, kind, name, time.time)
            except Problem:
                raise
            except Exception as error:  # noqa: BLE001 - whatever its driver raises: we count on without it
                self._log.error("the rate limit's store fails", error=type(error).__name__)
            else:
                return
        await self._count(self._own, kind, name, self._clock)

    async def _count(self, limiter: MovingWindowRateLimiter, kind: str, name: str, clock: Clock) -> None:
        item = self._items[kind]
        if await limiter.hit(item, kind, name):
            return
        stats = await limiter.get_window_stats(item, kind, name)
        wait = min(max(math.ceil(stats.reset_time - clock()), 1), WINDOW)
        headers = {
            "Retry-After": str(wait),
            "RateLimit": f'"{kind}";r=0;t={wait}',
            "RateLimit-Policy": f'"{kind}";q={item.amount};w={WINDOW}',
        }
        raise Problem(429, "Too many requests.", headers=headers)


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
