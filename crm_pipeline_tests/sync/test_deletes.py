"""Records that go away: confirmed one by one, archived and never dropped, and never too many at once."""

from __future__ import annotations

import pytest

from crm_pipeline.connection import Connection
from crm_pipeline.connectors.base import Page, Record
from crm_pipeline.store import links
from crm_pipeline.sync.apply import apply_landed
from crm_pipeline.sync.context import lease_held
from crm_pipeline.sync.errors import TooManyDeletesError
from crm_pipeline.sync.forget import forget
from crm_pipeline_tests.sync.world import World

ONE = "6281100000001@c.us"
TWO = "6281100000002@c.us"


@pytest.fixture
def world(world: World) -> World:
    """A CRM that lists everything every time, so that absence can be told."""
    world.crm.reads_by_modified = False
    return world


def many(world: World, number: int) -> list[str]:
    """Sync so many records."""
    keys = [world.crm.put(phone=f"62811000{each:05d}@c.us", name=f"Contact {each}") for each in range(number)]
    world.sync()
    return keys


def archived(world: World) -> set[str]:
    """Ids of archived contacts."""
    return {row["id"] for row in world.rows("contacts") if row["archived_at"] is not None}


def test_a_deleted_record_archives_its_contact_and_is_not_made_again(world: World) -> None:
    """The contact is marked, never dropped; nothing is written to the CRM; it is in the history."""
    key = world.crm.put(phone=ONE, name="Sinta")
    world.crm.put(phone=TWO)
    world.sync()
    world.crm.delete(key)
    world.sync()
    world.sync()
    assert archived(world) == {ONE}
    assert world.contact(ONE)["nama"] == "Sinta"
    assert world.crm.writes == []
    assert [row["rule"] for row in world.rows("contact_changes") if row["field"] == "archived_at"] == [
        "deleted in the CRM"
    ]


def test_policy_keep_leaves_the_contact_alone(world: World) -> None:
    """Who wants to keep contacts keeps them."""
    world.connection = Connection.model_validate({"deletes": {"policy": "keep"}})
    key = world.crm.put(phone=ONE, name="Sinta")
    world.sync()
    world.crm.delete(key)
    world.sync()
    assert archived(world) == set()
    assert world.crm.records == {}


def test_a_contact_that_comes_back_is_restored_and_not_doubled(world: World) -> None:
    """The same record again, or a new record of the same phone: one contact, active again."""
    first = world.crm.put(phone=ONE, name="Sinta")
    world.sync()
    kept = world.crm.records[first]
    world.crm.delete(first)
    world.sync()
    world.crm.records[first] = kept
    world.sync()
    assert archived(world) == set()
    world.crm.delete(first)
    world.sync()
    second = world.crm.put(phone=ONE, name="Sinta again")
    world.sync()
    assert world.ids() == {ONE}
    assert archived(world) == set()
    assert world.contact(ONE)["nama"] == "Sinta again"
    assert [row["external_id"] for row in world.rows("links")] == [second]


def test_a_record_a_listing_left_out_is_not_taken_for_deleted(world: World) -> None:
    """Absence is confirmed by asking for the record itself."""
    keys = many(world, 5)
    world.crm.hidden.add(keys[0])
    world.sync()
    assert archived(world) == set()


def test_records_without_an_id_of_their_own_are_not_taken_for_deleted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They go by their phone, or by their content: listed again they are there again, rejects included."""
    listed = [{"phone": ONE, "name": "Sinta"}, {"name": "nobody"}, "no record at all"]
    page = Page(tuple(Record(each) for each in listed), world.crm.clock(), None)
    monkeypatch.setattr(world.crm, "pages", lambda *_: iter([page]))
    world.sync()
    rejected = [(row["key"], row["attempts"]) for row in world.rows("rejects")]
    assert len(rejected) == 2
    world.sync()
    assert archived(world) == set()
    assert [(row["key"], row["attempts"]) for row in world.rows("rejects")] == rejected


def test_what_is_absent_is_asked_for_in_the_fewest_calls(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Links are looked through in portions; the records that were not listed are asked for together."""
    monkeypatch.setattr(links, "_PORTION", 7)
    keys = many(world, 40)
    world.crm.hidden.update(keys[::3])
    world.crm.delete(keys[0])
    world.crm.delete(keys[39])
    before = world.crm.calls
    world.sync()
    assert archived(world) == {"6281100000000@c.us", "6281100000039@c.us"}
    assert world.crm.calls - before == 2  # a page, and 14 records


def test_records_that_changed_in_the_meantime_were_listed(world: World) -> None:
    """Their current versions are new with the reading: nobody asks for them, and nothing is archived."""
    keys = many(world, 5)
    for key in keys:
        world.crm.put(key, notes="edited")
    world.crm.put(phone=TWO)
    before = world.crm.calls
    world.sync()
    assert world.crm.calls - before == 1
    assert archived(world) == set()


