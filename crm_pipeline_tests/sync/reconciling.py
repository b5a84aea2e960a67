"""Damage that no sync notices, and the run that looks for it."""

from __future__ import annotations

from typing import Any

from crm_pipeline.connection import Connection
from crm_pipeline.store import state
from crm_pipeline.sync.context import lease_held
from crm_pipeline.sync.parity import ReconcileReport
from crm_pipeline.sync.reconcile import reconcile
from crm_pipeline_tests.sync.world import World

ONE = "6281100000001@c.us"


TWO = "6281100000002@c.us"


def phone(number: int) -> str:
    """Whose contact this is."""
    return f"62811{number:08d}@c.us"


def compare(world: World, *, repair: bool = False) -> ReconcileReport:
    """One run."""
    context = world.context("reconcile")
    with lease_held(context):
        with context.write() as tx:
            state.ensure(tx, context.name, polling=False)
        return reconcile(context, repair=repair)


def grow_old(world: World) -> None:
    """An hour later somebody edits some record, and a sync runs: pulls list what is older no more."""
    world.crm.own_clock.pass_by(hours=1)
    world.crm.put("newest", phone="6281999999999@c.us", name="Newest")
    world.sync()
    world.crm.own_clock.pass_by(hours=1)
    world.crm.put("newest", name="Newer")
    world.sync()


def synced(world: World, **values: Any) -> str:
    """One record, synced and old."""
    key = world.crm.put(phone=ONE, **values)
    world.sync()
    grow_old(world)
    return key


def past_the_trigger(world: World, contact_id: str, assignment: str, **values: Any) -> None:
    """Write to a contact so that the sync does not hear of it."""
    statement = (
        f"UPDATE contacts SET {assignment}, row_version = row_version + 1, "  # noqa: S608 - a test's own words
        "pushed_version = row_version + 1 WHERE id = :id"
    )
    world.sql(statement, id=contact_id, **values)


def lose_contact(world: World, contact_id: str) -> None:
    """A row vanishes although no program deleted it, as from an older backup."""
    world.sql("DELETE FROM contacts WHERE id = :id", id=contact_id)
    world.sql("UPDATE links SET contact_deleted_at = NULL WHERE contact_id = :id", id=contact_id)


def put_silently(world: World, **values: Any) -> str:
    """A record that bears the time of an old one."""
    key = world.crm.put(**values)
    world.crm.records[key]["updated_at"] = world.crm.records["r00001"]["updated_at"]
    return key


def kinds(report: ReconcileReport) -> list[tuple[str, str]]:
    """Kind and field of each difference."""
    return [(drift.kind.value, drift.field) for drift in report.drifts]


def adds_up(report: ReconcileReport) -> bool:
    """Whether every pair ended somewhere."""
    ended = report.mended + report.for_people + report.remaining
    return (
        report.compared == report.agreed + report.known.total() + report.differing
        and len({(drift.contact_id, drift.external_id) for drift in report.drifts}) == report.differing
        and ended == (report.differing if report.repaired else 0)
    )


def many(world: World, number: int = 300) -> list[str]:
    """Some hundred contacts, synced and old; conflicts of one field wait for people."""
    world.connection = Connection.model_validate({"fields": {"pic": {"policy": "manual"}}})
    keys = [
        world.crm.put(
            phone=phone(each),
            name=f"Contact {each}",
            company="PT Panggung",
            ticket_price=100_000 + each,
            capacity=None if each % 3 else 500,
            status="deal",
            sales_rep="first",
            event_date="2026-05-01T12:00:00Z",
        )
        for each in range(number)
    ]
    world.sync()
    return keys
