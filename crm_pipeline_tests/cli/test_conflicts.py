"""`conflicts`: what waits for a person is listed, shown and settled."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from crm_pipeline.simulators.generic import GenericCrm
from crm_pipeline_tests.cli.conftest import Cli, Sql

ONE, TWO = "6281100000001@c.us", "6281100000002@c.us"
HERE, THERE = "typed here", "typed there"


@pytest.fixture
def records(cli: Cli, crm: GenericCrm, sql: Sql) -> dict[str, str]:
    """Two contacts whose notes both sides changed under the manual policy: their records' ids."""
    Path("crm.yaml").write_text("merge: {policy: manual}\n")
    with Path(".env").open("a") as env:
        env.write("EXTERNAL_CRM_CONFIG=crm.yaml\n")
    ids = {phone: str(crm.create(phone=phone, notes="at first")["id"]) for phone in (ONE, TWO)}
    assert cli("sync").code == 0
    for phone, record_id in ids.items():
        sql("UPDATE contacts SET notes = :notes WHERE id = :id", notes=HERE, id=phone)
        crm.edit(record_id, notes=THERE)
    assert cli("sync").code == 0
    return ids


@pytest.mark.usefixtures("records")
def test_the_list_tells_which_fields_wait_but_no_value(cli: Cli) -> None:
    """Number, contact, field and time, for machines and for people; what the fields hold is not listed."""
    answer = cli("conflicts", "list", "--json")
    assert answer.json["total"] == 2
    assert [set(each) for each in answer.json["conflicts"]] == [
        {"id", "contact_id", "field", "opened_at", "winner", "settled_at"}
    ] * 2
    assert [(each["contact_id"], each["field"]) for each in answer.json["conflicts"]] == [
        (ONE, "notes"),
        (TWO, "notes"),
    ]
    table = cli("conflicts", "list")
    assert [line.split()[1:3] for line in table.out.splitlines() if "@c.us" in line] == [
        [ONE, "notes"],
        [TWO, "notes"],
    ]
    for value in (HERE, THERE):
        assert value not in answer.out + table.out


@pytest.mark.usefixtures("records")
def test_a_limit_says_that_there_are_more(cli: Cli) -> None:
    """Nobody takes a part for the whole."""
    answer = cli("conflicts", "list", "--limit", "1", "--json")
    assert ([each["contact_id"] for each in answer.json["conflicts"]], answer.json["total"]) == ([ONE], 2)
    assert answer.err == "1 of 2 shown; --limit shows more\n"


@pytest.mark.usefixtures("records")
def test_one_is_shown_with_both_values(cli: Cli, sql: Sql) -> None:
    """What each side holds, the policy, since when, and which run met it."""
    (listed, _) = cli("conflicts", "list", "--json").json["conflicts"]
    ((run_id,),) = sql("SELECT run_id FROM conflicts WHERE id = :id", id=listed["id"])
    assert cli("conflicts", "show", str(listed["id"]), "--json").json == {
        **listed,
        "external": THERE,
        "internal": HERE,
        "policy": "manual",
        "run_id": run_id,
    }
    lines = dict(
        line.split(maxsplit=1) for line in cli("conflicts", "show", str(listed["id"])).out.splitlines()
    )
    assert (lines["external"].strip(), lines["internal"].strip()) == (THERE, HERE)
    assert (lines["policy"].strip(), lines["run_id"].strip()) == ("manual", run_id)


@pytest.mark.parametrize("side,value", [("external", THERE), ("internal", HERE)])
def test_the_chosen_side_is_on_both_sides_after_the_next_sync(
    cli: Cli, crm: GenericCrm, sql: Sql, records: dict[str, str], side: str, value: str
) -> None:
    """That field of that contact; the other contact goes on waiting, and what is settled stays so."""
    (listed, other) = cli("conflicts", "list", "--json").json["conflicts"]
    answer = cli("conflicts", "resolve", str(listed["id"]), f"--{side}", "--json")
    assert (answer.code, answer.json) == (0, {**listed, "winner": side, "still_open": 1})
    assert cli("conflicts", "list", "--json").json == {"conflicts": [other], "total": 1}
    assert cli("sync").code == 0
    assert sql("SELECT notes FROM contacts WHERE id IN (:one, :two) ORDER BY id", one=ONE, two=TWO) == [
        (value,),
        (HERE,),
    ]
    assert [crm.records[record_id]["notes"] for record_id in records.values()] == [value, THERE]
    (_, pulled, pushed) = cli("sync", "--json").json["steps"]
    assert (pulled["updated"], pushed["updated"], pushed["created"]) == (0, 0, 0)
    again = cli("conflicts", "resolve", str(listed["id"]), f"--{side}")
    assert (again.code, again.err) == (1, f"There is no open conflict {listed['id']}\n")


