"""Fetch and push over a socket: a Dagster run that is waited for, and the CRM's own answer."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import requests

from crm_pipeline import instants
from crm_pipeline.api.protocol import Bounds
from crm_pipeline.simulators.faults import Faults
from crm_pipeline.simulators.generic import CONTACTS_PATH, CrmOptions, GenericCrm, create_app
from crm_pipeline.simulators.serve import running
from crm_pipeline.store import leases
from crm_pipeline.store.engine import reading, writing
from crm_pipeline_tests.api.served import RECORD, SETTINGS, Served, curl, curl_lines, eventually, serving
from crm_pipeline_tests.databases import SqliteDatabases
from crm_pipeline_tests.fakes import dead_holder
from crm_pipeline_tests.project.pages import DOCS, ROOT

FETCH = "/api/external/fetch"
PUSH = "/api/external/push/"
CONNECTION = "limits: {retries: 0}\nlisting: {modified_since: {param: updated_since}}\n"
SHIPPED = Path(__file__).parents[2] / "dagster.yaml"


@dataclass
class World:
    """A CRM, the API, and Dagster's memory of it."""

    api: Served
    crm: GenericCrm
    instance: dg.DagsterInstance
    said: dict[str, Any]
    """The settings."""

    def runs(self) -> list[dg.DagsterRun]:
        """All runs, newest first."""
        return list(self.instance.get_runs())


