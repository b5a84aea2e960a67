"""An account's budget: no window ever holds more calls than allowed, whoever makes them."""

from __future__ import annotations

import subprocess
import sys

import pytest
from sqlalchemy.engine import Engine

from crm_pipeline.connection import Budget
from crm_pipeline.connectors.budget import BudgetSpentError, Lane, Usage
from crm_pipeline.simulators.hubspot import create_app
from crm_pipeline.simulators.hubspot_rules import VENDOR
from crm_pipeline.simulators.serve import running
from crm_pipeline.simulators.vendor import VendorCrm, VendorOptions
from crm_pipeline.sync.budget import ASK_AGAIN, SharedBudget, interactive, sharing


class Time:
    """A clock that moves when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        """Seconds now."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Move it."""
        self.slept.append(seconds)
        self.now += seconds


def budget_of(engine: Engine, time: Time, **bounds: float) -> SharedBudget:
    """A budget on that clock."""
    return SharedBudget(engine, "default", Budget.model_validate(bounds), now=time, sleep=time.sleep)


def most_in(times: list[float], seconds: float) -> int:
    """The most calls in any stretch of so many seconds."""
    return max(sum(start <= each < start + seconds for each in times) for start in times)


def test_no_window_holds_more_than_allowed(engine: Engine) -> None:
    """Two workers in turn: in any ten seconds there are at most their share of the calls."""
    time, made = Time(), list[float]()
    workers = [budget_of(engine, time, calls=20, window_seconds=10) for _ in range(2)]
    for number in range(100):
        workers[number % 2].acquire()
        made.append(time.now)
        time.now += 0.05
    assert most_in(made, 10.0) == 18
    assert made[-1] - made[0] < 60


def test_a_person_who_waits_may_use_the_reserve(engine: Engine) -> None:
    """Background work leaves a tenth free, and a single push takes it at once."""
    time = Time()
    budget = budget_of(engine, time, calls=20, window_seconds=10)
    for _ in range(18):
        budget.acquire()
    with interactive(budget):
        budget.acquire()
        budget.acquire()
    assert time.slept == []
    budget.acquire()
    assert time.slept != []


def test_a_lane_has_a_limit_of_its_own(engine: Engine) -> None:
    """Searches are fewer than calls."""
    time, made = Time(), list[float]()
    budget = budget_of(engine, time, calls=100, window_seconds=10)
    for _ in range(12):
        budget.acquire(Lane("search", 4, 1.0))
        made.append(time.now)
    assert most_in(made, 1.0) == 4


def test_a_limit_that_the_crm_tells_counts(engine: Engine) -> None:
    """An account that allows less than the file says is kept to what it says itself."""
    time, made = Time(), list[float]()
    budget = budget_of(engine, time, calls=100, window_seconds=10)
    budget.note(Usage(window_limit=10))
    for _ in range(30):
        budget.acquire()
        made.append(time.now)
    assert most_in(made, 10.0) == 9


def test_the_days_quota_is_never_used_up(engine: Engine) -> None:
    """Calls stop at our share, people may go on a little, and the next answer tells of new room."""
    time = Time()
    budget = budget_of(engine, time, calls=100, window_seconds=1)
    budget.note(Usage(daily_limit=1000, daily_left=150))
    with pytest.raises(BudgetSpentError, match=r"budget\.daily_share"):
        budget.acquire()
    with interactive(budget):
        budget.acquire()
    time.now += ASK_AGAIN
    budget.acquire()
    budget.note(Usage(daily_limit=1000, daily_left=1000))
    budget.acquire()
    assert budget.spent().daily_left == 1000


def test_own_calls_of_a_day_are_bounded(engine: Engine) -> None:
    """Where the CRM tells nothing our own count holds, until midnight UTC."""
    time = Time()
    budget = budget_of(engine, time, calls=1000, daily_calls=100, daily_share=0.5, reserve=0.0)
    for _ in range(50):
        budget.acquire()
    with pytest.raises(BudgetSpentError):
        budget.acquire()
    assert budget.spent().today == 50
    time.now += 86_400
    budget.acquire()


WORKER = """
import sys
from crm_pipeline.connection import Budget
from crm_pipeline.connection_file import Source, validate, with_preset
from crm_pipeline.connectors import connect
from crm_pipeline.store.engine import open_database
from crm_pipeline.sync.budget import SharedBudget
data = {"type": "hubspot", "base_url": sys.argv[1], "limits": {"retries": 0}}
engine = open_database(sys.argv[2])
budget = SharedBudget(engine, "default", Budget(calls=30, window_seconds=1.5))
made = connect(validate(with_preset(data), Source("x")), "sim-key", budget=budget)
for _ in range(60):
    made.read(["1"])
"""


def test_two_processes_together_stay_within_an_accounts_limit(database_url: str, engine: Engine) -> None:
    """Two workers call as fast as they may: the account counts no call too many."""
    del engine  # migrated
    crm = VendorCrm.seeded(VENDOR, 2, options=VendorOptions(burst=30, window=1.5))
    with running(create_app(crm)) as url:
        command = (sys.executable, "-c", WORKER, url, database_url)
        workers = [subprocess.Popen(command) for _ in range(2)]
        assert [worker.wait(60) for worker in workers] == [0, 0]
    assert crm.calls["batch_read"] == 120
    assert 20 < crm.burst.peak <= 30


def test_a_backfill_keeps_to_its_part_of_the_day(engine: Engine) -> None:
    """Half of our share is all it gets, whatever else was called; polls go on, and tomorrow it does."""
    time = Time()
    budget = budget_of(engine, time, daily_calls=100, reserve=0, daily_share=0.8)
    for _ in range(10):
        budget.acquire()
    with sharing(budget, 0.5):
        for _ in range(40):
            budget.acquire()
        with pytest.raises(BudgetSpentError, match=r"budget\.backfill_share"):
            budget.acquire()
    for _ in range(30):
        budget.acquire()
    with pytest.raises(BudgetSpentError, match=r"budget\.daily_share"):
        budget.acquire()
    time.now += 24 * 3600
    with sharing(budget, 0.5):
        budget.acquire()


def test_a_backfill_leaves_room_in_each_window(engine: Engine) -> None:
    """Half of the calls of any ten seconds, so that what comes beside it need not wait."""
    time, made = Time(), list[float]()
    budget = budget_of(engine, time, calls=20, window_seconds=10, reserve=0)
    with sharing(budget, 0.5):
        for _ in range(40):
            budget.acquire()
            made.append(time.now)
            time.now += 0.05
    assert most_in(made, 10.0) == 10
    slept = len(time.slept)
    for _ in range(5):
        budget.acquire()
    assert len(time.slept) == slept
