"""The demo's story: played with the API but without Dagster; its checks fail when something is wrong."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from crm_pipeline.api.app import create_app
from crm_pipeline.api.logs import Log
from crm_pipeline.cli.dagster_ui import Run
from crm_pipeline.cli.demo_story import STEPS, Story, document
from crm_pipeline.cli.http_api import HttpApi
from crm_pipeline.cli.options import CommandError
from crm_pipeline.cli.output import as_json
from crm_pipeline.service import ExternalCrmService
from crm_pipeline.simulators.generic import GenericCrm
from crm_pipeline.simulators.serve import running
from crm_pipeline.sync.reports import Report

KEY, SECRET = "key-of-the-tests", "secret-of-the-tests"


def figures(reports: list[Report]) -> dict[str, dict[str, float]]:
    """What Dagster's materializations would say."""
    by_step = {report.step: report for report in reports}
    return {
        asset: {
            **by_step[step].counts.as_dict(),
            "api_calls": by_step[step].api_calls,
            "duration_seconds": 0.1,
        }
        for asset, step in STEPS.items()
        if step in by_step
    }


@dataclass
class Here:
    """Runs jobs in this process instead of Dagster."""

    push: bool = True
    status: str = "SUCCESS"
    applied_by: str = "webhook_job"
    done: list[Run] = field(default_factory=list)

    def launch(self, job: str) -> str:
        """Run it at once."""
        with ExternalCrmService() as service:
            reports = service.sync(push=self.push)
        self.done.append(Run(f"run-{len(self.done)}", job, self.status, figures(reports)))
        return self.done[-1].id

    def tick(self) -> None:
        """Run what the sensor would, as soon as it would."""
        with ExternalCrmService(run_id=f"run-{len(self.done)}") as service:
            if service.events_pending():
                report = service.apply()
                self.done.append(Run(service.run_id, self.applied_by, self.status, figures([report])))

    def runs(self) -> list[Run]:
        """All that ran."""
        return self.done

    def failure(self, run_id: str) -> str:
        """Why one failed."""
        return f"{run_id} failed on purpose"


@pytest.fixture
def tell(crm: GenericCrm) -> Callable[..., Story]:
    """Play the story with a runner, as far as it goes."""
    with Path(".env").open("a") as env:
        env.write(f"CRM_API_KEY={KEY}\nEXTERNAL_CRM_WEBHOOK_SECRET={SECRET}\n")

    def play(runner: Here, secret: str = SECRET) -> Story:
        said: list[str] = []
        with (
            ExternalCrmService() as service,
            running(create_app(service, Log(io.BytesIO()))) as url,
        ):
            api, database = HttpApi(url, KEY), Path("var/crm_pipeline.db")
            story = Story(crm, database, runner, api, secret, said.append, runner.tick)
            story.play()
        assert [line.split()[0] for line in said] == ["First", "Both", "Second", "Third", "Webhooks:", "One"]
        return story

    return play


def test_every_check_holds(tell: Callable[..., Story]) -> None:
    """Three syncs of three steps, changes both ways in the second, none in the third; webhooks; a push."""
    story = tell(Here())
    assert [check for check in story.checks if not check.held] == []
    assert [(row.sync, row.step) for row in story.rows] == [
        *((sync, step) for sync in ("first", "second", "third") for step in ("pull", "apply", "push")),
        ("webhooks", "receive"),
        ("webhooks", "apply"),
        ("by hand", "push"),
    ]
    assert json.loads(as_json(document(story)))["held"] is True


def test_webhooks_are_counted_by_their_answers(tell: Callable[..., Story]) -> None:
    """Of four, one creates, one updates, one is a repeat and one is refused: the columns add up."""
    received = next(row for row in tell(Here()).rows if row.step == "receive").figures
    outcomes = ("created", "updated", "unchanged", "skipped", "rejected")
    assert [received[name] for name in outcomes] == [1, 1, 0, 1, 1]
    assert received["seen"] == 4


def test_webhooks_that_do_not_get_in_are_noticed(tell: Callable[..., Story]) -> None:
    """With a wrong secret nothing is applied, and the story goes on to say so."""
    failed = {check.what for check in tell(Here(), "another-secret").checks if not check.held}
    assert {
        "webhooks are answered",
        "webhooks are applied",
        "contacts created by webhooks",
        "what webhooks told is in the database",
        "the API's status",
    } <= failed


def test_webhooks_that_another_run_applied_are_noticed(tell: Callable[..., Story]) -> None:
    """It is the sensor that is shown."""
    failed = [check.what for check in tell(Here(applied_by="pull_job")).checks if not check.held]
    assert failed == ["the sensor's run applied them"]


def test_a_push_that_does_not_happen_is_noticed(tell: Callable[..., Story]) -> None:
    """The checks can fail: nothing of ours reaches the CRM."""
    failed = {check.what for check in tell(Here(push=False)).checks if not check.held}
    assert {
        "CRM records updated from here",
        "SQL edits found in the CRM",
        "records in the CRM at last",
    } <= failed


def test_a_failed_run_ends_the_story(tell: Callable[..., Story]) -> None:
    """With its reason, at once."""
    with pytest.raises(CommandError, match="sync_job ended as FAILURE: run-0 failed on purpose"):
        tell(Here(status="FAILURE"))
