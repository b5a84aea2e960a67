"""Whole runs: our jobs, the service, a database and a CRM over a socket."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa

from crm_pipeline import ExternalCrmService
from crm_pipeline.definitions import defs
from crm_pipeline.orchestration.resources import Database, ExternalCrm
from crm_pipeline.orchestration.schedules import polling_schedule
from crm_pipeline.orchestration.sensors import contact_change_sensor
from crm_pipeline.simulators.faults import Faults
from crm_pipeline.simulators.generic import CONTACTS_PATH, CrmOptions, GenericCrm, create_app
from crm_pipeline.simulators.serve import running
from crm_pipeline_tests.databases import Databases

CONNECTION = """
listing:
  modified_since: {param: updated_since}
  modified_before: {param: updated_before}
  sorted_by_modified: true
writing:
  batch_update: {path: /batch, envelope: records}
  batch_create: {path: /batch, envelope: records}
"""
SEEDED = 60
DAYS = 20


@dataclass
class World:
    """Both sides, and Dagster between them."""

    crm: GenericCrm
    instance: dg.DagsterInstance
    database_url: str
    resources: dict[str, Any]
    evaluations: dict[str, bool] = field(default_factory=dict)
    """Whether the checks of the latest run passed, by name."""

    def run(self, job: str, **run: Any) -> dict[str, dict[str, Any]]:
        """Run a job to its good end; the metadata of each asset."""
        result = defs.resolve_job_def(job).execute_in_process(
            instance=self.instance, resources=self.resources, **run
        )
        assert result.success
        self.evaluations = {check.check_name: check.passed for check in result.get_asset_check_evaluations()}
        return {
            event.asset_key.to_user_string(): {
                name: value.value
                for name, value in event.step_materialization_data.materialization.metadata.items()
            }
            for event in result.all_events
            if event.is_step_materialization and event.asset_key
        }

    def sql(self, statement: str) -> int:
        """Run a statement as another program would; how many rows it touched."""
        engine = sa.create_engine(self.database_url)
        with engine.begin() as tx:
            touched = tx.execute(sa.text(statement)).rowcount
        engine.dispose()
        return touched


@pytest.fixture
def databases(request: pytest.FixtureRequest) -> Databases:
    """SQLite, unless a test says otherwise: below the jobs, everything is tested on both."""
    found: Databases = request.getfixturevalue(f"{getattr(request, 'param', 'sqlite')}_databases")
    return found


@pytest.fixture
def world(
    instance: dg.DagsterInstance, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    """A CRM whose contacts changed over the last days, and an empty database."""
    (tmp_path / "crm.yaml").write_text(CONNECTION)
    crm = GenericCrm.seeded(SEEDED, days=DAYS, options=CrmOptions(api_key="sim-key"))
    with running(create_app(crm)) as base:
        for name, value in {
            "EXTERNAL_CRM_ENABLED": "true",
            "EXTERNAL_CRM_API_URL": base + CONTACTS_PATH,
            "EXTERNAL_CRM_CONFIG": str(tmp_path / "crm.yaml"),
            "EXTERNAL_CRM_SYNC_MODE": "polling",
            "EXTERNAL_CRM_PUSH": "auto",
            "THE_KEY": "sim-key",
            "THE_DATABASE": database_url,
        }.items():
            monkeypatch.setenv(name, value)
        yield World(
            crm,
            instance,
            database_url,
            {
                "external_crm": ExternalCrm(api_key=dg.EnvVar("THE_KEY")),
                "database": Database(url=dg.EnvVar("THE_DATABASE")),
            },
        )


def _ended(figures: dict[str, Any]) -> dict[str, int]:
    names = ("seen", "created", "updated", "unchanged", "skipped", "rejected")
    return {name: figures[name] for name in names if figures[name]}


@pytest.mark.parametrize("databases", ["sqlite", "postgresql"], indirect=True)
def test_a_sync_and_its_echo(world: World) -> None:
    """Everything comes in once; a second sync changes nothing on either side."""
    first = world.run("sync_job")
    assert _ended(first["external_contacts"]) == {"seen": SEEDED, "created": SEEDED}
    assert _ended(first["contacts"]) == {"seen": SEEDED, "created": SEEDED}
    assert _ended(first["outbound_push"]) == {}
    assert all(world.evaluations.values())
    second = world.run("sync_job")
    assert second["external_contacts"]["created"] == second["external_contacts"]["updated"] == 0
    assert _ended(second["contacts"]) == {}
    assert second["outbound_push"]["api_calls"] == 0


def _days_in_the_crm(crm: GenericCrm) -> Counter[str]:
    """How many records were last modified on which day."""
    return Counter(record["updated_at"][:10] for record in crm.records.values())


def _mode(mode: str) -> dict[str, Any]:
    return {"ops": {"external_contacts": {"config": {"mode": mode}}}}


def test_a_day_is_read_again_and_nothing_else(world: World) -> None:
    """A partition re-reads exactly the records of its day; what was lost of them comes back."""
    world.run("sync_job")
    day, number = max(_days_in_the_crm(world.crm).items(), key=itemgetter(1))
    assert world.sql("DELETE FROM external_records") == SEEDED
    figures = world.run("pull_job", partition_key=day)
    assert _ended(figures["external_contacts"]) == {"seen": number, "created": number}
    assert _ended(figures["contacts"]) == {"seen": number, "unchanged": number}


def test_a_range_of_days_is_one_read(world: World) -> None:
    """Days from the second to the last but one: one listing of the CRM, all their records."""
    world.run("sync_job")
    by_day = _days_in_the_crm(world.crm)
    first, *_, last = sorted(by_day)[1:-1]
    before = world.crm.calls["list"]
    days = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    figures = world.run("pull_job", tags=days)
    assert figures["external_contacts"]["seen"] == sum(
        number for day, number in by_day.items() if first <= day <= last
    )
    assert world.crm.calls["list"] - before == figures["external_contacts"]["pages"] == 1


def test_a_remap_asks_the_crm_nothing(world: World) -> None:
    """What had landed for a day is mapped again; a value another program had spoilt in between is kept."""
    world.run("sync_job")
    before = world.crm.requests
    day, number = max(_days_in_the_crm(world.crm).items(), key=itemgetter(1))
    figures = world.run("pull_job", partition_key=day, run_config=_mode("remap"))
    assert _ended(figures["external_contacts"]) == {"seen": number, "unchanged": number}
    assert _ended(figures["contacts"]) == {"seen": number, "unchanged": number}
    assert world.crm.requests == before


def test_broken_records_warn(world: World) -> None:
    """All sound records land, each broken one is rejected, the run is green and the check tells."""
    world.crm.faults = Faults(bad_record=10)
    figures = world.run("sync_job")
    broken = len(world.crm.broken)
    assert broken
    assert figures["contacts"]["rejected"] == broken
    assert figures["contacts"]["created"] == SEEDED - broken
    assert [name for name, passed in world.evaluations.items() if not passed] == ["rejects"]


def test_what_other_programs_spoil_is_found(world: World) -> None:
    """A status that nobody knows and a second spelling of somebody's id are told, with numbers."""
    world.run("sync_job")
    world.sql("UPDATE contacts SET status = 'Someday' WHERE id = (SELECT min(id) FROM contacts)")
    world.sql("INSERT INTO contacts (id) SELECT replace(max(id), '@c.us', '') FROM contacts")
    world.run("pull_job")
    assert [name for name, passed in world.evaluations.items() if not passed] == [
        "known_choices",
        "one_row_each",
    ]


