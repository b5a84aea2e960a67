"""Reconcile: silent differences are all found, named and mended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from crm_pipeline.connection import Connection
from crm_pipeline.sync.errors import LeaseLostError
from crm_pipeline.sync.parity import Drift, Kind, Known
from crm_pipeline_tests.fakes import unavailable
from crm_pipeline_tests.sync.reconciling import (
    ONE,
    adds_up,
    compare,
    grow_old,
    kinds,
    lose_contact,
    many,
    past_the_trigger,
    phone,
    put_silently,
    synced,
)
from crm_pipeline_tests.sync.world import World


def plant(world: World, keys: list[str]) -> set[Drift]:
    """Fifty silent differences of every kind, in the first sixty contacts."""
    planted: set[Drift] = set()
    changes: list[tuple[str, str, Any]] = [
        ("name", "nama", "Changed"),
        ("ticket_price", "ticket_price", 9_007_199_254_740_993),
        ("status", "deal_status", "lost"),
        ("event_date", "event_day_date", None),
        ("capacity", "capacity", 0),
    ]
    for number in range(10):  # changed there, the modified time not touched
        theirs, ours, value = changes[number % 5]
        world.crm.records[keys[number]][theirs] = value
        planted.add(Drift(phone(number), keys[number], Kind.VALUE, ours))
    for number in range(10, 20):  # changed here, past the trigger
        column, value = [("notes", "typed"), ("ticket_price", 1), ("nama", None)][number % 3]
        past_the_trigger(world, phone(number), f"{column} = :value", value=value)
        planted.add(Drift(phone(number), keys[number], Kind.VALUE, column))
    for number in range(20, 23):  # both
        world.crm.records[keys[number]]["company"] = "PT Sana"
        past_the_trigger(world, phone(number), "instansi = 'PT Sini'")
        planted.add(Drift(phone(number), keys[number], Kind.VALUE, "instansi"))
    for number in range(23, 28):
        world.sql("DELETE FROM links WHERE external_id = :key", key=keys[number])
        planted.add(Drift(phone(number), keys[number], Kind.MISSING_HERE))
    for number in range(28, 33):
        lose_contact(world, phone(number))
        planted.add(Drift(phone(number), keys[number], Kind.MISSING_HERE))
    for number in range(33, 38):
        second = put_silently(world, phone=phone(number), name="Twin")
        planted.add(Drift(phone(number), second, Kind.DOUBLED_THERE))
    for number in range(38, 43):
        world.crm.delete(keys[number])
        planted.add(Drift(phone(number), keys[number], Kind.MISSING_THERE))
    for number in range(43, 48):
        made = put_silently(world, phone=phone(9000 + number), name="Imported")
        planted.add(Drift(phone(9000 + number), made, Kind.MISSING_HERE))
    for number in range(48, 50):
        world.sql("DELETE FROM links WHERE external_id = :key", key=keys[number])
        world.crm.delete(keys[number])
        planted.add(Drift(phone(number), None, Kind.MISSING_THERE))
    return planted


def disturb_before(world: World, keys: list[str]) -> None:
    """Differences the sync knows of, met by a sync: conflicts, rejects, deletes here and there, archives."""
    for number in range(100, 105):
        world.sql("UPDATE contacts SET pic = 'here' WHERE id = :id", id=phone(number))
        world.crm.put(keys[number], sales_rep="there")
    for number in range(105, 110):
        world.crm.put(keys[number], capacity="very big")
        world.crm.put(phone=phone(number), name="Second record")
    for number in range(110, 115):
        world.sql("DELETE FROM contacts WHERE id = :id", id=phone(number))
        world.sql("UPDATE contacts SET archived_at = updated_at WHERE id = :id", id=phone(number + 5))
    world.sync(push=False)


def disturb_after(world: World, keys: list[str]) -> None:
    """Differences the sync is about to settle: edits on either side, webhooks, new contacts."""
    for number in range(200, 210):
        world.sql("UPDATE contacts SET notes = 'pending', nama = NULL WHERE id = :id", id=phone(number))
        world.crm.put(keys[number + 10], name="News", notes="more news")
        world.sql("INSERT INTO contacts (id, nama) VALUES (:id, 'New here')", id=phone(8000 + number))
        world.crm.put(phone=phone(7000 + number), name="New there")
    world.receive({"phone": phone(230), "name": "Told"})
    world.crm.records[keys[230]]["name"] = "Told"


def differing_fields(world: World) -> int:
    """Cells of linked pairs in which the two sides differ, told without any code of the sync."""
    contacts = {row["id"]: row for row in world.rows("contacts")}
    names = {"name": "nama", "company": "instansi", "ticket_price": "ticket_price", "capacity": "capacity"}
    return sum(
        world.crm.records[link["external_id"]].get(theirs) != contacts[link["contact_id"]][ours]
        for link in world.rows("links")
        if link["contact_id"] in contacts and link["external_id"] in world.crm.records
        for theirs, ours in names.items()
    )


def test_fifty_planted_differences_are_all_named_and_no_other(world: World) -> None:
    """Among hundreds of contacts, with edits, conflicts, rejects, deletes and news on the way."""
    keys = many(world)
    disturb_before(world, keys)
    grow_old(world)
    planted = plant(world, keys)
    disturb_after(world, keys)
    before, calls = world.picture(), world.crm.calls
    report = compare(world)
    assert set(report.drifts) == planted
    assert (len(report.drifts), report.differing) == (50, 50)
    assert report.known == {
        Known.CONFLICT: 5,
        Known.REJECTED: 10,
        Known.GONE: 10,
        Known.PENDING: 20,
        Known.NEWS: 20,
        Known.WAITS: 1,
    }
    assert adds_up(report)
    assert world.picture() == before
    assert report.api_calls == world.crm.calls - calls == report.pages + 1
    assert report.records == len(world.crm.records)


def test_repair_mends_them_through_the_one_way_in(world: World) -> None:
    """Afterwards both sides agree, nobody lost a value, and a second run finds nothing."""
    keys = many(world)
    grow_old(world)
    planted = plant(world, keys)
    assert differing_fields(world) > 0
    report = compare(world, repair=True)
    assert set(report.drifts) == planted
    assert (report.mended, report.for_people, report.remaining) == (45, 5, 0)
    assert adds_up(report)
    world.sync()
    again = compare(world, repair=True)
    assert (again.drifts, again.differing, again.note) == ([], 0, "")
    assert differing_fields(world) == 0
    contacts = {row["id"]: row for row in world.rows("contacts")}
    assert world.crm.records[keys[11]]["name"] is None
    assert contacts[phone(1)]["ticket_price"] == 9_007_199_254_740_993
    assert {phone(number) for number in range(38, 43)} == {
        row["id"] for row in contacts.values() if row["archived_at"] is not None
    }
    assert {phone(9043), phone(28)} <= set(contacts)
    assert {record["phone"] for record in world.crm.records.values()} >= {phone(48), phone(49)}
    assert len(world.rows("rejects")) == 5
    losers = {(row["external"], row["internal"]) for row in world.rows("conflicts")}
    assert losers == {("PT Sana", "PT Sini")}
    written = [row for row in world.rows("contact_changes") if row["run_id"] == "reconcile"]
    assert {row["contact_id"] for row in written} >= {phone(number) for number in range(23)} - {phone(4)}


def test_a_contact_the_rules_let_go_since_is_sent(world: World) -> None:
    """A rule that was widened reaches the contacts it had left out."""
    world.connection = Connection.model_validate({"select": {"outward": {"deal_status": ["deal"]}}})
    world.sql("INSERT INTO contacts (id, nama) VALUES (:id, 'Lead')", id=ONE)
    world.sync()
    world.connection = Connection()
    assert compare(world, repair=True).drifts == [Drift(ONE, None, Kind.MISSING_THERE)]
    world.sync()
    assert [record["phone"] for record in world.crm.records.values()] == [ONE]


def test_a_field_the_mapping_learned_since_is_filled(world: World) -> None:
    """Records that were applied before a field was known are found, and taken again."""
    synced(world, vip="yes")
    world.connection = Connection.model_validate({"fields": {"vip": {"type": "boolean", "names": "vip"}}})
    assert compare(world, repair=True).drifts == [Drift(ONE, "r00001", Kind.VALUE, "vip")]
    assert world.contact(ONE)["custom"] == {"vip": True}
    assert compare(world).drifts == []


def test_a_record_that_became_unreadable_is_told_with_its_field(world: World) -> None:
    """Repairing rejects it, with the reason, and then it is known."""
    key = synced(world, capacity=5)
    world.crm.records[key]["capacity"] = "many"
    bad = put_silently(world, phone="nobody")
    report = compare(world, repair=True)
    assert report.drifts == [
        Drift(ONE, key, Kind.VALUE, "capacity"),
        Drift(None, bad, Kind.MISSING_HERE),
    ]
    assert (report.for_people, report.mended) == (2, 0)
    assert compare(world).known == {Known.REJECTED: 2}


def test_values_other_programs_mistyped_stop_nothing(world: World) -> None:
    """Text in a number's column is found like any other change."""
    if world.engine.dialect.name == "postgresql":
        world.connection = Connection.model_validate({"fields": {"vip": {"type": "integer", "names": "vip"}}})
    column = 'custom = \'{"vip": "many"}\'' if world.connection.fields else "capacity = 'many'"
    synced(world, capacity=5, vip=1)
    past_the_trigger(world, ONE, column)
    assert [field for _, field in kinds(compare(world))] == (
        ["vip"] if world.connection.fields else ["capacity"]
    )


