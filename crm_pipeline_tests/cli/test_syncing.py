"""`pull`, `push` and `sync`: against a real CRM on a socket, with figures that add up."""

from __future__ import annotations

import json
import os
import pty
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from crm_pipeline.simulators.faults import Faults
from crm_pipeline.simulators.generic import GenericCrm
from crm_pipeline_tests.cli.conftest import Cli, Sql

OUTCOMES = ("created", "updated", "unchanged", "skipped", "rejected")


def steps(document: Any) -> dict[str, dict[str, Any]]:
    """Steps by name; each must add up."""
    for step in document["steps"]:
        assert step["seen"] == sum(step[outcome] for outcome in OUTCOMES), step
    return {step["step"]: step for step in document["steps"]}


def execute(statement: str, *values: object) -> list[tuple[Any, ...]]:
    """Plain SQL, as another program on the same database."""
    with closing(sqlite3.connect("var/crm_pipeline.db", timeout=30)) as database, database:
        return database.execute(statement, values).fetchall()


@pytest.mark.usefixtures("crm")
def test_a_pull_fills_the_contacts(cli: Cli) -> None:
    """Every record becomes a contact; a second pull finds nothing to do."""
    first = steps(cli("pull", "--json").json)
    assert (first["pull"]["created"], first["apply"]["created"]) == (30, 30)
    assert first["pull"]["api_calls"] >= 1
    second = steps(cli("pull", "--json").json)
    assert (second["apply"]["created"], second["apply"]["updated"]) == (0, 0)
    assert execute("SELECT count(*) FROM contacts") == [(30,)]


@pytest.mark.usefixtures("crm")
def test_people_see_a_table(cli: Cli) -> None:
    """One line for each step, with the five outcomes."""
    answer = cli("sync")
    assert (answer.code, answer.err) == (0, "")
    head, _, *lines = answer.out.splitlines()
    assert head.split()[:7] == ["step", "seen", *OUTCOMES]
    assert [line.split()[0] for line in lines] == ["pull", "apply", "push"]
    assert lines[1].split()[1:4] == ["30", "30", "0"]


def test_a_change_by_sql_is_pushed(cli: Cli, crm: GenericCrm) -> None:
    """``sync`` takes it to the CRM; with ``--no-push`` it stays here."""
    cli("sync")
    execute("UPDATE contacts SET notes = 'x' WHERE id = (SELECT min(id) FROM contacts)")
    assert "push" not in steps(cli("sync", "--no-push", "--json").json)
    assert not [record for record in crm.records.values() if record["notes"] == "x"]
    pushed = steps(cli("sync", "--json").json)["push"]
    assert (pushed["updated"], pushed["created"]) == (1, 0)
    assert len([record for record in crm.records.values() if record["notes"] == "x"]) == 1


def test_push_alone_writes_and_reads_nothing_else(cli: Cli, crm: GenericCrm) -> None:
    """One step, one contact; what the CRM has newly got stays there until a pull."""
    cli("sync")
    crm.create(phone="6281009999999@c.us")
    execute("UPDATE contacts SET notes = 'x' WHERE id = (SELECT min(id) FROM contacts)")
    assert steps(cli("push", "--json").json)["push"]["updated"] == 1
    assert execute("SELECT count(*) FROM contacts") == [(30,)]


def test_a_window_reads_the_days_it_names(cli: Cli, crm: GenericCrm) -> None:
    """A date means its whole day, first and last included; the watermark stays where it is."""
    Path("crm.yaml").write_text(
        "listing:\n  modified_since: {param: updated_since}\n  modified_before: {param: updated_before}\n"
    )
    with Path(".env").open("a") as env:
        env.write("EXTERNAL_CRM_CONFIG=crm.yaml\n")
    first = datetime.now(UTC).date() - timedelta(days=12)
    last = first + timedelta(days=6)
    inside = [
        record
        for record in crm.records.values()
        if first <= datetime.fromisoformat(record["updated_at"]).date() <= last
    ]
    assert 0 < len(inside) < 30
    pulled = steps(cli("pull", "--since", str(first), "--until", str(last), "--json").json)["pull"]
    assert pulled["seen"] == len(inside)
    assert cli("status", "--json").json["watermark"] is None


@pytest.mark.parametrize(
    "arguments",
    [
        ("--since", "yesterday"),
        ("--since", "2025-13-01"),
        ("--until", "2025-01-01T25:00:00"),
        ("--since", "2025-01-02", "--until", "2025-01-01"),
        ("--since", "2025-01-01T10:00:00Z", "--until", "2025-01-01T17:00:00+07:00"),
        ("--since", "0001-01-01T00:00:00+14:00"),
        ("--until", "9999-12-31"),
    ],
)
def test_a_window_that_is_none_is_wrong_usage(cli: Cli, crm: GenericCrm, arguments: tuple[str, ...]) -> None:
    """No date, no time, or an end before its beginning: exit code 2, and the CRM is not asked."""
    answer = cli("pull", *arguments)
    assert (answer.code, answer.out) == (2, "")
    assert crm.requests == 0


