"""When the CRM is polled."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm_pipeline.definitions import defs
from crm_pipeline.orchestration.days import days_to_read
from crm_pipeline.orchestration.schedules import Polling, minutes_left, polling_schedule, reason_to_wait
from crm_pipeline_tests.orchestration.fakes import FakeService, resources, settings
from crm_pipeline_tests.orchestration.history import add_run, newest_run_at

NOON = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)

INTERVALS = st.one_of(st.sampled_from([1, 7, 30, 45, 50, 60, 90, 1440]), st.integers(1, 10_080))


def _polls(interval: int, start: datetime, delays: list[float], until: int) -> list[datetime]:
    """Ticks at which a poll is asked for, when each starts some seconds after it was asked for."""
    asked: list[datetime] = []
    last = None
    for tick in range(until):
        now = start + tick * MINUTE
        if reason_to_wait(Polling(active=True, interval=interval, last=last), now) is None:
            last = now + timedelta(seconds=delays[len(asked) % len(delays)])
            asked.append(now)
    return asked


@given(
    interval=INTERVALS,
    start=st.integers(0, 3 * 1440),
    delays=st.lists(st.floats(0, 59.9), min_size=1, max_size=5),
)
def test_gaps_are_the_interval(interval: int, start: int, delays: list[float]) -> None:
    """Polls lie exactly the interval apart: any interval, across midnight, however slowly runs start."""
    asked = _polls(interval, NOON + start * MINUTE, delays, 3 * interval + 1)
    assert [later - earlier for earlier, later in pairwise(asked)] == [interval * MINUTE] * 3


@pytest.mark.parametrize("interval", [30, 45, 50, 60, 90, 1440])
def test_a_week_has_as_many_polls_as_it_has_intervals(interval: int) -> None:
    """No poll is lost or doubled at any hour or midnight of a week."""
    week = 7 * 1440
    assert len(_polls(interval, NOON, [5.0], week)) == -(-week // interval)


@given(interval=INTERVALS, away=st.integers(0, 100_000))
def test_time_left_ends_at_the_interval(interval: int, away: int) -> None:
    """What is left and what has passed add up to the interval; after it nothing is left."""
    assert minutes_left(NOON, interval, NOON + away * MINUTE) == max(0, interval - away)


@pytest.mark.parametrize(
    "last, left",
    [
        (None, 0),
        (NOON - 31 * MINUTE, 0),
        (NOON - 30 * MINUTE + timedelta(seconds=59), 0),
        (NOON - 29 * MINUTE, 1),
        (NOON + timedelta(seconds=30), 30),
        (NOON + 10 * MINUTE, 40),
        (NOON + timedelta(days=365), 0),
    ],
    ids=["never", "overdue", "due-to-the-minute", "not-yet", "this-minute", "late-tick", "clock-was-wrong"],
)
def test_when_the_next_poll_is_due(last: datetime | None, left: int) -> None:
    """Seconds do not shift the next poll, and a time told by a wrong clock does not stop polling."""
    assert minutes_left(last, 30, NOON) == left


@pytest.mark.parametrize(
    "polling, reason",
    [
        (Polling(active=False, interval=30, last=None), "polling is switched off"),
        (
            Polling(active=True, interval=30, last=None, under_way="r1"),
            "run r1 is queued or in progress",
        ),
        (
            Polling(active=True, interval=45, last=NOON - 40 * MINUTE),
            "the next poll is due in 5 min: every 45 min",
        ),
        (Polling(active=True, interval=45, last=NOON - 45 * MINUTE), None),
    ],
)
def test_reasons(polling: Polling, reason: str | None) -> None:
    """Each way of not polling has its reason, and a due poll has none."""
    assert reason_to_wait(polling, NOON) == reason


@pytest.mark.parametrize(
    "watermark, days",
    [
        (None, ("2026-03-04", "2026-03-04")),
        (NOON, ("2026-03-04", "2026-03-04")),
        (NOON - timedelta(days=3), ("2026-03-01", "2026-03-04")),
        (NOON - timedelta(days=9999), ("2020-01-01", "2026-03-04")),
        (NOON + timedelta(days=3), ("2026-03-04", "2026-03-04")),
    ],
    ids=["first", "today", "after-a-pause", "before-the-first-day", "crm-clock-ahead"],
)
def test_days_that_a_poll_reads(watermark: datetime | None, days: tuple[str, str]) -> None:
    """A poll shows under every day from the watermark's to today's, as far as there are partitions."""
    assert days_to_read(watermark, NOON) == days


def _tick(
    instance: dg.DagsterInstance, service: FakeService, now: datetime = NOON
) -> dg.RunRequest | str | None:
    with dg.build_schedule_context(
        instance=instance,
        scheduled_execution_time=now,
        repository_def=defs.get_repository_def(),
        resources=resources(service),
    ) as context:
        data = polling_schedule.evaluate_tick(context)
    return data.run_requests[0] if data.run_requests else data.skip_message


def test_a_due_poll_is_one_incremental_run_over_the_days_it_reads(instance: dg.DagsterInstance) -> None:
    """The run reads from the watermark on and shows under the days it covers."""
    asked = _tick(instance, FakeService(watermark=NOON - timedelta(days=1)))
    assert isinstance(asked, dg.RunRequest)
    assert asked.run_config["ops"] == {"external_contacts": {"config": {"mode": "incremental"}}}
    assert asked.tags["dagster/asset_partition_range_start"] == "2026-03-03"
    assert asked.tags["dagster/asset_partition_range_end"] == "2026-03-04"
    assert asked.run_key is None


def test_the_flag_in_our_database_decides(instance: dg.DagsterInstance) -> None:
    """The schedule always runs; the flag makes it skip, with a reason."""
    assert _tick(instance, FakeService(polling=False)) == "polling is switched off"


def test_nothing_is_polled_while_disabled(instance: dg.DagsterInstance) -> None:
    """EXTERNAL_CRM_ENABLED wins over the flag, and the database is not even asked."""
    assert (
        _tick(instance, FakeService(settings=settings(external_crm_enabled=False)))
        == "EXTERNAL_CRM_ENABLED is false"
    )


def test_a_new_dagster_goes_on_where_our_database_is(instance: dg.DagsterInstance) -> None:
    """Where Dagster remembers no poll, the newest pull of our database counts."""
    every_45 = settings(external_crm_sync_interval=45)
    service = FakeService(last_poll_at=NOON - 44 * MINUTE, settings=every_45)
    skipped = _tick(instance, service)
    assert skipped == "the next poll is due in 1 min: every 45 min"
    assert isinstance(_tick(instance, service, NOON + MINUTE), dg.RunRequest)


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTED])
@pytest.mark.parametrize("job", ["pull_job", "sync_job"])
def test_a_poll_under_way_is_not_doubled(
    instance: dg.DagsterInstance, job: str, status: dg.DagsterRunStatus
) -> None:
    """While a pull or sync is queued or in progress, the schedule waits for it."""
    run_id = add_run(instance, job, status)
    assert _tick(instance, FakeService()) == f"run {run_id} is queued or in progress"


@pytest.mark.parametrize(
    "job, status",
    [("push_job", dg.DagsterRunStatus.STARTED), ("sync_job", dg.DagsterRunStatus.FAILURE)],
)
def test_other_runs_do_not_hold_a_poll_up(
    instance: dg.DagsterInstance, job: str, status: dg.DagsterRunStatus
) -> None:
    """A push in progress only makes the poll queue, and what is over is over."""
    add_run(instance, job, status)
    assert isinstance(_tick(instance, FakeService()), dg.RunRequest)


def test_pulls_by_hand_do_not_shift_the_rhythm(instance: dg.DagsterInstance) -> None:
    """A backfill or a pull between two polls neither delays the next one nor replaces it."""
    by_schedule = {"dagster/schedule_name": "polling_schedule"}
    add_run(instance, "pull_job", dg.DagsterRunStatus.SUCCESS, **by_schedule)
    add_run(instance, "pull_job", dg.DagsterRunStatus.SUCCESS)
    now = newest_run_at(instance)
    service = FakeService(last_poll_at=now + 20 * MINUTE)
    assert _tick(instance, service, now + 29 * MINUTE) == "the next poll is due in 1 min: every 30 min"
    assert isinstance(_tick(instance, service, now + 30 * MINUTE), dg.RunRequest)


def test_a_poll_that_died_before_it_began_is_not_repeated_each_minute(instance: dg.DagsterInstance) -> None:
    """A run the schedule asked for counts, even where our database never heard of it."""
    by_schedule = {"dagster/schedule_name": "polling_schedule"}
    add_run(instance, "pull_job", dg.DagsterRunStatus.FAILURE, **by_schedule)
    skipped = _tick(instance, FakeService(), newest_run_at(instance) + 5 * MINUTE)
    assert skipped == "the next poll is due in 25 min: every 30 min"