def _sensor(world: World) -> str | None:
    """Tick the sensor: None for a run it asks for, or why it does not."""
    with dg.build_sensor_context(
        instance=world.instance, definitions=defs, resources=world.resources
    ) as context:
        data = contact_change_sensor.evaluate_tick(context)
    return None if data.run_requests else data.skip_message


def test_a_plain_update_is_pushed_by_itself(world: World) -> None:
    """Another program's UPDATE wakes the sensor once; its run writes only the changed field, in one call."""
    world.run("sync_job")
    assert _sensor(world) == "no contact has changed"
    assert world.sql("UPDATE contacts SET notes = 'call again' WHERE pic IS NOT NULL") > 1
    assert _sensor(world) is None
    figures = world.run("push_job")
    (call,) = world.crm.log
    assert figures["outbound_push"]["updated"] == len(call.payload["records"]) > 1
    assert {frozenset(record) for record in call.payload["records"]} == {frozenset({"id", "notes"})}
    assert _sensor(world) == "no contact has changed"


def test_a_crm_that_is_away_is_not_hammered(world: World) -> None:
    """A push that fails as a whole fails its run, and the sensor rests before the next one."""
    world.run("sync_job")
    world.sql("UPDATE contacts SET notes = 'call again' WHERE id = (SELECT min(id) FROM contacts)")
    world.crm.options = replace(world.crm.options, api_key="another-key")
    result = defs.resolve_job_def("push_job").execute_in_process(
        instance=world.instance, resources=world.resources, raise_on_error=False
    )
    assert not result.success
    assert (_sensor(world) or "").startswith("the last push failed; the next one may start at")


def _schedule(world: World, now: datetime) -> dg.RunRequest | str | None:
    with dg.build_schedule_context(
        instance=world.instance,
        scheduled_execution_time=now,
        repository_def=defs.get_repository_def(),
        resources=world.resources,
    ) as context:
        data = polling_schedule.evaluate_tick(context)
    return data.run_requests[0] if data.run_requests else data.skip_message


def test_polls_follow_each_other(world: World) -> None:
    """The first poll is due at once, the next an interval later; it reads from where the last one ended."""
    now = datetime.now(UTC)
    first = _schedule(world, now)
    assert isinstance(first, dg.RunRequest)
    world.run("pull_job", run_config=first.run_config, tags=first.tags)
    assert _schedule(world, now + timedelta(minutes=29)) == "the next poll is due in 1 min: every 30 min"
    world.crm.edit(next(iter(world.crm.records)), notes="changed since")
    second = _schedule(world, now + timedelta(minutes=31))
    assert isinstance(second, dg.RunRequest)
    figures = world.run("pull_job", run_config=second.run_config, tags=second.tags)
    assert figures["external_contacts"]["updated"] == figures["contacts"]["updated"] == 1
    assert figures["external_contacts"]["seen"] < SEEDED
    assert all(world.evaluations.values())


def test_polling_can_be_switched_off(world: World) -> None:
    """stop_polling holds for the schedule, which keeps ticking and says why it skips."""
    with ExternalCrmService(world.database_url) as service:
        service.stop_polling()
    assert _schedule(world, datetime.now(UTC)) == "polling is switched off"
