"""When changed contacts are pushed, and webhooks applied, by themselves."""

from __future__ import annotations

from datetime import datetime, timedelta

import dagster as dg
import pytest

from crm_pipeline import instants
from crm_pipeline.definitions import defs
from crm_pipeline.orchestration.runs import rests_until
from crm_pipeline.orchestration.sensors import contact_change_sensor, webhook_sensor
from crm_pipeline_tests.orchestration.fakes import FakeService, resources, settings
from crm_pipeline_tests.orchestration.history import add_run

FAILURE, SUCCESS = dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS


def _auto(changes: int = 0) -> FakeService:
    return FakeService(changes=changes, settings=settings(external_crm_push="auto"))


def _tick(
    instance: dg.DagsterInstance,
    service: FakeService,
    sensor: dg.SensorDefinition = contact_change_sensor,
) -> list[dg.RunRequest] | str | None:
    with dg.build_sensor_context(
        instance=instance,
        definitions=defs,
        resources=resources(service),
    ) as context:
        data = sensor.evaluate_tick(context)
    return list(data.run_requests or []) or data.skip_message


def _ended(instance: dg.DagsterInstance, *statuses: dg.DagsterRunStatus, job: str = "push_job") -> None:
    for status in statuses:
        add_run(instance, job, status)


def test_changed_contacts_are_pushed_by_one_run(instance: dg.DagsterInstance) -> None:
    """However many wait, one run without a run key takes them all."""
    asked = _tick(instance, _auto(changes=20_000))
    assert isinstance(asked, list)
    assert [request.run_key for request in asked] == [None]


def test_the_same_change_is_asked_for_again_after_its_run(instance: dg.DagsterInstance) -> None:
    """What still waits after a run is pushed by the next one: the row's state counts, not a key."""
    _tick(instance, _auto(changes=1))
    _ended(instance, SUCCESS)
    assert isinstance(_tick(instance, _auto(changes=1)), list)


def test_nothing_changed_starts_nothing(instance: dg.DagsterInstance) -> None:
    """An idle tick asks the database one question."""
    service = _auto()
    assert _tick(instance, service) == "no contact has changed"
    assert service.asked == [("opened", ""), ("changes_pending",)]


@pytest.mark.parametrize("mode", ["manual", "off"])
def test_only_auto_pushes_by_itself(instance: dg.DagsterInstance, mode: str) -> None:
    """A first write into somebody's CRM must be wanted: the database is not even asked."""
    service = FakeService(changes=1, settings=settings(external_crm_push=mode))
    assert _tick(instance, service) == f"EXTERNAL_CRM_PUSH is {mode}"
    assert service.asked == [("opened", "")]


def test_disabled_pushes_nothing(instance: dg.DagsterInstance) -> None:
    """EXTERNAL_CRM_ENABLED wins over everything."""
    service = FakeService(changes=1, settings=settings(external_crm_enabled=False))
    assert _tick(instance, service) == "EXTERNAL_CRM_ENABLED is false"


@pytest.mark.parametrize("job", ["push_job", "sync_job"])
def test_a_push_under_way_is_not_doubled(instance: dg.DagsterInstance, job: str) -> None:
    """While a push or a sync is queued or in progress, the sensor waits for it."""
    _ended(instance, dg.DagsterRunStatus.QUEUED, job=job)
    skipped = _tick(instance, _auto(changes=1))
    assert isinstance(skipped, str)
    assert skipped.endswith("is queued or in progress")


def test_a_failed_push_rests(instance: dg.DagsterInstance) -> None:
    """A push that just failed is not tried again ten seconds later."""
    _ended(instance, FAILURE)
    skipped = _tick(instance, _auto(changes=1))
    assert isinstance(skipped, str)
    assert skipped.startswith("the last push failed; the next one may start at")


@pytest.mark.parametrize(
    "history, seconds",
    [
        ([], None),
        ([FAILURE, SUCCESS], None),
        ([SUCCESS, FAILURE], 30),
        ([FAILURE, SUCCESS, FAILURE, FAILURE], 60),
        ([FAILURE] * 5, 480),
        ([FAILURE] * 30, 900),
    ],
    ids=["none", "recovered", "first", "second", "fifth", "many"],
)
def test_rests_double_up_to_a_quarter_of_an_hour(
    instance: dg.DagsterInstance, history: list[dg.DagsterRunStatus], seconds: int | None
) -> None:
    """Failures in a row count; a success ends them."""
    _ended(instance, *history)
    now: datetime = instants.now()
    until = rests_until(instance, "push_job")
    if seconds is None:
        assert until is None
    else:
        assert until is not None
        assert abs(until - now - timedelta(seconds=seconds)) < timedelta(seconds=20)


