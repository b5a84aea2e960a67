"""Dagster's real processes with our code in them: what they tell anybody."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from crm_pipeline.cli.processes import wait_until
from crm_pipeline.simulators.generic import CrmOptions, GenericCrm
from crm_pipeline_tests.databases import PostgresDatabases
from crm_pipeline_tests.orchestration.processes import MARKERS, Dev, on_dagster, runs

PASSWORD = "s3cret-marker-password"

pytestmark = pytest.mark.timeout(600)  # real Dagster processes; a run costs them seconds


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

    wait_until(ended, seconds=120, what="a run", every=0.5)
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
            assert "AccessRefusedError" in told[-1]
            job = {"repositoryLocationName": "crm_pipeline", "repositoryName": "__repository__"}
            of_us = dev.ask(_TOLD_OF_US, repository=job, job={**job, "pipelineName": "sync_job"})
            told.append(json.dumps(of_us))
            assert "EXTERNAL_CRM_API_KEY" in told[-1]
        stored = [path.read_bytes() for path in dev.home.rglob("*") if path.is_file()]
    secrets = [*MARKERS.values(), PASSWORD]
    assert stored
    assert [secret for secret in secrets if any(secret in text for text in told)] == []
    assert [secret for secret in secrets if any(secret.encode() in content for content in stored)] == []
