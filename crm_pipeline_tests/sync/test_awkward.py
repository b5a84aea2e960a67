"""Awkward turns of real life, each of which once lost an edit, doubled somebody, or stopped everybody."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError

from crm_pipeline.connection import Connection
from crm_pipeline.connectors.base import WriteResult, WriteStatus
from crm_pipeline_tests.sync.world import World

ONE, TWO = "6281100000001@c.us", "6281100000002@c.us"


def connect(world: World, **parts: Any) -> None:
    """Change the connection file."""
    world.connection = Connection.model_validate(parts)


@pytest.mark.parametrize("spelling", ["0811-0000-0001", "+62 811 0000 0001", ONE])
@pytest.mark.parametrize("reads_by_modified", [True, False])
def test_a_contact_made_anew_in_another_spelling_meets_its_record(
    world: World, spelling: str, *, reads_by_modified: bool
) -> None:
    """Deleted and inserted again by another program: the same person, and no second record."""
    world.crm.reads_by_modified = reads_by_modified
    world.crm.put(phone=ONE, name="Sinta")
    world.sync()
    world.sql("DELETE FROM contacts")
    world.sql("INSERT INTO contacts (id, notes) VALUES (:id, 'ours')", id=spelling)
    world.sync()
    assert [record["notes"] for record in world.crm.records.values()] == ["ours"]
    assert world.contact(spelling)["nama"] == "Sinta"


@pytest.mark.parametrize("written", ["+6281100000001", "6281100000001", "081100000001"])
def test_a_search_is_tried_with_the_usual_spellings(world: World, written: str) -> None:
    """A CRM that finds only what is written exactly so: the record is found, and none is made."""
    world.crm.reads_by_modified = False
    world.crm.unique = False
    world.crm.put(phone=written, name="Sinta")
    world.sql("INSERT INTO contacts (id, notes) VALUES (:id, 'ours')", id=ONE)
    world.push()
    assert [record["notes"] for record in world.crm.records.values()] == ["ours"]


def test_an_edit_that_takes_ours_back_is_seen(world: World) -> None:
    """The CRM shows no times and no answers: its old value, read again after our write, is news."""
    world.crm.reads_by_modified = world.crm.answers_with_record = False
    key = world.crm.put(phone=ONE, notes="A")
    world.sync()
    world.sql("UPDATE contacts SET notes = 'B'")
    stamp = world.crm.records[key]["updated_at"]
    world.sync()
    assert world.crm.records[key]["notes"] == "B"
    world.crm.clock.pass_by(minutes=1)
    world.crm.put(key, notes="A")
    world.crm.records[key]["updated_at"] = stamp
    world.sync()
    assert world.contact(ONE)["notes"] == "A"


def test_a_record_that_leaves_the_rule_is_not_written_to(world: World) -> None:
    """Both sides keep what they have; when it takes part again, what each changed meets."""
    connect(world, select={"inward": {"deal_status": ["deal"]}}, merge={"policy": "external"})
    key = world.crm.put(phone=ONE, status="deal", notes="before")
    world.sync()
    world.crm.put(key, status="prospect", notes="theirs")
    world.sync()
    world.sql("UPDATE contacts SET notes = 'ours'")
    world.sync()
    assert (world.crm.records[key]["notes"], world.contact(ONE)["notes"]) == ("theirs", "ours")
    world.crm.put(key, status="deal")
    world.sync()
    assert (world.crm.records[key]["notes"], world.contact(ONE)["notes"]) == ("theirs", "theirs")
    (conflict,) = world.rows("conflicts")
    assert (conflict["external"], conflict["internal"]) == ("theirs", "ours")


def test_another_policy_settles_what_waited_for_a_person(world: World) -> None:
    """The field is free again: later edits travel."""
    connect(world, merge={"policy": "manual"})
    key = world.crm.put(phone=ONE, notes="before")
    world.sync()
    world.crm.put(key, notes="theirs")
    world.sql("UPDATE contacts SET notes = 'ours'")
    world.sync()
    connect(world, merge={"policy": "external"}, fields={"notes": {"policy": "external"}})
    world.sync()
    assert {row["state"] for row in world.rows("conflicts")} == {"settled"}
    world.sql("UPDATE contacts SET notes = 'later'")
    world.sync()
    assert world.crm.records[key]["notes"] == "later"


def test_a_number_changed_here_is_remembered(world: World) -> None:
    """Who still tells the old number means the same contact."""
    world.crm.put(phone=ONE, notes="before")
    world.sync()
    world.sql("UPDATE contacts SET id = :new", new=TWO)
    world.sync()
    world.crm.clock.pass_by(minutes=1)
    assert world.receive({"phone": ONE, "notes": "late"}).action in {"updated", "unchanged"}
    world.apply()
    assert world.ids() == {TWO}


def test_a_number_that_passed_to_somebody_else_is_theirs(world: World) -> None:
    """The first record shows another number by now: the second is another person."""
    key = world.crm.put(phone=ONE, name="Sinta")
    world.sync()
    world.crm.put(key, phone=TWO)
    world.sync()
    world.crm.put(phone=ONE, name="Budi")
    world.sync()
    assert {each: world.contact(each)["nama"] for each in world.ids()} == {ONE: "Budi", TWO: "Sinta"}
    assert world.rows("rejects") == []


def test_an_empty_deal_status_is_no_order_to_clear_it(world: World) -> None:
    """The CRM keeps its value; the contact is listed with the reason."""
    key = world.crm.put(phone=ONE, status="deal")
    world.sync()
    world.sql("UPDATE contacts SET deal_status = ''")
    world.sync()
    assert world.crm.records[key]["status"] == "deal"
    (reject,) = world.rows("rejects")
    assert reject["reasons"] == {"dealStatus": "cannot be empty"}


@pytest.mark.parametrize("odd", ["X'3632'", "''"])
def test_an_id_that_is_no_text_is_refused_at_the_door(world: World, odd: str) -> None:
    """It would sort behind every other, for ever."""
    if odd != "''" and world.engine.dialect.name == "postgresql":
        odd = "''"
    with pytest.raises(DBAPIError):
        world.sql(f"INSERT INTO contacts (id) VALUES ({odd})")  # noqa: S608 - one of two
    assert world.ids() == set()


@pytest.mark.parametrize("odd", ["infinity", "20260101 BC", "-infinity"])
def test_a_time_that_python_has_not_stops_one_contact_only(world: World, odd: str) -> None:
    """The other goes out; this one is listed, or goes out without it."""
    if world.engine.dialect.name == "postgresql":
        odd = odd.replace("20260101", "2026-01-01")
    world.sql("INSERT INTO contacts (id, meeting_date) VALUES (:id, :odd)", id=ONE, odd=odd)
    world.sql("INSERT INTO contacts (id) VALUES (:id)", id=TWO)
    world.sync()
    assert [record["phone"] for record in world.crm.records.values()] == [TWO]
    (reject,) = world.rows("rejects")
    assert list(reject["reasons"]) == ["meetingDate"]


def test_a_write_of_unknown_end_is_listed_and_spaced_out(world: World) -> None:
    """As long as the CRM does not say, somebody can see which contact it is and why; then it is gone."""
    key = world.crm.put(phone=ONE)
    world.sync()
    world.sql("UPDATE contacts SET notes = 'ours'")
    for _ in range(3):
        world.crm.refuse[key] = WriteResult(WriteStatus.UNKNOWN, reason="the CRM answers status 500")
        world.sync()
    (reject,) = world.rows("rejects")
    assert (reject["key"], reject["reasons"]) == (ONE, {"record": "the CRM answers status 500"})
    assert len(world.crm.writes) == 2, "the third try is not due yet"
    world.crm.refuse.clear()
    world.crm.clock.pass_by(hours=1)
    world.sync()
    assert (world.crm.records[key]["notes"], world.rows("rejects")) == ("ours", [])


def test_a_reject_goes_when_nothing_is_left_to_push(world: World) -> None:
    """The CRM won, or the contact is gone: what could not be pushed is no news any more."""
    connect(world, merge={"policy": "external"})
    key = world.crm.put(phone=ONE, ticket_price=5)
    world.sync()
    world.sql("UPDATE contacts SET ticket_price = 1.5") if world.engine.dialect.name == "sqlite" else None
    world.sql("INSERT INTO contacts (id, status) VALUES (:id, 'no such status')", id=TWO)
    world.sync()
    assert TWO in {row["key"] for row in world.rows("rejects")}
    world.crm.put(key, ticket_price=9)
    world.sql("DELETE FROM contacts WHERE id = :id", id=TWO)
    world.sync()
    assert (world.rows("rejects"), world.contact(ONE)["ticket_price"]) == ([], 9)


def test_a_contact_taken_out_of_the_archive_is_made_anew_in_the_crm(world: World) -> None:
    """Its record was deleted, and somebody here wants it all the same."""
    world.crm.reads_by_modified = False
    key = world.crm.put(phone=ONE, name="Sinta")
    world.crm.put(phone=TWO)
    world.sync()
    world.crm.delete(key)
    world.sync()
    assert world.contact(ONE)["archived_at"] is not None
    world.sql("UPDATE contacts SET archived_at = NULL WHERE id = :id", id=ONE)
    world.sync()
    assert sorted(record["phone"] for record in world.crm.records.values()) == [ONE, TWO]
    assert {row["contact_id"] for row in world.rows("links")} == {ONE, TWO}


def test_that_a_record_was_missing_before_we_made_it_is_no_delete(world: World) -> None:
    """A webhook named it too early; applied once more, that reading archives nobody."""
    connect(world, webhook={"read_back": True})
    world.crm.answers_with_record = False
    world.receive({"id": "r00001", "phone": ONE})
    world.apply()
    world.sql("INSERT INTO contacts (id) VALUES (:id)", id=ONE)
    world.sync()
    assert list(world.crm.records) == ["r00001"]
    world.crm.hidden.add("r00001")
    connect(world, webhook={"read_back": True}, fields={"notes": {"names": ["memo"]}})
    world.sync()
    assert world.contact(ONE)["archived_at"] is None
