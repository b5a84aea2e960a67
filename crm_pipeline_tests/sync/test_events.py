"""Webhooks: durable when answered, applied once in effect, in order, and never against better knowledge."""

from __future__ import annotations

import random
import string
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from crm_pipeline.connection import Connection
from crm_pipeline.connectors.base import (
    AccessRefusedError,
    ConnectorError,
    CrmRefusedError,
    CrmUnavailableError,
    Record,
)
from crm_pipeline.jsonio import LONGEST_KEY
from crm_pipeline.store.engine import open_database
from crm_pipeline.sync import events
from crm_pipeline.sync.context import lease_held
from crm_pipeline.sync.errors import TooManyDeletesError
from crm_pipeline.sync.events import MOST_ATTEMPTS
from crm_pipeline.sync.reception import Receipt
from crm_pipeline_tests.fakes import unavailable
from crm_pipeline_tests.sync.world import World

ONE = "6281100000001@c.us"
GUIDE: dict[str, Any] = {"phone": ONE, "name": "Sinta", "ticket_price": 150000, "status": "deal"}


def test_an_event_makes_a_contact_that_is_not_sent_back_nor_doubled_by_the_next_pull(world: World) -> None:
    """The guide's webhook names no record id: the next pull finds the record and links it."""
    key = world.crm.put(**GUIDE)
    receipt = world.receive(GUIDE)
    assert (receipt.action, receipt.status, receipt.user_id) == ("created", "landed", ONE)
    assert world.apply().counts.created == 1
    world.sync()
    world.sync()
    assert world.ids() == {ONE}
    assert [row["external_id"] for row in world.rows("links")] == [key]
    assert (world.crm.writes, len(world.crm.records)) == ([], 1)


def test_the_action_is_the_true_effect(world: World) -> None:
    """Created, updated, unchanged: as applying it will turn out."""
    assert world.receive(GUIDE).action == "created"
    world.apply()
    assert world.receive({**GUIDE, "name": "Sinta B"}).action == "updated"
    world.apply()
    assert world.receive({"phone": ONE, "name": "Sinta B"}).action == "unchanged"


def test_each_of_several_has_its_own_effect(world: World) -> None:
    """One field changes with each of them, landed together and applied together."""
    prices = [{"phone": ONE, "ticket_price": price} for price in (10, 11, 12, 12, 10)]
    receipts = world.receive_all(prices)
    assert [receipt.action for receipt in receipts] == ["created", *["updated"] * 4]
    assert [receipt.duplicate for receipt in receipts] == [False, False, False, True, False]
    counts = world.apply().counts
    assert (counts.created, counts.updated, counts.unchanged) == (1, 3, 0)
    assert world.contact(ONE)["ticket_price"] == 10


def test_the_same_event_id_lands_once_and_answers_the_same(world: World) -> None:
    """A redelivery changes nothing, before and after it was applied; another body under the id is refused."""
    first = world.receive(GUIDE, "event-1")
    again = world.receive(GUIDE, "event-1")
    assert (again.event_id, again.action, again.duplicate) == (first.event_id, "created", True)
    world.apply()
    applied = world.receive(GUIDE, "event-1")
    assert (applied.action, applied.status) == ("created", "applied")
    assert world.receive({**GUIDE, "name": "Other"}, "event-1").action == "conflict"
    assert len(world.rows("webhook_events")) == 1


def test_without_an_id_only_an_immediate_repeat_is_folded(world: World) -> None:
    """A, A is one event; A, B, A is three: the last A is news again."""
    assert not world.receive(GUIDE).duplicate
    assert world.receive(GUIDE).duplicate
    world.receive({**GUIDE, "name": "B"})
    assert not world.receive(GUIDE).duplicate
    world.apply()
    assert world.contact(ONE)["nama"] == "Sinta"
    assert len(world.rows("webhook_events")) == 3


def test_a_repeat_after_it_was_applied_is_folded_while_nothing_has_changed(world: World) -> None:
    """A sender that was not answered in time sends it again: it hears what became of the first."""
    first = world.receive(GUIDE)
    world.apply()
    again = world.receive(GUIDE)
    assert (again.event_id, again.duplicate) == (first.event_id, True)
    assert (again.action, again.status) == ("created", "applied")


