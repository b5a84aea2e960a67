"""Dagster's real processes with our code in them: what they do by themselves, and what they tell anybody."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import requests
from sqlalchemy.engine import make_url

from crm_pipeline.cli.dagster_ui import DagsterUi, dagster_dev
from crm_pipeline.cli.processes import usable_port, wait_until
from crm_pipeline.simulators.generic import CONTACTS_PATH, CrmOptions, GenericCrm, create_app
from crm_pipeline.simulators.serve import running
from crm_pipeline_tests.databases import PostgresDatabases

PROJECT = Path(__file__).parents[2]
CONNECTION = """
listing:
  modified_since: {param: updated_since}
  modified_before: {param: updated_before}
writing:
  batch_update: {path: /batch, envelope: records}
"""
MARKERS = {
    "EXTERNAL_CRM_API_KEY": "s3cret-marker-key",
    "EXTERNAL_CRM_WEBHOOK_SECRET": "s3cret-marker-hook",
    "CRM_API_KEY": "s3cret-marker-api",
}
PASSWORD = "s3cret-marker-password"

pytestmark = pytest.mark.timeout(600)  # real Dagster processes; its backfill daemon alone loops every 30 s


@dataclass(frozen=True)
class Dev:
    """A running ``dagster dev``, and the CRM it syncs with."""

    crm: GenericCrm
    url: str
    home: Path

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """Ask GraphQL."""
        answer = requests.post(
            f"{self.url}/graphql", json={"query": query, "variables": variables}, timeout=60
        ).json()
        assert "errors" not in answer, answer["errors"]
        data: dict[str, Any] = answer["data"]
        return data


@contextmanager
def _dev(folder: Path, crm: GenericCrm, **variables: str) -> Iterator[Dev]:
    """Run Dagster on a CRM in a folder with a space in its name."""
    folder = folder / "my crm"
    folder.mkdir()
    (folder / "crm.yaml").write_text(CONNECTION)
    port = usable_port(0)
    with running(create_app(crm)) as base:
        said = {
            "EXTERNAL_CRM_ENABLED": "true",
            "EXTERNAL_CRM_API_URL": base + CONTACTS_PATH,
            "EXTERNAL_CRM_CONFIG": "crm.yaml",
            "EXTERNAL_CRM_PUSH": "auto",
            **MARKERS,
            **variables,
        }
        (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in said.items()))
        home = folder / "var" / "dagster"
        environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
        with dagster_dev(
            PROJECT, home, port, folder=folder, environment=environment, log=folder / "dagster.log"
        ):
            url = f"http://127.0.0.1:{port}"
            wait_until(DagsterUi(url).loaded, seconds=120, what="loading our code")
            yield Dev(crm, url, home)


_RUNS = """
query { runsOrError(limit: 100) { ... on Runs { results {
  runId jobName status creationTime assetSelection { path } tags { key value } } } } }
"""


def _runs(dev: Dev) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = dev.ask(_RUNS)["runsOrError"]["results"]
    for run in found:
        run["tags"] = {tag["key"]: tag["value"] for tag in run["tags"]}
    return found


def _polls(dev: Dev) -> list[dict[str, Any]]:
    """Runs that the schedule asked for, oldest first."""
    return [
        run for run in reversed(_runs(dev)) if run["tags"].get("dagster/schedule_name") == "polling_schedule"
    ]


_BACKFILL = """
mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
  __typename ... on LaunchBackfillSuccess { backfillId } } }