def test_a_record_that_is_there_again_brings_its_contact_back(world: World) -> None:
    """Restored from the CRM's bin, with its old time."""
    key = synced(world, name="Sinta")
    kept = world.crm.records.pop(key)
    compare(world, repair=True)
    assert world.contact(ONE)["archived_at"] is not None
    world.crm.records[key] = kept
    assert compare(world, repair=True).drifts == [Drift(ONE, key, Kind.MISSING_HERE)]
    assert world.contact(ONE)["archived_at"] is None
    assert compare(world).drifts == []


def test_a_merge_in_the_crm_is_found(world: World) -> None:
    """The loser is gone, the winner takes its place once repaired."""
    loser = synced(world, name="Sinta")
    winner = put_silently(world, phone=ONE, name="Sinta")
    compare(world, repair=True)
    del world.crm.records[loser]
    world.crm.merged[loser] = winner
    assert compare(world, repair=True).drifts == [Drift(ONE, loser, Kind.MISSING_THERE)]
    assert [row["external_id"] for row in world.rows("links")][-1] == winner
    assert compare(world).drifts == []


def test_too_many_deletes_wait_for_a_person(world: World) -> None:
    """The guard of every run holds here: none is archived, the rest is mended, the report says so."""
    keys = many(world, 60)
    grow_old(world)
    for key in keys[:40]:
        world.crm.delete(key)
    world.crm.records[keys[50]]["name"] = "Changed"
    report = compare(world, repair=True)
    assert (report.differing, report.mended, report.remaining) == (41, 1, 40)
    assert "--allow-deletes" in report.note
    assert [row for row in world.rows("contacts") if row["archived_at"] is not None] == []
    assert compare(world).known[Known.WAITS] == 40


