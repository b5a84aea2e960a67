"""Another mapping: everything known is looked at again, both ways, without reading the CRM anew."""

from __future__ import annotations

from typing import Any

from crm_pipeline.connection import Connection
from crm_pipeline_tests.sync.world import World

ONE, TWO = "6281100000001@c.us", "6281100000002@c.us"


def connect(world: World, **parts: Any) -> None:
    """Change the connection file."""
    world.connection = Connection.model_validate(parts)


def test_a_wider_rule_lets_contacts_out_that_were_left_out(world: World) -> None:
    """No row changed, and yet the CRM hears of them."""
    connect(world, select={"outward": {"deal_status": ["deal"]}})
    world.sql("INSERT INTO contacts (id, deal_status) VALUES (:id, 'deal')", id=ONE)
    world.sql("INSERT INTO contacts (id, deal_status) VALUES (:id, 'lost')", id=TWO)
    world.sync()
    assert [record["phone"] for record in world.crm.records.values()] == [ONE]
    connect(world, select={"outward": {"deal_status": ["deal", "lost"]}})
    world.sync()
    assert [record["phone"] for record in world.crm.records.values()] == [ONE, TWO]


def test_a_new_field_meets_what_both_sides_hold_already(world: World) -> None:
    """What the CRM has is taken in; what only the contact has goes out; two values are a conflict."""
    connect(world, fields={"notes": {"direction": "in", "names": ["nothing"]}})
    for phone in (ONE, TWO):
        world.crm.put(phone=phone, memo="theirs")
    world.sync()
    world.sql("UPDATE contacts SET notes = 'ours' WHERE id = :id", id=ONE)
    world.sync()
    connect(world, fields={"notes": {"names": ["memo"], "policy": "external"}})
    world.sync()
    assert [world.contact(phone)["notes"] for phone in (ONE, TWO)] == ["theirs", "theirs"]
    assert {record["memo"] for record in world.crm.records.values()} == {"theirs"}
    (conflict,) = world.rows("conflicts")
    assert (conflict["contact_id"], conflict["internal"], conflict["winner"]) == (ONE, "ours", "external")


def test_a_field_that_may_go_out_now_goes_out(world: World) -> None:
    """Edited while it only came in: no conflict was meant, the CRM hears of the contact's value."""
    world.crm.put(phone=ONE)
    connect(world, fields={"notes": {"direction": "in"}})
    world.sync()
    world.sql("UPDATE contacts SET notes = 'ours'")
    world.sync()
    assert "notes" not in world.crm.records["r00001"]
    connect(world)
    world.sync()
    assert world.crm.records["r00001"]["notes"] == "ours"


def test_what_landed_before_our_write_does_not_undo_it(world: World) -> None:
    """The record as last read is older than what we wrote since: it is past, not news."""
    world.crm.answers_with_record = False
    key = world.crm.put(phone=ONE, name="Sinta")
    world.sync()
    world.sql("UPDATE contacts SET nama = 'Budi'")
    world.sync()
    world.crm.hidden.add(key)  # no later reading shows what became of it
    connect(world, fields={"notes": {"names": ["memo"]}})
    world.sync()
    assert world.contact(ONE)["nama"] == "Budi"
    assert world.crm.records[key]["name"] == "Budi"


def test_the_same_mapping_looks_at_nothing_again(world: World) -> None:
    """Only another mapping does."""
    world.crm.put(phone=ONE, name="Sinta")
    world.sync()
    connect(world, listing={"page_size": 50})
    assert [report.counts.seen for report in world.sync()] == [1, 0, 0]