def test_a_rejected_event_that_comes_again_is_folded(world: World) -> None:
    """It would be rejected again: it waits for a person once."""
    world.crm.put(**GUIDE)
    world.sync()
    first, again = (world.receive({**GUIDE, "id": "another"}) for _ in range(2))
    assert (first.action, again.action, again.duplicate) == ("rejected", "rejected", True)
    assert again.reasons == first.reasons
    assert len(world.rows("rejects")) == 1


def edited_here(world: World, key: str) -> None:
    """Another program changes the contact, and the CRM is told."""
    world.sql("UPDATE contacts SET notes = 'Y'")
    world.sync()
    assert world.crm.records[key]["notes"] == "Y"


def edited_there(world: World, key: str) -> None:
    """A pull brings what no webhook told."""
    world.crm.put(key, notes="Y")
    world.sync()


@pytest.mark.parametrize("change", [edited_here, edited_there])
@pytest.mark.parametrize("names_record", [True, False])
@pytest.mark.parametrize("applied", [True, False])
def test_a_change_back_is_news(
    world: World, change: Callable[[World, str], None], *, names_record: bool, applied: bool
) -> None:
    """The same body as that of the newest event: it was overtaken, and is so again."""
    key = world.crm.put(**GUIDE)
    world.sync()
    hook = {"phone": ONE, "notes": "X"} | ({"id": key} if names_record else {})
    world.crm.put(key, notes="X")
    world.receive(hook)
    if applied:
        world.apply()
    change(world, key)
    assert world.contact(ONE)["notes"] == "Y"
    world.crm.put(key, notes="X")
    again = world.receive(hook)
    assert (again.duplicate, again.action) == (False, "updated")
    world.apply()
    assert world.contact(ONE)["notes"] == "X"
    world.sync()
    assert (world.contact(ONE)["notes"], world.crm.records[key]["notes"]) == ("X", "X")


def test_the_same_again_about_a_contact_that_was_deleted_since_is_news(world: World) -> None:
    """A delete here stays here, and that is the answer; the same once more is folded into it."""
    world.receive(GUIDE)
    world.apply()
    world.sql("DELETE FROM contacts")
    again = world.receive(GUIDE)
    assert (again.duplicate, again.action) == (False, "skipped")
    world.apply()
    assert world.receive(GUIDE).event_id == again.event_id


def test_an_event_that_names_an_earlier_number_is_about_the_contact_it_changes(world: World) -> None:
    """Its answer names the contact as it is reached now, and a repeat of it is one."""
    key = world.crm.put(**GUIDE)
    world.sync()
    now = "6281100000002@c.us"
    world.crm.put(key, phone=now)
    world.sync()
    receipts = [world.receive({"phone": ONE, "notes": "X"}) for _ in range(2)]
    assert [(each.user_id, each.duplicate) for each in receipts] == [(now, False), (now, True)]
    world.apply()
    assert world.contact(now)["notes"] == "X"
    assert [row["contact_id"] for row in world.rows("webhook_events")] == [now]


def test_an_event_that_changes_a_number_is_about_the_contact_as_it_will_be_reached(world: World) -> None:
    """A repeat is one, before it is applied and after."""
    key = world.crm.put(**GUIDE)
    world.sync()
    now = "6281100000002@c.us"
    hook = {"id": key, "phone": now}
    receipts = [world.receive(hook), world.receive(hook)]
    world.apply()
    receipts.append(world.receive(hook))
    assert [each.duplicate for each in receipts] == [False, True, True]
    assert {each.user_id for each in receipts} == world.ids() == {now}


def test_events_folded_or_not_have_each_a_moment_of_their_own(world: World) -> None:
    """One that is folded, as it changes nothing, makes no late news of the next."""
    world.receive(GUIDE)
    world.apply()
    receipts = world.receive_all([GUIDE, {**GUIDE, "name": "B"}])
    assert [(each.duplicate, each.action) for each in receipts] == [(True, "created"), (False, "updated")]
    world.apply()
    assert world.contact(ONE)["nama"] == "B"


