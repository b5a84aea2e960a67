"""Runs whose worker died: found by their lease, ended, and no other run with them."""

from __future__ import annotations

from datetime import timedelta

import dagster as dg
import pytest

from crm_pipeline import instants
from crm_pipeline.orchestration import dead_runs
from crm_pipeline.orchestration.alive import BETWEEN_STEPS, PREFIX, sign_of_life
from crm_pipeline.orchestration.dead_runs import dead_run_sensor
from crm_pipeline.store import leases
from crm_pipeline.store.engine import open_database, reading, writing
from crm_pipeline_tests.fakes import dead_holder
from crm_pipeline_tests.orchestration.history import add_run
from crm_pipeline_tests.orchestration.world import World

STARTED, FAILURE = dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.FAILURE
ELSEWHERE = "another-host/1/1/token"


def _hold(world: World, run_id: str, holder: str, *, expired: bool = False) -> None:
    engine = open_database(world.database_url)
    now = instants.now() - (timedelta(hours=1) if expired else timedelta())
    with writing(engine) as tx:
        assert leases.take(tx, f"{PREFIX}{run_id}", holder, now)
    engine.dispose()


def _left(world: World) -> set[str]:
    engine = open_database(world.database_url)
    with reading(engine) as tx:
        found = leases.names(tx, PREFIX)
    engine.dispose()
    return {name.removeprefix(PREFIX) for name in found}


def _look(world: World) -> None:
    with dg.build_sensor_context(instance=world.instance, resources=world.resources) as context:
        dead_run_sensor.evaluate_tick(context)


def _status(world: World, run_id: str) -> dg.DagsterRunStatus:
    run = world.instance.get_run_by_id(run_id)
    assert run is not None
    return run.status


@pytest.mark.parametrize("world", ["sqlite", "postgresql"], indirect=True)
def test_a_dead_worker_is_found_wherever_it_was(world: World) -> None:
    """On this host at once, elsewhere when its minute is over; those that live are left alone."""
    runs = {name: add_run(world.instance, "pull_job", STARTED) for name in ("here", "there", "lives", "far")}
    _hold(world, runs["here"], dead_holder())
    _hold(world, runs["there"], ELSEWHERE, expired=True)
    _hold(world, runs["lives"], leases.new_holder(), expired=True)
    _hold(world, runs["far"], ELSEWHERE)
    _look(world)
    assert {name: _status(world, run) for name, run in runs.items()} == {
        "here": FAILURE,
        "there": FAILURE,
        "lives": STARTED,
        "far": STARTED,
    }
    assert _left(world) == {runs["lives"], runs["far"]}


def test_a_run_that_never_came_to_a_step_is_ended(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no lease to lose; after some minutes it must have come to one."""
    run_id = add_run(world.instance, "pull_job", dg.DagsterRunStatus.STARTING)
    begun = dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, "pull_job")
    world.instance.report_dagster_event(begun, run_id)
    _look(world)
    assert _status(world, run_id) is STARTED
    monkeypatch.setattr(dead_runs, "BETWEEN_STEPS", -timedelta(seconds=1))
    _look(world)
    assert _status(world, run_id) is FAILURE


def test_the_signs_of_ended_runs_do_not_pile_up(world: World) -> None:
    """A run that ended in order leaves its lease to run out; then it is dropped."""
    run_id = add_run(world.instance, "pull_job", dg.DagsterRunStatus.SUCCESS)
    _hold(world, run_id, ELSEWHERE, expired=True)
    _look(world)
    assert _left(world) == set()
    assert _status(world, run_id) is dg.DagsterRunStatus.SUCCESS


def test_a_step_shows_that_its_worker_lives(world: World) -> None:
    """While it lasts, and for some minutes after: the run may need them to end."""
    engine = open_database(world.database_url)
    with sign_of_life(engine, "a-run"), reading(engine) as tx:
        assert leases.is_held(tx, f"{PREFIX}a-run", instants.now())
    with reading(engine) as tx:
        almost = instants.now() + BETWEEN_STEPS - timedelta(seconds=5)
        assert leases.is_held(tx, f"{PREFIX}a-run", almost)
        assert not leases.is_held(tx, f"{PREFIX}a-run", instants.now() + BETWEEN_STEPS)
    engine.dispose()