def test_before_the_first_pull_everything_is_missing_and_can_be_taken(world: World) -> None:
    """Repairing is a way to begin."""
    world.crm.put(phone=ONE, name="Sinta")
    world.crm.put(phone=ONE, name="Sinta")
    world.crm.own_clock.pass_by(hours=1)
    assert kinds(compare(world)) == [("missing here", "*"), ("doubled there", "*")]
    report = compare(world, repair=True)
    assert (report.mended, report.for_people, world.ids()) == (1, 1, {ONE})


def test_a_worker_that_was_replaced_says_so(world: World) -> None:
    """Another may have synced meanwhile: what was compared is no finding."""
    synced(world)

    def taken_over(_where: str) -> None:
        world.sql("UPDATE leases SET holder = 'other/1/1/x'")

    world.crm.fault = taken_over
    with pytest.raises(LeaseLostError):
        compare(world)


@pytest.mark.parametrize("where", ["page", "read"])
def test_a_crm_that_fails_fails_the_comparison(world: World, where: str) -> None:
    """Half a reading is no reading: nobody is missing because of it."""
    key = synced(world)
    world.crm.delete(key)
    fault: Callable[[str], None] = lambda at: unavailable(at) if at == where else None  # noqa: E731
    world.crm.fault = fault
    with pytest.raises(Exception, match=where):
        compare(world, repair=True)
    assert world.contact(ONE)["archived_at"] is None