@pytest.mark.parametrize("name", ["event-1", None])
def test_an_event_that_comes_to_several_processes_at_once_lands_once(
    database_url: str, name: str | None
) -> None:
    """Each has an engine of its own: one takes it, and the others find the repeat that it is."""
    processes = 4
    with ThreadPoolExecutor(processes) as pool, ExitStack() as closing:
        worlds = [World(open_database(database_url)) for _ in range(processes)]
        for each in worlds:
            closing.callback(each.engine.dispose)
        for number in range(10):
            together, event_id = threading.Barrier(processes), name and f"{name}-{number}"

            def send(
                each: World,
                together: threading.Barrier = together,
                event_id: str | None = event_id,
                number: int = number,
            ) -> Receipt:
                together.wait()
                return each.receive({**GUIDE, "ticket_price": number}, event_id)

            receipts = list(pool.map(send, worlds))
            assert sorted(receipt.duplicate for receipt in receipts) == [False, True, True, True]
            assert len({receipt.event_id for receipt in receipts}) == 1
        assert len(worlds[0].rows("webhook_events")) == 10


def test_a_partial_event_leaves_the_rest_alone(world: World) -> None:
    """Absent keeps, null clears."""
    world.receive({**GUIDE, "notes": "text"})
    world.apply()
    world.receive({"phone": "+62 811-0000-0001", "notes": None, "ticket_price": 0})
    world.apply()
    contact = world.contact(ONE)
    assert (contact["nama"], contact["notes"], contact["ticket_price"]) == ("Sinta", None, 0)
    assert contact["deal_status"] == "deal"


def test_what_cannot_become_a_contact_is_kept_with_its_reasons(world: World) -> None:
    """Rejected at once, listed, and applied when its mapping allows it."""
    receipt = world.receive({"phone": ONE, "status": "mystery"})
    assert (receipt.action, receipt.status, list(receipt.reasons)) == ("rejected", "rejected", ["dealStatus"])
    (reject,) = world.rows("rejects")
    assert (reject["source"], reject["key"]) == ("webhook", receipt.event_id)
    assert world.apply().counts.seen == 0


def test_an_event_whose_records_id_cannot_be_kept_is_rejected_and_stops_nothing(world: World) -> None:
    """An id of thousands of characters is longer than what an index holds."""
    letters = random.Random(1).choices(string.ascii_letters, k=3000)  # PostgreSQL would pack equal ones
    receipt = world.receive({**GUIDE, "id": "".join(letters)})
    assert (receipt.action, receipt.status) == ("rejected", "rejected")
    assert receipt.reasons == {"id": f"is longer than {LONGEST_KEY} characters"}
    world.receive({**GUIDE, "phone": "6281100000002@c.us", "id": "x" * LONGEST_KEY})
    assert world.apply().counts.created == 1
    assert [row["outcome"] for row in world.rows("webhook_events")] == ["rejected", "created"]


@pytest.mark.parametrize("at", [{"webhook": {"id": "object.id"}}, {"records": {"id": ["uuid", "object.id"]}}])
def test_the_id_of_an_events_record_may_lie_inside_it(world: World, at: dict[str, Any]) -> None:
    """It is a path, as for records that are read."""
    world.connection = Connection.model_validate(at)
    world.receive({**GUIDE, "object": {"id": 7}})
    world.apply()
    assert [row["external_id"] for row in world.rows("links")] == ["7"]


def test_an_event_older_than_the_record_read_since_changes_nothing(world: World) -> None:
    """It came before the pull, and is applied after it: the pull knew better."""
    key = world.crm.put(**GUIDE)
    world.sync()
    world.receive({"phone": ONE, "name": "Old news"})
    world.crm.put(key, name="Newest")
    world.sync()
    assert world.contact(ONE)["nama"] == "Newest"


def test_an_event_older_by_its_own_time_is_told_to_change_nothing(world: World) -> None:
    """As applying it turns out: the record that was read says that it is newer."""
    key = world.crm.put(**GUIDE)
    read = dict(world.crm.records[key])
    world.sync()
    before = (world.crm.own_clock() - timedelta(hours=1)).isoformat()
    receipt = world.receive({**read, "name": "Old news", "updated_at": before})
    assert receipt.action == "unchanged"
    assert world.apply().counts.unchanged == 1
    assert world.contact(ONE)["nama"] == "Sinta"


