"""The summary that the checks judge, read from either database."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from crm_pipeline.connection import Connection
from crm_pipeline.store import landing, rejects
from crm_pipeline.store.health import records_by_day
from crm_pipeline.store.landing import Arrival
from crm_pipeline.store.rejects import NewReject
from crm_pipeline.store.tables import contacts
from crm_pipeline.sync.health import Health, read_health

NOON = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)


def _health(engine: sa.Engine, connection: Connection | None = None) -> Health:
    with engine.begin() as tx:
        return read_health(tx, connection or Connection())


def _insert(engine: sa.Engine, *rows: Mapping[str, object]) -> None:
    with engine.begin() as tx:
        for row in rows:
            tx.execute(contacts.insert().values(**row))


def test_an_empty_database_is_healthy(engine: sa.Engine) -> None:
    """Nothing is there, nothing is wrong."""
    none = dict.fromkeys(("created", "updated", "unchanged", "skipped", "rejected"), 0)
    assert _health(engine) == Health(
        outcomes=none,
        waiting=0,
        landed=0,
        pull_rejects=0,
        push_rejects=0,
        events_waiting=0,
        oldest_event_at=None,
        contacts=0,
        odd_deal_status=0,
        odd_status=0,
        doubled=0,
    )


def test_records_are_counted_where_they_are(engine: sa.Engine) -> None:
    """Each record counts once, as last read: where it ended, or as waiting."""
    with engine.begin() as tx:
        for version in ("old", "new"):
            arrivals = [Arrival(f"r{number}", NOON, version, "{}", False, NOON) for number in range(5)]  # noqa: FBT003
            landing.land(tx, "default", arrivals, "run")
        landing.land(tx, "another", arrivals, "run")
        ids = [row.id for row in landing.waiting(tx, "default", 10)]
        landing.settle(tx, ids[:2], "created", NOON)
        landing.settle(tx, ids[2:3], "rejected", NOON)
        rejects.write(tx, "default", [NewReject("pull", "r2", {"capacity": "is no number"})], "run", NOON)
        rejects.write(tx, "default", [NewReject("webhook", "e1", {"body": "is no object"})], "run", NOON)
        rejects.write(tx, "default", [NewReject("push", "c1", {"capacity": "is no number"})], "run", NOON)
    health = _health(engine)
    assert (health.landed, health.waiting) == (5, 2)
    assert (health.outcomes["created"], health.outcomes["rejected"]) == (2, 1)
    assert (health.pull_rejects, health.webhook_rejects, health.push_rejects) == (1, 1, 1)


def test_records_by_day_are_those_of_the_window(engine: sa.Engine) -> None:
    """Days are UTC days, whatever the zone of the database or of us; the window's end is not in it."""
    times = [NOON, NOON.replace(hour=0), NOON.replace(hour=23, minute=59), NOON + timedelta(days=1), None]
    with engine.begin() as tx:
        arrivals = [Arrival(f"r{number}", at, "1", "{}", False, NOON) for number, at in enumerate(times)]  # noqa: FBT003
        landing.land(tx, "default", arrivals, "run")
        landing.land(tx, "another", arrivals, "run")
        day = NOON.replace(hour=0)
        found = [
            records_by_day(tx, "default", day - timedelta(days=days), day + timedelta(days=days))
            for days in (1, 2)
        ]
    assert found == [{"2026-03-04": 3}, {"2026-03-04": 3, "2026-03-05": 1}]


@pytest.mark.parametrize(
    "deal_status, status, odd",
    [
        ("prospect", None, (0, 0)),
        ("lost", "Next Year", (0, 0)),
        ("closed", None, (1, 0)),
        ("Deal", "To Do", (1, 0)),
        ("deal", "to do", (0, 1)),
        ("deal", "", (0, 1)),
    ],
)
def test_choices_that_nobody_knows(
    engine: sa.Engine, deal_status: str, status: str | None, odd: tuple[int, int]
) -> None:
    """Readers of the table know the exact words only: a synonym or another case is drift."""
    _insert(engine, {"id": "6281200000001@c.us", "deal_status": deal_status, "status": status})
    health = _health(engine)
    assert (health.odd_deal_status, health.odd_status) == odd
    assert health.contacts == 1


def test_a_connection_may_know_other_choices(engine: sa.Engine) -> None:
    """Choices of the connection file count instead of the built-in ones."""
    own = Connection.model_validate({"fields": {"deal_status": {"type": "choice", "choices": ["hot"]}}})
    _insert(engine, {"id": "6281200000001@c.us", "deal_status": "hot"})
    assert _health(engine).odd_deal_status == 1
    assert _health(engine, own).odd_deal_status == 0


@pytest.mark.parametrize(
    "ids, doubled",
    [
        (["6281200000001@c.us", "6281200000002@c.us"], 0),
        (["6281200000001@c.us", "6281200000001"], 1),
        (["081200000001", "+62 812-0000-0001", "6281200000001@c.us"], 2),
        (["081200000001", "+62 812-0000-0001"], 1),
        (["081200000001"], 0),
        (["81200000001@lid", "6281200000001@c.us"], 0),
        (["unknown", "nobody"], 0),
    ],
    ids=["two", "bare", "three-spellings", "none-canonical", "odd-alone", "lid", "no-ids"],
)
def test_one_person_in_two_rows(engine: sa.Engine, ids: list[str], doubled: int) -> None:
    """Rows that could go if everybody had one; what is no id at all doubles nobody."""
    _insert(engine, *({"id": each} for each in ids))
    assert _health(engine).doubled == doubled


def test_many_odd_spellings_are_looked_up_in_parts(engine: sa.Engine) -> None:
    """More than a query may hold parameters for."""
    numbers = [f"62812{number:08d}" for number in range(1_200)]
    with engine.begin() as tx:
        tx.execute(contacts.insert(), [{"id": number} for number in numbers])
        tx.execute(contacts.insert(), [{"id": f"{number}@c.us"} for number in numbers])
    assert _health(engine).doubled == 1_200
