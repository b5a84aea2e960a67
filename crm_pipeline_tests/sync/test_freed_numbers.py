"""A number that no record shows any more is for the record that was set aside while another had it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from crm_pipeline.connectors.base import WriteResult, WriteStatus
from crm_pipeline_tests.fakes import Crash
from crm_pipeline_tests.sync.world import World

ONE, TWO, THREE = (f"628110000000{number}@c.us" for number in (1, 2, 3))
ODD = "+62 811 0000 0001"


def waiting(world: World) -> str:
    """Sinta has a number, and Budi's record claims it; the key of hers."""
    key = world.crm.put(phone=ONE, name="Sinta")
    world.sync()
    world.crm.put(phone=ONE, name="Budi")
    world.sync()
    assert len(world.rows("rejects")) == 1
    return key


def waiting_for_another_spelling(world: World) -> str:
    """As ``waiting``, where another program stored Sinta's number as people write it."""
    world.crm.unique = False
    world.sql("INSERT INTO contacts (id, nama) VALUES (:id, 'Sinta')", id=ODD)
    world.sync()
    world.sync()
    (key,) = world.crm.records
    world.crm.put(phone=ONE, name="Budi")
    world.sync()
    assert len(world.rows("rejects")) == 1
    return key


def rekey(world: World, new: str) -> None:
    """Another program gives Sinta's contact another number."""
    world.sql("UPDATE contacts SET id = :new WHERE nama = 'Sinta'", new=new)


def pass_days(world: World) -> None:
    """Whatever goes on by itself does."""
    for _ in range(4):
        world.crm.clock.pass_by(hours=12)
        world.crm.own_clock.pass_by(hours=12)
        world.sync()


def names(world: World) -> dict[str, str]:
    """Who has which number."""
    return {each: world.contact(each)["nama"] for each in world.ids()}


def test_on_one_page(world: World) -> None:
    """The record that claims the number comes before the one that gives it up."""
    key = world.crm.put(phone=ONE, name="Sinta")
    world.sync()
    world.crm.put(phone=ONE, name="Budi")
    world.crm.put(key, phone=TWO)
    world.sync()
    assert (names(world), world.rows("rejects")) == ({ONE: "Budi", TWO: "Sinta"}, [])


def test_changed_in_the_crm(world: World) -> None:
    """By the very sync that brings the change."""
    world.crm.put(waiting(world), phone=TWO)
    world.sync()
    assert (names(world), world.rows("rejects")) == ({ONE: "Budi", TWO: "Sinta"}, [])


def test_told_by_a_webhook(world: World) -> None:
    """By the next sync."""
    key = waiting(world)
    world.crm.clock.pass_by(minutes=1)
    assert world.receive({"id": key, "phone": TWO}).action == "updated"
    world.apply()
    world.crm.put(key, phone=TWO)
    world.sync()
    assert (names(world), world.rows("rejects")) == ({ONE: "Budi", TWO: "Sinta"}, [])


@pytest.mark.parametrize("applied", [True, False])
def test_where_only_webhooks_tell(world: World, *, applied: bool) -> None:
    """The one that claims the number was refused: it is taken when the number is given up, also together."""
    key = world.crm.put(phone=ONE, name="Sinta")
    other = world.crm.put(phone=THREE, name="Budi")
    world.sync()
    world.crm.clock.pass_by(minutes=1)
    if applied:
        assert world.receive({"id": other, "phone": ONE}).action == "rejected"
        world.apply()
    assert world.receive({"id": key, "phone": TWO}).action == "updated"
    if not applied:
        assert world.receive({"id": other, "phone": ONE}).action == "rejected"
    world.apply()
    assert (names(world), world.rows("rejects")) == ({ONE: "Budi", TWO: "Sinta"}, [])
    assert {row["outcome"] for row in world.rows("webhook_events")} == {"updated"}


def _here(world: World, _key: str) -> None:
    rekey(world, TWO)


def _both_alike(world: World, key: str) -> None:
    rekey(world, TWO)
    world.crm.put(key, phone=TWO)


def _here_and_the_answer_is_lost(world: World, _key: str) -> None:
    def fail(where: str) -> None:
        if where == "after write":
            raise Crash

    rekey(world, TWO)
    world.crm.fault = fail
    with pytest.raises(Crash):
        world.sync()
    world.crm.fault = lambda _: None
    world.sql("DELETE FROM leases")


@pytest.mark.parametrize("change", [_here, _both_alike, _here_and_the_answer_is_lost])
def test_changed_here(world: World, change: Callable[[World, str], None]) -> None:
    """However the CRM comes to know it."""
    change(world, waiting(world))
    pass_days(world)
    assert (names(world), world.rows("rejects")) == ({ONE: "Budi", TWO: "Sinta"}, [])