def test_an_event_that_was_wrong_is_put_right_by_the_next_full_reading(world: World) -> None:
    """The record did not change, but its reading counts again after an event said otherwise."""
    world.crm.reads_by_modified = False
    world.crm.put(**GUIDE)
    world.sync()
    world.receive({"phone": ONE, "name": "Never so in the CRM"})
    world.apply()
    assert world.contact(ONE)["nama"] == "Never so in the CRM"
    world.sync()
    assert world.contact(ONE)["nama"] == "Sinta"


def test_an_event_from_before_our_own_write_does_not_undo_it(world: World) -> None:
    """The CRM sent it before our push arrived: the field we wrote is left out of it."""
    world.crm.put(**GUIDE)
    world.sync()
    world.sql("UPDATE contacts SET nama = 'Edited here'")

    def between(where: str) -> None:
        if where == "before write":
            world.crm.fault = lambda _where: None
            world.receive({"phone": ONE, "name": "Sinta", "notes": "news beside it"})

    world.crm.fault = between
    world.sync()
    world.apply()
    contact = world.contact(ONE)
    assert (contact["nama"], contact["notes"]) == ("Edited here", "news beside it")


def test_events_of_one_contact_apply_in_order(world: World) -> None:
    """The last word stays the last."""
    for number in range(20):
        world.receive({"phone": ONE, "name": f"Name {number}"})
    world.apply()
    assert world.contact(ONE)["nama"] == "Name 19"


def test_a_hint_is_read_back_before_it_is_applied(world: World) -> None:
    """What the event says does not count; what the CRM says does; one call for all of them."""
    world.connection = Connection.model_validate({"webhook": {"read_back": True}})
    keys = [world.crm.put(phone=f"62811000000{number:02d}@c.us", name=f"N {number}") for number in range(5)]
    for key in keys:
        world.receive({"id": key, "phone": ONE, "name": "hearsay"})
    calls = world.crm.calls
    world.apply()
    assert {row["nama"] for row in world.rows("contacts")} == {f"N {number}" for number in range(5)}
    assert world.crm.calls == calls + 1
    assert {row["outcome"] for row in world.rows("webhook_events")} == {"created"}


def test_a_hint_about_a_record_that_is_gone_says_that_it_is_gone(world: World) -> None:
    """A delete is told by id alone: what cannot be read any more has been deleted."""
    world.connection = Connection.model_validate({"webhook": {"read_back": True}})
    key = world.crm.put(**GUIDE)
    world.sync()
    world.crm.delete(key)
    world.receive({"id": key})
    world.apply()
    assert world.contact(ONE)["archived_at"] is not None


HINTS = Connection.model_validate({"webhook": {"read_back": True}})


def hints(world: World, number: int) -> list[str]:
    """Records of which nothing but the id is told."""
    world.connection = HINTS
    keys = [world.crm.put(phone=f"6281100000{at:03d}@c.us", name=f"N {at}") for at in range(number)]
    for key in keys:
        world.receive({"id": key})
    return keys


def outcomes(world: World) -> dict[str, str | None]:
    """What became of events, by the record they name."""
    return {row["external_id"]: row["outcome"] for row in world.rows("webhook_events")}


def cannot_read(world: World, *poison: str, error: type[ConnectorError] = CrmUnavailableError) -> None:
    """The CRM answers, but not where it is asked for one of these."""
    usual = world.crm.read

    def read(external_ids: Sequence[str]) -> list[Record]:
        if not {*poison}.isdisjoint(external_ids):
            raise error("no answer")
        return usual(external_ids)

    world.crm.read = read  # type: ignore[method-assign] # a CRM with a fault of its own


@pytest.mark.parametrize("number", [1, 30])
def test_hints_wait_while_the_crm_is_away_and_cost_no_attempt(world: World, number: int) -> None:
    """However long: the run says so, asks no more than it takes to tell, and afterwards one call does."""
    hints(world, number)
    world.crm.fault = asked = Faulty()
    for _ in range(10):  # a day
        asked.times = 0
        with pytest.raises(CrmUnavailableError):
            world.apply()
        assert asked.times <= 3
        assert world.apply().counts.seen == 0  # nothing is due: it is not hammered
        world.crm.clock.pass_by(hours=2)
    assert set(outcomes(world).values()) == {None}
    world.crm.fault = lambda _where: None
    calls = world.crm.calls
    report = world.apply()
    assert (report.counts.created, report.counts.rejected) == (number, 0)
    assert (world.crm.calls, report.api_calls) == (calls + 1, 1)


