"""A write the CRM accepts and keeps nothing of: the edit stays here, and a person is told."""

from __future__ import annotations

import pytest

from crm_pipeline.connection import Connection
from crm_pipeline.sync.context import lease_held
from crm_pipeline.sync.resolve import resolve
from crm_pipeline_tests.sync.world import World

PHONE = "6281100000001@c.us"
MISSPELT = Connection.model_validate({"fields": {"notes": {"names": ["notes"], "write": "ntoes"}}})
"""The CRM takes any name, as Zoho does, and keeps what nobody reads."""
RIGHT = Connection()


def edit(world: World, answers: str) -> None:
    """Edit a contact's notes here and push them under a wrong name."""
    world.connection = MISSPELT
    world.crm.answers_with_record, world.crm.answers_with_time = answers == "record", answers == "time"
    world.crm.put(phone=PHONE, name="Uji", notes="old")
    world.sync()
    world.sql("UPDATE contacts SET notes = 'new', nama = 'Lain' WHERE id = :id", id=PHONE)
    world.sync()
    world.crm.clock.pass_by(minutes=10)
    world.sync()


@pytest.fixture(params=["record", "time"])
def edited(world: World, request: pytest.FixtureRequest) -> World:
    """A CRM that answers a write with the record, or with its modified time."""
    edit(world, request.param)
    return world


def test_the_edit_stays_and_waits_for_a_person(edited: World) -> None:
    """The old value does not come back as news; the other fields went through."""
    assert edited.contact(PHONE)["notes"] == "new"
    (record,) = edited.crm.records.values()
    assert (record["name"], record["notes"]) == ("Lain", "old")
    (told,) = edited.rows("conflicts")
    assert (told["state"], told["policy"], told["field"]) == ("open", "not taken", "notes")
    assert (told["external"], told["internal"]) == ("old", "new")


def test_it_is_not_written_again_and_again(edited: World) -> None:
    """While it waits nothing moves, and further fields still travel."""
    writes = len(edited.crm.writes)
    for _ in range(3):
        edited.crm.clock.pass_by(hours=12)
        edited.sync()
    assert len(edited.crm.writes) == writes
    edited.sql("UPDATE contacts SET nama = 'Ketiga', notes = 'newer' WHERE id = :id", id=PHONE)
    edited.sync()
    (record,) = edited.crm.records.values()
    assert record["name"] == "Ketiga"
    assert edited.contact(PHONE)["notes"] == "newer"


def test_mended_and_settled_it_arrives(edited: World) -> None:
    """The file is corrected, the person says the contact is right."""
    edited.connection = RIGHT
    (told,) = edited.rows("conflicts")
    context = edited.context()
    with lease_held(context):
        resolve(context, told["id"], "internal")
    edited.sync()
    edited.sync()
    (record,) = edited.crm.records.values()
    assert (record["notes"], edited.contact(PHONE)["notes"]) == ("new", "new")
    assert [row["state"] for row in edited.rows("conflicts")] == ["settled"]


def test_an_edit_in_the_crm_ends_it(edited: World) -> None:
    """A third value is news as ever; both old ones stay in the ledger."""
    (key,) = edited.crm.records
    edited.crm.put(key, notes="theirs")
    edited.sync()
    assert edited.contact(PHONE)["notes"] == "theirs"
    assert [row["state"] for row in edited.rows("conflicts")] == ["settled"]


def test_what_cannot_be_told_from_an_edit_is_written_down(world: World) -> None:
    """The CRM answers a write with nothing: somebody may have put the old value back."""
    edit(world, "nothing")
    assert world.contact(PHONE)["notes"] == "old"
    (told,) = world.rows("conflicts")
    assert (told["state"], told["policy"], told["winner"]) == ("settled", "not taken", "external")
    assert (told["external"], told["internal"]) == ("old", "new")


def test_a_create_is_looked_at_too(world: World) -> None:
    """What a new record does not show was not taken either."""
    world.connection = MISSPELT
    world.crm.answers_with_record, world.crm.answers_with_time = False, True
    world.sync()
    world.sql("INSERT INTO contacts (id, nama, notes) VALUES (:id, 'Uji', 'new')", id=PHONE)
    world.sync()
    (key,) = world.crm.records
    world.crm.records[key]["notes"] = None
    world.crm.clock.pass_by(minutes=10)
    world.sync()
    assert world.contact(PHONE)["notes"] == "new"
    assert [row["policy"] for row in world.rows("conflicts")] == ["not taken"]
