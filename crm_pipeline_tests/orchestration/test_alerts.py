"""The sensor that tells people."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from crm_pipeline import ExternalCrmService
from crm_pipeline.orchestration.alerts import alert_sensor
from crm_pipeline.orchestration.runs import failing, oldest_queued
from crm_pipeline_tests.orchestration.fakes import FakeService, resources, settings
from crm_pipeline_tests.orchestration.history import add_run
from crm_pipeline_tests.orchestration.outage import Outage, listening
from crm_pipeline_tests.orchestration.world import CONNECTION, World


@pytest.fixture
def outage(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Outage, list[str]]]:
    """A world whose runs do not wait for a CRM that is away, and whose alerts are heard."""
    (tmp_path / "crm.yaml").write_text(f"{CONNECTION}limits: {{retries: 0}}\n")
    monkeypatch.setenv("EXTERNAL_CRM_SYNC_INTERVAL", "720")
    monkeypatch.setenv("EXTERNAL_CRM_PUSH", "manual")
    with listening() as (url, lines):
        monkeypatch.setenv("ALERT_SLACK_URL", url)
        yield Outage(world, datetime.now(UTC)), lines


def test_three_days_without_the_crm_are_one_incident_and_one_catch_up(
    outage: tuple[Outage, list[str]],
) -> None:
    """A run for each interval, no storm after it, each alert once and its recovery once."""
    play, lines = outage
    world, step = play.world, timedelta(hours=4)
    play.go_on(step, step)
    play.away(away=True)
    play.go_on(timedelta(days=3), step)
    assert play.runs == {("pull_job", True): 1, ("pull_job", False): 6}
    assert [line.split(":")[0] for line in lines] == ["ERROR", "WARNING", "ERROR"]
    assert "s3cret" not in repr(world.rows("SELECT * FROM alerts"))
    for key in list(world.crm.records)[:5]:
        world.crm.edit(key, notes="edited while nobody could read it")
    play.away(away=False)
    play.go_on(timedelta(days=1), step)
    edited = "SELECT count(*) FROM contacts WHERE notes = 'edited while nobody could read it'"
    assert world.rows(edited) == [(5,)]
    assert play.runs == {("pull_job", True): 3, ("pull_job", False): 6}
    assert sorted(line.split(" (")[0].split(", after")[0] for line in lines) == [
        "ERROR: pull fails: the CRM cannot answer now",
        "ERROR: still wrong, now an error: the check 'freshness' fails",
        "RECOVERED: check freshness",
        "RECOVERED: step pull",
        "WARNING: the check 'freshness' fails",
    ]


def test_what_dagster_says_of_our_runs(instance: dg.DagsterInstance) -> None:
    """The newest end of each job counts; backfills have no job that could recover."""
    for job, status in [
        ("pull_job", dg.DagsterRunStatus.FAILURE),
        ("pull_job", dg.DagsterRunStatus.SUCCESS),
        ("webhook_job", dg.DagsterRunStatus.SUCCESS),
        ("webhook_job", dg.DagsterRunStatus.FAILURE),
        ("webhook_job", dg.DagsterRunStatus.STARTED),
        ("push_job", dg.DagsterRunStatus.CANCELED),
    ]:
        add_run(instance, job, status)
    assert failing(instance) == ["webhook_job"]
    assert oldest_queued(instance) is None
    before = datetime.now(UTC)
    add_run(instance, "pull_job", dg.DagsterRunStatus.QUEUED)
    add_run(instance, "pull_job", dg.DagsterRunStatus.QUEUED)
    waiting = oldest_queued(instance)
    assert waiting is not None
    assert abs((waiting - before).total_seconds()) < 30


def test_it_says_what_it_found(world: World) -> None:
    """In the UI, under Automation; nothing is told where no channel is set."""
    world.run("pull_job")
    assert world.tick(alert_sensor) == "0 wrong; told by nobody: no channel is set"
    world.sql("UPDATE contacts SET status = 'Someday' WHERE id = (SELECT min(id) FROM contacts)")
    assert world.tick(alert_sensor) == "1 wrong; told by nobody: no channel is set"
    with ExternalCrmService(world.database_url) as service:
        assert [each.key for each in service.incidents()] == ["check known_choices"]


def test_nothing_is_looked_at_while_the_integration_is_off() -> None:
    """Whoever switched it off knows."""
    service = FakeService(settings=settings(external_crm_enabled=False))
    with dg.build_sensor_context(resources=resources(service)) as context:
        data = alert_sensor.evaluate_tick(context)
    assert data.skip_message == "EXTERNAL_CRM_ENABLED is false"
