"""What people decide: conflicts they settle, records they replay, rules that leave records out."""

from __future__ import annotations

from typing import Literal

import pytest

from crm_pipeline.connection import Connection
from crm_pipeline.store import ledger
from crm_pipeline.sync.context import lease_held
from crm_pipeline.sync.errors import UnknownConflictError
from crm_pipeline.sync.resolve import resolve
from crm_pipeline_tests.sync.world import World

ONE = "6281100000001@c.us"
MANUAL = Connection.model_validate({"merge": {"policy": "manual"}})


def conflicting(world: World) -> str:
    """Both sides edit one field under the manual policy."""
    world.connection = MANUAL
    key = world.crm.put(phone=ONE, notes="start")
    world.sync()
    world.sql("UPDATE contacts SET notes = 'bot'")
    world.crm.put(key, notes="sales")
    world.sync()
    return key


@pytest.mark.parametrize("winner, value", [("external", "sales"), ("internal", "bot")])
def test_a_settled_conflict_reaches_both_sides(
    world: World, winner: Literal["external", "internal"], value: str
) -> None:
    """The chosen value reaches both sides with the next run, the ledger says who won, then all is quiet."""
    key = conflicting(world)
    context = world.context()
    with lease_held(context):
        with context.read() as tx:
            (conflict,) = ledger.open_conflicts(tx, context.name)
        resolve(context, conflict.id, winner)
    world.sync()
    assert (world.contact(ONE)["notes"], world.crm.records[key]["notes"]) == (value, value)
    assert [(row["state"], row["winner"]) for row in world.rows("conflicts")] == [("settled", winner)]
    before = world.picture()
    world.sync()
    assert world.picture() == before


def test_a_conflict_settles_by_itself_when_the_sides_come_to_agree(world: World) -> None:
    """A person who mends the value on one side need not touch the ledger."""
    key = conflicting(world)
    world.sql("UPDATE contacts SET notes = 'sales'")
    world.crm.put(key, name="anything")
    world.sync()
    assert [(row["state"], row["winner"]) for row in world.rows("conflicts")] == [("settled", "agreed")]


def test_an_open_conflict_shows_the_newest_values(world: World) -> None:
    """Both sides go on editing: one entry, with what they hold now."""
    key = conflicting(world)
    world.sql("UPDATE contacts SET notes = 'bot 2'")
    world.crm.put(key, notes="sales 2")
    world.sync()
    (row,) = world.rows("conflicts")
    assert (row["external"], row["internal"], row["state"]) == ("sales 2", "bot 2", "open")


def test_an_unknown_conflict_is_named(world: World) -> None:
    """A mistyped number settles nothing."""
    conflicting(world)
    context = world.context()
    with lease_held(context), pytest.raises(UnknownConflictError, match="999"):
        resolve(context, 999, "external")


def test_a_record_outside_the_selection_is_skipped_and_a_contact_that_leaves_it_stays(world: World) -> None:
    """Selective sync inwards: leaving the rule stops the sync and keeps what is there."""
    world.connection = Connection.model_validate(
        {"select": {"inward": {"deal_status": ["deal", "negotiating"]}}}
    )
    world.crm.put(phone="6281100000002", status="lost")
    key = world.crm.put(phone=ONE, status="deal", notes="kept")
    _, applied, _ = world.sync()
    assert (applied.counts.created, applied.counts.skipped) == (1, 1)
    world.crm.put(key, status="lost", notes="not taken")
    world.sync()
    assert (world.contact(ONE)["deal_status"], world.contact(ONE)["notes"]) == ("deal", "kept")


def test_a_contact_outside_the_selection_is_not_pushed_until_it_enters(world: World) -> None:
    """Selective sync outwards."""
    world.connection = Connection.model_validate({"select": {"outward": {"deal_status": ["deal"]}}})
    world.sql("INSERT INTO contacts (id, nama) VALUES (:id, 'Lead')", id=ONE)
    assert world.sync()[2].counts.skipped == 1
    assert world.crm.records == {}
    world.sql("UPDATE contacts SET deal_status = 'deal'")
    assert world.sync()[2].counts.created == 1


def test_a_new_mapping_gives_rejected_and_skipped_records_another_chance(world: World) -> None:
    """What waits for another mapping need not wait for another content."""
    world.crm.put(phone=ONE, status="won big")
    world.sync()
    assert len(world.rows("rejects")) == 1
    world.connection = Connection.model_validate(
        {"fields": {"deal_status": {"synonyms": {"won big": "deal"}}}}
    )
    world.sync()
    assert world.rows("rejects") == []
    assert world.contact(ONE)["deal_status"] == "deal"
