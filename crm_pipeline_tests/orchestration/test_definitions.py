"""What Dagster finds when it loads us."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import dagster as dg
import pytest

from crm_pipeline.definitions import defs
from crm_pipeline.orchestration.days import DAYS


def test_assets_and_their_lineage() -> None:
    """What the CRM has and what it tells become contacts; contacts are pushed, and compared with the CRM."""
    graph = defs.resolve_asset_graph()
    lineage = {
        key.to_user_string(): sorted(parent.to_user_string() for parent in graph.get(key).parent_keys)
        for key in graph.get_all_asset_keys()
    }
    assert lineage == {
        "external_contacts": [],
        "webhook_events": [],
        "contacts": ["external_contacts", "webhook_events"],
        "outbound_push": ["contacts"],
        "parity": ["contacts"],
    }


def test_only_what_comes_from_the_crm_has_days() -> None:
    """Records by the day they were modified, webhooks by that they came; one run takes any range of days."""
    graph = defs.resolve_asset_graph()
    partitioned = {key for key in graph.get_all_asset_keys() if graph.get(key).is_partitioned}
    assert partitioned == {dg.AssetKey("external_contacts"), dg.AssetKey("webhook_events")}
    for node in map(graph.get, partitioned):
        assert isinstance(node.partitions_def, dg.DailyPartitionsDefinition)
        assert node.partitions_def.timezone == "UTC"
        assert node.backfill_policy == dg.BackfillPolicy.single_run()


def test_today_is_a_partition() -> None:
    """Polls and webhooks are about the day that has not ended yet."""
    assert DAYS.get_last_partition_key() == time.strftime("%Y-%m-%d", time.gmtime())


def test_jobs() -> None:
    """Five jobs over five assets, each in one process, bounded in time, tagged with the connection."""
    jobs = {job.name: job for job in defs.resolve_all_job_defs() if not job.name.startswith("__")}
    selected = {
        name: sorted(key.to_user_string() for key in job.asset_layer.executable_asset_keys)
        for name, job in jobs.items()
    }
    assert selected == {
        "pull_job": ["contacts", "external_contacts"],
        "webhook_job": ["contacts", "webhook_events"],
        "push_job": ["outbound_push"],
        "sync_job": ["contacts", "external_contacts", "outbound_push"],
        "reconcile_job": ["parity"],
        "retention_job": [],
    }
    for job in jobs.values():
        assert job.executor_def is dg.in_process_executor
        assert job.tags["crm/connection"] == "default"
        assert int(job.tags["dagster/max_runtime"]) < 7200


def test_a_run_without_a_job_of_ours_needs_no_process_for_each_step() -> None:
    """Backfills and single assets run in one process too."""
    assert defs.resolve_implicit_global_asset_job_def().executor_def is dg.in_process_executor


def test_every_asset_waits_for_the_same_pool() -> None:
    """Two runs never work one connection at once."""
    pools = {asset.op.pool for asset in defs.assets or [] if isinstance(asset, dg.AssetsDefinition)}
    assert pools == {"crm_pipeline"}


def test_schedules_and_sensors() -> None:
    """All run from the start: flags of ours decide what they do, not Dagster's switches."""
    repository = defs.get_repository_def()
    assert [
        (schedule.name, schedule.cron_schedule, schedule.execution_timezone, schedule.default_status)
        for schedule in repository.schedule_defs
    ] == [
        ("polling_schedule", "* * * * *", "UTC", dg.DefaultScheduleStatus.RUNNING),
        ("reconcile_schedule", "30 2 * * *", "UTC", dg.DefaultScheduleStatus.RUNNING),
        ("retention_schedule", "30 3 * * *", "UTC", dg.DefaultScheduleStatus.RUNNING),
    ]
    assert [
        (
            sensor.name,
            sensor.job_name if sensor.has_jobs else None,
            sensor.minimum_interval_seconds,
            sensor.default_status,
        )
        for sensor in repository.sensor_defs
    ] == [
        ("alert_sensor", None, 60, dg.DefaultSensorStatus.RUNNING),
        ("contact_change_sensor", "push_job", 10, dg.DefaultSensorStatus.RUNNING),
        ("dead_run_sensor", None, 13, dg.DefaultSensorStatus.RUNNING),
        ("webhook_sensor", "webhook_job", 3, dg.DefaultSensorStatus.RUNNING),
    ]


def test_checks() -> None:
    """Each asset's checks, by name."""
    keys = sorted(str(key.to_user_string()) for key in defs.resolve_asset_graph().asset_check_keys)
    assert keys == [
        "contacts:backlog",
        "contacts:counts_add_up",
        "contacts:known_choices",
        "contacts:one_row_each",
        "contacts:rejects",
        "contacts:sampled_parity",
        "external_contacts:budget",
        "external_contacts:freshness",
        "external_contacts:record_shape",
        "external_contacts:unknown_choices",
        "external_contacts:watermark",
        "outbound_push:echoes",
        "parity:both_sides_agree",
    ]


def _load(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Load the definitions as Dagster's processes do: in a process of their own."""
    return subprocess.run(
        [sys.executable, "-c", f"import sys, json; from crm_pipeline.definitions import defs; {code}"],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": ":".join(sys.path), **variables},
    )


@pytest.mark.parametrize("push, job", [("manual", "pull_job"), ("off", "pull_job"), ("auto", "sync_job")])
def test_polls_push_only_where_that_is_wanted(push: str, job: str) -> None:
    """With EXTERNAL_CRM_PUSH=auto a poll goes both ways, otherwise it only pulls."""
    loaded = _load(
        "print(defs.get_repository_def().get_schedule_def('polling_schedule').job_name)",
        EXTERNAL_CRM_PUSH=push,
    )
    assert loaded.stdout.strip() == job, loaded.stderr


def test_a_backfill_can_be_cut_into_runs_of_so_many_days() -> None:
    """EXTERNAL_CRM_BACKFILL_DAYS: not set, a range is one run."""
    loaded = _load(
        "graph = defs.resolve_asset_graph(); "
        "print(*(graph.get(key).backfill_policy for key in graph.get_all_asset_keys()"
        " if graph.get(key).is_partitioned), sep='\\n')",
        EXTERNAL_CRM_BACKFILL_DAYS="10",
    )
    policy = "BackfillPolicy.multi_run(max_partitions_per_run=10)"
    assert loaded.stdout.splitlines() == [policy, policy], loaded.stderr


def test_a_wrong_setting_names_its_variable_at_load() -> None:
    """The load fails with what the variable accepts, and without its value."""
    loaded = _load("", EXTERNAL_CRM_SYNC_INTERVAL="s3cret-marker")
    assert loaded.returncode == 1
    assert "EXTERNAL_CRM_SYNC_INTERVAL must be whole minutes" in loaded.stderr
    assert "s3cret-marker" not in loaded.stderr


def test_loading_stays_light() -> None:
    """Every run loads the definitions: what it does not need must not be imported for it."""
    heavy = ["pandas", "phonenumbers", "alembic", "psycopg", "fastapi", "crm_pipeline.service"]
    loaded = _load(f"print(json.dumps([name for name in {heavy} if name in sys.modules]))")
    assert json.loads(loaded.stdout) == [], loaded.stderr
