"""Reconcile against all that can happen: nothing false, and whatever was damaged is mended."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, run_state_machine_as_test
from sqlalchemy.engine import Engine

from crm_pipeline.connection import Connection
from crm_pipeline.store import state
from crm_pipeline.sync.context import lease_held
from crm_pipeline.sync.parity import Kind, Known, ReconcileReport
from crm_pipeline.sync.reconcile import reconcile
from crm_pipeline_tests.fakes import FakeCrm
from crm_pipeline_tests.sync.reconciling import (
    adds_up,
    compare,
    grow_old,
    lose_contact,
    past_the_trigger,
)
from crm_pipeline_tests.sync.two_sides import KINDS, PHONES, Wide, empty
from crm_pipeline_tests.sync.world import World

pytestmark = pytest.mark.timeout(7200)  # as for the model itself


class Watched(Wide):
    """All that can happen to two sides, and somebody compares them after every step."""

    def compare(self) -> ReconcileReport:
        """Look, as if pulls had run just now."""
        context = self.world.context("reconcile")
        with lease_held(context):
            with context.write() as tx:
                state.ensure(tx, context.name, polling=False)
            return reconcile(context, patience=timedelta(days=10_000))

    @precondition(lambda self: any(row["last_read_at"] for row in self.world.rows("connections")))
    @invariant()
    def nothing_is_silent_but_deletes(self) -> None:
        """After the first pull, of all that can happen only deletes in the CRM go by unnoticed."""
        before = self.world.picture()
        report = self.compare()
        assert adds_up(report)
        assert self.world.picture() == before
        for drift in report.drifts:
            assert drift.kind is Kind.MISSING_THERE
            assert drift.contact_id in self.ghost.deleted_there
            assert drift.external_id not in self.world.crm.records

    def teardown(self) -> None:
        """When all has come to rest, there is nothing to know of but what waits for people, or is gone."""
        super().teardown()
        report = self.compare()
        assert {drift.kind for drift in report.drifts} <= {Kind.MISSING_THERE}
        assert report.known.keys() <= ENDS


def test_nothing_that_can_happen_gives_a_false_finding(sqlite_quick_engine: Engine) -> None:
    """Edits, deletes, webhooks, crashes, failing calls and clocks that are set, in any order."""
    machine = type("Machine", (Watched,), {"engine": sqlite_quick_engine})
    half = settings.get_profile(settings.get_current_profile_name()).max_examples // 2  # each step compares
    chosen = settings(max_examples=half, stateful_step_count=12, report_multiple_bugs=False)
    run_state_machine_as_test(machine, settings=chosen)


def _change_there(world: World, key: str, _: str) -> None:
    if key in world.crm.records:
        world.crm.records[key]["notes"] = f"there {world.crm.own_clock()}"


def _change_here(world: World, _: str, contact: str) -> None:
    past_the_trigger(world, contact, "notes = :notes", notes=f"here {world.crm.own_clock()}")


def _lose_link(world: World, key: str, _: str) -> None:
    world.sql("DELETE FROM links WHERE external_id = :key", key=key)


def _lose_contact(world: World, _: str, contact: str) -> None:
    lose_contact(world, contact)


def _delete_record(world: World, key: str, _: str) -> None:
    world.crm.records.pop(key, None)


def _double(world: World, _: str, contact: str) -> None:
    key = world.crm.put(phone=contact, notes="double")
    world.crm.records[key]["updated_at"] = "2026-01-01T00:00:00+00:00"


def _swap_phone(world: World, key: str, contact: str) -> None:
    if key in world.crm.records:
        world.crm.records[key]["phone"] = PHONES[PHONES.index(contact) - 1]


DAMAGE = (_change_there, _change_here, _lose_link, _lose_contact, _delete_record, _double, _swap_phone)


ENDS = frozenset({Known.CONFLICT, Known.REJECTED, Known.GONE})
"""Where a difference may stay: with a person, or with a deleted side."""


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=KINDS,
    damages=st.lists(st.tuples(st.sampled_from(DAMAGE), st.integers(0, 2)), min_size=1, max_size=6),
)
def test_whatever_was_damaged_is_mended_at_once(
    sqlite_quick_engine: Engine, kind: dict[str, Any], damages: list[tuple[Callable[..., None], int]]
) -> None:
    """One repair and the push after it: nothing silent is left, and who is in the CRM has a contact."""
    empty(sqlite_quick_engine)
    world = World(sqlite_quick_engine, FakeCrm())
    for name in ("answers_with_record", "can_find", "unique"):
        setattr(world.crm, name, kind[name])
    world.connection = Connection.model_validate({"merge": {"policy": kind["policy"]}})
    keys = [world.crm.put(phone=contact, notes="agreed") for contact in PHONES]
    world.sync()
    grow_old(world)
    for damage, number in damages:
        damage(world, keys[number], PHONES[number])
    found = compare(world, repair=True)
    assert adds_up(found)
    assert (found.remaining, found.note) == (0, "")
    world.sync()
    again = compare(world)
    assert (again.drifts, again.known.keys() - {Known.NEWS, *ENDS}) == ([], set())
    assert {record["phone"] for record in world.crm.records.values()} <= world.ids()
