"""Webhooks from their landing to the contacts: the sensor, its runs, and what goes wrong with them."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from signal import SIGKILL
from typing import Any

import dagster as dg
import pytest
import time_machine

from crm_pipeline import ExternalCrmService, instants
from crm_pipeline.orchestration.sensors import webhook_sensor
from crm_pipeline.store import landing
from crm_pipeline.store.engine import open_database, writing
from crm_pipeline.sync.arrivals import tombstone
from crm_pipeline_tests.orchestration.history import add_run
from crm_pipeline_tests.orchestration.world import SEEDED, World

TODAY = f"{datetime.now(UTC):%Y-%m-%d}"


def _organiser(number: int, **fields: Any) -> dict[str, Any]:
    """A webhook's object, as the guide has it."""
    return {"phone": f"62811{number:07d}@c.us", "name": f"Organiser {number}", **fields}


def _events(world: World) -> list[tuple[Any, ...]]:
    """Outcome and attempts of each event, in order of arrival."""
    return world.rows("SELECT outcome, attempts FROM webhook_events ORDER BY id")


def _names(world: World) -> list[str]:
    return [name for (name,) in world.rows("SELECT nama FROM contacts ORDER BY id")]


@pytest.mark.parametrize("world", ["sqlite", "postgresql"], indirect=True)
def test_webhooks_become_contacts_by_one_run(world: World) -> None:
    """Sensor, run, contacts: new ones, an update and a repeat, and the counts of both assets add up."""
    world.receive(*(_organiser(number) for number in range(30)))
    world.receive(_organiser(0, name="Renamed"))
    world.receive(_organiser(1), event_id="sent-twice")
    world.receive(_organiser(1), event_id="sent-twice")
    asked = world.tick(webhook_sensor)
    assert isinstance(asked, dg.RunRequest)
    figures = world.run("webhook_job", tags=asked.tags)
    landed, applied = figures["webhook_events"], figures["contacts"]
    assert landed["seen"] == landed["created"] == landed["records_of_the_day"] == 32  # as seen on arrival
    assert landed["oldest_waits_seconds"] > 0
    assert (applied["seen"], applied["created"], applied["updated"], applied["unchanged"]) == (32, 30, 1, 1)
    assert _names(world)[:2] == ["Renamed", "Organiser 1"]
    assert all(world.evaluations.values())
    assert world.tick(webhook_sensor) == "nothing waits to be applied"
    assert world.crm.requests == 0


def test_two_ticks_ask_for_one_run(world: World) -> None:
    """Webhooks that come while the run is queued go with it; the next run is for those that come later."""
    world.receive(_organiser(1))
    assert isinstance(world.tick(webhook_sensor), dg.RunRequest)
    queued = add_run(world.instance, "webhook_job", dg.DagsterRunStatus.QUEUED)
    world.receive(_organiser(2))
    assert world.tick(webhook_sensor) == f"run {queued} is queued or in progress"
    world.instance.delete_run(queued)
    assert world.run("webhook_job")["contacts"]["created"] == 2
    assert world.tick(webhook_sensor) == "nothing waits to be applied"
    world.receive(_organiser(3))
    assert isinstance(world.tick(webhook_sensor), dg.RunRequest)


def test_a_run_that_has_applied_is_known_before_it_ends(world: World) -> None:
    """The sensor asks the database, where a step is noted when it is done, for the run's own id."""
    world.receive(_organiser(1))
    applied = world.attempt("webhook_job")
    with ExternalCrmService(world.database_url) as service:
        assert service.last_applied_by == applied.run_id


def test_a_pull_applies_what_the_sensor_waited_for(world: World) -> None:
    """Any run that applies drains the webhooks, too."""
    world.receive(_organiser(1))
    assert world.run("pull_job")["contacts"]["created"] == SEEDED + 1
    assert world.tick(webhook_sensor) == "nothing waits to be applied"


def test_what_cannot_become_a_contact_starts_no_run(world: World) -> None:
    """It was rejected when it landed, and is listed; the day it came still counts it."""
    world.receive(_organiser(1, capacity="a few"))
    assert world.tick(webhook_sensor) == "nothing waits to be applied"
    figures = world.run("webhook_job", partition_key=TODAY)
    assert (figures["webhook_events"]["seen"], figures["webhook_events"]["records_of_the_day"]) == (0, 1)
    assert figures["contacts"]["seen"] == 0


