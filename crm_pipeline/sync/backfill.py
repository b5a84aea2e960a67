"""Backfill: a window of the CRM read again, page by page, resumable like a pull."""

from __future__ import annotations

from typing import Any

from crm_pipeline import instants
from crm_pipeline.connectors.base import Record, ResumeError, Window
from crm_pipeline.store import landing, observations
from crm_pipeline.store.landing import Arrival
from crm_pipeline.sync.arrivals import arrivals, batches
from crm_pipeline.sync.context import Context, Progress, no_progress
from crm_pipeline.sync.pull import RESUMABLE_FOR, count, timed
from crm_pipeline.sync.reports import Report

_PLACES = "windows"
"""Where interrupted readings go on, by window."""


def pull_window(context: Context, window: Window, progress: Progress = no_progress) -> Report:
    """Read a window again; go on where a killed reading of the same window stopped. The watermark stays.

    Raises:
        ConnectorError: the CRM could not be read to the end; pages read before stay.
        LeaseLostError: another worker has taken over.
    """
    report = Report("pull")
    with timed(context, report):
        place = _place(context, window)
        if place is not None:
            report.note = f"goes on behind {place['read']} records that an interrupted run had read"
        try:
            _read(context, window, place, report, progress)
        except ResumeError:
            report.note = ""
            _read(context, window, None, report, progress)
    return report


def _read(
    context: Context, window: Window, place: dict[str, Any] | None, report: Report, progress: Progress
) -> None:
    here = place or {"began_at": instants.to_text(context.clock()), "read": 0, "next": None}
    for pages in batches(context.connector.pages(window, here["next"])):
        arrived: list[Arrival] = []
        for page in pages:
            inside = [record for record in page.records if _inside(record, window)]
            arrived.extend(arrivals(context, inside, page.read_at))
        goes_on = pages[-1].next
        here |= {"read": here["read"] + len(arrived), "next": goes_on}
        with context.write() as tx:
            counts = landing.land(tx, context.name, arrived, context.run_id)
            places = _fresh(observations.locked(tx, context.name, _PLACES), context)
            # Of the last page there is no next: the reading is complete, and nothing to go on with.
            places.pop(_name(window), None)
            kept = {_name(window): here} if goes_on is not None else {}
            observations.save(tx, context.name, _PLACES, {**places, **kept})
        count(report, len(pages), counts, progress)


def _place(context: Context, window: Window) -> dict[str, Any] | None:
    with context.read() as tx:
        return _fresh(observations.load(tx, context.name, _PLACES), context).get(_name(window))


def _fresh(places: dict[str, Any], context: Context) -> dict[str, Any]:
    """Without those that are too old to be gone on with."""
    now = context.clock()
    return {
        name: place
        for name, place in places.items()
        if now - instants.from_text(place["began_at"]) < RESUMABLE_FOR
    }


def _name(window: Window) -> str:
    ends = (window.since, window.until)
    return "/".join("" if end is None else instants.to_text(end) for end in ends)


def _inside(record: Record, window: Window) -> bool:
    """A record without a modified time is in every window: nothing says it is not."""
    if record.modified_at is None:
        return True
    after = window.since is None or record.modified_at >= window.since
    before = window.until is None or record.modified_at < window.until
    return after and before
