"""Dagster's real processes with our code in them: what they do by themselves, and what they tell anybody."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from crm_pipeline.cli.dagster_ui import DagsterUi
from crm_pipeline.cli.processes import wait_until
from crm_pipeline.simulators.generic import CrmOptions, GenericCrm
from crm_pipeline_tests.databases import PostgresDatabases
from crm_pipeline_tests.orchestration.processes import (
    GOING,
    MARKERS,
    Dev,
    backfill_status,
    on_dagster,
    runs,
    start_backfill,
)

PASSWORD = "s3cret-marker-password"

pytestmark = pytest.mark.timeout(600)  # real Dagster processes; its backfill daemon alone loops every 30 s


def _polls(dev: Dev) -> list[dict[str, Any]]:
    """Runs that the schedule asked for, oldest first."""
    return [
        run for run in reversed(runs(dev)) if run["tags"].get("dagster/schedule_name") == "polling_schedule"
    ]


def test_polling_starts_by_itself_and_thirty_days_are_one_run(tmp_path: Path) -> None:
    """EXTERNAL_CRM_SYNC_MODE=polling needs no click; a backfill over 30 days is one run for each asset."""
    crm = GenericCrm.seeded(90, days=45, options=CrmOptions(api_key=MARKERS["EXTERNAL_CRM_API_KEY"]))
    days = [(datetime.now(UTC) - timedelta(days=1 + back)).strftime("%Y-%m-%d") for back in range(30)]
    of_those_days = sum(record["updated_at"][:10] in days for record in crm.records.values())
    with on_dagster(tmp_path, crm, EXTERNAL_CRM_SYNC_MODE="polling", EXTERNAL_CRM_SYNC_INTERVAL="1") as dev:
        backfill = start_backfill(dev, ["external_contacts", "contacts"], days)
        wait_until(lambda: backfill_status(dev, backfill) not in GOING, seconds=240, what="the backfill")
        assert backfill_status(dev, backfill) == "COMPLETED_SUCCESS"
        wait_until(lambda: len(_polls(dev)) > 1, seconds=150, what="two polls")
        polls = _polls(dev)
        made = [run for run in runs(dev) if run["tags"].get("dagster/backfill") == backfill]
        figures = {run.id: run.figures for run in DagsterUi(dev.url).runs()}
    seen = {asset: numbers["seen"] for run in made for asset, numbers in figures[run["runId"]].items()}
    assert len(made) == 2
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
        return next(run["status"] for run in runs(dev) if run["runId"] == run_id) in {"SUCCESS", "FAILURE"}

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
        with on_dagster(
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
