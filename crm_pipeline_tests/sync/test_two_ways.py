"""What one run does: records become contacts, edits travel both ways, nothing moves twice."""

from __future__ import annotations

import random
import string
from typing import Any

import pytest

from crm_pipeline.connection import Connection
from crm_pipeline.connectors.records import RecordReader
from crm_pipeline.jsonio import LONGEST_KEY
from crm_pipeline.store import state
from crm_pipeline.sync.apply import apply_landed
from crm_pipeline.sync.context import lease_held
from crm_pipeline.sync.pull import pull_new
from crm_pipeline_tests.sync.world import World

ONE = "6281100000001@c.us"
TWO = "6281100000002@c.us"


def counts(world: World) -> list[tuple[int, int, int, int, int]]:
    """Sync and give created, updated, unchanged, skipped, rejected of each step."""
    found = []
    for report in world.sync():
        numbers = report.counts
        assert numbers.seen == sum(
            (numbers.created, numbers.updated, numbers.unchanged, numbers.skipped, numbers.rejected)
        )
        found.append((numbers.created, numbers.updated, numbers.unchanged, numbers.skipped, numbers.rejected))
    return found


def test_a_new_record_becomes_a_contact_and_is_not_sent_back(world: World) -> None:
    """First meeting: one contact, a prospect by default, and not a single write to the CRM."""
    world.crm.put(
        phone="08110000 0001", name="Sinta", ticket_price="150000", meeting_date="2026-02-15T10:00:00+07:00"
    )
    assert counts(world) == [(1, 0, 0, 0, 0), (1, 0, 0, 0, 0), (0, 0, 0, 0, 0)]
    contact = world.contact(ONE)
    assert (contact["nama"], contact["ticket_price"], contact["deal_status"]) == (
        "Sinta",
        150_000,
        "prospect",
    )
    assert contact["meeting_date"].isoformat() == "2026-02-15T03:00:00+00:00"
    assert world.crm.writes == []


def test_a_second_sync_writes_nothing_anywhere(world: World) -> None:
    """Unchanged content costs nothing: no row and no CRM record is written."""
    for number in range(30):
        world.crm.put(phone=f"62811000000{number:02d}", name=f"Contact {number}", status="deal")
    world.sql("INSERT INTO contacts (id, nama) VALUES ('6281999999999@c.us', 'Bot')")
    world.sync()
    before, writes = world.picture(), len(world.crm.writes)
    world.crm.clock.pass_by(minutes=30)
    assert counts(world) == [(0, 0, 31, 0, 0), (0, 0, 0, 0, 0), (0, 0, 0, 0, 0)]
    assert world.picture() == before
    assert len(world.crm.writes) == writes


def test_another_programs_update_is_pushed_as_one_call_with_only_that_field(world: World) -> None:
    """A plain SQL UPDATE of many contacts is one batched call of changed fields."""
    for number in range(20):
        world.crm.put(phone=f"62811000000{number:02d}", name=f"Contact {number}", notes="old")
    world.sync()
    calls = world.crm.calls
    world.sql("UPDATE contacts SET notes = 'new' WHERE id < '6281100000010@c.us'")
    push = world.sync()[2]
    assert push.counts.updated == 10
    assert push.api_calls == 1
    assert world.crm.calls == calls + 2
    assert [write.changes for write in world.crm.writes] == [{"notes": "new"}] * 10


def test_an_update_that_changes_nothing_is_not_pushed(world: World) -> None:
    """A dashboard that saves on every blur causes no CRM call."""
    world.crm.put(phone=ONE, name="Sinta")
    world.sync()
    world.sql("UPDATE contacts SET nama = 'Sinta', notes = NULL")
    assert counts(world)[2] == (0, 0, 0, 0, 0)


def test_a_contact_of_another_program_is_created_in_the_crm_once(world: World) -> None:
    """A plain SQL INSERT becomes one record; empty fields are not sent as blanks."""
    world.sql("INSERT INTO contacts (id, nama, capacity) VALUES (:id, 'Bot lead', 0)", id=ONE)
    assert counts(world)[2] == (1, 0, 0, 0, 0)
    assert [write.changes for write in world.crm.writes] == [
        {"phone": ONE, "name": "Bot lead", "capacity": 0, "status": "prospect"}
    ]
    assert counts(world)[2] == (0, 0, 0, 0, 0)
    assert len(world.crm.records) == 1


