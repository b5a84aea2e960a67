"""Reconcile: what is knowingly different, or only looks so, is no difference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from crm_pipeline.connection import Connection
from crm_pipeline.connectors.base import WriteResult, WriteStatus
from crm_pipeline.store import state
from crm_pipeline.sync.apply import apply_landed
from crm_pipeline.sync.context import lease_held
from crm_pipeline.sync.hooks import HookedMapping
from crm_pipeline.sync.mapping import FieldMapping
from crm_pipeline.sync.parity import Drift, Kind, Known
from crm_pipeline.sync.pull import pull_new
from crm_pipeline.sync.reconcile import reconcile
from crm_pipeline_tests.sync.reconciling import (
    ONE,
    TWO,
    compare,
    grow_old,
    kinds,
    many,
    past_the_trigger,
    phone,
    synced,
)
from crm_pipeline_tests.sync.world import World


def test_a_crm_that_rewrites_is_in_agreement(world: World) -> None:
    """Other spellings of our own values are no difference, whether answers showed them or not."""
    world.crm.rewrite = lambda name, value: (
        value.strip().upper() if name in {"name", "notes"} and value else value
    )
    for number in range(20):
        world.crm.answers_with_record = number % 2 == 0
        world.sql("INSERT INTO contacts (id, nama) VALUES (:id, ' Sinta ')", id=phone(number))
        world.sync()
    grow_old(world)
    world.crm.answers_with_record = False
    world.sql("UPDATE contacts SET nama = 'Budi  ' WHERE id < :id", id=phone(10))
    world.sync()
    assert world.crm.records["r00001"]["name"] == "BUDI"
    report = compare(world)
    assert (report.drifts, report.known, report.agreed) == ([], {Known.NEWS: 10}, 11)
    grow_old(world)
    assert compare(world).agreed == 21


@pytest.mark.parametrize(
    "direction, column, drifts",
    [("in", "here", []), ("out", "there", [("value", "notes")]), ("in", "there", [("value", "notes")])],
)
def test_fields_that_go_one_way(
    world: World, direction: str, column: str, drifts: list[tuple[str, str]]
) -> None:
    """An edit on the side a field does not come from is known here, and silent where nobody was told."""
    world.connection = Connection.model_validate({"fields": {"notes": {"direction": direction}}})
    key = synced(world, notes="agreed")
    if column == "here":
        world.sql("UPDATE contacts SET notes = 'typed' WHERE id = :id", id=ONE)
        world.sync()
    else:
        world.crm.records[key]["notes"] = "changed"
    assert kinds(compare(world)) == drifts
    compare(world, repair=True)
    world.sync()
    assert compare(world).drifts == []
    if column == "there":
        assert world.contact(ONE)["notes"] == world.crm.records[key]["notes"]


def test_what_rules_leave_out_is_no_difference(world: World) -> None:
    """Selective sync: records not taken, contacts not pushed, and pairs that left the rule."""
    rules = {"inward": {"deal_status": ["deal", "negotiating"]}, "outward": {"deal_status": ["deal"]}}
    world.connection = Connection.model_validate({"select": rules})
    left = synced(world, status="deal", notes="agreed")
    world.crm.put(phone=TWO, status="lost")
    world.crm.put(phone=phone(3), status="negotiating")
    world.sql("INSERT INTO contacts (id, nama) VALUES (:id, 'Lead')", id=phone(4))
    world.sync()
    world.crm.put(left, status="lost", notes="not taken")
    world.sql("UPDATE contacts SET notes = 'not pushed' WHERE id = :id", id=phone(3))
    world.sync()
    past_the_trigger(world, phone(3), "notes = 'typed past the trigger'")
    grow_old(world)
    report = compare(world)
    assert (report.drifts, report.known[Known.RULE]) == ([], 5)


def test_a_person_need_not_dismiss_a_reject_twice(world: World) -> None:
    """What a person dismissed stays dismissed as long as it stays as it is; refused pushes too."""
    world.sql("INSERT INTO contacts (id) VALUES (:id)", id=TWO)
    world.crm.refuse[""] = WriteResult(WriteStatus.REFUSED, reason="not wanted")
    synced(world, capacity="many")
    world.sql("DELETE FROM rejects")
    world.sql("UPDATE external_records SET outcome = 'skipped' WHERE outcome = 'rejected'")
    report = compare(world)
    assert (report.drifts, report.known) == ([], {Known.RULE: 1, Known.REJECTED: 1})


def test_without_pulls_a_missed_webhook_is_a_silent_difference(world: World) -> None:
    """News is what a pull is about to bring. Where none runs, only what happens right now is news."""
    key = synced(world, name="Sinta")
    world.crm.put(key, name="Edited")
    assert compare(world).known == {Known.NEWS: 1}
    world.crm.clock.pass_by(days=2)
    world.crm.own_clock.pass_by(days=2)
    assert kinds(compare(world)) == [("value", "nama")]
    world.crm.put(key, name="Edited again")
    assert compare(world).known == {Known.NEWS: 1}


def test_a_crm_that_is_always_read_whole(world: World) -> None:
    """Whatever differs from what landed, the next pull sees; what was applied already, it does not."""
    world.crm.reads_by_modified = False
    keys = many(world, 5)
    world.crm.records[keys[0]]["name"] = "Changed"
    world.crm.delete(keys[1])
    past_the_trigger(world, phone(2), "nama = 'typed'")
    report = compare(world, repair=True)
    assert report.drifts == [Drift(phone(2), keys[2], Kind.VALUE, "nama")]
    assert report.known == {Known.NEWS: 2}
    world.sync()
    assert compare(world).drifts == []


def test_a_link_without_the_records_own_id_is_compared(world: World) -> None:
    """A webhook named only the contact: its record is known by that until a pull tells the id."""
    world.receive({"phone": ONE, "name": "Sinta"})
    world.apply()
    world.crm.put(phone=ONE, name="Sinta")
    report = compare(world)
    assert (report.drifts, report.agreed) == ([], 1)
    world.crm.own_clock.pass_by(hours=1)
    world.crm.records["r00001"]["name"] = "Changed"
    assert compare(world, repair=True).drifts == [Drift(ONE, "r00001", Kind.VALUE, "nama")]
    assert [(row["external_id"], world.contact(ONE)["nama"]) for row in world.rows("links")] == [
        ("r00001", "Changed")
    ]


@pytest.mark.parametrize("can_find, found", [(True, [("missing there", "*")]), (False, [])])
def test_a_record_without_an_id_is_gone_only_if_the_crm_says_so(
    world: World, *, can_find: bool, found: list[tuple[str, str]]
) -> None:
    """Where it cannot be asked, nobody is archived."""
    world.crm.can_find = can_find
    world.receive({"phone": ONE, "name": "Sinta"})
    world.apply()
    report = compare(world, repair=True)
    assert kinds(report) == found
    assert (world.contact(ONE)["archived_at"] is not None) is can_find


def test_an_unfinished_write_is_left_to_its_recovery(world: World) -> None:
    """Nobody knows whether it arrived: that is no difference yet."""
    synced(world, name="Sinta")
    world.sql("UPDATE contacts SET nama = 'Budi' WHERE id = :id", id=ONE)
    world.crm.refuse["r00001"] = WriteResult(WriteStatus.UNKNOWN, "r00001")
    world.sync()
    assert compare(world).known == {Known.PENDING: 1}


def test_a_listing_that_shifts_while_it_is_read(world: World) -> None:
    """A record that moves to the end is listed twice, and pushes another over the edge: neither matters."""
    keys = many(world, 6)
    grow_old(world)
    world.crm.page_size = 2
    world.crm.records[keys[2]]["name"] = "Changed"
    listed: list[str] = []

    def somebody_edits(where: str) -> None:
        listed.append(where)
        if listed == ["page", "page"]:
            world.crm.put(keys[0], name="Edited meanwhile")

    world.crm.fault = somebody_edits
    report = compare(world, repair=True)
    assert "read" in listed
    assert (report.drifts, report.records) == ([Drift(phone(2), keys[2], Kind.VALUE, "nama")], 7)
    assert (report.agreed, report.mended) == (6, 1)
    assert {world.contact(phone(0))["nama"], world.contact(phone(2))["nama"]} == {
        "Edited meanwhile",
        "Changed",
    }


def test_a_hook_decides_what_is_compared(world: World) -> None:
    """A subclass's mapping is asked like everywhere: what it changes agrees, what it leaves out is a rule."""
    mapping = FieldMapping(world.connection)

    def inward(record: dict[str, Any]) -> Mapping[str, Any] | None:
        values = mapping.to_contact(record)
        return None if record.get("name") == "Secret" else {**values, "instansi": "always"}

    world.crm.put(phone=TWO, name="Secret")
    world.crm.put(phone=ONE, name="Sinta", company="PT Panggung")
    hooked = HookedMapping(
        mapping, inward, lambda contact: mapping.to_external(contact, list(contact), {}, None)
    )
    context = replace(world.context(), translator=hooked)
    with lease_held(context):
        with context.write() as tx:
            state.ensure(tx, context.name, polling=False)
        pull_new(context)
        apply_landed(context)
        report = reconcile(context)
    assert (report.drifts, report.agreed, report.known) == ([], 1, {Known.RULE: 1})


