"""`reconcile`: figures for everybody, names only on request, and an exit code that tells."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from crm_pipeline.simulators.generic import GenericCrm
from crm_pipeline_tests.cli.conftest import Cli, Sql

SECRET = "typed past the trigger"
SILENTLY = """
    UPDATE contacts SET notes = :notes, row_version = row_version + 1, pushed_version = row_version + 1
    WHERE id = :id
"""


@pytest.fixture
def contact(cli: Cli, crm: GenericCrm, sql: Sql) -> str:
    """All is synced; then one contact is changed so that the sync does not hear of it: that one."""
    assert len(crm.records) == 30
    assert cli("sync").code == 0
    ((key,),) = sql("SELECT min(id) FROM contacts")
    sql(SILENTLY, notes=SECRET, id=key)
    return str(key)


@pytest.mark.usefixtures("crm", "sql")
def test_two_sides_that_agree_end_with_zero(cli: Cli) -> None:
    """Figures that add up, and nothing else on standard output."""
    cli("sync")
    answer = cli("reconcile", "--json")
    assert (answer.code, answer.err) == (0, "")
    document = answer.json
    assert (document["records"], document["compared"], document["agreed"], document["differing"]) == (
        30,
        30,
        30,
        0,
    )
    assert (document["known_by_reason"], document["differences_by_kind"]) == ({}, [])
    assert document["api_calls"] == document["pages"] > 0
    assert "named" not in document


def test_a_silent_difference_ends_with_one(cli: Cli, sql: Sql, contact: str) -> None:
    """What kind, in which field, how often; whose, on request; what it holds, never. Nothing is written."""
    answer, table = cli("reconcile", "--json"), cli("reconcile")
    assert (answer.code, table.code) == (1, 1)
    assert answer.err == "1 pairs differ silently; --repair mends them\n"
    assert answer.json["differences_by_kind"] == [{"kind": "value", "field": "notes", "number": 1}]
    assert ["value", "notes", "1"] in [line.split() for line in table.out.splitlines()]
    named, names = cli("reconcile", "--list", "--json"), cli("reconcile", "--list")
    (entry,) = named.json["named"]
    assert (entry["contact_id"], entry["kind"], entry["field"]) == (contact, "value", "notes")
    assert [entry["contact_id"], entry["external_id"], "value", "notes"] in [
        line.split() for line in names.out.splitlines()
    ]
    assert contact not in answer.out + table.out
    assert SECRET not in answer.out + table.out + named.out + names.out
    assert sql("SELECT count(*) FROM contacts WHERE row_version <> pushed_version") == [(0,)]


def test_repair_ends_with_zero_and_the_next_push_tells_the_crm(
    cli: Cli, crm: GenericCrm, sql: Sql, contact: str
) -> None:
    """Both sides agree afterwards; the run is remembered with its figures."""
    answer = cli("reconcile", "--repair", "--json")
    assert (answer.code, answer.err) == (0, "")
    document = answer.json
    assert (document["mended"], document["for_people"], document["remaining"]) == (1, 0, 0)
    assert cli("push").code == 0
    ((record,),) = sql("SELECT external_id FROM links WHERE contact_id = :id", id=contact)
    assert crm.records[record]["notes"] == SECRET
    assert cli("reconcile").code == 0
    ((state, counts),) = sql(
        "SELECT state, counts FROM sync_runs WHERE step = 'reconcile' ORDER BY id LIMIT 1"
    )
    assert (state, json.loads(counts)["mended"]) == ("done", 1)


@pytest.mark.usefixtures("contact")
def test_people_are_told_what_repairing_did(cli: Cli) -> None:
    """Lines of names and values."""
    lines = [line.rsplit(maxsplit=1) for line in cli("reconcile", "--repair").out.splitlines()]
    told = {words[0].strip(): words[1:] for words in lines if words}
    assert (told["pairs compared"], told["differ silently"], told["mended"]) == (["30"], ["1"], ["1"])


def test_what_a_repair_may_not_do_is_said(cli: Cli, crm: GenericCrm, sql: Sql) -> None:
    """Too many deletes wait: exit code 1, and how to go on."""
    Path("crm.yaml").write_text("listing: {modified_since: {param: updated_since}, overlap_seconds: 0}\n")
    with Path(".env").open("a") as env:
        env.write("EXTERNAL_CRM_CONFIG=crm.yaml\n")
    cli("sync")
    for record_id in list(crm.records)[:15]:
        crm.delete(record_id)
    answer = cli("reconcile", "--repair", "--json")
    assert (answer.code, answer.json["remaining"]) == (1, 15)
    assert "--allow-deletes" in answer.err
    assert answer.err.endswith("15 pairs differ silently\n")
    assert sql("SELECT count(*) FROM contacts WHERE archived_at IS NOT NULL") == [(0,)]


def test_it_has_to_be_switched_on(cli: Cli) -> None:
    """One line, exit code 1."""
    answer = cli("reconcile")
    assert (answer.code, answer.out) == (1, "")
    assert "EXTERNAL_CRM_ENABLED is false" in answer.err