def _webhooks(
    instance: dg.DagsterInstance, service: FakeService | None = None
) -> list[dg.RunRequest] | str | None:
    """Tick the other sensor: many webhooks wait, unless told otherwise."""
    return _tick(instance, service or FakeService(events=50_000, oldest_event_at=NOW), webhook_sensor)


NOW = instants.now()


def test_many_webhooks_are_one_run(instance: dg.DagsterInstance) -> None:
    """One run without a run key takes them all; it shows under each day from the oldest one's to today's."""
    oldest = instants.now() - timedelta(days=2)
    asked = _webhooks(instance, FakeService(events=50_000, oldest_event_at=oldest))
    assert isinstance(asked, list)
    (request,) = asked
    assert request.run_key is None
    assert request.tags["dagster/asset_partition_range_start"] == f"{oldest:%Y-%m-%d}"
    assert request.tags["dagster/asset_partition_range_end"] == f"{instants.now():%Y-%m-%d}"


def test_no_webhook_is_one_question(instance: dg.DagsterInstance) -> None:
    """An idle tick asks the database once, and Dagster nothing."""
    service = FakeService()
    assert _webhooks(instance, service) == "nothing waits to be applied"
    assert service.asked == [("opened", ""), ("events_pending",)]


def test_disabled_applies_nothing(instance: dg.DagsterInstance) -> None:
    """EXTERNAL_CRM_ENABLED wins over everything: the database is not even asked."""
    service = FakeService(events=1, settings=settings(external_crm_enabled=False))
    assert _webhooks(instance, service) == "EXTERNAL_CRM_ENABLED is false"
    assert service.asked == [("opened", "")]


@pytest.mark.parametrize("push", ["auto", "manual", "off"])
def test_webhooks_are_applied_whoever_pushes(instance: dg.DagsterInstance, push: str) -> None:
    """What comes in has nothing to do with what goes out."""
    service = FakeService(events=1, settings=settings(external_crm_push=push))
    assert isinstance(_webhooks(instance, service), list)


@pytest.mark.parametrize("job", ["webhook_job", "pull_job", "sync_job"])
@pytest.mark.parametrize("status", [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTED])
def test_a_run_that_applies_them_anyway_is_not_doubled(
    instance: dg.DagsterInstance, job: str, status: dg.DagsterRunStatus
) -> None:
    """A run that is queued or in progress drains what has landed, and the next tick asks for the rest."""
    run = add_run(instance, job, status)
    assert _webhooks(instance) == f"run {run} is queued or in progress"


def test_a_run_that_has_applied_already_is_not_waited_for(instance: dg.DagsterInstance) -> None:
    """What landed since would wait for its push and for a later tick: one run is queued behind it."""
    pushing = add_run(instance, "sync_job", dg.DagsterRunStatus.STARTED)
    service = FakeService(events=1, oldest_event_at=NOW, last_applied_by=pushing)
    assert isinstance(_webhooks(instance, service), list)
    queued = add_run(instance, "webhook_job", dg.DagsterRunStatus.QUEUED)
    assert _webhooks(instance, service) == f"run {queued} is queued or in progress"


def test_a_push_under_way_is_none_of_their_business(instance: dg.DagsterInstance) -> None:
    """A push applies nothing: the run is queued behind it."""
    add_run(instance, "push_job", dg.DagsterRunStatus.STARTED)
    assert isinstance(_webhooks(instance), list)


def test_a_worker_outside_of_dagster_is_left_alone(instance: dg.DagsterInstance) -> None:
    """A run would only wait for the command, or the API, that is at work."""
    service = FakeService(events=1, oldest_event_at=NOW, busy=True)
    assert _webhooks(instance, service) == "another program is at work on the connection"


def test_what_a_run_failed_to_apply_rests(instance: dg.DagsterInstance) -> None:
    """Failures in a row are not repeated every five seconds, however many webhooks come meanwhile."""
    oldest = instants.now() - timedelta(seconds=1)
    _ended(instance, FAILURE, job="webhook_job")
    skipped = _webhooks(instance, FakeService(events=1, oldest_event_at=oldest))
    assert isinstance(skipped, str)
    assert skipped.startswith("the last run failed; the next one may start at")


def test_what_came_after_a_failed_run_does_not_rest(instance: dg.DagsterInstance) -> None:
    """A run that applied every webhook and failed at something else holds up none that comes later."""
    _ended(instance, FAILURE, FAILURE, job="webhook_job")
    later = FakeService(events=1, oldest_event_at=instants.now() + timedelta(seconds=1))
    assert isinstance(_webhooks(instance, later), list)