@pytest.mark.parametrize("spelling", ["6281100000001", "+62 811-0000-0001", "081100000001", "62-81100000001"])
def test_a_contact_stored_in_another_spelling_is_not_doubled(world: World, spelling: str) -> None:
    """The CRM's record and the dashboard's odd spelling are one contact."""
    world.sql("INSERT INTO contacts (id, nama) VALUES (:id, 'Typed by hand')", id=spelling)
    world.crm.put(phone=ONE, company="PT Panggung")
    world.sync()
    assert world.ids() == {spelling}
    assert world.contact(spelling)["instansi"] == "PT Panggung"
    assert len(world.crm.records) == 1
    assert next(iter(world.crm.records.values()))["name"] == "Typed by hand"


def test_edits_of_different_fields_meet(world: World) -> None:
    """One field edited on each side: both edits end up on both sides."""
    key = world.crm.put(phone=ONE, name="Sinta", notes="old", capacity=10)
    world.sync()
    world.sql("UPDATE contacts SET capacity = 20")
    world.crm.put(key, notes="from the CRM")
    world.sync()
    assert world.crm.records[key]["capacity"] == 20
    assert (world.contact(ONE)["notes"], world.contact(ONE)["capacity"]) == ("from the CRM", 20)
    assert world.rows("conflicts") == []


@pytest.mark.parametrize(
    "policy, kept", [("external", "crm"), ("internal", "bot"), ("manual", None)], ids=str
)
def test_a_conflict_goes_by_policy_and_the_loser_is_kept(world: World, policy: str, kept: str | None) -> None:
    """Both sides edited one field: the policy decides, the ledger holds both values, other fields go on."""
    world.connection = Connection.model_validate({"merge": {"policy": policy}})
    key = world.crm.put(phone=ONE, notes="start", name="Sinta")
    world.sync()
    world.sql("UPDATE contacts SET notes = 'bot', capacity = 5")
    world.crm.put(key, notes="crm", name="Sinta B")
    world.sync()
    assert (world.contact(ONE)["nama"], world.crm.records[key]["capacity"]) == ("Sinta B", 5)
    sides = (world.contact(ONE)["notes"], world.crm.records[key]["notes"])
    assert sides == ((kept, kept) if kept else ("bot", "crm"))
    (conflict,) = world.rows("conflicts")
    assert (conflict["external"], conflict["internal"]) == ("crm", "bot")
    assert conflict["state"] == ("settled" if kept else "open")
    before = world.picture()
    world.sync()
    assert world.picture() == before


def test_newest_goes_by_time_and_does_not_guess_within_the_tolerance(world: World) -> None:
    """The later edit wins; two edits closer than the clocks can tell go to the named side."""
    world.connection = Connection.model_validate(
        {"merge": {"policy": "newest", "tie": "external", "clock_tolerance_seconds": 120}}
    )
    key = world.crm.put(phone=ONE, notes="start")
    world.sync()
    world.sql("UPDATE contacts SET notes = 'bot'")  # at the database's real time, long after the fake clock's
    world.crm.put(key, notes="crm")
    world.sync()
    assert world.contact(ONE)["notes"] == "bot"
    assert world.crm.records[key]["notes"] == "bot"


def test_null_clears_absent_keeps_and_zero_is_a_value(world: World) -> None:
    """The three are kept apart, on the way in and on the way out."""
    key = world.crm.put(phone=ONE, notes="text", capacity=7, name="Sinta")
    world.sync()
    world.crm.put(key, notes=None, capacity=0)
    del world.crm.records[key]["name"]
    world.sync()
    contact = world.contact(ONE)
    assert (contact["notes"], contact["capacity"], contact["nama"]) == (None, 0, "Sinta")
    world.sql("UPDATE contacts SET capacity = NULL")
    world.sync()
    assert world.crm.records[key]["capacity"] is None


