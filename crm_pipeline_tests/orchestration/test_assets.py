"""What a run of our assets asks the service for, and what it tells Dagster."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
from sqlalchemy.exc import OperationalError

from crm_pipeline import instants
from crm_pipeline.connectors.base import CrmUnavailableError
from crm_pipeline.definitions import defs
from crm_pipeline.orchestration.results import table
from crm_pipeline.store.rejects import Reject
from crm_pipeline_tests.orchestration.fakes import WELL, FakeService, resources

DAY = datetime(2026, 3, 1, tzinfo=UTC)
NEXT_DAY = datetime(2026, 3, 2, tzinfo=UTC)
NEXT_MONTH = datetime(2026, 3, 31, tzinfo=UTC)
RANGE = {
    "dagster/asset_partition_range_start": "2026-03-01",
    "dagster/asset_partition_range_end": "2026-03-30",
}


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """One in memory, as nothing here is about how Dagster keeps it: a file is opened anew for each event."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def _mode(mode: str) -> dict[str, Any]:
    return {"ops": {"external_contacts": {"config": {"mode": mode}}}}


def _run(
    instance: dg.DagsterInstance, service: FakeService, job: str = "sync_job", **run: Any
) -> dg.ExecuteInProcessResult:
    return defs.resolve_job_def(job).execute_in_process(
        instance=instance, resources=resources(service), raise_on_error=False, **run
    )


def _steps(service: FakeService) -> list[tuple[object, ...]]:
    return [asked for asked in service.asked if asked[0] not in {"opened", "evidence"}]


@pytest.mark.parametrize(
    "run, first_step",
    [
        ({}, ("pull", None, None)),
        ({"partition_key": "2026-03-01"}, ("pull", DAY, NEXT_DAY)),
        ({"tags": RANGE}, ("pull", DAY, NEXT_MONTH)),
        ({"run_config": _mode("incremental")}, ("pull", None, None)),
        ({"run_config": _mode("incremental"), "tags": RANGE}, ("pull", None, None)),
        ({"run_config": _mode("remap")}, ("remap", None, None)),
        ({"run_config": _mode("remap"), "partition_key": "2026-03-01"}, ("remap", DAY, NEXT_DAY)),
        ({"run_config": _mode("remap"), "tags": RANGE}, ("remap", DAY, NEXT_MONTH)),
    ],
    ids=["plain", "day", "days", "incremental", "poll", "remap-all", "remap-day", "remap-days"],
)
def test_what_a_run_reads(
    instance: dg.DagsterInstance, run: dict[str, Any], first_step: tuple[object, ...]
) -> None:
    """No partition: from the watermark on. Partitions: exactly their days, again. Remap: no CRM call."""
    service = FakeService()
    assert _run(instance, service, "pull_job", **run).success
    assert _steps(service) == [first_step, ("apply",)]


def test_a_range_of_days_is_one_read_that_marks_every_day(instance: dg.DagsterInstance) -> None:
    """Thirty days are one window of the CRM and thirty materialized partitions; contacts have no days."""
    service = FakeService()
    result = _run(instance, service, tags=RANGE)
    marked = [
        (event.asset_key.to_user_string() if event.asset_key else "", event.partition)
        for event in result.all_events
        if event.is_step_materialization
    ]
    assert len([name for name, partition in marked if name == "external_contacts" and partition]) == 30
    assert ("contacts", None) in marked
    assert _steps(service) == [("pull", DAY, NEXT_MONTH), ("apply",), ("push",)]


@pytest.mark.parametrize(
    "run, asked",
    [
        ({}, (None, None)),
        ({"partition_key": "2026-03-01"}, (DAY, NEXT_DAY)),
        ({"tags": RANGE}, (DAY, NEXT_MONTH)),
    ],
    ids=["all", "day", "days"],
)
def test_what_a_webhook_run_tells(
    instance: dg.DagsterInstance, run: dict[str, Any], asked: tuple[object, ...]
) -> None:
    """Which webhooks of its days are due; then everything that has landed is applied. Nothing is pulled."""
    service = FakeService()
    assert _run(instance, service, "webhook_job", **run).success
    assert _steps(service) == [("events_due", *asked), ("apply",)]


def test_deletes_are_allowed_by_config(instance: dg.DagsterInstance) -> None:
    """What a run refuses to archive, a run that is told so archives."""
    service = FakeService()
    allowed = {"ops": {"contacts": {"config": {"allow_deletes": True}}}}
    assert _run(instance, service, "webhook_job", run_config=allowed).success
    assert _steps(service)[-1] == ("apply", "allow deletes")


def test_webhooks_show_how_long_the_oldest_waits(instance: dg.DagsterInstance) -> None:
    """A plottable number of seconds where one waits; no number where none does."""
    oldest = instants.now() - timedelta(seconds=90)
    waits = _metadata(_run(instance, FakeService(oldest_event_at=oldest), "webhook_job"), "webhook_events")
    assert 90 <= waits["oldest_waits_seconds"].value < 150
    idle = _metadata(_run(instance, FakeService(), "webhook_job"), "webhook_events")
    assert "oldest_waits_seconds" not in idle


def test_a_run_carries_its_id_into_the_history(instance: dg.DagsterInstance) -> None:
    """What a step writes can be found by Dagster's run id."""
    service = FakeService()
    result = _run(instance, service, "push_job")
    assert ("opened", result.run_id) in service.asked


