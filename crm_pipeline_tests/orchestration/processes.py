"""Real Dagster processes around a CRM: started, asked over GraphQL, backfilled."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from crm_pipeline.cli.dagster_ui import DagsterUi, dagster_dev
from crm_pipeline.cli.processes import usable_port, wait_until
from crm_pipeline.simulators.generic import CONTACTS_PATH, GenericCrm, create_app
from crm_pipeline.simulators.serve import running

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
def on_dagster(folder: Path, crm: GenericCrm, **variables: str) -> Iterator[Dev]:
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
            wait_until(DagsterUi(url).loaded, seconds=120, what="loading our code", every=0.5)
            yield Dev(crm, url, home)


_RUNS = """
query { runsOrError(limit: 100) { ... on Runs { results {
  runId jobName status creationTime assetSelection { path } tags { key value } } } } }
"""


def runs(dev: Dev) -> list[dict[str, Any]]:
    """All runs, newest first."""
    found: list[dict[str, Any]] = dev.ask(_RUNS)["runsOrError"]["results"]
    for run in found:
        run["tags"] = {tag["key"]: tag["value"] for tag in run["tags"]}
    return found


_BACKFILL = """
mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
  __typename ... on LaunchBackfillSuccess { backfillId } } }
"""
_BACKFILL_STATUS = """
query($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } } }
"""
GOING = {"REQUESTED"}


def start_backfill(dev: Dev, assets: list[str], days: list[str]) -> str:
    """Ask for a backfill as the web interface does."""
    params = {"partitionNames": days, "assetSelection": [{"path": [asset]} for asset in assets]}
    started = dev.ask(_BACKFILL, params=params)["launchPartitionBackfill"]
    assert started["__typename"] == "LaunchBackfillSuccess"
    return str(started["backfillId"])


def backfill_status(dev: Dev, backfill: str) -> str:
    """How far it is."""
    return str(dev.ask(_BACKFILL_STATUS, id=backfill)["partitionBackfillOrError"]["status"])