def test_a_status_that_is_absent_never_demotes_a_deal(world: World) -> None:
    """A partial update keeps the deal status and the dates."""
    key = world.crm.put(phone=ONE, status="closed", meeting_date="2026-02-15T10:00:00Z")
    world.sync()
    del world.crm.records[key]["status"]
    del world.crm.records[key]["meeting_date"]
    world.crm.put(key, notes="partial")
    world.sync()
    assert world.contact(ONE)["deal_status"] == "deal"
    assert world.contact(ONE)["meeting_date"] is not None


BROKEN: list[tuple[Any, str]] = [
    ({"phone": "6281100000001", "status": "mystery"}, "dealStatus"),
    ({"phone": "6281100000001", "ticket_price": -1}, "ticketPrice"),
    ({"phone": "6281100000001", "capacity": 1.5}, "capacity"),
    ({"phone": "6281100000001", "ticket_price": 2**63}, "ticketPrice"),
    ({"phone": "6281100000001", "name": "a\x00b"}, "nama"),
    ({"phone": "6281100000001", "name": "\ud800"}, "nama"),
    ({"phone": "6281100000001", "event_date": "someday"}, "eventDayDate"),
    ({"phone": "1203630@g.us"}, "id"),
    ({"name": "no phone"}, "id"),
]


@pytest.mark.parametrize("record, field", BROKEN, ids=lambda value: str(value)[:30])
def test_a_broken_record_is_set_aside_with_its_reason_and_stops_nothing(
    world: World, record: dict[str, Any], field: str
) -> None:
    """The others land; the broken one names its field; a corrected one clears it by itself."""
    world.crm.put(phone=TWO, name="Good")
    key = world.crm.put(**record)
    assert counts(world)[1] == (1, 0, 0, 0, 1)
    (reject,) = world.rows("rejects")
    assert (reject["key"], list(reject["reasons"])) == (key, [field])
    assert counts(world)[1] == (0, 0, 0, 0, 0)
    world.crm.records[key] = {"id": key}
    world.crm.put(key, phone=ONE, name="Mended")
    assert counts(world)[1] == (1, 0, 0, 0, 0)
    assert world.rows("rejects") == []


def test_a_record_whose_id_cannot_be_kept_is_set_aside_and_stops_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An id of thousands of characters is longer than what an index holds."""
    reader = RecordReader(world.connection)
    monkeypatch.setattr(world.crm, "record", lambda key: reader.record(dict(world.crm.records[key])))
    letters = random.Random(1).choices(string.ascii_letters, k=3000)  # PostgreSQL would pack equal ones
    world.crm.put("".join(letters), phone=ONE, name="Long")
    world.crm.put(phone=TWO, name="Good")
    assert counts(world)[1] == (1, 0, 0, 0, 1)
    (reject,) = world.rows("rejects")
    assert reject["reasons"] == {"id": f"is longer than {LONGEST_KEY} characters"}
    assert world.ids() == {TWO}


def test_two_records_that_claim_one_contact_wait_for_a_person(world: World) -> None:
    """An ambiguity is reported, never guessed: the first keeps the contact, nothing is doubled."""
    world.crm.put(phone=ONE, name="First")
    world.crm.put(phone="+62 811-0000-0001", name="Second")
    assert counts(world)[1] == (1, 0, 0, 0, 1)
    assert world.contact(ONE)["nama"] == "First"
    assert list(world.rows("rejects")[0]["reasons"]) == ["id"]


def test_a_changed_phone_changes_the_address_and_doubles_nobody(world: World) -> None:
    """The linked contact is reached under the new number; the old one stays its alias."""
    key = world.crm.put(phone=ONE, name="Sinta")
    world.sync()
    world.crm.put(key, phone=TWO)
    world.sync()
    assert world.ids() == {TWO}
    assert world.contact(TWO)["nama"] == "Sinta"
    assert [(row["alias"], row["contact_id"]) for row in world.rows("contact_aliases")] == [(ONE, TWO)]
    world.crm.put(key, name="Sinta B")
    world.sync()
    assert world.contact(TWO)["nama"] == "Sinta B"
    assert len(world.crm.records) == 1


def test_a_phone_changed_to_that_of_another_contact_waits(world: World) -> None:
    """One record cannot become two contacts: nothing is merged behind anybody's back."""
    key = world.crm.put(phone=ONE, name="Sinta")
    world.crm.put(phone=TWO, name="Budi")
    world.sync()
    world.crm.put(key, phone=TWO)
    assert counts(world)[1] == (0, 0, 0, 0, 1)
    assert world.ids() == {ONE, TWO}


