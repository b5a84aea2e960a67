"""Reconcile: silent differences are all found and mended, what is knowingly different is left alone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, run_state_machine_as_test
from sqlalchemy.engine import Engine

from crm_pipeline.connection import Connection
from crm_pipeline.connectors.base import WriteResult, WriteStatus
from crm_pipeline.store import state
from crm_pipeline.sync.context import lease_held
from crm_pipeline.sync.parity import Drift, Kind, Known, ReconcileReport
from crm_pipeline.sync.reconcile import reconcile
from crm_pipeline_tests.fakes import FakeCrm, unavailable
from crm_pipeline_tests.sync.two_sides import KINDS, PHONES, TwoSides, empty
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


def test_a_person_need_not_dismiss_a_reject_twice(world: World) -> None:
    """What a person dismissed stays dismissed as long as it stays as it is; refused pushes too."""
    world.sql("INSERT INTO contacts (id) VALUES (:id)", id=TWO)
    world.crm.refuse[""] = WriteResult(WriteStatus.REFUSED, reason="not wanted")
    synced(world, capacity="many")
    world.sql("DELETE FROM rejects")
    world.sql("UPDATE external_records SET outcome = 'skipped' WHERE outcome = 'rejected'")
    report = compare(world)
    assert (report.drifts, report.known) == ([], {Known.RULE: 1, Known.REJECTED: 1})


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


def test_a_record_the_listing_leaves_out_is_compared_all_the_same(world: World) -> None:
    """It is asked for by its id: neither gone, nor exempt."""
    key = synced(world, name="Sinta")
    world.crm.hidden.add(key)
    assert compare(world).agreed == 2
    world.crm.records[key]["name"] = "Changed"
    assert compare(world).drifts == [Drift(ONE, key, Kind.VALUE, "nama")]


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


def test_an_empty_world_agrees(world: World) -> None:
    """Nothing on either side."""
    report = compare(world, repair=True)
    assert (report.compared, report.differing, report.pages) == (0, 0, 1)


def test_before_the_first_pull_everything_is_missing_and_can_be_taken(world: World) -> None:
    """Repairing is a way to begin."""
    world.crm.put(phone=ONE, name="Sinta")
    world.crm.put(phone=ONE, name="Sinta")
    world.crm.own_clock.pass_by(hours=1)
    assert kinds(compare(world)) == [("missing here", "*"), ("doubled there", "*")]
    report = compare(world, repair=True)
    assert (report.mended, report.for_people, world.ids()) == (1, 1, {ONE})


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


class Watched(TwoSides):
    """All that can happen to two sides, and somebody compares them after every step."""

    def compare(self) -> ReconcileReport:
        """Look, as if pulls had run just now."""
        context = self.world.context("reconcile")
        with lease_held(context):
            with context.write() as tx:
                state.ensure(tx, context.name, polling=False)
            return reconcile(context, patience=timedelta(days=10_000))

    @precondition(lambda self: any(row["last_read_at"] for row in self.world.rows("connections")))
    @invariant()
    def nothing_is_silent_but_deletes(self) -> None:
        """After the first pull, of all that can happen only deletes in the CRM go by unnoticed."""
        before = self.world.picture()
        report = self.compare()
        assert adds_up(report)
        assert self.world.picture() == before
        for drift in report.drifts:
            assert drift.kind is Kind.MISSING_THERE
            assert drift.contact_id in self.ghost.deleted_there
            assert drift.external_id not in self.world.crm.records

    def teardown(self) -> None:
        """When all has come to rest, there is nothing to know of but what waits for people, or is gone."""
        super().teardown()
        report = self.compare()
        assert {drift.kind for drift in report.drifts} <= {Kind.MISSING_THERE}
        assert report.known.keys() <= ENDS


def test_nothing_that_can_happen_gives_a_false_finding(sqlite_quick_engine: Engine) -> None:
    """Edits, deletes, webhooks, crashes, failing calls and clocks that are set, in any order."""
    machine = type("Machine", (Watched,), {"engine": sqlite_quick_engine})
    half = settings.get_profile(settings.get_current_profile_name()).max_examples // 2  # each step compares
    chosen = settings(max_examples=half, stateful_step_count=12, report_multiple_bugs=False)
    run_state_machine_as_test(machine, settings=chosen)


def _change_there(world: World, key: str, _: str) -> None:
    if key in world.crm.records:
        world.crm.records[key]["notes"] = f"there {world.crm.own_clock()}"


def _change_here(world: World, _: str, contact: str) -> None:
    past_the_trigger(world, contact, "notes = :notes", notes=f"here {world.crm.own_clock()}")


def _lose_link(world: World, key: str, _: str) -> None:
    world.sql("DELETE FROM links WHERE external_id = :key", key=key)


def _lose_contact(world: World, _: str, contact: str) -> None:
    lose_contact(world, contact)


def _delete_record(world: World, key: str, _: str) -> None:
    world.crm.records.pop(key, None)


def _double(world: World, _: str, contact: str) -> None:
    key = world.crm.put(phone=contact, notes="double")
    world.crm.records[key]["updated_at"] = "2026-01-01T00:00:00+00:00"


def _swap_phone(world: World, key: str, contact: str) -> None:
    if key in world.crm.records:
        world.crm.records[key]["phone"] = PHONES[PHONES.index(contact) - 1]


DAMAGE = (_change_there, _change_here, _lose_link, _lose_contact, _delete_record, _double, _swap_phone)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=KINDS,
    damages=st.lists(st.tuples(st.sampled_from(DAMAGE), st.integers(0, 2)), min_size=1, max_size=6),
)
def test_whatever_was_damaged_is_mended_at_once(
    sqlite_quick_engine: Engine, kind: dict[str, Any], damages: list[tuple[Callable[..., None], int]]
) -> None:
    """One repair and the push after it: nothing silent is left, and who is in the CRM has a contact."""
    empty(sqlite_quick_engine)
    world = World(sqlite_quick_engine, FakeCrm())
    for name in ("answers_with_record", "can_find", "unique"):
        setattr(world.crm, name, kind[name])
    world.connection = Connection.model_validate({"merge": {"policy": kind["policy"]}})
    keys = [world.crm.put(phone=contact, notes="agreed") for contact in PHONES]
    world.sync()
    grow_old(world)
    for damage, number in damages:
        damage(world, keys[number], PHONES[number])
    found = compare(world, repair=True)
    assert adds_up(found)
    assert (found.remaining, found.note) == (0, "")
    world.sync()
    again = compare(world)
    assert (again.drifts, again.known.keys() - {Known.NEWS, *ENDS}) == ([], set())
    assert {record["phone"] for record in world.crm.records.values()} <= world.ids()


ENDS = frozenset({Known.CONFLICT, Known.REJECTED, Known.GONE})
"""Where a difference may stay: with a person, or with a deleted side."""
