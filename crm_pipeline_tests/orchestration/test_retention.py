"""Retention: what is old goes, what still matters stays, in our tables and in Dagster's."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy as sa
import time_machine

from crm_pipeline.connection import Retention
from crm_pipeline.definitions import defs
from crm_pipeline.orchestration.retention import retention_schedule
from crm_pipeline.store import alerts, retention
from crm_pipeline.store.engine import reading, writing
from crm_pipeline.store.tables import metadata
from crm_pipeline_tests.orchestration.fakes import FakeService, resources, settings
from crm_pipeline_tests.orchestration.history import add_run
from crm_pipeline_tests.sync.world import World

ONE, TWO = "6281100000001@c.us", "6281100000002@c.us"


@dataclass
class Pruning(FakeService):
    """A service that has removed three rows."""

    @property
    def connection(self) -> object:
        """See ``StatusReader``."""
        return self.settings.connection

    def prune(self) -> dict[str, int]:
        """See ``ExternalCrmService``."""
        self.asked.append(("prune",))
        return {"intents": 3}


def rows(engine: sa.Engine) -> dict[str, int]:
    """How many there are, by table."""
    with reading(engine) as tx:
        return {
            name: tx.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
            for name, table in metadata.tables.items()
        }


def prune(engine: sa.Engine, before: datetime) -> dict[str, int]:
    """Remove what is older than a moment."""
    with writing(engine) as tx:
        return retention.prune(tx, "default", landed=before, history=before, runs=before)


def test_old_rows_go_and_the_sync_goes_on_as_before(engine: sa.Engine) -> None:
    """Older versions, applied events, ended writes, history and settled conflicts; nothing that counts."""
    world = World(engine)
    key = world.crm.put(phone=ONE, notes="A")
    world.sync()
    world.crm.clock.pass_by(minutes=1)
    world.crm.put(key, notes="B")
    world.sql("UPDATE contacts SET notes = 'C'")
    world.sync()
    world.receive({"phone": TWO, "name": "Budi"})
    world.apply()
    world.crm.put(phone="no phone")
    world.sync()
    kept = {"contacts", "links", "contact_aliases", "rejects", "connections"}
    before, open_rejects = rows(engine), world.rows("rejects")
    removed = prune(engine, datetime(2030, 1, 1, tzinfo=UTC))
    after = rows(engine)
    assert {name for name, number in removed.items() if number} >= {
        "external_records",
        "webhook_events",
        "intents",
        "contact_changes",
        "conflicts",
    }
    assert {name: before[name] - after[name] for name in removed} == removed
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert world.rows("rejects") == open_rejects
    assert [row["current"] for row in world.rows("external_records")] == [True] * after["external_records"]
    assert [report.counts.changed for report in world.sync()] == [0, 0, 0]


def test_what_is_young_or_still_matters_stays(engine: sa.Engine) -> None:
    """An open conflict, an event that waits, everything of today."""
    world = World(engine)
    world.crm.put(phone=ONE, notes="A")
    world.sync()
    world.receive({"phone": TWO, "name": "Budi"})
    before = rows(engine)
    assert set(prune(engine, datetime(2020, 1, 1, tzinfo=UTC)).values()) == {0}
    assert prune(engine, datetime(2030, 1, 1, tzinfo=UTC))["webhook_events"] == 0
    assert rows(engine)["webhook_events"] == before["webhook_events"] == 1


def test_dagsters_own_finished_runs_go_with_their_files(
    instance: dg.DagsterInstance, dagster_home: Path
) -> None:
    """Runs from before the limit; one that never ended is left to the monitoring."""
    now = datetime.now(UTC)
    with time_machine.travel(now - timedelta(days=Retention().runs_days + 1), tick=True):
        old = add_run(instance, "pull_job", dg.DagsterRunStatus.SUCCESS)
        hung = add_run(instance, "pull_job", dg.DagsterRunStatus.STARTED)
        instance.report_engine_event("something happened", run_id=old, job_name="pull_job")
    young = add_run(instance, "pull_job", dg.DagsterRunStatus.SUCCESS)
    assert list(dagster_home.rglob(f"{old}.db"))
    result = defs.resolve_job_def("retention_job").execute_in_process(
        instance=instance, resources=resources(Pruning())
    )
    assert result.output_for_node("remove_what_is_old") == {"intents": 3, "dagster_runs": 1}
    assert {run.run_id for run in instance.get_runs()} == {hung, young, result.run_id}
    assert not list(dagster_home.rglob(f"{old}.db"))


def test_every_night_where_the_connection_is_on() -> None:
    """One run, or the reason why not."""
    assert isinstance(retention_schedule(**resources(Pruning())), dg.RunRequest)
    off = Pruning(settings=settings(external_crm_enabled=False))
    assert isinstance(retention_schedule(**resources(off)), dg.SkipReason)


def test_alerts_that_are_over_go(engine: sa.Engine) -> None:
    """Open ones stay whatever their age, and so does an end that somebody is still to hear of."""
    long_ago = datetime(2025, 1, 1, tzinfo=UTC)
    with writing(engine) as tx:
        for key in ("open", "over", "to tell"):
            facts: dict[str, Any] = {"key": key, "grave": True, "text": key, "figures": {}}
            alerts.begin(tx, "default", long_ago, **facts)
        for incident in alerts.open_ones(tx, "default"):
            alerts.still(tx, incident, long_ago, ["chat"] if incident.key == "to tell" else [])
        for incident in alerts.claim(tx, "default", long_ago, timedelta(minutes=1)):
            alerts.heard(tx, incident, "chat", long_ago)
        for incident in alerts.open_ones(tx, "default"):
            if incident.key != "open":
                alerts.end(tx, incident, long_ago)
    assert prune(engine, datetime(2030, 1, 1, tzinfo=UTC))["alerts"] == 1
    with writing(engine) as tx:
        assert [incident.key for incident in alerts.open_ones(tx, "default")] == ["open"]
        assert [each.key for each in alerts.claim(tx, "default", long_ago, timedelta())] == ["to tell"]
