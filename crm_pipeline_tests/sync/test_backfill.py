"""Windows read again: what a killed one leaves, and what the next one makes of it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from crm_pipeline.connectors.base import ResumeError, Window
from crm_pipeline.store import observations, state
from crm_pipeline.store.engine import reading
from crm_pipeline.sync.backfill import pull_window
from crm_pipeline.sync.context import lease_held
from crm_pipeline.sync.reports import Report
from crm_pipeline_tests.fakes import Crash
from crm_pipeline_tests.sync.world import World

DAY = datetime(2026, 1, 1, tzinfo=UTC)
ALL = Window(DAY, DAY + timedelta(days=60))


@pytest.fixture
def filled(world: World) -> World:
    """Forty-five records, ten on a page."""
    world.crm.page_size = 10
    for number in range(45):
        world.crm.put(phone=f"62811{number:08d}", name=f"N{number}")
    return world


def _read(world: World, window: Window = ALL) -> Report:
    context = world.context()
    with lease_held(context):
        with context.write() as tx:
            state.ensure(tx, context.name, polling=False)
        return pull_window(context, window)


def _dies_at(page: int) -> Callable[[str], None]:
    pages = iter(range(1, 1000))

    def fault(where: str) -> None:
        if where == "page" and next(pages) == page:
            raise Crash

    return fault


def _killed(world: World, page: int) -> None:
    world.crm.fault = _dies_at(page)
    with pytest.raises(Crash):
        _read(world)
    world.crm.fault = lambda _where: None


def _places(world: World) -> dict[str, Any]:
    with reading(world.engine) as tx:
        return observations.load(tx, "default", "windows")


def test_a_killed_backfill_goes_on_with_the_page_after(filled: World) -> None:
    """Three pages were read and stay; the next run reads two, says so, and leaves no place behind."""
    _killed(filled, page=4)
    before = filled.crm.calls
    report = _read(filled)
    assert (report.counts.created, filled.crm.calls - before) == (15, 2)
    assert report.note == "goes on behind 30 records that an interrupted run had read"
    assert len(filled.rows("external_records")) == 45
    assert _places(filled) == {}
    assert _read(filled).counts.unchanged == 45


def test_another_window_is_read_from_its_begin(filled: World) -> None:
    """And the place of the killed one is kept meanwhile."""
    _killed(filled, page=4)
    assert _read(filled, Window(DAY, DAY + timedelta(days=61))).counts.seen == 45
    assert _read(filled).counts.seen == 15


def test_an_old_place_is_not_trusted(filled: World) -> None:
    """Cursors grow stale: after half a day the window is read anew."""
    _killed(filled, page=4)
    filled.crm.clock.pass_by(hours=13)
    assert _read(filled).counts.seen == 45
    assert _places(filled) == {}


def test_a_place_that_the_crm_refuses_is_left(filled: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then, too, the window is read anew, and nothing is said of going on."""
    _killed(filled, page=4)
    pages = filled.crm.pages

    def refusing(window: Window, resume: Any = None) -> Any:
        if resume is not None:
            raise ResumeError("the cursor has expired")
        return pages(window, resume)

    monkeypatch.setattr(filled.crm, "pages", refusing)
    report = _read(filled)
    assert (report.counts.seen, report.note) == (45, "")


def test_the_watermark_stays(filled: World) -> None:
    """Reading the past again says nothing about the present."""
    _read(filled)
    with reading(filled.engine) as tx:
        known = state.load(tx, "default")
    assert known is not None
    assert (known.watermark, known.last_read_at) == (None, None)