@pytest.mark.usefixtures("records")
def test_people_are_told_what_settling_did(cli: Cli) -> None:
    """One line: which field of which contact, what follows, and how many are left."""
    first, second = (str(each["id"]) for each in cli("conflicts", "list", "--json").json["conflicts"])
    assert cli("conflicts", "resolve", first, "--external").out == (
        f"Settled notes of {ONE}: the contact holds the CRM's value. Still open: 1.\n"
    )
    assert cli("conflicts", "resolve", "--internal", second).out == (
        f"Settled notes of {TWO}: the next push writes the contact's to the CRM. Still open: 0.\n"
    )
    assert cli("conflicts", "list").out == "No field waits.\n"


def test_a_field_goes_on_waiting_when_the_contact_gets_another_number(
    cli: Cli, crm: GenericCrm, sql: Sql, records: dict[str, str]
) -> None:
    """One entry, under the number of today, that can be settled."""
    (listed, _) = cli("conflicts", "list", "--json").json["conflicts"]
    moved = "6281100000003@c.us"
    crm.edit(records[ONE], phone=moved)
    cli("sync")
    (entry, _) = cli("conflicts", "list", "--json").json["conflicts"]
    assert entry == {**listed, "contact_id": moved}
    assert cli("conflicts", "resolve", str(listed["id"]), "--internal").code == 0
    cli("sync")
    assert sql("SELECT notes FROM contacts WHERE id = :id", id=moved) == [(HERE,)]
    assert crm.records[records[ONE]]["notes"] == HERE
    assert cli("conflicts", "list", "--json").json["total"] == 1


@pytest.mark.usefixtures("crm", "sql")
@pytest.mark.parametrize("arguments", [("show", "99"), ("resolve", "99", "--internal")])
def test_an_unknown_one_is_one_line(cli: Cli, arguments: tuple[str, ...]) -> None:
    """Exit code 1, and nothing on standard output."""
    answer = cli("conflicts", *arguments)
    known = "conflict" if arguments[0] == "show" else "open conflict"
    assert (answer.code, answer.out, answer.err) == (1, "", f"There is no {known} 99\n")


@pytest.mark.usefixtures("records")
def test_settled_ones_are_shown_when_asked_for(cli: Cli) -> None:
    """Which side won and when; one that is settled is not settled again."""
    (first, second) = cli("conflicts", "list", "--json").json["conflicts"]
    cli("conflicts", "resolve", str(first["id"]), "--internal")
    assert [each["id"] for each in cli("conflicts", "list", "--json").json["conflicts"]] == [second["id"]]
    every = cli("conflicts", "list", "--all", "--json").json
    assert every["total"] == 2
    assert [(each["id"], each["winner"]) for each in every["conflicts"]] == [
        (first["id"], "internal"),
        (second["id"], None),
    ]
    (last,) = cli("conflicts", "list", "--all", "--limit", "1", "--json").json["conflicts"]
    assert last["id"] == second["id"]
    assert cli("conflicts", "show", str(first["id"]), "--json").json["settled_at"]
    again = cli("conflicts", "resolve", str(first["id"]), "--external")
    assert (again.code, again.err) == (1, f"There is no open conflict {first['id']}\n")


@pytest.mark.usefixtures("records")
def test_it_works_as_a_program() -> None:
    """As a script would: list, then settle."""
    command = [sys.executable, "-m", "crm_pipeline.cli.main", "conflicts"]

    def call(*arguments: str) -> dict[str, object]:
        done = subprocess.run([*command, *arguments, "--json"], capture_output=True, text=True, check=True)
        assert done.stderr == ""
        document: dict[str, object] = json.loads(done.stdout)
        return document

    listed = call("list")["conflicts"]
    assert isinstance(listed, list)
    assert call("resolve", str(listed[0]["id"]), "--external")["still_open"] == 1
