"""One person, however programs spell the number: one contact that syncs, one record in the CRM."""

from __future__ import annotations

import pytest

from crm_pipeline.store.tables import contacts
from crm_pipeline.sync.spellings import SECOND_SPELLING
from crm_pipeline_tests.sync.world import World

ONE = "6281100000001@c.us"
ODD = "+62 811-0000-0001"
OTHER_ODD = "081100000001"


def insert(world: World, *ids: str) -> None:
    """Another program writes contacts."""
    for each in ids:
        world.sql("INSERT INTO contacts (id, nama) VALUES (:id, :id)", id=each)


def refused(world: World) -> dict[str, dict[str, str]]:
    """Contacts that could not be pushed, and why."""
    return {row["key"]: row["reasons"] for row in world.rows("rejects") if row["source"] == "push"}


@pytest.mark.parametrize(
    "first,second,kept",
    [
        ((ONE,), (ODD,), ONE),
        ((ODD,), (ONE,), ODD),
        ((ODD,), (OTHER_ODD,), ODD),
        ((ODD, ONE), (), ONE),
        ((ODD, OTHER_ODD, ONE), (), ONE),
        ((OTHER_ODD, ODD), (), ODD),
    ],
)
def test_a_second_spelling_makes_no_second_record(
    world: World, first: tuple[str, ...], second: tuple[str, ...], kept: str
) -> None:
    """The linked contact goes on, or else the one in the canonical spelling; the other says why it waits."""
    insert(world, *first)
    world.sync()
    insert(world, *second)
    world.sync()
    assert [record["phone"] for record in world.crm.records.values()] == [ONE]
    assert {row["contact_id"] for row in world.rows("links")} == {kept}
    assert refused(world) == {each: {"id": SECOND_SPELLING} for each in {*first, *second} - {kept}}


def test_when_the_first_is_gone_the_second_takes_its_place(world: World) -> None:
    """What was in the way is deleted and the other written again: nothing waits any more."""
    insert(world, ODD, OTHER_ODD)
    world.sync(push=False)
    world.sql("DELETE FROM contacts WHERE id = :id", id=ODD)
    world.sync()
    assert ({row["contact_id"] for row in world.rows("links")}, refused(world)) == ({OTHER_ODD}, {})


def test_a_pushed_contact_in_an_odd_spelling_is_met_by_its_canonical_id(world: World) -> None:
    """It was pushed before anything was ever pulled: a webhook that names only the number finds it."""
    insert(world, ODD)
    world.sync()
    world.crm.clock.pass_by(minutes=1)
    receipt = world.receive({"phone": ONE, "notes": "by webhook"})
    world.apply()
    assert receipt.action == "updated"
    assert world.ids() == {ODD}
    assert world.contact(ODD)["notes"] == "by webhook"


def test_an_earlier_number_of_a_contact_is_free_for_another(world: World) -> None:
    """An alias is no second spelling: somebody else may have the number by now."""
    key = world.crm.put(phone=ONE, name="Sinta")
    world.sync()
    world.crm.put(key, phone="6281100000002@c.us")
    world.sync()
    insert(world, ONE)
    world.sync()
    assert sorted(record["phone"] for record in world.crm.records.values()) == [ONE, "6281100000002@c.us"]
    assert refused(world) == {}


def test_very_many_odd_spellings_are_noted_in_parts(world: World) -> None:
    """More than a query may hold parameters for at once; what is no number is left out."""
    with world.engine.begin() as tx:
        tx.execute(contacts.insert(), [{"id": f"62812{number:08d}"} for number in range(2_500)])
        tx.execute(contacts.insert(), [{"id": f"nobody {number}"} for number in range(5)])
    world.crm.put(phone="6281200002499", name="Sinta")
    world.sync(push=False)
    assert len(world.ids()) == 2_505
    assert world.contact("6281200002499")["nama"] == "Sinta"