def test_changed_on_both_sides_differently(world: World) -> None:
    """Whichever wins, the old one is free."""
    key = waiting(world)
    rekey(world, TWO)
    world.crm.put(key, phone=THREE)
    pass_days(world)
    assert world.contact(ONE)["nama"] == "Budi"
    assert (len(world.ids()), world.rows("rejects")) == (2, [])


@pytest.mark.parametrize("refused", [True, False])
def test_changed_here_and_deleted_there(world: World, *, refused: bool) -> None:
    """The CRM never came to know the new one: what waits meets the contact that its record has left."""
    world.crm.reads_by_modified = False
    key = waiting(world)
    rekey(world, TWO)
    if refused:
        world.crm.refuse[key] = WriteResult(WriteStatus.REFUSED, key, reason="the number is fixed")
        world.sync()
    world.crm.delete(key)
    pass_days(world)
    assert (world.ids(), world.rows("rejects")) == ({TWO}, [])


@pytest.mark.parametrize("here", [True, False])
def test_of_a_contact_in_another_spelling(world: World, *, here: bool) -> None:
    """Another program stored the number as people write it."""
    key = waiting_for_another_spelling(world)
    if here:
        rekey(world, TWO)
    else:
        world.crm.put(key, phone=TWO)
    pass_days(world)
    assert (names(world), world.rows("rejects")) == ({ONE: "Budi", TWO: "Sinta"}, [])


def test_the_rival_of_another_spelling_is_asked_for(world: World) -> None:
    """It is gone, though no listing tells it: who waits behind it does so no longer."""
    key = waiting_for_another_spelling(world)
    world.crm.delete(key)
    world.sync()
    assert world.rows("rejects") == []
    assert world.contact(ODD)["nama"] == "Budi"


def test_wanted_by_a_linked_record(world: World) -> None:
    """Sinta's record showed Budi's number, and Budi has a new one by now."""
    first = world.crm.put(phone=ONE, name="Sinta")
    second = world.crm.put(phone=TWO, name="Budi")
    world.sync()
    world.crm.put(first, phone=TWO)
    world.sync()
    assert len(world.rows("rejects")) == 1
    world.crm.put(second, phone=THREE)
    world.sync()
    assert (names(world), world.rows("rejects")) == ({TWO: "Sinta", THREE: "Budi"}, [])


@pytest.mark.parametrize("first", [0, 1])
def test_numbers_that_pass_on_along_a_row(world: World, first: int) -> None:
    """Each record has the number that its neighbour had: nobody is mixed up, whichever is read first."""
    people = {f"62811{number:08d}@c.us": f"Contact {number}" for number in range(1, 13)}
    keys = [world.crm.put(phone=phone, name=name) for phone, name in people.items()]
    world.sync()
    moved = {key: f"62811{number + 1:08d}@c.us" for number, key in enumerate(keys, 1)}
    for key in keys if first else reversed(keys):
        world.crm.own_clock.pass_by(seconds=1)
        world.crm.put(key, phone=moved[key])
    world.sync()
    assert names(world) == {world.crm.records[key]["phone"]: world.crm.records[key]["name"] for key in keys}
    assert world.rows("rejects") == []


def test_two_who_swap_wait_for_a_person_and_cost_nothing(world: World) -> None:
    """Neither can be first."""
    first = world.crm.put(phone=ONE, name="Sinta")
    second = world.crm.put(phone=TWO, name="Budi")
    world.sync()
    world.crm.put(first, phone=TWO)
    world.crm.put(second, phone=ONE)
    world.sync()
    assert names(world) == {ONE: "Sinta", TWO: "Budi"}
    before = world.picture()
    world.sync()
    assert world.picture() == before
    assert [row["attempts"] for row in world.rows("rejects")] == [1, 1]


def test_of_a_contact_that_was_deleted_here(world: World) -> None:
    """Another contact's record has its number now; what was deleted here stays deleted."""
    first = world.crm.put(phone=ONE, name="Sinta")
    second = world.crm.put(phone=TWO, name="Budi")
    world.sync()
    world.sql("DELETE FROM contacts WHERE id = :id", id=ONE)
    world.crm.put(first, phone=THREE)
    world.crm.put(second, phone=ONE)
    pass_days(world)
    assert (names(world), world.rows("rejects")) == ({ONE: "Budi"}, [])
    world.crm.put(first, name="Sinta B")
    pass_days(world)
    assert (names(world), world.rows("rejects")) == ({ONE: "Budi"}, [])


def test_another_program_gives_a_contact_the_number_of_one_it_deleted(world: World) -> None:
    """Its statement is taken, and the CRM hears of it."""
    world.crm.unique = False
    world.crm.put(phone=ONE, name="Sinta")
    second = world.crm.put(phone=TWO, name="Budi")
    world.sync()
    world.sql("DELETE FROM contacts WHERE id = :id", id=ONE)
    world.sql("UPDATE contacts SET id = :new WHERE id = :old", old=TWO, new=ONE)
    pass_days(world)
    assert names(world) == {ONE: "Budi"}
    assert world.crm.records[second]["phone"] == ONE