def test_a_link_whose_record_never_landed_is_asked_for_unless_it_is_listed(world: World) -> None:
    """A CRM may answer a create without the record: the link is there, the record is not."""
    world.crm.answers_with_record = False
    world.sql("INSERT INTO contacts (id, nama) VALUES (:one, 'Sinta'), (:two, 'Budi')", one=ONE, two=TWO)
    world.push()
    world.sql("DELETE FROM external_records")
    gone = next(key for key, record in world.crm.records.items() if record["phone"] == ONE)
    world.crm.delete(gone)
    world.sync()
    assert archived(world) == {ONE}


def test_a_rejected_record_that_is_gone_is_rejected_no_more(world: World) -> None:
    """And one that is listed stays rejected."""
    keys = [world.crm.put(name="nobody"), world.crm.put(name="nobody either")]
    world.sync()
    assert {row["key"] for row in world.rows("rejects")} == set(keys)
    world.crm.delete(keys[0])
    world.sync()
    assert {row["key"] for row in world.rows("rejects")} == {keys[1]}


def test_a_record_that_now_names_a_forgotten_person_is_not_taken_for_deleted(world: World) -> None:
    """Of what it says nothing lands, so that it counts as not listed: it is asked for, and is there."""
    key = world.crm.put(phone=ONE, name="Sinta")
    world.crm.put(phone=TWO, name="Budi")
    world.sync()
    context = world.context()
    with lease_held(context):
        forget(context, {TWO})
    world.crm.put(key, phone=TWO)
    world.sync()
    assert archived(world) == set()


@pytest.mark.parametrize("left", [0, 1, 180])
def test_too_many_deletes_stop_the_run_before_anything_is_archived(world: World, left: int) -> None:
    """An empty or short listing archives nobody; the message says how to go on; other news is applied."""
    keys = many(world, 200)
    for key in keys[left:]:
        world.crm.delete(key)
    world.crm.put(phone="6281999999999@c.us", name="New")
    with pytest.raises(TooManyDeletesError, match="--allow-deletes"):
        world.sync()
    assert archived(world) == set()
    assert "6281999999999@c.us" in world.ids()
    context = world.context()
    with lease_held(context):
        apply_landed(context, allow_deletes=True)
    assert len(archived(world)) == 200 - left


def test_ten_deletes_are_never_too_many(world: World) -> None:
    """A small account may lose a few: exactly those are archived."""
    keys = many(world, 20)
    for key in keys[:10]:
        world.crm.delete(key)
    world.sync()
    assert len(archived(world)) == 10


def test_records_that_are_listed_again_are_taken_back_without_anybodys_help(world: World) -> None:
    """A credential that lost its scope for an hour leaves no trace."""
    many(world, 100)
    kept, world.crm.records = world.crm.records, {}
    with pytest.raises(TooManyDeletesError):
        world.sync()
    world.crm.records = kept
    world.sync()
    assert archived(world) == set()
    assert world.sync()[1].counts.seen == 0


def test_a_merge_in_the_crm_points_the_link_to_the_record_that_remains(world: World) -> None:
    """The duplicate that had waited as ambiguous takes over when the first is merged into it."""
    first = world.crm.put(phone=ONE, name="Sinta", notes="first")
    second = world.crm.put(phone=ONE, name="Sinta", company="PT Panggung")
    world.sync()
    assert len(world.rows("rejects")) == 1
    world.crm.merge(first, second)
    world.sync()
    world.sync()
    assert world.rows("rejects") == []
    assert world.ids() == {ONE}
    assert archived(world) == set()
    assert [row["external_id"] for row in world.rows("links")] == [second]
    assert world.contact(ONE)["instansi"] == "PT Panggung"
    assert world.crm.records[second]["notes"] == "first"


def test_a_record_that_is_gone_when_we_write_to_it_archives_the_contact(world: World) -> None:
    """A push that meets a deleted record makes no new one."""
    world.crm.reads_by_modified = True
    key = world.crm.put(phone=ONE, name="Sinta")
    world.sync()
    world.crm.delete(key)
    world.sql("UPDATE contacts SET notes = 'still here'")
    world.sync()
    world.sync()
    assert world.crm.records == {}
    assert archived(world) == {ONE}


@pytest.mark.parametrize("where", ["here", "there"])
def test_a_conflict_ends_when_one_side_is_gone(world: World, where: str) -> None:
    """Nobody has to settle a field of a contact or record that was deleted."""
    world.connection = Connection.model_validate({"merge": {"policy": "manual"}})
    key = world.crm.put(phone=ONE, notes="start")
    world.sync()
    world.sql("UPDATE contacts SET notes = 'bot'")
    world.crm.put(key, notes="sales")
    world.sync()
    if where == "here":
        world.sql("DELETE FROM contacts")
    else:
        world.crm.delete(key)
    world.sync()
    assert [(row["state"], row["winner"]) for row in world.rows("conflicts")] == [("settled", "moot")]
