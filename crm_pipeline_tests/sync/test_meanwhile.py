"""A sync applies what has landed while the CRM makes its next page."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine

from crm_pipeline import ExternalCrmService
from crm_pipeline.connectors.base import CrmUnavailableError
from crm_pipeline.settings import load_settings
from crm_pipeline.store import state
from crm_pipeline.sync import apply
from crm_pipeline.sync.apply import Meanwhile, apply_landed
from crm_pipeline.sync.context import lease_held
from crm_pipeline.sync.pull import pull_new
from crm_pipeline_tests.fakes import FakeCrm
from crm_pipeline_tests.sync.world import World


def _filled(crm: FakeCrm, number: int) -> None:
    crm.page_size = 2
    for each in range(number):
        crm.put(phone=f"62811000000{each:02d}@c.us", name=f"n{each}")


class _Pages:
    """Looks at the contacts whenever a page is asked for; the CRM may be away from a page on."""

    def __init__(self, world: World, last: int = 99) -> None:
        self._world, self._last = world, last
        self.contacts: list[int] = []

    def __call__(self, where: str) -> None:
        if where == "page":
            self.contacts.append(len(self._world.ids()))
            if len(self.contacts) > self._last:
                raise CrmUnavailableError("away")


def test_what_landed_is_applied_between_pages(world: World) -> None:
    """Once a batch has landed, it is applied before the page after it is taken; the rest at the end."""
    _filled(world.crm, 7)
    pages = world.crm.fault = _Pages(world)
    context = world.context()
    with lease_held(context):
        meanwhile = Meanwhile(context, batch=4)
        pulled = pull_new(context, meanwhile=meanwhile)
        assert pages.contacts == [0, 0, 4, 4]
        assert meanwhile.report.counts.created == 4
        applied = apply_landed(context, begun=meanwhile.report)
    assert (pulled.counts.created, applied.counts.created, len(world.ids())) == (7, 7, 7)


def test_a_reject_of_this_pull_asks_the_crm_nothing_yet(world: World) -> None:
    """Whether a record's rival is still there is asked by the next pull, and once."""
    crm = world.crm
    crm.page_size = 1
    crm.put(phone="6281100000001@c.us")
    crm.put(phone="6281100000001@c.us")
    context = world.context()
    with lease_held(context):
        with context.write() as tx:
            state.ensure(tx, context.name, polling=False)
        pull_new(context, meanwhile=Meanwhile(context, batch=1))
        asked = [crm.calls]
        for _ in range(2):
            apply_landed(context)
            before = crm.calls
            pull_new(context)
            asked.append(crm.calls - before)
    assert [row["contact_id"] for row in world.rows("rejects")] == ["6281100000001@c.us"]
    assert asked == [2, 2 + 1, 2]  # two pages each time, and the rival once


def test_a_pull_that_fails_reports_what_was_applied_meanwhile(
    world: World, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both steps are written down, and their figures add up; the next sync does the rest."""
    monkeypatch.setattr(apply, "BATCH", 2)
    monkeypatch.setattr(Meanwhile.__init__, "__defaults__", (2,))
    _filled(world.crm, 7)
    world.crm.fault = _Pages(world, last=2)
    settings = load_settings(external_crm_enabled=True, external_crm_api_url="https://crm.example/contacts")
    with ExternalCrmService(engine, settings=settings, run_id="run-1") as service:
        service.__dict__["connector"] = world.crm
        with pytest.raises(CrmUnavailableError):
            service.sync(push=False)
        runs = [(row["step"], row["state"]) for row in world.rows("sync_runs")]
        assert runs == [("pull", "failed"), ("apply", "done")]
        assert len(world.ids()) == 4
        world.crm.fault = lambda _where: None
        reports = service.sync(push=False)
    assert [report.counts.created for report in reports] == [3, 3]
    told = {(row["step"], row["name"]): row["amount"] for row in world.rows("step_totals")}
    assert told["apply", "created"] == 7
    assert len(world.ids()) == 7