class Faulty:
    """A CRM that is away, and counts how often it was asked."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, where: str) -> None:
        """Be asked."""
        self.times += 1
        unavailable(where)


def test_what_names_no_record_waits_for_no_crm(world: World) -> None:
    """It says all there is to say by itself, though new hints come with it, and before it."""
    hints(world, 3)
    world.apply()  # these are linked, and tell that the CRM is away
    world.crm.fault = unavailable
    for number in range(5):
        world.receive({"id": world.crm.put(phone=f"628110000050{number}@c.us")})
        world.receive({"phone": f"628110000090{number}@c.us", "name": "Fine"})
        with pytest.raises(CrmUnavailableError):
            world.apply()
        assert f"628110000090{number}@c.us" in world.ids()
        world.crm.clock.pass_by(minutes=1)
    assert len(world.ids()) == 8
    applied = [row for row in world.rows("webhook_events") if row["outcome"] is not None]
    assert {row["attempts"] for row in applied} == {1}  # none had to be taken alone


def test_two_events_about_one_record_that_cannot_be_read(world: World) -> None:
    """None of them tells of the CRM: it is asked for others, or its error tells."""
    (poison,) = hints(world, 1)
    world.receive({"id": poison, "again": True})
    cannot_read(world, poison, error=CrmRefusedError)
    world.receive({"phone": "6281100000900@c.us", "name": "Fine"})
    for _ in range(12):
        with suppress(ConnectorError):
            world.apply()
        world.crm.clock.pass_by(hours=1)
    assert world.ids() == {"6281100000900@c.us"}
    assert outcomes(world)[poison] == "rejected"


@pytest.mark.parametrize("error", [CrmRefusedError, AccessRefusedError])
@pytest.mark.parametrize("number", [1, 3])
def test_records_that_cannot_be_read_hold_up_no_other(
    world: World, number: int, error: type[ConnectorError]
) -> None:
    """Though they came first. They are tried again, and set aside where others could be read meanwhile."""
    keys = hints(world, 8)
    poison, others = keys[:number], keys[number:]
    cannot_read(world, *poison, error=error)
    for _ in range(60):  # which one is asked for, to tell whose fault it is, is drawn by lot
        with suppress(ConnectorError):
            world.apply()
        if {outcomes(world)[key] for key in others} == {"created"}:
            break
        world.crm.clock.pass_by(minutes=20)
    else:
        pytest.fail("the others wait")
    for at in range(8, 16):
        world.receive({"id": world.crm.put(phone=f"6281100000{at:03d}@c.us")})
        with suppress(ConnectorError):
            world.apply()
        world.crm.clock.pass_by(minutes=20)
    assert [outcomes(world)[key] for key in poison] == ["rejected"] * number


def test_an_event_that_kills_its_worker_holds_up_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first that dies takes its batch along, the next goes one by one; then all others are through."""
    for at in range(9):
        world.receive({"phone": f"6281100000{at:03d}@c.us", "name": "killer" if at == 4 else "Fine"})
    usual = events.hear

    def deadly(settler: Any, values: Any, *rest: Any) -> Any:
        if values["nama"] == "killer":
            raise SystemExit
        return usual(settler, values, *rest)

    monkeypatch.setattr(events, "hear", deadly)
    for _ in range(2):
        with pytest.raises(SystemExit):
            world.apply()
    assert len(world.ids()) == 4
    world.apply()
    assert len(world.ids()) == 8
    for _ in range(3):
        world.crm.clock.pass_by(hours=1)
        with pytest.raises(SystemExit):
            world.apply()
    world.crm.clock.pass_by(hours=1)
    assert world.apply().counts.rejected == 1