"""
_BACKFILL_STATUS = """
query($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } } }
"""
_GOING = {"REQUESTED"}


def _start_backfill(dev: Dev, assets: list[str], days: list[str]) -> str:
    """Ask for a backfill as the web interface does."""
    params = {"partitionNames": days, "assetSelection": [{"path": [asset]} for asset in assets]}
    started = dev.ask(_BACKFILL, params=params)["launchPartitionBackfill"]
    assert started["__typename"] == "LaunchBackfillSuccess"
    return str(started["backfillId"])


def _backfill_status(dev: Dev, backfill: str) -> str:
    return str(dev.ask(_BACKFILL_STATUS, id=backfill)["partitionBackfillOrError"]["status"])


def test_polling_starts_by_itself_and_thirty_days_are_one_run(tmp_path: Path) -> None:
    """EXTERNAL_CRM_SYNC_MODE=polling needs no click; a backfill over 30 days is one run for each asset."""
    crm = GenericCrm.seeded(90, days=45, options=CrmOptions(api_key=MARKERS["EXTERNAL_CRM_API_KEY"]))
    days = [(datetime.now(UTC) - timedelta(days=1 + back)).strftime("%Y-%m-%d") for back in range(30)]
    of_those_days = sum(record["updated_at"][:10] in days for record in crm.records.values())
    with _dev(tmp_path, crm, EXTERNAL_CRM_SYNC_MODE="polling", EXTERNAL_CRM_SYNC_INTERVAL="1") as dev:
        backfill = _start_backfill(dev, ["external_contacts", "contacts"], days)
        wait_until(lambda: _backfill_status(dev, backfill) not in _GOING, seconds=240, what="the backfill")
        assert _backfill_status(dev, backfill) == "COMPLETED_SUCCESS"
        wait_until(lambda: len(_polls(dev)) > 1, seconds=150, what="two polls")
        polls = _polls(dev)
        runs = [run for run in _runs(dev) if run["tags"].get("dagster/backfill") == backfill]
        figures = {run.id: run.figures for run in DagsterUi(dev.url).runs()}
    seen = {asset: numbers["seen"] for run in runs for asset, numbers in figures[run["runId"]].items()}
    assert len(runs) == 2
    assert seen["external_contacts"] == of_those_days
    assert set(seen) == {"external_contacts", "contacts"}
    assert {run["jobName"] for run in polls} == {"sync_job"}
    gaps = [later["creationTime"] - earlier["creationTime"] for earlier, later in pairwise(polls)]
    assert all(abs(gap - 60) < 5 for gap in gaps), gaps


def _launch(dev: Dev, job: str, **execution: Any) -> str:
    """Launch a job, wait for its end, and return everything GraphQL tells of it."""
    selector = {"repositoryLocationName": "crm_pipeline", "repositoryName": "__repository__", "jobName": job}
    params = {"selector": selector, "runConfigData": {}, "mode": "default", **execution}
    answer = dev.ask(_LAUNCH, params=params)
    if "run" not in answer["launchRun"]:
        return json.dumps(answer)
    run_id = answer["launchRun"]["run"]["runId"]

    def ended() -> bool:
        return next(run["status"] for run in _runs(dev) if run["runId"] == run_id) in {"SUCCESS", "FAILURE"}

    wait_until(ended, seconds=120, what="a run")
    return json.dumps(
        [answer, dev.ask(_TOLD_OF_A_RUN, id=run_id), dev.ask(_CAPTURED, key=_log_key(dev, run_id))]
    )


def _log_key(dev: Dev, run_id: str) -> list[str]:
    events = dev.ask(_TOLD_OF_A_RUN, id=run_id)["logsForRun"]["events"]
    file = next(event["fileKey"] for event in events if event.get("fileKey"))
    return [run_id, "compute_logs", file]


_ERROR = "error { message className stack causes { message stack } errorChain { error { message stack } } }"
_LAUNCH = """
mutation($params: ExecutionParams!) { launchRun(executionParams: $params) { __typename
  ... on LaunchRunSuccess { run { runId } }
  ... on RunConfigValidationInvalid { errors { message reason } }
  ... on PythonError { message stack } } }
