"""`rejects`: what could not go through is listed, shown and tried again."""

from __future__ import annotations

import pytest

from crm_pipeline.simulators.faults import Faults
from crm_pipeline.simulators.generic import GenericCrm
from crm_pipeline_tests.cli.conftest import Cli, Sql


@pytest.fixture
def rejected(cli: Cli, crm: GenericCrm) -> int:
    """A pull of a CRM where every fifth record is broken; how many were rejected."""
    crm.faults = Faults(bad_record=5)
    (_, applied) = cli("pull", "--json").json["steps"]
    assert applied["rejected"] > 0
    assert applied["created"] + applied["rejected"] + applied["skipped"] == 30
    return int(applied["rejected"])


def test_the_list_tells_reasons_and_times_but_no_person(cli: Cli, rejected: int, crm: GenericCrm) -> None:
    """Number, source, the record's id, reasons, attempts, times; no person, no phone, no record."""
    document = cli("rejects", "list", "--json").json
    assert (len(document["rejects"]), document["total"]) == (rejected, rejected)
    for each in document["rejects"]:
        assert set(each) == {
            "id",
            "source",
            "name",
            "reasons",
            "attempts",
            "first_at",
            "last_at",
            "next_attempt_at",
        }
        assert each["source"] == "pull"
        assert each["name"] in crm.records or each["name"].startswith("content:")
        assert each["reasons"]
    table = cli("rejects", "list").out
    assert len([line for line in table.splitlines() if " pull " in line]) == rejected
    for record in crm.records.values():
        for personal in (record["name"], record["phone"]):
            assert personal not in table
            assert personal not in str(document)


def test_a_limit_says_that_there_are_more(cli: Cli, rejected: int) -> None:
    """Nobody takes a part for the whole."""
    answer = cli("rejects", "list", "--limit", "1", "--json")
    assert (len(answer.json["rejects"]), answer.json["total"]) == (1, rejected)
    assert answer.err == f"1 of {rejected} shown; --limit shows more\n"


@pytest.mark.usefixtures("rejected")
def test_one_is_shown_with_its_record(cli: Cli) -> None:
    """Asked for by number, the record comes with it, for machines and for people."""
    (first, *_) = cli("rejects", "list", "--json").json["rejects"]
    shown = cli("rejects", "show", str(first["id"]), "--json").json
    assert shown["reasons"] == first["reasons"]
    assert shown["key"]
    assert isinstance(shown["payload"], dict)
    text = cli("rejects", "show", str(first["id"]))
    assert (text.code, text.err) == (0, "")
    assert "payload" in text.out


@pytest.mark.usefixtures("crm")
def test_an_unknown_one_is_one_line(cli: Cli) -> None:
    """Exit code 1, for ``show`` and for ``replay``."""
    for command in ("show", "replay"):
        answer = cli("rejects", command, "99")
        assert (answer.code, answer.out, answer.err) == (1, "", "There is no reject 99\n")


def test_replay_tries_again_what_had_landed(cli: Cli, rejected: int) -> None:
    """Still broken, it is rejected again, with another attempt."""
    (first, *_) = cli("rejects", "list", "--json").json["rejects"]
    one = cli("rejects", "replay", str(first["id"]), "--json").json
    assert one == {"replayed": 1, "still_rejected": rejected}
    every = cli("rejects", "replay", "--all", "--json").json
    assert every == {"replayed": rejected, "still_rejected": rejected}
    attempts = [each["attempts"] for each in cli("rejects", "list", "--json").json["rejects"]]
    assert sorted(attempts) == [2] * (rejected - 1) + [3]


@pytest.mark.usefixtures("rejected")
def test_what_was_mended_in_the_crm_is_no_longer_listed(cli: Cli, crm: GenericCrm, sql: Sql) -> None:
    """The next pull applies it, or sees that the CRM has no such record; the figures agree."""
    crm.faults = Faults()
    for record_id in list(crm.records):
        crm.edit(record_id, notes="mended")
    cli("pull")
    assert cli("rejects", "list", "--json").json["total"] == 0
    assert sql("SELECT count(*) FROM external_records WHERE outcome = 'rejected'") == [(0,)]


ONE = "6281100000001@c.us"


def test_a_dismissed_record_is_forgotten_and_its_count_with_it(cli: Cli, crm: GenericCrm, sql: Sql) -> None:
    """It leaves the list and the figures; a pull that finds it unchanged does not bring it back."""
    for number in (1, 2):
        crm.create(phone=f"628110000000{number}", status="no such status")
    cli("pull")
    first, second = cli("rejects", "list", "--json").json["rejects"]
    answer = cli("rejects", "dismiss", str(first["id"]), "--json")
    assert (answer.code, answer.json) == (0, {"dismissed": 1, "still_rejected": 1})
    cli("pull")
    assert cli("rejects", "list", "--json").json == {"rejects": [second], "total": 1}
    rejected = "SELECT count(*) FROM external_records WHERE outcome = 'rejected'"
    assert sql(rejected) == [(1,)]
    told = cli("rejects", "dismiss", str(second["id"]))
    assert told.out == "Forgotten: 1. Still rejected: 0. What fails again is listed again.\n"
    assert sql(rejected) == [(0,)]


def test_a_dismissed_record_that_fails_again_is_listed_again(cli: Cli, crm: GenericCrm, sql: Sql) -> None:
    """Dismissing is no rule about the record: the next version is judged anew, for good or bad."""
    record_id = str(crm.create(phone=ONE, status="no such status")["id"])
    cli("pull")
    (reject,) = cli("rejects", "list", "--json").json["rejects"]
    cli("rejects", "dismiss", str(reject["id"]))
    crm.edit(record_id, notes="still wrong")
    cli("pull")
    (again,) = cli("rejects", "list", "--json").json["rejects"]
    assert (again["reasons"], again["attempts"]) == (reject["reasons"], 1)
    cli("rejects", "dismiss", str(again["id"]))
    crm.edit(record_id, status="deal")
    cli("pull")
    assert sql("SELECT deal_status FROM contacts WHERE id = :id", id=ONE) == [("deal",)]


def test_a_dismissed_push_is_tried_again_when_the_contact_changes(
    cli: Cli, crm: GenericCrm, sql: Sql
) -> None:
    """A contact that the CRM cannot be told of: out of the list until somebody changes it."""
    crm.create(phone=ONE)
    cli("sync")
    sql("UPDATE contacts SET capacity = -1 WHERE id = :id", id=ONE)
    cli("push")
    (reject,) = cli("rejects", "list", "--json").json["rejects"]
    assert reject["source"] == "push"
    cli("rejects", "dismiss", str(reject["id"]))
    cli("push")
    assert cli("rejects", "list", "--json").json["total"] == 0
    sql("UPDATE contacts SET notes = 'x' WHERE id = :id", id=ONE)
    cli("push")
    assert cli("rejects", "list", "--json").json["total"] == 1


def test_one_unknown_number_dismisses_nothing(cli: Cli, crm: GenericCrm, sql: Sql) -> None:
    """A mistyped number is named, and the others stay as they are."""
    crm.create(phone=ONE, status="no such status")
    cli("pull")
    (reject,) = cli("rejects", "list", "--json").json["rejects"]
    answer = cli("rejects", "dismiss", str(reject["id"]), "98", "99")
    assert (answer.code, answer.out, answer.err) == (1, "", "There is no reject 98, 99\n")
    assert sql("SELECT count(*) FROM rejects") == [(1,)]
