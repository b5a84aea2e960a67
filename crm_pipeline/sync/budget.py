"""An account's budget, kept in the database: the calls of all its processes together stay within limits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.engine import Engine

from crm_pipeline.connection import Budget as Bounds
from crm_pipeline.connectors.budget import BudgetSpentError, Lane, Usage
from crm_pipeline.store import budgets
from crm_pipeline.store.engine import reading, writing

MARGIN = 0.25
"""Seconds that a window is taken to be longer: calls are not equally long on their way."""
LONGEST_WAIT = 300.0
"""Seconds to wait for a turn."""
ASK_AGAIN = 900.0
"""Seconds after which a used-up quota is tried again: only an answer tells that it has room."""


@dataclass(frozen=True, slots=True)
class Spent:
    """How much of a budget is used."""

    today: int = 0
    """Calls of ours since midnight UTC."""
    daily_limit: int | None = None
    """The day's calls, of everybody who uses the account."""
    daily_left: int | None = None
    """As the CRM told last."""


class SharedBudget:
    """One account's budget, for one process of many."""

    def __init__(
        self,
        engine: Engine,
        name: str,
        bounds: Bounds,
        *,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """``name`` is the connection's; ``now`` gives seconds that all processes agree on."""
        self._engine, self._name, self._bounds = engine, name, bounds
        self._now, self._sleep = now, sleep
        self.waited_for = False
        """Whether a person waits: then the reserve may be used."""
        self.part: float | None = None
        """Share of our share that this work keeps to, with a count of its own for the day."""

    def acquire(self, lane: Lane | None = None) -> None:
        """Wait until one more call is within the limits. See ``connectors.budget.Budget``."""
        if lane is not None:
            self._wait(f"{self._name}/{lane.name}", lambda _state: (lane.calls, lane.seconds))
        self._wait(self._name, self._window, daily=True)

    def note(self, usage: Usage) -> None:
        """Learn from an answer. A quota that falls is told by every answer; few of them are kept."""
        with writing(self._engine) as tx:
            state = budgets.locked(tx, self._name)
            if usage.window_limit is not None:
                state["window_limit"] = usage.window_limit
            if usage.daily_limit is not None:
                state["daily_limit"] = usage.daily_limit
            if usage.daily_left is not None:
                state["daily_left"] = usage.daily_left
            state["told_at"] = self._now()
            budgets.save(tx, self._name, state)

    def spent(self) -> Spent:
        """How much is used, for people."""
        with reading(self._engine) as tx:
            state = budgets.load(tx, self._name)
        today = state.get("used", 0) if state.get("day") == self._day() else 0
        limit = self._bounds.daily_calls or state.get("daily_limit")
        return Spent(today, limit, state.get("daily_left"))

    def _wait(
        self, name: str, window: Callable[[dict[str, Any]], tuple[int | None, float]], *, daily: bool = False
    ) -> None:
        started = self._now()
        while True:
            with writing(self._engine) as tx:
                state = budgets.locked(tx, name)
                if daily:
                    self._count_the_day(state)
                wait = self._turn(state, *window(state))
                if not wait:
                    budgets.save(tx, name, state)
                    return
            if self._now() + wait - started > LONGEST_WAIT:
                raise BudgetSpentError("not sent: the account's calls are used up by others for minutes")
            self._sleep(wait)

    def _turn(self, state: dict[str, Any], calls: int | None, seconds: float) -> float:
        """Take a turn in a window, or tell how many seconds it is away."""
        now = self._now()
        times = [moment for moment in state.get("times", ()) if now - seconds - MARGIN < moment <= now]
        if calls is not None and len(times) >= calls:
            return max(float(times[-calls]) + seconds + MARGIN - now, 0.01)
        state["times"] = [*times, now] if calls is not None else []
        if "used" in state:
            state["used"] += 1
            state["in_part"] = state.get("in_part", 0) + (self.part is not None)
        return 0.0

    def _window(self, state: dict[str, Any]) -> tuple[int | None, float]:
        told, own = state.get("window_limit"), self._bounds.calls
        if own is None:
            return None, self._bounds.window_seconds
        calls = min(own, told) if told else own
        return max(1, int(calls * self._share() * (self.part or 1.0))), self._bounds.window_seconds

    def _share(self) -> float:
        return 1.0 if self.waited_for else 1.0 - self._bounds.reserve

    def _count_the_day(self, state: dict[str, Any]) -> None:
        """Stop before the day's calls are used up, ours or everybody's."""
        day, bounds = self._day(), self._bounds
        if state.get("day") != day:
            state |= {"day": day, "used": 0, "in_part": 0}
        share = bounds.daily_share * self._share()
        if bounds.daily_calls is not None and state["used"] >= bounds.daily_calls * share:
            raise BudgetSpentError(_SPENT)
        limit, left = state.get("daily_limit") or bounds.daily_calls, state.get("daily_left")
        fresh = self._now() - state.get("told_at", 0.0) < ASK_AGAIN
        if limit and self.part and state.get("in_part", 0) >= limit * share * self.part:
            raise BudgetSpentError(
                "not sent: the share of the day's calls for backfills is used up; see budget.backfill_share"
            )
        if limit and left is not None and fresh and left <= limit * (1.0 - share):
            raise BudgetSpentError(_SPENT)

    def _day(self) -> str:
        return datetime.fromtimestamp(self._now(), UTC).date().isoformat()


_SPENT = "not sent: our share of the day's calls is used up; see budget.daily_share"


@contextmanager
def interactive(budget: SharedBudget | None) -> Iterator[None]:
    """Let calls use the reserve: a person waits for them."""
    if budget is None:
        yield
        return
    budget.waited_for = True
    try:
        yield
    finally:
        budget.waited_for = False


@contextmanager
def sharing(budget: SharedBudget | None, part: float) -> Iterator[None]:
    """Let calls keep to a part of our share: what runs beside them has the rest."""
    if budget is None:
        yield
        return
    budget.part = part
    try:
        yield
    finally:
        budget.part = None