def test_an_empty_world_agrees(world: World) -> None:
    """Nothing on either side."""
    report = compare(world, repair=True)
    assert (report.compared, report.differing, report.pages) == (0, 0, 1)


def test_a_record_the_listing_leaves_out_is_compared_all_the_same(world: World) -> None:
    """It is asked for by its id: neither gone, nor exempt."""
    key = synced(world, name="Sinta")
    world.crm.hidden.add(key)
    assert compare(world).agreed == 2
    world.crm.records[key]["name"] = "Changed"
    assert compare(world).drifts == [Drift(ONE, key, Kind.VALUE, "nama")]


def test_what_landed_waits_for_the_run_that_applies_it(world: World) -> None:
    """A run that died between reading and applying left no difference."""
    key = synced(world, name="Sinta")
    world.crm.put(key, name="Edited")
    context = world.context()
    with lease_held(context):
        pull_new(context)
    report = compare(world)
    assert (report.drifts, report.known) == ([], {Known.WAITS: 1})


def test_a_rewritten_write_that_was_never_read_back_is_in_agreement(world: World) -> None:
    """Where no pull runs, the first sight of what the CRM made of our value may be this one."""
    world.crm.rewrite = lambda _, value: value.upper() if value == "Sinta" else value
    world.crm.answers_with_record = False
    world.sql("INSERT INTO contacts (id, nama) VALUES (:id, 'Sinta')", id=ONE)
    world.sync()
    world.crm.clock.pass_by(days=2)
    world.crm.own_clock.pass_by(days=2)
    assert world.crm.records["r00001"]["name"] == "SINTA"
    assert compare(world).agreed == 1
    world.crm.records["r00001"]["name"] = "Somebody else"
    assert kinds(compare(world)) == [("value", "nama")]
