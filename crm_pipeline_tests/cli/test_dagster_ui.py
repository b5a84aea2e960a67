"""Dagster from outside: what its GraphQL answers, good and bad."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from crm_pipeline.cli.dagster_ui import DagsterUi, Run, dagster_dev, environment_without
from crm_pipeline.cli.options import CommandError
from crm_pipeline.simulators.serve import running

Ask: TypeAlias = Callable[[DagsterUi], Any]


def asked(answer: dict[str, Any], ask: Ask) -> Any:
    """What comes of a question when the server gives this answer."""

    async def respond(_request: Request) -> Response:
        return JSONResponse(answer)

    app = Starlette(routes=[Route("/graphql", respond, methods=["POST"])])
    with running(app) as url:
        return ask(DagsterUi(url))


def workspace(**entry: Any) -> dict[str, Any]:
    """A workspace with our location in some state."""
    entries = [{"name": "crm_pipeline", "loadStatus": "LOADED", "locationOrLoadError": None, **entry}]
    return {"data": {"workspaceOrError": {"__typename": "Workspace", "locationEntries": entries}}}


LOADED = {"__typename": "RepositoryLocation"}


@pytest.mark.parametrize(
    "answer,expected",
    [
        (workspace(locationOrLoadError=LOADED), True),
        (workspace(locationOrLoadError=LOADED, loadStatus="LOADING"), False),
        (workspace(), False),
        (workspace(name="another", locationOrLoadError=LOADED), False),
        ({"data": {"workspaceOrError": {"__typename": "PythonError"}}}, False),
    ],
)
def test_it_is_up_when_our_code_is_loaded(answer: dict[str, Any], expected: bool) -> None:  # noqa: FBT001
    """A server that answers is not enough."""
    assert asked(answer, DagsterUi.loaded) is expected


def test_a_server_that_does_not_answer_yet_is_not_up() -> None:
    """Nobody listens: wait on, no error."""
    assert DagsterUi("http://127.0.0.1:1").loaded() is False


def test_code_that_does_not_load_is_an_error_with_its_cause() -> None:
    """Dagster wraps the error; the innermost says what is wrong."""
    causes = [{"message": "outer"}, {"message": "SettingsError: RATE_LIMIT must be\n"}]
    broken = {"__typename": "PythonError", "message": "DagsterUserCodeLoadError", "causes": causes}
    with pytest.raises(CommandError, match=r"SettingsError: RATE_LIMIT must be$"):
        asked(workspace(locationOrLoadError=broken), DagsterUi.loaded)


def test_a_run_is_launched() -> None:
    """The id comes back."""
    success = {"__typename": "LaunchRunSuccess", "run": {"runId": "abc"}}
    assert asked({"data": {"launchRun": success}}, lambda ui: ui.launch("sync_job")) == "abc"


@pytest.mark.parametrize(
    "refusal,reason",
    [
        ({"__typename": "PipelineNotFoundError"}, "PipelineNotFoundError"),
        ({"__typename": "PythonError", "message": "no queue"}, "no queue"),
        (
            {"__typename": "RunConfigValidationInvalid", "errors": [{"message": "a"}, {"message": "b"}]},
            "a; b",
        ),
    ],
)
def test_a_refused_launch_is_an_error_with_its_reason(refusal: dict[str, Any], reason: str) -> None:
    """Not started, and why."""
    with pytest.raises(CommandError, match=f"does not launch sync_job: {reason}"):
        asked({"data": {"launchRun": refusal}}, lambda ui: ui.launch("sync_job"))


def test_runs_come_with_the_figures_of_their_assets() -> None:
    """Whole numbers and fractions by asset and name; texts and tables are left out."""
    entries = [
        {"label": "seen", "intValue": 3},
        {"label": "duration_seconds", "floatValue": 0.5},
        {"label": "note"},
        {"label": "too_large", "intValue": None},
    ]
    materialization = {"assetKey": {"path": ["contacts"]}, "metadataEntries": entries}
    run = {"runId": "a", "jobName": "j", "status": "STARTED", "assetMaterializations": [materialization]}
    (found,) = asked({"data": {"runsOrError": {"results": [run]}}}, DagsterUi.runs)
    assert found == Run("a", "j", "STARTED", {"contacts": {"seen": 3, "duration_seconds": 0.5}})
    assert not found.ended


def test_a_failed_run_says_why() -> None:
    """The first error of its events, down to its cause."""
    error = {"message": "step failed", "causes": [{"message": "CrmRefusedError: 401"}]}
    events = [{"__typename": "RunStartEvent"}, {"__typename": "ExecutionStepFailureEvent", "error": error}]
    answer = {"data": {"logsForRun": {"events": events}}}
    assert asked(answer, lambda ui: ui.failure("a")) == "CrmRefusedError: 401"


def test_a_refused_query_is_an_error() -> None:
    """GraphQL answers 200 to what it does not understand."""
    with pytest.raises(CommandError, match="no such field"):
        asked({"errors": [{"message": "no such field"}]}, DagsterUi.runs)


def test_another_folder_is_refused_before_anything_starts(tmp_path: Path) -> None:
    """Without workspace.yaml Dagster would load something else, or nothing."""
    with (
        pytest.raises(CommandError, match=r"no workspace\.yaml"),
        dagster_dev(tmp_path, tmp_path / "home", 1, folder=tmp_path, environment={}),
    ):
        pytest.fail("it started")
    assert not (tmp_path / "home").exists()


def test_children_get_our_environment_without_what_steers_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of ours and of Dagster stay out, everything else goes along."""
    for name in ("DAGSTER_HOME", "RATE_LIMIT", "rate_limit", "UNRELATED"):
        monkeypatch.setenv(name, "x")
    environment = environment_without(["RATE_LIMIT"])
    assert environment["UNRELATED"] == "x"
    assert not {"DAGSTER_HOME", "RATE_LIMIT", "rate_limit"} & set(environment)