def test_a_webhook_of_before_midnight_shows_under_both_days(world: World) -> None:
    """The run is about every day from the oldest webhook's to today's."""
    world.receive(_organiser(1))
    with time_machine.travel(datetime.now(UTC) + timedelta(days=1)):
        asked = world.tick(webhook_sensor)
    assert isinstance(asked, dg.RunRequest)
    assert asked.tags["dagster/asset_partition_range_start"] == TODAY
    assert asked.tags["dagster/asset_partition_range_end"] > TODAY


_DEADLY = """
import os, signal
from crm_pipeline import ExternalCrmService

class Deadly(ExternalCrmService):
    def map_external_to_internal(self, record):
        os.kill(os.getpid(), signal.SIGKILL)
"""
_RUN = """
import dagster as dg
from crm_pipeline.definitions import defs
defs.resolve_job_def("webhook_job").execute_in_process(instance=dg.DagsterInstance.get())
"""


def _killed_run(world: World, home: Path, folder: Path) -> dg.DagsterRun:
    """A worker dies amid its transaction; all that is left of it is the run's row."""
    (folder / "deadly.py").write_text(_DEADLY)
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(home),
        "DATABASE_URL": world.database_url,
        "EXTERNAL_CRM_API_KEY": os.environ["THE_KEY"],
        "EXTERNAL_CRM_SERVICE": "deadly:Deadly",
        "PYTHONPATH": ":".join([str(folder), *sys.path]),
    }
    worker = subprocess.run([sys.executable, "-c", _RUN], env=environment, capture_output=True, check=False)
    assert worker.returncode == -SIGKILL, worker.stderr.decode()
    (run,) = world.instance.get_runs()
    return run


def test_a_killed_run_leaves_its_webhooks_to_the_next(
    world: World, dagster_home: Path, tmp_path: Path
) -> None:
    """Nothing is lost, nothing is done twice, and the dead worker's lease keeps nobody waiting."""
    world.receive(_organiser(1), _organiser(2))
    dead = _killed_run(world, dagster_home, tmp_path)
    assert _events(world) == [(None, 1), (None, 1)]
    assert world.tick(webhook_sensor) == f"run {dead.run_id} is queued or in progress"
    world.instance.report_run_failed(dead)  # as the code server does
    world.instance.event_log_storage.free_concurrency_slots_for_run(dead.run_id)  # as the daemon does
    assert str(world.tick(webhook_sensor)).startswith("the last run failed")
    with time_machine.travel(datetime.now(UTC) + timedelta(seconds=31)):
        assert isinstance(world.tick(webhook_sensor), dg.RunRequest)
    assert world.run("webhook_job")["contacts"]["created"] == 2
    assert _events(world) == [("created", 2), ("created", 2)]
    assert _names(world) == ["Organiser 1", "Organiser 2"]


def _gone(world: World, number: int) -> None:
    """Tombstones land, and the run that brought them ends before it applies any."""
    keys = list(world.crm.records)[:number]
    for key in keys:
        world.crm.delete(key)
    engine = open_database(world.database_url)
    with writing(engine) as tx:
        landing.land(tx, "default", [tombstone(key, instants.now()) for key in keys], "run")
    engine.dispose()


def _archived(world: World) -> int:
    return int(world.rows("SELECT count(*) FROM contacts WHERE archived_at IS NOT NULL")[0][0])


def test_deletes_that_must_be_allowed_hold_up_no_webhook(world: World) -> None:
    """They start no run by themselves; a webhook's run applies it, fails, and says how they are allowed."""
    world.run("sync_job")
    _gone(world, 20)
    assert world.tick(webhook_sensor) == "nothing waits to be applied"
    world.receive(_organiser(1))
    assert isinstance(world.tick(webhook_sensor), dg.RunRequest)
    result = world.attempt("webhook_job")
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert failure.step_failure_data.user_failure_data is not None
    told = str(failure.step_failure_data.user_failure_data.description)
    assert "20 of 60" in told
    assert "'allow_deletes: true'" in told
    assert [outcome for outcome, _ in _events(world)] == ["created"]
    assert world.tick(webhook_sensor) == "nothing waits to be applied"
    world.receive(_organiser(2))
    assert isinstance(world.tick(webhook_sensor), dg.RunRequest)
    assert _archived(world) == 0
    allowed = {"ops": {"contacts": {"config": {"allow_deletes": True}}}}
    assert world.run("webhook_job", run_config=allowed)["contacts"]["updated"] == 20
    assert _archived(world) == 20


def test_few_deletes_that_were_left_are_applied(world: World) -> None:
    """What a run left unapplied is the sensor's business, as long as nobody has to be asked."""
    world.run("sync_job")
    _gone(world, 10)
    assert isinstance(world.tick(webhook_sensor), dg.RunRequest)
    world.run("webhook_job")
    assert _archived(world) == 10
