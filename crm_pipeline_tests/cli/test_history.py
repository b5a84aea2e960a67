"""`history`: a contact's changes, each with when, whose, why, from what to what, and where it came from."""

from __future__ import annotations

from typing import Any

import pytest

from crm_pipeline.simulators.generic import GenericCrm
from crm_pipeline_tests.cli.conftest import Cli, Sql

FIRST, SECOND, THIRD = (f"628110000000{number}@c.us" for number in (1, 2, 3))
SPELLINGS = (FIRST, "6281100000001", "+62 811-0000-0001", "081100000001", "62-811-00000001")


@pytest.fixture
def record_id(cli: Cli, crm: GenericCrm, sql: Sql) -> str:
    """A contact made in the CRM, then changed there, then here, then there again; its record's id."""
    record_id = str(crm.create(phone=FIRST, notes="at first")["id"])
    cli("sync")
    crm.edit(record_id, notes="from the CRM")
    cli("sync")
    sql("UPDATE contacts SET notes = '' WHERE id = :id", id=FIRST)
    cli("sync")
    crm.edit(record_id, venue_size=500)
    cli("sync")
    return record_id


def changes(cli: Cli, contact: str) -> list[dict[str, Any]]:
    """A contact's history."""
    answer = cli("history", contact, "--json")
    assert (answer.code, answer.err, list(answer.json)) == (0, "", ["changes"])
    found: list[dict[str, Any]] = answer.json["changes"]
    return found


@pytest.mark.usefixtures("record_id")
def test_every_change_is_told_the_newest_last(cli: Cli, sql: Sql) -> None:
    """Field, side, rule, old and new; the run that saw it, and the landed record it came with."""
    found = changes(cli, FIRST)
    told = [(each["field"], each["side"], each["old"], each["new"]) for each in found]
    assert told == [
        ("*", "external", None, None),
        ("notes", "external", "at first", "from the CRM"),
        ("notes", "internal", "from the CRM", ""),
        ("capacity", "external", None, 500),
    ]
    assert [each["at"] for each in found] == sorted(each["at"] for each in found)
    assert len({each["run_id"] for each in found}) == 4
    assert all(each["rule"] for each in found)
    landed = {
        row[0]
        for row in sql("SELECT id FROM external_records WHERE payload LIKE '%' || :id || '%'", id=FIRST)
    }
    assert [each["record_id"] in landed for each in found] == [True, True, False, True]
    assert found[2]["record_id"] is None


@pytest.mark.usefixtures("record_id")
def test_people_see_a_table(cli: Cli) -> None:
    """A line for each change; empty text can be told from no value."""
    answer = cli("history", FIRST)
    head, _, *lines = answer.out.splitlines()
    assert head.split() == ["at", "field", "side", "rule", "old", "new", "run", "record", "event"]
    assert len(lines) == 4
    assert '""' in lines[2]
    assert '""' not in lines[0] + lines[1] + lines[3]


@pytest.mark.usefixtures("record_id")
def test_any_spelling_of_the_id_will_do(cli: Cli) -> None:
    """As it was copied from a phone, a sheet or another program."""
    found = changes(cli, FIRST)
    assert {spelling: changes(cli, spelling) for spelling in SPELLINGS} == dict.fromkeys(SPELLINGS, found)


def test_earlier_numbers_of_the_contact_belong_to_it(
    cli: Cli, crm: GenericCrm, sql: Sql, record_id: str
) -> None:
    """After two changes of the phone every number, in any spelling, tells the one whole story."""
    before = changes(cli, FIRST)
    for phone in (SECOND, THIRD):
        crm.edit(record_id, phone=phone)
        cli("sync")
    assert sql("SELECT id FROM contacts WHERE id IN (:a, :b, :c)", a=FIRST, b=SECOND, c=THIRD) == [(THIRD,)]
    whole = changes(cli, THIRD)
    assert whole[: len(before)] == before
    assert [(each["old"], each["new"]) for each in whole if each["field"] == "id"] == [
        (FIRST, SECOND),
        (SECOND, THIRD),
    ]
    for number in (FIRST, SECOND, "0811-0000-0001"):
        assert changes(cli, number) == whole


@pytest.mark.usefixtures("record_id")
def test_a_deleted_contact_keeps_its_history(cli: Cli, sql: Sql) -> None:
    """Nobody can look at the contact any more; what happened to it can still be told."""
    before = changes(cli, FIRST)
    sql("DELETE FROM contacts WHERE id = :id", id=FIRST)
    for spelling in SPELLINGS:
        assert changes(cli, spelling) == before


def test_a_new_contact_under_an_earlier_number_is_another_one(
    cli: Cli, crm: GenericCrm, sql: Sql, record_id: str
) -> None:
    """Another program gives the old number to somebody else: the two are not mixed up."""
    crm.edit(record_id, phone=SECOND)
    cli("sync")
    crm.edit(record_id, notes="after the change of number")
    cli("sync")
    sql("INSERT INTO contacts (id, nama) VALUES (:id, 'New')", id=FIRST)
    cli("sync")
    sql("UPDATE contacts SET nama = 'Newer' WHERE id = :id", id=FIRST)
    cli("sync")
    one, other = changes(cli, SECOND), changes(cli, FIRST)
    assert one[-1]["new"] == "after the change of number"
    assert other[-1]["new"] == "Newer"
    assert one[-1] not in other


@pytest.mark.usefixtures("crm")
def test_a_contact_nothing_is_known_of(cli: Cli, sql: Sql) -> None:
    """One that is there but was never synced has an empty history; that is no failure."""
    sql("INSERT INTO contacts (id) VALUES (:id)", id=FIRST)
    assert changes(cli, "0811 00000001") == []
    assert cli("history", FIRST).out == "No change of this contact is known.\n"


@pytest.mark.usefixtures("crm", "sql")
@pytest.mark.parametrize("unknown", ["6281199999999", "nobody", "123-456@g.us", ""])
def test_an_unknown_contact_is_one_line(cli: Cli, unknown: str) -> None:
    """Exit code 1, and the line does not repeat the number."""
    answer = cli("history", unknown)
    assert (answer.code, answer.out, answer.err) == (1, "", "Failed: there is no such contact\n")
