"""A CRM that misbehaves, end to end: a run completes or fails, and writes nothing wrong either way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from crm_pipeline.service import ExternalCrmService
from crm_pipeline.settings import load_settings
from crm_pipeline.simulators.faults import Faults, parse_faults
from crm_pipeline_tests.databases import SqliteDatabases
from crm_pipeline_tests.system.compare import Edits, compare
from crm_pipeline_tests.system.stage import Stage, crm_of, on_stage

CONTACTS = 250
"""Three pages."""
MOST_RUNS = 6
EVERYTHING = "SELECT * FROM contacts ORDER BY id"
UNKNOWN_ENDS = (
    "cut_before_write=2",
    "cut_after_write=2",
    "server_error=2",
    "server_error=2:503",
    "html_login=2",
)
"""Faults after which nobody knows whether a write was applied."""


@pytest.fixture(scope="module")
def shared(sqlite_databases: SqliteDatabases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One synced stage for all tests: each leaves both sides agreeing, as the next one needs them."""
    with (
        sqlite_databases.fresh() as url,
        on_stage(tmp_path_factory.mktemp("faults"), url, crm_of(CONTACTS)) as stage,
    ):
        stage.must("sync")
        yield stage


@pytest.fixture
def stage(shared: Stage) -> Iterator[Stage]:
    """The stage without faults, before and after."""
    yield shared
    shared.crm.faults = Faults()
    shared.configure()


def edited(stage: Stage) -> Edits:
    """Edits of users on both sides, on every page of the listing."""
    edits = Edits(stage)
    keys, records = zip(*stage.crm.records.items(), strict=True)
    for place in range(0, CONTACTS, 49):
        edits.there("notes", keys[place])
    edits.here("pic", [record["phone"] for record in records[5::49]])
    return edits


def assert_converges(stage: Stage, edits: Edits) -> None:
    """Without the fault, both sides come to hold the same, and no edit is lost."""
    stage.crm.faults = Faults()
    with ExternalCrmService(settings=load_settings(stage.folder / ".env")) as service:
        runs = (service.sync() for _ in range(MOST_RUNS))
        assert any(not any(report.counts.changed or report.pending for report in run) for run in runs)
    sides = compare(stage)
    assert (sides.contacts, sides.lost, sides.doubled, edits.lost()) == (CONTACTS, 0, 0, [])
    assert stage.other.sql("SELECT count(*) FROM contacts WHERE archived_at IS NOT NULL") == [(0,)]
    assert stage.other.sql("SELECT count(*) FROM intents WHERE state = 'open'") == [(0,)]


@pytest.mark.parametrize(
    "fault", ["rate_limit=2:60", "rate_limit=1/1:date", "server_error=2:503", "cut_in_answer=2"]
)
def test_what_passes_is_ridden_out(stage: Stage, fault: str) -> None:
    """429 storms, outages and cut answers between good ones: the one run reads all and writes all."""
    edits = edited(stage)
    stage.configure(windows=False)
    stage.crm.faults = parse_faults([fault])
    stage.must("sync", "--no-push")
    assert stage.crm.turns.struck
    assert compare(stage).lost == len([edit for edit in edits.made if edit.column == "pic"])
    assert_converges(stage, edits)


@pytest.mark.parametrize(
    "fault, style",
    [
        ("rate_limit=1:0", "cursor"),
        ("server_error=1", "cursor"),
        ("truncated_json=2", "cursor"),
        ("html_login=2", "cursor"),
        ("error_in_200=2", "cursor"),
        ("repeated_cursor", "cursor"),
        ("repeated_cursor", "page"),
        ("foreign_next_link", "next_link"),
        ("foreign_redirect", "cursor"),
    ],
)
def test_what_cannot_be_trusted_fails_the_run(stage: Stage, fault: str, style: str) -> None:
    """A listing that is no whole listing: one line says so, no contact changes, nothing is pushed."""
    edits = edited(stage)
    stage.configure(windows=False, style=style)
    before: list[Any] = stage.other.sql(EVERYTHING)
    writes = len(stage.crm.log)
    stage.crm.faults = parse_faults([fault])
    done = stage.run("sync")
    assert (done.code, list(json.loads(done.out))) == (1, ["error"])
    assert done.err.startswith("CRM: ")
    assert len(done.err.splitlines()) == 1
    assert stage.other.sql(EVERYTHING) == before
    assert len(stage.crm.log) == writes
    assert_converges(stage, edits)


@pytest.mark.parametrize("fault", [*UNKNOWN_ENDS, "rate_limit=2:60"])
def test_a_write_without_an_answer_is_made_good(stage: Stage, fault: str) -> None:
    """Throttled, lost, or applied without a reply: in the end the CRM has taken each change once."""
    edits = edited(stage)
    start = len(stage.crm.log)
    stage.crm.faults = parse_faults([fault])
    done = stage.run("sync")
    assert done.code == (fault in UNKNOWN_ENDS), done
    assert stage.crm.turns.struck
    assert_converges(stage, edits)
    assert taken(stage, start) == changes(edits)


def test_a_write_refused_in_words_waits_for_a_replay(stage: Stage) -> None:
    """Status 200 and an error in the body: rejected with the reason; a replay writes it, once."""
    edits = edited(stage)
    start = len(stage.crm.log)
    stage.crm.faults = parse_faults(["error_in_200=2"])
    pushed = stage.must("sync").steps["push"]
    assert (pushed["updated"], pushed["rejected"]) == (2, 3)
    stage.crm.faults = Faults()
    stage.must("sync")
    assert compare(stage).lost == 3
    stage.must("rejects", "replay", "--all")
    assert_converges(stage, edits)
    assert taken(stage, start) == changes(edits)


def taken(stage: Stage, start: int) -> list[str]:
    """Values the CRM took from us, from a place of its log on."""
    return sorted(write.payload["sales_rep"] for write in list(stage.crm.log)[start:] if write.status == 200)


def changes(edits: Edits) -> list[str]:
    """Values that other programs wrote here."""
    return sorted(edit.value for edit in edits.made if edit.column == "pic")
