"""The instance that dagster.yaml describes."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.instance.config import PoolGranularity
from dagster._core.launcher import DefaultRunLauncher
from dagster._core.run_coordinator import QueuedRunCoordinator
from dagster._core.scheduler.instigation import TickStatus

from crm_pipeline_tests.orchestration.history import add_run


def test_every_part_can_be_used(instance: dg.DagsterInstance) -> None:
    """A wrong class shows only when it is used: store a run and touch what launches it."""
    run_id = add_run(instance, "pull_job", dg.DagsterRunStatus.QUEUED)
    assert [run.run_id for run in instance.get_runs()] == [run_id]
    assert instance.get_records_for_run(run_id).records == []
    assert list(instance.all_instigator_state()) == []
    assert isinstance(instance.run_coordinator, QueuedRunCoordinator)
    assert isinstance(instance.run_launcher, DefaultRunLauncher)
    assert instance.compute_log_manager is not None


def test_everything_is_kept_in_its_folder(instance: dg.DagsterInstance, dagster_home: Path) -> None:
    """Runs, events, ticks and logs lie below DAGSTER_HOME, also where its path has a space in it."""
    add_run(instance, "pull_job", dg.DagsterRunStatus.QUEUED)
    assert " " in str(dagster_home)
    assert instance.root_directory == str(dagster_home)
    assert {path.relative_to(dagster_home).parts[0] for path in dagster_home.rglob("*.db")} == {
        "history",
        "schedules",
    }
    assert not list(Path.cwd().iterdir())


def test_one_run_at_a_time_works_a_connection(instance: dg.DagsterInstance) -> None:
    """Pools hold one run each, and so does a connection, of at most four runs."""
    concurrency = instance.get_concurrency_config()
    assert concurrency.pool_config.default_pool_limit == 1
    assert concurrency.pool_config.pool_granularity is PoolGranularity.RUN
    assert concurrency.run_queue_config is not None
    assert concurrency.run_queue_config.max_concurrent_runs == 4
    assert concurrency.run_queue_config.tag_concurrency_limits == [
        {"key": "crm/connection", "value": {"applyLimitPerUniqueValue": True}, "limit": 1}
    ]


def test_dead_workers_are_found_and_repeated(instance: dg.DagsterInstance) -> None:
    """Every run has an end, its pool is freed, and only a death is repeated: our own failures are not."""
    assert instance.run_monitoring_enabled
    assert instance.run_monitoring_max_runtime_seconds == 7200
    assert instance.get_settings("run_monitoring")["free_slots_after_run_end_seconds"] == 10
    assert instance.run_retries_enabled
    assert instance.run_retries_max_retries == 2
    assert not instance.run_retries_retry_on_asset_or_op_failure


def test_ticks_that_did_nothing_do_not_pile_up(instance: dg.DagsterInstance) -> None:
    """A minute's schedule and a ten seconds' sensor are forgotten after a day where they skipped."""
    for kind in (InstigatorType.SCHEDULE, InstigatorType.SENSOR):
        assert instance.get_tick_retention_settings(kind)[TickStatus.SKIPPED] == 1


def test_nothing_is_told_to_anybody(instance: dg.DagsterInstance) -> None:
    """No telemetry."""
    assert not instance.telemetry_enabled
