"""The demo's story: played without Dagster, its checks hold, and fail when something is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from crm_pipeline.cli.dagster_ui import Run
from crm_pipeline.cli.demo_story import STEPS, Story, document
from crm_pipeline.cli.options import CommandError
from crm_pipeline.service import ExternalCrmService
from crm_pipeline.simulators.generic import GenericCrm
from crm_pipeline.sync.reports import Report


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
    done: list[Run] = field(default_factory=list)

    def launch(self, job: str) -> str:
        """Run it at once."""
        with ExternalCrmService() as service:
            reports = service.sync(push=self.push)
        self.done.append(Run(f"run-{len(self.done)}", job, self.status, figures(reports)))
        return self.done[-1].id

    def runs(self) -> list[Run]:
        """All that ran."""
        return self.done

    def failure(self, run_id: str) -> str:
        """Why one failed."""
        return f"{run_id} failed on purpose"


@pytest.fixture
def tell(crm: GenericCrm) -> Callable[[Here], Story]:
    """Play the story with a runner, as far as it goes."""

    def play(runner: Here) -> Story:
        said: list[str] = []
        story = Story(crm, Path("var/crm_pipeline.db"), runner, said.append, lambda: None)
        story.play()
        assert [line.split()[0] for line in said] == ["First", "Both", "Second", "Third"]
        return story

    return play


def test_every_check_holds(tell: Callable[[Here], Story]) -> None:
    """Three syncs of three steps, changes both ways in the second, none in the third."""
    story = tell(Here())
    assert [check for check in story.checks if not check.held] == []
    assert [(row.sync, row.step) for row in story.rows] == [
        (sync, step) for sync in ("first", "second", "third") for step in ("pull", "apply", "push")
    ]
    assert document(story)["held"] is True


def test_a_push_that_does_not_happen_is_noticed(tell: Callable[[Here], Story]) -> None:
    """The checks can fail: nothing of ours reaches the CRM."""
    failed = {check.what for check in tell(Here(push=False)).checks if not check.held}
    assert {
        "CRM records updated from here",
        "SQL edits found in the CRM",
        "records in the CRM at last",
    } <= failed


def test_a_failed_run_ends_the_story(tell: Callable[[Here], Story]) -> None:
    """With its reason, at once."""
    with pytest.raises(CommandError, match="sync_job ended as FAILURE: run-0 failed on purpose"):
        tell(Here(status="FAILURE"))