"""
_TOLD_OF_A_RUN = f"""
query($id: ID!) {{
  runOrError(runId: $id) {{ ... on Run {{ status runConfigYaml tags {{ key value }} resolvedOpSelection
    executionPlan {{ steps {{ key }} }} }} }}
  logsForRun(runId: $id, limit: 1000) {{ ... on EventConnection {{ events {{ __typename
    ... on MessageEvent {{ message level stepKey eventType }}
    ... on ExecutionStepFailureEvent {{ {_ERROR} failureMetadata {{ label description }} }}
    ... on RunFailureEvent {{ {_ERROR} }}
    ... on EngineEvent {{ {_ERROR} }}
    ... on LogsCapturedEvent {{ fileKey }}
    ... on MaterializationEvent {{ metadataEntries {{ __typename label description
      ... on TextMetadataEntry {{ text }} ... on TableMetadataEntry {{ table {{ records }} }} }} }} }} }} }}
}}
"""
_CAPTURED = "query($key: [String!]!) { capturedLogs(logKey: $key) { stdout stderr } }"
_TOLD_OF_US = f"""
query($repository: RepositorySelector!, $job: PipelineSelector!) {{
  instance {{ info runQueuingSupported executablePath }}
  workspaceOrError {{ ... on Workspace {{ locationEntries {{ name displayMetadata {{ key value }} }} }} }}
  allTopLevelResourceDetailsOrError(repositorySelector: $repository) {{ ... on ResourceDetailsList {{
    results {{ name description resourceType configFields {{ name description defaultValueAsJson }}
    configuredValues {{ key value type }} }} }} }}
  runConfigSchemaOrError(selector: $job) {{ ... on RunConfigSchema {{ rootDefaultYaml
    allConfigTypes {{ key description }} }} }}
  schedulesOrError(repositorySelector: $repository) {{ ... on Schedules {{ results {{ name
    scheduleState {{ ticks {{ skipReason {_ERROR} }} }} }} }} }}
  sensorsOrError(repositorySelector: $repository) {{ ... on Sensors {{ results {{ name
    sensorState {{ ticks {{ skipReason {_ERROR} }} }} }} }} }}
}}
"""


def _database(**config: Any) -> dict[str, Any]:
    return {"resources": {"database": {"config": config}}}


def test_no_secret_can_be_read(tmp_path: Path, postgresql_databases: PostgresDatabases) -> None:
    """Nothing GraphQL answers or Dagster stores holds a secret: not at rest, in a run, or in a failure."""
    crm = GenericCrm.seeded(20, options=CrmOptions(api_key=MARKERS["EXTERNAL_CRM_API_KEY"]))
    with postgresql_databases.fresh() as database:
        parsed = make_url(database).set(password=PASSWORD)
        away = parsed.set(database="no_such_database")
        with _dev(
            tmp_path,
            crm,
            DATABASE_URL=parsed.render_as_string(hide_password=False),
            AWAY=away.render_as_string(hide_password=False),
        ) as dev:
            told = [_launch(dev, "sync_job")]
            assert '"SUCCESS"' in told[-1]
            told.append(_launch(dev, "sync_job", runConfigData=_database(url={"env": "AWAY"})))
            assert "no_such_database" in told[-1]
            told.append(_launch(dev, "sync_job", runConfigData=_database(no_such_key=1)))
            assert "RunConfigValidationInvalid" in told[-1]
            crm.options = replace(crm.options, api_key="another-key")
            told.append(_launch(dev, "sync_job"))
            assert "CrmRefusedError" in told[-1]
            job = {"repositoryLocationName": "crm_pipeline", "repositoryName": "__repository__"}
            of_us = dev.ask(_TOLD_OF_US, repository=job, job={**job, "pipelineName": "sync_job"})
            told.append(json.dumps(of_us))
            assert "EXTERNAL_CRM_API_KEY" in told[-1]
        stored = [path.read_bytes() for path in dev.home.rglob("*") if path.is_file()]
    secrets = [*MARKERS.values(), PASSWORD]
    assert stored
    assert [secret for secret in secrets if any(secret in text for text in told)] == []
    assert [secret for secret in secrets if any(secret.encode() in content for content in stored)] == []
