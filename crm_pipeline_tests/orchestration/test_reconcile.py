"""The comparison as Dagster shows it: figures, a check that warns, a nightly run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest

from crm_pipeline.connectors.base import CrmUnavailableError
from crm_pipeline.definitions import defs
from crm_pipeline.orchestration.reconcile import reconcile_schedule
from crm_pipeline.orchestration.results import table
from crm_pipeline.sync.parity import Drift, Kind, Known, ReconcileReport
from crm_pipeline_tests.orchestration.fakes import FakeService, resources, settings
from crm_pipeline_tests.orchestration.history import add_run

WHO, WHICH = "6281234567890@c.us", "record-17"
NIGHT = datetime(2026, 3, 4, 2, 30, tzinfo=UTC)


def found(**more: Any) -> ReconcileReport:
    """Two pairs of a hundred differ, one of them in two fields."""
    return ReconcileReport(
        records=99,
        agreed=90,
        known=Counter({Known.PENDING: 7, Known.CONFLICT: 1}),
        differing=2,
        drifts=[
            Drift(WHO, WHICH, Kind.VALUE, "nama"),
            Drift(WHO, WHICH, Kind.VALUE, "notes"),
            Drift(None, "record-18", Kind.MISSING_HERE),
        ],
        pages=4,
        api_calls=5,
        duration_seconds=1.25,
        **more,
    )


@dataclass
class Reconciling(FakeService):
    """A service that compares."""

    result: ReconcileReport = field(default_factory=found)

    def reconcile(self, *, repair: bool) -> ReconcileReport:
        """See ``ExternalCrmService``."""
        self.asked.append(("reconcile", repair))
        if self.error is not None:
            raise self.error
        return self.result


def run(instance: dg.DagsterInstance, service: Reconciling, **more: Any) -> dg.ExecuteInProcessResult:
    """Run the job."""
    return defs.resolve_job_def("reconcile_job").execute_in_process(
        instance=instance, resources=resources(service), raise_on_error=False, **more
    )


def check(result: dg.ExecuteInProcessResult) -> dg.AssetCheckEvaluation:
    """What the one check said."""
    (evaluation,) = result.get_asset_check_evaluations()
    return evaluation


def test_a_run_shows_figures_and_nobody(instance: dg.DagsterInstance) -> None:
    """Counts that add up, by kind, field and reason; no id of a contact or record in any event."""
    result = run(instance, Reconciling())
    (event,) = [event for event in result.all_events if event.is_step_materialization]
    shown: dict[str, Any] = {
        name: value.value for name, value in event.step_materialization_data.materialization.metadata.items()
    }
    assert shown["compared"] == 100 == shown["agreed"] + shown["known"] + shown["differing"]
    assert (shown["records"], shown["differences"], shown["pages"], shown["api_calls"]) == (99, 3, 4, 5)
    assert (shown["duration_seconds"], shown["repaired"]) == (1.25, False)
    tables = event.step_materialization_data.materialization.metadata
    assert tables["by_kind"] == table(
        "difference", {"value: nama": 1, "value: notes": 1, "missing here: *": 1}
    )
    assert tables["by_reason"] == table(
        "known difference", {"waits for a person": 1, "waits to be pushed": 7}
    )
    records = instance.get_records_for_run(result.run_id).records
    stored = "".join(dg.serialize_value(record.event_log_entry) for record in records)
    assert WHO not in stored
    assert WHICH not in stored


@pytest.mark.parametrize(
    "report, passed, text",
    [
        (ReconcileReport(agreed=5), True, None),
        (found(), False, "reconcile --list"),
        (found(repaired=True, mended=2), True, None),
        (found(repaired=True, mended=1, for_people=1), True, None),
        (found(repaired=True, mended=1, remaining=1, note="too many deletes"), False, "too many deletes"),
    ],
    ids=["agreed", "differing", "mended", "rejected", "left"],
)
def test_the_check_warns_of_what_is_left(
    instance: dg.DagsterInstance, report: ReconcileReport, *, passed: bool, text: str | None
) -> None:
    """A warning with figures and what to do. What was mended, or given to a person, is none."""
    result = run(instance, Reconciling(result=report))
    assert result.success
    evaluation = check(result)
    assert (evaluation.check_name, evaluation.passed) == ("both_sides_agree", passed)
    assert evaluation.severity is dg.AssetCheckSeverity.WARN
    assert evaluation.metadata["differing"].value == report.differing
    assert (evaluation.description is None) if text is None else text in (evaluation.description or "")


@pytest.mark.parametrize("repair", [True, False])
def test_mending_is_asked_for(instance: dg.DagsterInstance, *, repair: bool) -> None:
    """Only a run that says so writes."""
    service = Reconciling()
    given: dict[str, Any] = (
        {"run_config": {"ops": {"parity": {"config": {"repair": True}}}}} if repair else {}
    )
    result = run(instance, service, **given)
    assert service.asked == [("opened", result.run_id), ("reconcile", repair)]


def test_a_crm_that_cannot_be_read_fails_the_run(instance: dg.DagsterInstance) -> None:
    """No verdict on half a reading."""
    result = run(instance, Reconciling(error=CrmUnavailableError("the CRM answered 503 five times")))
    assert not result.success
    assert result.get_asset_check_evaluations() == []


@pytest.mark.parametrize("nightly, repair", [("report", False), ("repair", True)])
def test_a_night_mends_only_where_that_is_wanted(
    instance: dg.DagsterInstance, nightly: str, *, repair: bool
) -> None:
    """EXTERNAL_CRM_RECONCILE: report is the default, off asks for nothing."""

    def ask(value: str) -> dg.RunRequest | dg.SkipReason:
        service = FakeService(settings=settings(external_crm_reconcile=value))
        with dg.build_schedule_context(instance, scheduled_execution_time=NIGHT) as context:
            asked = reconcile_schedule(context, **resources(service))
        assert isinstance(asked, dg.RunRequest | dg.SkipReason)
        return asked

    asked = ask(nightly)
    assert isinstance(asked, dg.RunRequest)
    assert asked.run_config["ops"]["parity"]["config"] == {"repair": repair}
    off = ask("off")
    assert isinstance(off, dg.SkipReason)
    assert off.skip_message == "EXTERNAL_CRM_RECONCILE is off"


def test_every_night(instance: dg.DagsterInstance) -> None:
    """One run, unless the connection is off or a comparison is under way."""

    def ask(service: FakeService) -> object:
        with dg.build_schedule_context(instance, scheduled_execution_time=NIGHT) as context:
            return reconcile_schedule(context, **resources(service))

    assert isinstance(ask(FakeService()), dg.RunRequest)
    off = ask(FakeService(settings=settings(external_crm_enabled=False)))
    assert isinstance(off, dg.SkipReason)
    assert off.skip_message == "EXTERNAL_CRM_ENABLED is false"
    add_run(instance, "pull_job", dg.DagsterRunStatus.STARTED)
    assert isinstance(ask(FakeService()), dg.RunRequest)
    other = add_run(instance, "reconcile_job", dg.DagsterRunStatus.QUEUED)
    busy = ask(FakeService())
    assert isinstance(busy, dg.SkipReason)
    assert busy.skip_message == f"run {other} is queued or in progress"