def test_remap_asks_the_crm_nothing(cli: Cli, crm: GenericCrm) -> None:
    """What had landed is applied again, as after a change of the mapping."""
    cli("pull")
    execute("DELETE FROM links")
    execute("DELETE FROM contacts")
    asked = crm.requests
    answer = cli("pull", "--remap", "--json")
    done = steps(answer.json)
    assert (list(done), done["apply"]["created"], crm.requests) == (["apply"], 30, asked)
    assert answer.err == "30 landed records are applied again\n"


@pytest.mark.parametrize("command", ["pull", "push", "sync"])
def test_nothing_runs_while_switched_off(
    cli: Cli, crm: GenericCrm, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """EXTERNAL_CRM_ENABLED=false: one line naming the variable, exit code 1, no request."""
    monkeypatch.setenv("EXTERNAL_CRM_ENABLED", "false")
    answer = cli(command)
    assert (answer.code, answer.out, crm.requests) == (1, "", 0)
    assert answer.err.splitlines() == [f"Failed: cannot {command}: EXTERNAL_CRM_ENABLED is false"]


@pytest.mark.usefixtures("crm")
def test_push_off_writes_nothing(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """EXTERNAL_CRM_PUSH=off: ``push`` refuses with the reason, ``sync`` says that it only pulled."""
    monkeypatch.setenv("EXTERNAL_CRM_PUSH", "off")
    refused = cli("push")
    assert (refused.code, refused.err) == (1, "Failed: cannot push: EXTERNAL_CRM_PUSH is off\n")
    synced = cli("sync", "--json")
    assert (synced.code, list(steps(synced.json))) == (0, ["pull", "apply"])
    assert synced.err == "EXTERNAL_CRM_PUSH is off: nothing was written to the CRM\n"


@pytest.mark.usefixtures("crm")
def test_a_crm_that_refuses_the_key_is_one_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 1, the same for machines, and never a success with 0 records."""
    monkeypatch.setenv("EXTERNAL_CRM_API_KEY", "wrong-key")
    answer = cli("pull", "--json")
    assert (answer.code, answer.json) == (1, {"error": answer.err.strip()})
    assert answer.err.startswith("CRM: ")
    assert len(answer.err.splitlines()) == 1
    assert "wrong-key" not in answer.err


def test_writes_left_for_later_are_no_success(
    cli: Cli, crm: GenericCrm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The figures are shown, and the exit code tells a script that not all is done."""
    cli("sync")
    Path("crm.yaml").write_text("limits: {retries: 0}\n")
    monkeypatch.setenv("EXTERNAL_CRM_CONFIG", "crm.yaml")
    execute("UPDATE contacts SET notes = 'x' WHERE id = (SELECT min(id) FROM contacts)")
    crm.faults = Faults(server_error=1, server_error_status=503)
    answer = cli("push", "--json")
    assert answer.code == 1
    assert len(answer.err.splitlines()) == 1


@pytest.mark.usefixtures("crm")
def test_a_terminal_sees_progress_and_a_pipe_sees_only_the_answer() -> None:
    """Bars go to standard error, and only where a person watches; standard output stays one document."""
    command = [sys.executable, "-m", "crm_pipeline.cli.main", "pull", "--json"]
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, text=True) as process:
        os.close(theirs)
        out, _ = process.communicate(timeout=60)
    shown = b""
    try:
        while chunk := os.read(ours, 65536):
            shown += chunk
    except OSError:  # the end of a terminal whose other side is closed
        pass
    finally:
        os.close(ours)
    assert process.returncode == 0
    assert steps(json.loads(out))["pull"]["seen"] == 30
    assert b"Reading the CRM" in shown


@pytest.mark.parametrize("command", ["pull", "sync"])
def test_many_deletes_wait_until_they_are_allowed(cli: Cli, crm: GenericCrm, sql: Sql, command: str) -> None:
    """More than a tenth of all gone at once: exit code 1 and how to go on; told so, they are archived."""
    archived = "SELECT count(*) FROM contacts WHERE archived_at IS NOT NULL"
    cli("sync")
    for record_id in list(crm.records)[:15]:
        crm.delete(record_id)
    refused = cli(command, "--json")
    assert (refused.code, refused.json) == (1, {"error": refused.err.strip()})
    assert "15 of 30" in refused.err
    assert "crm-pipeline pull --allow-deletes" in refused.err
    assert sql(archived) == [(0,)]
    allowed = cli(command, "--allow-deletes", "--json")
    assert (allowed.code, steps(allowed.json)["apply"]["updated"]) == (0, 15)
    assert sql(archived) == [(15,)]
    assert cli(command).code == 0