def test_an_event_that_meets_another_programs_insert_has_a_second_try(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the database refuses once may be a contact that somebody stored a moment ago."""
    world.receive(GUIDE)
    usual, refusals = events.hear, iter([IntegrityError("INSERT", None, ValueError())])

    def refused_once(*arguments: Any) -> Any:
        for refusal in refusals:
            raise refusal
        return usual(*arguments)

    monkeypatch.setattr(events, "hear", refused_once)
    assert world.apply().counts.rejected == 0
    world.crm.clock.pass_by(minutes=5)
    assert world.apply().counts.created == 1


def test_hints_of_too_many_deletes_wait_for_leave(world: World) -> None:
    """They are not done, the run says why, and all others are; with leave they are done, too."""
    keys = hints(world, 30)
    world.apply()
    for key in keys[1:]:
        world.crm.delete(key)
        world.receive({"id": key})
    new = world.crm.put(phone="6281100000099@c.us")
    world.receive({"id": new})
    with pytest.raises(TooManyDeletesError):
        world.apply()
    assert "6281100000099@c.us" in world.ids()
    waiting = [row for row in world.rows("webhook_events") if row["outcome"] is None]
    assert len(waiting) == 29
    context = world.context()
    with lease_held(context):
        events.apply_all(context, allow_deletes=True)
    world.crm.clock.pass_by(hours=1)
    world.apply()
    assert None not in outcomes(world).values()
    assert sum(row["archived_at"] is not None for row in world.rows("contacts")) == 29


def test_a_number_that_is_changed_back_is_no_repeat(world: World) -> None:
    """What came in between about the record, under another number, makes it news; waiting or applied."""
    for key, applied in (("r1", False), ("r2", True)):
        one, two = f"62811000010{key[1]}@c.us", f"62811000020{key[1]}@c.us"
        world.receive({"id": key, "phone": one})
        if applied:
            world.apply()
        world.receive({"id": key, "phone": two})
        assert not world.receive({"id": key, "phone": one}).duplicate
        world.apply()
        assert one in world.ids()
        assert two not in world.ids()


def test_a_hint_is_about_the_contact_that_its_record_is(world: World) -> None:
    """Whose it is, is known once it has been read back."""
    hints(world, 2)
    report = world.apply()
    told = {row["contact_id"] for row in world.rows("webhook_events")}
    assert told == world.ids() == set(report.contact_ids)


def test_an_event_that_kills_its_worker_is_set_aside_in_the_end(world: World) -> None:
    """Five attempts that end without a result are enough; the others go through."""
    world.receive(GUIDE)
    world.sql("UPDATE webhook_events SET attempts = :most", most=MOST_ATTEMPTS)
    world.receive({"phone": "6281100000002@c.us", "name": "Fine"})
    counts = world.apply().counts
    assert (counts.created, counts.rejected) == (1, 1)


def test_events_and_pushes_leave_both_sides_agreed(world: World) -> None:
    """A contact that came by webhook and is edited here reaches the CRM's own record."""
    key = world.crm.put(**GUIDE)
    world.receive(GUIDE)
    world.apply()
    world.sql("UPDATE contacts SET notes = 'from here'")
    world.sync()
    world.sync()
    assert world.crm.records[key]["notes"] == "from here"
    assert len(world.crm.records) == 1


@pytest.mark.parametrize("odd", ["2026-01-31T09:00.00Z", "20260131T090000.1Z", "yesterday"])
def test_an_odd_modified_time_stops_no_event(world: World, odd: str) -> None:
    """Neither its own nor the one after it."""
    world.receive({**GUIDE, "updated_at": odd})
    world.receive({**GUIDE, "phone": "6281100000099@c.us"})
    assert world.apply().counts.created == 2


@pytest.mark.parametrize("answers", [True, False])
def test_our_own_write_coming_back_as_an_event_changes_nothing(world: World, answers: bool) -> None:  # noqa: FBT001
    """An echo is no change, and is not pushed again."""
    world.crm.answers_with_record = answers
    key = world.crm.put(**GUIDE)
    world.sync()
    world.sql("UPDATE contacts SET nama = 'Edited here'")
    world.sync()
    world.receive({name: value for name, value in world.crm.records[key].items() if name != "updated_at"})
    assert world.apply().counts.unchanged == 1
    writes = len(world.crm.writes)
    world.sync()
    assert len(world.crm.writes) == writes
