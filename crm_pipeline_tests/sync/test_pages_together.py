"""Pages that have come are landed together: one transaction, and nothing of them is lost."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from crm_pipeline.connectors.base import CrmUnavailableError, Page, Record
from crm_pipeline.store.landing import BATCH
from crm_pipeline.sync.arrivals import batches
from crm_pipeline_tests.fakes import FakeCrm
from crm_pipeline_tests.sync.world import World

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def _page(number: int, *, followed: bool) -> Page:
    return Page((Record({}),) * number, NOW, {"at": 1}, followed=followed)


@pytest.mark.parametrize(
    "pages, together",
    [
        ([(1, False), (1, False)], [1, 1]),
        ([(1, True), (1, True), (1, False), (1, True), (1, False)], [3, 2]),
        ([(BATCH, True), (BATCH, True), (1, False)], [1, 1, 1]),
        ([(BATCH - 1, True), (1, True), (1, True), (1, False)], [2, 2]),
        ([(0, True), (0, True), (0, False)], [3]),
        ([(1, True)] * 24 + [(1, False)], [10, 10, 5]),
        ([(1, True)], [1]),  # it was said that another one had come, and none did
        ([], []),
    ],
)
def test_what_has_come_goes_together_and_nothing_waits(
    pages: list[tuple[int, bool]], together: list[int]
) -> None:
    """As many pages as make a batch; one that is still under way keeps none waiting."""
    listing = (_page(number, followed=followed) for number, followed in pages)
    assert [len(some) for some in batches(listing)] == together


def _listed(world: World, records: int) -> FakeCrm:
    world.crm.page_size, world.crm.reads_ahead = 2, True
    for number in range(records):
        world.crm.put(phone=f"62811{number:08d}@c.us", name=f"Contact {number}")
        world.crm.own_clock.pass_by(minutes=1)
        world.crm.clock.pass_by(minutes=1)
    return world.crm


def test_pages_together_are_counted_each_and_read_when_they_were(world: World) -> None:
    """The report tells what the CRM was asked for, and each record when it was asked for."""
    crm = _listed(world, 5)
    ticks = iter(range(1, 4))
    crm.fault = lambda where: crm.clock.pass_by(minutes=next(ticks)) if where == "page" else None
    pull, applied, _ = world.sync()
    assert (pull.pages, pull.counts.created, applied.counts.created) == (3, 5, 5)
    read_at = [row["read_at"] for row in world.rows("external_records")]
    assert len(set(read_at)) == 3
    assert read_at == sorted(read_at)
    assert len({row["run_id"] for row in world.rows("external_records")}) == 1


def test_a_record_on_two_pages_that_come_together_is_what_the_later_one_shows(world: World) -> None:
    """It moved while the listing was read."""
    crm = _listed(world, 3)
    first, pages = next(iter(crm.records)), 0

    def move(where: str) -> None:
        nonlocal pages
        pages += where == "page"
        if where == "page" and pages == 2:
            crm.put(first, name="Moved")

    crm.fault = move
    world.sync()
    assert world.contact("6281100000000@c.us")["nama"] == "Moved"
    assert world.rows("rejects") == []


def test_what_fails_after_pages_that_came_together_leaves_the_place_before_them(world: World) -> None:
    """A worker that is killed in between has read them in vain, and no more."""
    crm = _listed(world, 6)
    pages = 0

    def fail(where: str) -> None:
        nonlocal pages
        pages += where == "page"
        if where == "page" and pages == 2:
            raise CrmUnavailableError("away")

    crm.fault = fail
    with pytest.raises(CrmUnavailableError):
        world.sync()
    assert world.ids() == set()
    crm.fault = lambda _: None
    world.sync()
    assert len(world.ids()) == 6