@pytest.fixture(scope="module")
def world(sqlite_databases: SqliteDatabases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The same for all tests: opening Dagster takes a while."""
    home = tmp_path_factory.mktemp("dagster home")
    shutil.copy(SHIPPED, home / "dagster.yaml")
    (home / "connection.yaml").write_text(CONNECTION)
    crm = GenericCrm.seeded(20, options=CrmOptions(api_key="sim-key"))
    with (
        pytest.MonkeyPatch.context() as patch,
        sqlite_databases.fresh() as url,
        running(create_app(crm)) as base,
        dg.DagsterInstance.from_config(str(home)) as instance,
    ):
        said = {
            **SETTINGS,
            "external_crm_api_url": base + CONTACTS_PATH,
            "external_crm_api_key": "sim-key",
            "external_crm_config": home / "connection.yaml",
            "database_url": url,
        }
        for name, value in said.items():  # a fetch's run reads the environment, as Dagster's own do
            patch.setenv(name.upper(), str(value))
        patch.setenv("DAGSTER_HOME", str(home))
        with serving(**said) as api:
            yield World(api, crm, instance, said)


@pytest.fixture(scope="module")
def first(world: World) -> requests.Response:
    """The first fetch."""
    return world.api.ask("GET", FETCH)


def test_a_fetch_is_a_run_that_is_waited_for(world: World, first: requests.Response) -> None:
    """Everything is here when it is answered, with counts that add up; the run shows in Dagster."""
    answer = first
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    told = answer.json()
    assert (told["success"], told["syncedRecords"]) == (True, 20)
    assert told["counts"] == {
        "seen": 20,
        "created": 20,
        "updated": 0,
        "unchanged": 0,
        "skipped": 0,
        "rejected": 0,
    }
    assert sorted(told["userIds"]) == sorted(
        contact for (contact,) in world.api.sql("SELECT id FROM contacts")
    )
    run = world.runs()[-1]
    assert (run.run_id, run.job_name, run.status) == (told["runId"], "pull_job", dg.DagsterRunStatus.SUCCESS)
    assert "dagster/asset_partition_range_start" in run.tags
    assert run.tags["crm/request_id"] == answer.headers["X-Request-Id"]


@pytest.mark.usefixtures("first")
def test_the_lines_of_the_page_work(world: World) -> None:
    """Each curl line, as printed but for address, key and secret; the status line last."""
    lines = curl_lines(DOCS / "http-api.md", "/api/external/")
    assert len(lines) == 5
    told = {}
    for line in lines:
        answer = curl(line, world.api)
        assert answer.status_code == 200, line
        told[line.split("/api/external/")[1].split("/")[0].split()[0]] = answer.json()
    assert told["push"]["userId"] == "6281000000001@c.us"
    assert told["fetch"]["success"] is True
    assert told["status"]["configured"] is True


def test_the_lines_of_the_readme_work(world: World) -> None:
    """They send a webhook, and ask for the status."""
    sent, asked = (curl(line, world.api) for line in curl_lines(ROOT / "README.md", "/api/external/"))
    assert (sent.status_code, sent.json()["userId"]) == (200, "6281299990000@c.us")
    assert (asked.status_code, asked.json()["configured"]) == (200, True)


@pytest.mark.usefixtures("first")
def test_a_second_fetch_brings_what_changed(world: World) -> None:
    """POST does the same as GET; only the changed contact is told."""
    record = next(iter(world.crm.records.values()))
    world.crm.edit(record["id"], name="Another Name")
    told = world.api.ask("POST", FETCH).json()
    assert (told["counts"]["updated"], len(told["userIds"])) == (1, 1)
    assert world.api.sql("SELECT nama FROM contacts WHERE id = :id", id=told["userIds"][0]) == [
        ("Another Name",)
    ]


def test_two_fetches_at_once_are_one_run(world: World) -> None:
    """Whoever comes while it runs waits for the same run; other requests are served meanwhile."""
    before = len(world.runs())
    with ThreadPoolExecutor(3) as callers, world.api.service._leased("another worker"):  # noqa: SLF001
        calls = [callers.submit(world.api.ask, "GET", FETCH) for _ in range(3)]
        eventually(lambda: len(world.runs()) == before + 1)
        assert world.api.ask("GET", "/api/external/status").status_code == 200
        assert not any(call.done() for call in calls)
    answers = [call.result() for call in calls]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert len({answer.content for answer in answers}) == 1
    assert len(world.runs()) == before + 1


def test_two_processes_fetch_by_one_run(world: World) -> None:
    """The one that comes second waits for the run of the first, and answers the same."""
    before = len(world.runs())
    with (
        serving(**world.said) as other,
        ThreadPoolExecutor(2) as callers,
        world.api.service._leased("another worker"),  # noqa: SLF001
    ):
        calls = [callers.submit(api.ask, "GET", FETCH) for api in (world.api, other)]
        eventually(lambda: len(world.runs()) == before + 1)
        assert not any(call.done() for call in calls)
    answers = [call.result() for call in calls]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json() == answers[1].json()
    assert len(world.runs()) == before + 1


def test_a_fetch_whose_process_died_is_taken_up(world: World) -> None:
    """The lease of a process that is no more keeps nobody waiting, and its run is not answered for."""
    engine, name = world.api.service.engine, f"fetch/{world.api.service.connection.name}"
    with writing(engine) as tx:
        assert leases.take(tx, name, dead_holder("no-such-run"), instants.now())
    assert world.api.ask("GET", FETCH).status_code == 200
    with reading(engine) as tx:
        assert leases.token_of(tx, name) is None


@pytest.mark.parametrize(
    "faults, key, told",
    [
        (Faults(), "another-key", "the CRM refuses the credentials"),
        (Faults(server_error=1), "sim-key", "500"),
        (Faults(html_login=1), "sim-key", "HTML"),
    ],
)
def test_a_failed_pull_is_502_with_the_reason(world: World, faults: Faults, key: str, told: str) -> None:
    """Never a success with nothing in it; the run has failed in Dagster, too, and nothing changed."""
    world.crm.options, world.crm.faults = replace(world.crm.options, api_key=key), faults
    try:
        answer = world.api.ask("GET", FETCH)
    finally:
        world.crm.options, world.crm.faults = replace(world.crm.options, api_key="sim-key"), Faults()
    assert (answer.status_code, answer.headers["Content-Type"]) == (502, "application/problem+json")
    problem = answer.json()
    assert problem["success"] is False
    assert told.lower() in problem["detail"].lower()
    assert problem["detail"][0].isupper()
    assert problem["detail"].endswith(".")
    run = world.instance.get_run_by_id(problem["runId"])
    assert run is not None
    assert run.status is dg.DagsterRunStatus.FAILURE
    assert world.api.ask("GET", "/api/external/status").json()["lastError"]["step"] == "pull"


def test_a_fetch_that_is_cut_off_has_failed(world: World) -> None:
    """The API ends while it waits: the caller hears 503, and Dagster does not show a run that never ends."""
    with (
        ThreadPoolExecutor(1) as caller,
        world.api.service._leased("another worker"),  # noqa: SLF001
    ):
        before = len(world.runs())
        with serving(bounds=Bounds(drain_seconds=0), **world.said) as api:
            call = caller.submit(api.ask, "GET", FETCH)
            eventually(lambda: len(world.runs()) > before and _is_started(world.runs()[0]))
        assert call.result().status_code == 503
        assert world.runs()[0].status is dg.DagsterRunStatus.FAILURE
    eventually(lambda: not any(thread.name == "fetch" for thread in threading.enumerate()), seconds=30)


def _is_started(run: dg.DagsterRun) -> bool:
    """Not before: what Dagster notes of a start would come after the end."""
    return run.status is dg.DagsterRunStatus.STARTED


def test_without_dagster_there_is_no_fetch(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what is missing."""
    monkeypatch.delenv("DAGSTER_HOME")
    answer = world.api.ask("GET", FETCH)
    assert answer.status_code == 503
    assert "DAGSTER_HOME" in answer.json()["detail"]


def test_no_personal_data_reaches_dagster(world: World, first: requests.Response) -> None:
    """Events and tags of the run hold no phone and no name: its web interface has no login."""
    run_id = first.json()["runId"]
    run = world.instance.get_run_by_id(run_id)
    written = f"{run} {[str(entry) for entry in world.instance.all_logs(run_id)]}"
    people = [value for row in world.api.sql("SELECT id, nama FROM contacts") for value in row]
    assert not [value for value in people if value and value in written]


def _materializations(world: World) -> int:
    return len(world.instance.fetch_materializations(dg.AssetKey("outbound_push"), limit=100).records)


def test_a_push_answers_with_what_the_crm_said(world: World) -> None:
    """Created with the CRM's id, then unchanged, then updated, by any spelling; seen in the lineage."""
    before = _materializations(world)
    world.api.sql("INSERT INTO contacts (id, nama) VALUES ('62899900011@c.us', 'Sari')")
    created = world.api.ask("POST", f"{PUSH}62899900011@c.us")
    assert created.status_code == 200
    told = created.json()
    assert told == {
        "success": True,
        "userId": "62899900011@c.us",
        "message": "User pushed to external CRM successfully",
        "externalId": told["externalId"],
        "action": "created",
    }
    assert world.crm.records[told["externalId"]]["name"] == "Sari"
    again = world.api.ask("POST", f"{PUSH}0899-900-011").json()
    assert (again["externalId"], again["action"]) == (told["externalId"], "unchanged")
    world.api.sql("UPDATE contacts SET nama = 'Sari Dewi' WHERE id = '62899900011@c.us'")
    assert world.api.ask("POST", f"{PUSH}%2B62%20899900011").json()["action"] == "updated"
    eventually(lambda: _materializations(world) == before + 3)


def test_a_push_of_nobody_makes_nobody(world: World) -> None:
    """404, and neither side has a contact more."""
    contacts, records = world.api.rows()[1], len(world.crm.records)
    answer = world.api.ask("POST", f"{PUSH}628000000000")
    assert (answer.status_code, answer.json()["detail"]) == (404, "There is no such contact.")
    assert (world.api.rows()[1], len(world.crm.records)) == (contacts, records)


def test_a_push_that_fails_is_502(world: World) -> None:
    """The CRM is away: the reason is told, and it can be sent again."""
    world.api.sql("INSERT INTO contacts (id, nama) VALUES ('62899900022@c.us', 'Agus')")
    world.crm.faults = Faults(server_error=1, server_error_status=503)
    try:
        answer = world.api.ask("POST", f"{PUSH}62899900022")
    finally:
        world.crm.faults = Faults()
    assert (answer.status_code, answer.json()["success"]) == (502, False)
    assert "62899900022" not in answer.text


def test_pushes_that_wait_keep_nobody_else_waiting(world: World) -> None:
    """As many as may be under way wait for their turn with the CRM; what asks our database is answered."""
    world.api.sql("INSERT INTO contacts (id, nama) VALUES ('62899900033@c.us', 'Tono')")
    event_id = world.api.post(RECORD).json()["eventId"]
    looks = ("/readyz", "/metrics", "/api/external/status", f"/api/external/webhook/{event_id}")
    with (
        ThreadPoolExecutor(12) as callers,
        world.api.service._leased("another worker"),  # noqa: SLF001 - holds the lease, as its run would
    ):
        calls = [callers.submit(world.api.ask, "POST", f"{PUSH}62899900033") for _ in range(12)]
        eventually(lambda: sum(thread.name == "push" for thread in threading.enumerate()) >= 8)
        assert [world.api.ask("GET", path).status_code for path in looks] == [200] * len(looks)
        assert not any(call.done() for call in calls)
    assert {call.result().status_code for call in calls} == {200}


def test_the_daemons_age_is_told_once_it_is_known(world: World) -> None:
    """Dagster is open, and no daemon ever ran here."""
    assert world.api.ask("GET", "/readyz").json() == {"status": "ready", "daemonHeartbeatSeconds": None}
