"""Dagster from outside: its processes, and its web server's GraphQL."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import requests

from crm_pipeline.cli.dagster_home import furnish
from crm_pipeline.cli.options import CommandError
from crm_pipeline.cli.processes import child

LOCATION = "crm_pipeline"
REPOSITORY = "__repository__"
_ENDED = frozenset({"SUCCESS", "FAILURE", "CANCELED"})
_TIMEOUT = (5.0, 30.0)


@contextmanager
def dagster_dev(
    project: Path,
    home: Path,
    port: int,
    *,
    folder: Path,
    environment: Mapping[str, str],
    log: Path | None = None,
    keep_open: Sequence[IO[str]] = (),
) -> Iterator[subprocess.Popen[bytes]]:
    """Run web server, daemon and code server of the project's workspace, on loopback.

    Args:
        project: folder with ``workspace.yaml`` and the instance files.
        home: Dagster's own folder; it gets a copy of the one that goes with the environment.
        port: of the web server.
        folder: working folder of all processes, whose ``.env`` they read.
        environment: their variables, beside ``DAGSTER_HOME``.
        log: file for their output; ours when not given.
        keep_open: files the first process inherits.

    Raises:
        CommandError: the project's folder is another one.
    """
    workspace = project / "workspace.yaml"
    if not workspace.is_file():
        raise CommandError(f"{project} holds no {workspace.name}: run this in the project's own folder")
    furnish(project, home, environment)
    command = [sys.executable, "-m", "dagster", "dev", "-w", str(workspace)]
    with child(
        [*command, "-h", "127.0.0.1", "-p", str(port)],
        folder=folder,
        environment={**environment, "DAGSTER_HOME": str(home)},
        log=log,
        keep_open=keep_open,
    ) as process:
        yield process


def environment_without(names: Sequence[str]) -> dict[str, str]:
    """Return our own variables except these and Dagster's."""
    return {
        name: value
        for name, value in os.environ.items()
        if name.upper() not in names and not name.startswith("DAGSTER_")
    }


@dataclass(frozen=True, slots=True)
class Run:
    """One run, with what its materializations say of themselves."""

    id: str
    job: str
    status: str
    figures: dict[str, dict[str, float]]
    """Numbers by asset and name."""

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.status in _ENDED


_LOADED = """
query { workspaceOrError { __typename
  ... on Workspace { locationEntries { name loadStatus locationOrLoadError { __typename
    ... on PythonError { message causes { message } } } } } } }
"""
_LAUNCH = """
mutation($params: ExecutionParams!) { launchRun(executionParams: $params) { __typename
  ... on LaunchRunSuccess { run { runId } }
  ... on RunConfigValidationInvalid { errors { message } }
  ... on PythonError { message } } }
"""
_RUNS = """
query { runsOrError(limit: 500) { __typename
  ... on Runs { results { runId jobName status assetMaterializations {
    assetKey { path }
    metadataEntries { label
      ... on IntMetadataEntry { intValue }
      ... on FloatMetadataEntry { floatValue } } } } } } }
"""
_FAILURE = """
query($id: ID!) { logsForRun(runId: $id) { __typename
  ... on EventConnection { events { __typename
    ... on ExecutionStepFailureEvent { error { message causes { message } } }
    ... on RunFailureEvent { error { message causes { message } } } } } } }
"""


class DagsterUi:
    """The web server, asked over HTTP."""

    def __init__(self, url: str) -> None:
        """``url`` is the server's root."""
        self.url = url
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy has no business on loopback

    def loaded(self) -> bool:
        """Tell whether the server answers and has loaded our code.

        Raises:
            CommandError: the code does not load.
        """
        try:
            workspace = self._ask(_LOADED)["workspaceOrError"]
        except requests.RequestException:
            return False
        entries = {entry["name"]: entry for entry in workspace.get("locationEntries", ())}
        entry = entries.get(LOCATION)
        if entry is None or entry["loadStatus"] != "LOADED" or entry["locationOrLoadError"] is None:
            return False
        if "message" in entry["locationOrLoadError"]:
            raise CommandError(f"Dagster cannot load the code: {_cause(entry['locationOrLoadError'])}")
        return True

    def launch(self, job: str) -> str:
        """Launch a job and return the run's id.

        Raises:
            CommandError: Dagster refuses.
        """
        selector = {"repositoryLocationName": LOCATION, "repositoryName": REPOSITORY, "jobName": job}
        params = {"selector": selector, "runConfigData": {}, "mode": "default"}
        answer = self._ask(_LAUNCH, {"params": params})["launchRun"]
        if answer["__typename"] != "LaunchRunSuccess":
            reasons = [error["message"] for error in answer.get("errors", [answer]) if "message" in error]
            raise CommandError(f"Dagster does not launch {job}: {'; '.join(reasons) or answer['__typename']}")
        return str(answer["run"]["runId"])

    def runs(self) -> list[Run]:
        """Return all runs, newest first."""
        found = self._ask(_RUNS)["runsOrError"].get("results", ())
        return [
            Run(run["runId"], run["jobName"], run["status"], _figures(run["assetMaterializations"]))
            for run in found
        ]

    def failure(self, run_id: str) -> str:
        """Return why a run failed."""
        events = self._ask(_FAILURE, {"id": run_id})["logsForRun"].get("events", ())
        errors = [_cause(event["error"]) for event in events if event.get("error")]
        return errors[0] if errors else "Dagster does not say why"

    def _ask(self, query: str, variables: dict[str, Any] | None = None) -> dict[str, Any]:
        response = self._session.post(
            f"{self.url}/graphql", json={"query": query, "variables": variables or {}}, timeout=_TIMEOUT
        )
        response.raise_for_status()
        answer = response.json()
        if answer.get("errors"):
            raise CommandError(f"Dagster refuses a query: {answer['errors'][0]['message']}")
        data: dict[str, Any] = answer["data"]
        return data


def _cause(error: dict[str, Any]) -> str:
    """Return what an error comes down to: Dagster wraps ours in several of its own."""
    return str([error, *error["causes"]][-1]["message"]).strip()


def _figures(materializations: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    figures: dict[str, dict[str, float]] = {}
    for each in materializations:
        numbers = figures.setdefault(each["assetKey"]["path"][-1], {})
        for entry in each["metadataEntries"]:
            value = entry.get("intValue", entry.get("floatValue"))
            if value is not None:
                numbers[entry["label"]] = value
    return figures
