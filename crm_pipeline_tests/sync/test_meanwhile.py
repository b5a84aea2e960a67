"""A sync applies what has landed while the CRM makes its next page."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest
from sqlalchemy import Engine

from crm_pipeline import ExternalCrmService
from crm_pipeline.connectors.base import CrmUnavailableError, Record
from crm_pipeline.settings import load_settings
from crm_pipeline.store import state
from crm_pipeline.sync import apply
from crm_pipeline.sync.apply import apply_landed
from crm_pipeline.sync.context import Context, lease_held
from crm_pipeline.sync.meanwhile import Meanwhile
from crm_pipeline.sync.pull import pull_new
from crm_pipeline_tests.fakes import Crash, FakeCrm
from crm_pipeline_tests.sync.two_sides import FaultyContext
from crm_pipeline_tests.sync.world import World


def _filled(crm: FakeCrm, number: int) -> None:
    crm.page_size = 2
    for each in range(number):
        crm.put(phone=f"62811000000{each:02d}@c.us", name=f"n{each}")


class _ListsDeleted(FakeCrm):
    """Deleted records stay in its listing."""

    def record(self, external_id: str) -> Record:
        return super().record(external_id)._replace(deleted="deleted" in self.records[external_id])


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
        pulled = pull_new(context, land=meanwhile.land)
        assert pages.contacts == [0, 0, 4, 4]
        assert meanwhile.report.counts.created == 4
        applied = apply_landed(context, begun=meanwhile.report)
    assert (pulled.counts.created, applied.counts.created, len(world.ids())) == (7, 7, 7)


def _pull(world: World, batch: int) -> Meanwhile:
    context = world.context()
    with lease_held(context):
        with context.write() as tx:
            state.ensure(tx, context.name, polling=False)
        meanwhile = Meanwhile(context, batch)
        pull_new(context, land=meanwhile.land)
    return meanwhile


def _outcomes(world: World) -> dict[str, str | None]:
    return {row["external_id"]: row["outcome"] for row in world.rows("external_records") if row["current"]}


def test_a_page_that_is_a_batch_lands_as_what_it_became(world: World) -> None:
    """New, changed, rejected: in the transaction that stores it; its history names the stored rows."""
    crm = world.crm
    _filled(crm, 4)
    without_id = crm.put(name="nobody")
    crm.page_size = 5
    assert +_pull(world, batch=5).report.counts.by_outcome() == {"created": 4, "rejected": 1}
    first = _outcomes(world)
    assert (first.pop(without_id), set(first.values())) == ("rejected", {"created"})
    for each in first:
        crm.put(each, name="renamed")
    crm.page_size = 6
    assert +_pull(world, batch=5).report.counts.by_outcome() == {"updated": 4}
    landed = {row["id"]: row for row in world.rows("external_records")}
    assert len(landed) == 9
    assert [row["record_id"] for row in world.rows("rejects")] == [
        row_id for row_id, row in landed.items() if row["external_id"] == without_id
    ]
    for change in world.rows("contact_changes"):
        record = landed[change["record_id"]]
        assert json.loads(record["payload"])["phone"] == change["contact_id"]
        assert record["current"] == (change["rule"] != "created")
        assert record["applied_at"] == change["at"]


@pytest.mark.parametrize("at", ["in transaction", "after transaction"])
def test_such_a_page_is_there_whole_or_not_at_all(world: World, at: str) -> None:
    """Wherever a worker dies, the next one makes the same of it, once."""
    crm = world.crm
    _filled(crm, 4)
    world.sync(push=False)
    crm.page_size = 10
    for each in _outcomes(world):
        crm.put(each, name="renamed")
    crm.put(phone="6281199999999@c.us")

    def die(where: str) -> None:
        if where == at:
            crm.fault = lambda _where: None
            raise Crash

    context = FaultyContext(**{each.name: getattr(world.context(), each.name) for each in fields(Context)})
    with lease_held(context):
        crm.fault = lambda where: setattr(crm, "fault", die) if where == "page" else None
        with pytest.raises(Crash):
            pull_new(context, land=Meanwhile(context, batch=5).land)
    done = at == "after transaction"
    assert len(world.rows("external_records")) == (9 if done else 4)
    assert sorted(row["nama"] == "renamed" for row in world.rows("contacts")) == (
        [False, True, True, True, True] if done else [False] * 4
    )
    world.sync(push=False)
    ended = [(row["current"], row["outcome"]) for row in world.rows("external_records")]
    assert sorted(ended) == [(False, "created")] * 4 + [(True, "created")] + [(True, "updated")] * 4
    assert len(world.rows("contact_changes")) == 9


def test_what_waits_goes_before_a_page(world: World) -> None:
    """Records are applied in the order in which they landed, however large the pages are."""
    crm = world.crm
    context = world.context()
    first = crm.put(phone="6281100000001@c.us", name="first")
    with lease_held(context):
        with context.write() as tx:
            state.ensure(tx, context.name, polling=False)
        pull_new(context)  # and dies before it applies
    rival = crm.put(phone="6281100000001@c.us", name="second")
    crm.page_size = 2
    meanwhile = _pull(world, batch=1)
    assert +meanwhile.report.counts.by_outcome() == {"created": 1, "rejected": 1}
    assert _outcomes(world) == {first: "created", rival: "rejected"}


def test_deletes_wait_for_the_end(world: World) -> None:
    """A page that lists deleted records too is applied without them."""
    crm = world.crm = _ListsDeleted()
    _filled(crm, 3)
    world.sync(push=False)
    crm.page_size = 10
    gone, *_ = _outcomes(world)
    crm.put(gone, deleted=True)
    crm.put(phone="6281199999999@c.us")
    _pull(world, batch=1)
    assert set(_outcomes(world).values()) == {"created", None}
    world.apply()
    assert sum(row["archived_at"] is not None for row in world.rows("contacts")) == 1


def test_a_page_of_deletes_alone_waits(world: World) -> None:
    """As after a mass delete in the CRM: nothing of it is applied before the end of the pull."""
    crm = world.crm = _ListsDeleted()
    _filled(crm, 4)
    world.sync(push=False)
    crm.page_size = 10
    for each in _outcomes(world):
        crm.put(each, deleted=True)
    assert _pull(world, batch=2).report.counts.seen == 0
    assert set(_outcomes(world).values()) == {None}
    world.apply()
    assert all(row["archived_at"] is not None for row in world.rows("contacts"))


@pytest.mark.parametrize("pages", [1, 3])
def test_pages_larger_than_a_transaction_may_be(world: World, pages: int) -> None:
    """They land, and are applied in parts; nothing is left out."""
    _filled(world.crm, 5 * pages)
    world.crm.page_size = 5
    meanwhile = _pull(world, batch=2)
    assert meanwhile.report.counts.created == 4 * pages
    report = world.apply()
    assert report.counts.created == pages
    assert len(world.ids()) == 5 * pages


def test_what_the_database_refuses_holds_up_no_other(world: World) -> None:
    """The page lands all the same, and all but the one record is applied."""
    world.sql("CREATE UNIQUE INDEX each_note_once ON contacts (notes)")
    world.crm.page_size = 4
    for each, notes in enumerate(["a", "b", "a", None]):
        world.crm.put(phone=f"62811000000{each:02d}@c.us", notes=notes)
    meanwhile = _pull(world, batch=4)
    assert len(world.rows("external_records")) == 4
    report = world.apply()
    report.counts.add(meanwhile.report.counts.by_outcome())
    assert +report.counts.by_outcome() == {"created": 3, "rejected": 1}
    assert len(world.ids()) == 3


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
        pull_new(context, land=Meanwhile(context, batch=1).land)
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