def _metadata(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    (event,) = result.asset_materializations_for_node(asset)
    return dict(event.metadata)


@pytest.mark.parametrize(
    "job, asset",
    [
        ("sync_job", "external_contacts"),
        ("sync_job", "contacts"),
        ("sync_job", "outbound_push"),
        ("webhook_job", "webhook_events"),
    ],
)
def test_figures_are_numbers_that_add_up(instance: dg.DagsterInstance, job: str, asset: str) -> None:
    """Every asset shows its counts as plottable numbers, and they add up."""
    service = FakeService(watermark=DAY)
    metadata = _metadata(_run(instance, service, job), asset)
    ended = ["created", "updated", "unchanged", "skipped", "rejected"]
    figures = [*ended, "seen", "api_calls", "pages", "conflicts", "pending"]
    assert all(isinstance(metadata[name], dg.IntMetadataValue) for name in figures)
    assert metadata["seen"].value == sum(metadata[name].value for name in ended) == 15
    assert metadata["duration_seconds"].value == 1.5
    assert metadata["watermark"] == dg.MetadataValue.timestamp(DAY)
    assert [record.data["records"] for record in metadata["preview"].records] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "job, asset, shown",
    [("pull_job", "external_contacts", "preview"), ("webhook_job", "webhook_events", "by_day")],
)
def test_each_day_shows_its_own_records(
    instance: dg.DagsterInstance, job: str, asset: str, shown: str
) -> None:
    """Of a run over many days, each partition has its own figure, and a table has them all."""
    service = FakeService(days={"2026-03-01": 4, "2026-03-03": 6})
    three_days = {**RANGE, "dagster/asset_partition_range_end": "2026-03-03"}
    events = _run(instance, service, job, tags=three_days).asset_materializations_for_node(asset)
    figures = {event.partition: event.metadata["records_of_the_day"].value for event in events}
    assert figures == {"2026-03-01": 4, "2026-03-02": 0, "2026-03-03": 6}
    assert events[0].metadata[shown] == table("day", service.days)


def test_rejects_show_fields_and_nobody(instance: dg.DagsterInstance) -> None:
    """Open rejects are counted by field, without a word of what the fields held."""
    reasons = ({"capacity": "is 'Budi'"}, {"capacity": "is 'Ani'", "status": "is unknown"})
    rejected = [
        Reject(
            id=number,
            source="pull",
            key=f"r{number}",
            reasons=reason,
            attempts=1,
            next_attempt_at=None,
            record_id=None,
            contact_id="6281234567890@c.us",
            first_at=DAY,
            last_at=DAY,
        )
        for number, reason in enumerate(reasons)
    ]
    metadata = _metadata(_run(instance, FakeService(rejected=rejected)), "contacts")
    assert metadata["open_rejects"] == table("field", {"capacity": 2, "status": 1})


def test_a_remap_counts_what_it_lets_be_mapped_again(instance: dg.DagsterInstance) -> None:
    """Seven records as they had landed, and no call of the CRM."""
    metadata = _metadata(_run(instance, FakeService(), run_config=_mode("remap")), "external_contacts")
    assert metadata["seen"].value == metadata["unchanged"].value == 7
    assert metadata["api_calls"].value == 0


def test_rejects_leave_a_run_green_with_a_warning(instance: dg.DagsterInstance) -> None:
    """One bad record stops nothing; a check says so, as a warning with its figures."""
    outcomes = {**WELL.outcomes, "created": 79, "rejected": 1}
    service = FakeService(summary=replace(WELL, outcomes=outcomes, pull_rejects=1))
    result = _run(instance, service)
    assert result.success
    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    assert {check.severity for check in checks.values()} == {dg.AssetCheckSeverity.WARN}
    assert [name for name, check in checks.items() if not check.passed] == ["rejects"]
    assert checks["rejects"].metadata["reject_rate"].value == 0.01


def test_a_failed_pull_stops_its_run(instance: dg.DagsterInstance) -> None:
    """An error is never an empty result: nothing after it runs, and the reason is told."""
    service = FakeService(error=CrmUnavailableError("the CRM answered 503 five times"))
    result = _run(instance, service)
    assert not result.success
    assert _steps(service) == [("pull", None, None)]
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert failure.step_failure_data.user_failure_data is not None
    assert (
        failure.step_failure_data.user_failure_data.description
        == "CrmUnavailableError: the CRM answered 503 five times"
    )


def test_a_database_that_is_away_is_named(instance: dg.DagsterInstance) -> None:
    """What a driver says of host, file or column is needed to mend it; what it says of rows is left out."""
    driver = sqlite3.OperationalError("no such column: polling\nDETAIL: 6281234567890")
    error = OperationalError("SELECT ?", {"id": "6281234567890@c.us"}, driver)
    result = _run(instance, FakeService(error=error))
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert failure.step_failure_data.user_failure_data is not None
    told = failure.step_failure_data.user_failure_data.description or ""
    assert told.startswith("Database: no such column: polling\n")
    assert "6281234567890" not in told


def test_no_event_repeats_a_strangers_error(instance: dg.DagsterInstance) -> None:
    """A driver's message may hold a whole contact, its cause a URL with the key: neither is stored."""
    error = RuntimeError("INSERT INTO contacts VALUES ('6281234567890@c.us')")
    error.__cause__ = OSError("GET /contacts?api_key=s3cret-marker")
    result = _run(instance, FakeService(error=error))
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert failure.step_failure_data.user_failure_data is not None
    told = failure.step_failure_data.user_failure_data.description or ""
    assert told.startswith("builtins.RuntimeError")
    assert "assets.py" in told
    assert "fakes.py" in told
    records = instance.get_records_for_run(result.run_id).records
    stored = "".join(dg.serialize_value(record.event_log_entry) for record in records)
    assert "RuntimeError" in stored
    assert "6281234567890" not in stored
    assert "s3cret-marker" not in stored
