"""Whole runs: our jobs, the service, a database and a CRM over a socket."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any

import dagster as dg
import pytest

from crm_pipeline import ExternalCrmService
from crm_pipeline.definitions import defs
from crm_pipeline.orchestration.schedules import polling_schedule
from crm_pipeline.orchestration.sensors import contact_change_sensor
from crm_pipeline.simulators.faults import Faults
from crm_pipeline.simulators.generic import GenericCrm
from crm_pipeline_tests.orchestration.world import SEEDED, World


def _ended(figures: dict[str, Any]) -> dict[str, int]:
    names = ("seen", "created", "updated", "unchanged", "skipped", "rejected")
    return {name: figures[name] for name in names if figures[name]}


@pytest.mark.parametrize("world", ["sqlite", "postgresql"], indirect=True)
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


def test_a_plain_update_is_pushed_by_itself(world: World) -> None:
    """Another program's UPDATE wakes the sensor once; its run writes only the changed field, in one call."""
    world.run("sync_job")
    assert world.tick(contact_change_sensor) == "no contact has changed"
    assert world.sql("UPDATE contacts SET notes = 'call again' WHERE pic IS NOT NULL") > 1
    assert isinstance(world.tick(contact_change_sensor), dg.RunRequest)
    figures = world.run("push_job")
    (call,) = world.crm.log
    assert figures["outbound_push"]["updated"] == len(call.payload["records"]) > 1
    assert {frozenset(record) for record in call.payload["records"]} == {frozenset({"id", "notes"})}
    assert world.tick(contact_change_sensor) == "no contact has changed"


def test_a_crm_that_is_away_is_not_hammered(world: World) -> None:
    """A push that fails as a whole fails its run, and the sensor rests before the next one."""
    world.run("sync_job")
    world.sql("UPDATE contacts SET notes = 'call again' WHERE id = (SELECT min(id) FROM contacts)")
    world.crm.options = replace(world.crm.options, api_key="another-key")
    assert not world.attempt("push_job").success
    assert str(world.tick(contact_change_sensor)).startswith(
        "the last push failed; the next one may start at"
    )


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