def test_a_contact_deleted_here_is_not_brought_back_nor_deleted_there(world: World) -> None:
    """An internal delete stays inside."""
    key = world.crm.put(phone=ONE, name="Sinta")
    world.sync()
    world.sql("DELETE FROM contacts")
    world.crm.clock.pass_by(days=1)
    world.sync()
    assert world.ids() == set()
    assert key in world.crm.records


def test_history_says_who_changed_what(world: World) -> None:
    """Each change of a field stands in the history with both values, its side and its rule."""
    key = world.crm.put(phone=ONE, notes="one")
    world.sync()
    world.crm.put(key, notes="two")
    world.sync()
    world.sql("UPDATE contacts SET notes = 'three'")
    world.crm.put(key, name="CRM edit beside it")
    world.sync()
    history = [
        (row["field"], row["old"], row["new"], row["side"])
        for row in world.rows("contact_changes")
        if row["field"] == "notes"
    ]
    assert history == [("notes", "one", "two", "external"), ("notes", "two", "three", "internal")]


@pytest.mark.parametrize("answers", [True, False], ids=["answer shows record", "answer is empty"])
def test_a_crm_that_rewrites_what_it_is_given_converges(world: World, answers: bool) -> None:  # noqa: FBT001
    """Trimmed, reformatted, truncated: learned from the answer or the next read, never pushed again."""
    world.crm.answers_with_record = answers
    world.crm.rewrite = lambda name, value: (
        value.strip()[:40].upper() if name == "notes" and isinstance(value, str) else value
    )
    long_text = "  a long note of more than forty characters, typed by hand "
    world.sql("INSERT INTO contacts (id, notes) VALUES (:id, :notes)", id=ONE, notes=long_text)
    world.sync()
    world.crm.clock.pass_by(minutes=1)
    world.sync()
    writes = len(world.crm.writes)
    before = world.picture()
    world.crm.clock.pass_by(minutes=1)
    world.sync()
    assert world.contact(ONE)["notes"] == long_text
    assert len(world.crm.writes) == writes == 1
    assert world.picture() == before


def test_own_fields_travel_like_the_others(world: World) -> None:
    """A field of the mapping file is validated, merged, kept in ``custom`` and pushed."""
    world.connection = Connection.model_validate(
        {"fields": {"vip": {"type": "boolean", "names": ["is_vip"]}}}
    )
    key = world.crm.put(phone=ONE, is_vip="yes")
    world.sync()
    assert world.contact(ONE)["custom"] == {"vip": True}
    world.sql("""UPDATE contacts SET custom = '{"vip": false, "theirs": 1}'""")
    world.sync()
    assert world.crm.records[key]["is_vip"] is False
    world.crm.put(key, is_vip="1")
    world.sync()
    assert world.contact(ONE)["custom"] == {"vip": True, "theirs": 1}


def test_a_value_the_crm_cannot_take_is_rejected_and_waits_for_a_change(world: World) -> None:
    """Another program's bad value is named, not sent, and goes through once corrected."""
    world.crm.put(phone=ONE)
    world.sync()
    world.sql("UPDATE contacts SET deal_status = 'whatever'")
    assert counts(world)[2] == (0, 0, 0, 0, 1)
    assert list(world.rows("rejects")[0]["reasons"]) == ["dealStatus"]
    assert counts(world)[2] == (0, 0, 0, 0, 0)
    world.sql("UPDATE contacts SET deal_status = 'negotiation'")
    assert counts(world)[2] == (0, 1, 0, 0, 0)
    assert world.crm.writes[-1].changes == {"status": "negotiating"}


def test_what_waits_is_applied_by_the_next_worker(world: World) -> None:
    """Landed and not applied: the next run applies it without reading the CRM again."""
    world.crm.put(phone=ONE, name="Sinta")
    context = world.context()
    with lease_held(context):
        with context.write() as tx:
            state.ensure(tx, context.name, polling=False)
        pull_new(context)
    calls = world.crm.calls
    other = world.context("another run")
    with lease_held(other):
        assert apply_landed(other).counts.created == 1
    assert world.crm.calls == calls
