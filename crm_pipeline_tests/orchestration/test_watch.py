"""The schedule and the job that keep Zoho's notification channel."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from crm_pipeline.connectors.base import CrmRefusedError
from crm_pipeline.definitions import defs
from crm_pipeline.orchestration.watch import watch_job, watch_schedule
from crm_pipeline_tests.orchestration.fakes import FakeService, resources, settings

NOON = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)


@dataclass
class Watching(FakeService):
    """A service with a channel."""

    due: bool = True

    def watch_due(self, now: datetime) -> bool:
        """See ``ExternalCrmService``."""
        assert now == NOON
        return self.due

    def renew_watch(self) -> datetime:
        """See ``ExternalCrmService``."""
        self.asked.append(("renew",))
        if self.error is not None:
            raise self.error
        return NOON + timedelta(hours=23)


# Made before any test runs: Dagster asks the instance that was used last, which may be gone by then.
_REPOSITORY = dg.Definitions(jobs=[watch_job], resources=resources(Watching())).get_repository_def()


def _tick(instance: dg.DagsterInstance, service: FakeService) -> Any:
    with dg.build_schedule_context(
        instance=instance,
        scheduled_execution_time=NOON,
        repository_def=_REPOSITORY,
        resources=resources(service),
    ) as context:
        data = watch_schedule.evaluate_tick(context)
    return data.run_requests[0] if data.run_requests else data.skip_message


def test_a_due_channel_is_renewed_by_a_run(instance: dg.DagsterInstance) -> None:
    """Only when it is due, and by one run at a time."""
    assert isinstance(_tick(instance, Watching()), dg.RunRequest)
    assert _tick(instance, Watching(due=False)) == "the channel is not half through its life"
    off = Watching(settings=settings(external_crm_enabled=False))
    assert _tick(instance, off) == "EXTERNAL_CRM_ENABLED is false"
    run = dg.DagsterRun(job_name="watch_job", status=dg.DagsterRunStatus.STARTED, tags=watch_job.tags)
    run_id = instance.add_run(run).run_id
    assert _tick(instance, Watching()) == f"run {run_id} is queued or in progress"


@pytest.mark.parametrize("error", [None, CrmRefusedError("Zoho does not take it")])
def test_the_job_renews_or_fails(instance: dg.DagsterInstance, error: Exception | None) -> None:
    """A channel that Zoho refuses is a failed run."""
    service = Watching(error=error)
    result = watch_job.execute_in_process(
        instance=instance, resources=resources(service), raise_on_error=False
    )
    assert result.success is (error is None)
    assert ("renew",) in service.asked


def test_only_where_an_address_is_configured(tmp_path: Path) -> None:
    """Others have neither job nor schedule."""
    assert not any("watch" in job for job in defs.get_repository_def().job_names)
    file = tmp_path / "zoho.yaml"
    file.write_text("type: zoho\nwebhook:\n  public_url: https://hooks.example.com/crm\n")
    code = (
        "from crm_pipeline.definitions import defs; "
        "print(*[(s.name, s.job_name, s.cron_schedule) for s in defs.get_repository_def().schedule_defs])"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": ":".join(sys.path), "EXTERNAL_CRM_CONFIG": str(file)},
    )
    assert "('watch_schedule', 'watch_job', '*/10 * * * *')" in loaded.stdout, loaded.stderr
