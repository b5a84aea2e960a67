"""Pull: what the CRM has, page by page into the landing table, resumable anywhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeAlias

from sqlalchemy.engine import Connection as Transaction

from crm_pipeline import instants
from crm_pipeline.connectors.base import Page, Resume, ResumeError, Window
from crm_pipeline.store import landing, state
from crm_pipeline.store.landing import Arrival, LandingCounts
from crm_pipeline.sync.absence import Seen, ask_for_rivals, note_absent
from crm_pipeline.sync.arrivals import arrivals, batches
from crm_pipeline.sync.context import Context, Progress, no_progress
from crm_pipeline.sync.forget import readmit
from crm_pipeline.sync.reports import Report

RESUMABLE_FOR = timedelta(hours=12)
"""An interrupted pull older than this starts its window again: cursors grow stale."""


@dataclass(slots=True)
class _Progress:
    """How far a pull has come; kept in the database with every page."""

    since: datetime | None
    began_at: datetime
    limit: datetime | None = None
    """The CRM's clock when it began: later changes belong to the next pull."""
    newest: datetime | None = None
    next: Resume | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "since": _text(self.since),
            "began_at": _text(self.began_at),
            "limit": _text(self.limit),
            "newest": _text(self.newest),
            "next": self.next,
        }

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> _Progress:
        return cls(
            since=_instant(stored["since"]),
            began_at=instants.from_text(stored["began_at"]),
            limit=_instant(stored["limit"]),
            newest=_instant(stored["newest"]),
            next=stored["next"],
        )

    def note(self, page: Page) -> None:
        if self.limit is None:
            self.limit = page.server_time or page.read_at
        times = [record.modified_at for record in page.records if record.modified_at is not None]
        self.newest = max([*times, self.newest] if self.newest else times, default=None)
        self.next = page.next

    @property
    def watermark(self) -> datetime | None:
        """Everything modified up to here has been read.

        Not beyond the moment the pull began: a page read early says nothing about changes
        made while the later pages were read.
        """
        if self.newest is None or self.limit is None:
            return None
        return min(self.newest, self.limit)


Note: TypeAlias = Callable[[Transaction], None]
"""Writes down how far a pull has come."""
Land: TypeAlias = Callable[[list[Arrival], Note], LandingCounts]
"""Stores what pages brought, and what is to be noted with it, in one transaction."""


def pull_new(context: Context, progress: Progress = no_progress, land: Land | None = None) -> Report:
    """Read what changed since the last complete pull; go on where a killed one stopped.

    ``land`` may do more with pages than to store them: the next ones are on their way.

    Raises:
        ConnectorError: the CRM could not be read to the end; pages read before stay.
        LeaseLostError: another worker has taken over.
    """
    report = Report("pull")
    read = partial(_read_pages, context, land or partial(_land, context), report, progress)
    with timed(context, report):
        readmit(context)
        with context.read() as tx:
            stored = state.load(tx, context.name)
        resumed = _resumed(stored, context.clock())
        here = resumed or _fresh(context, stored)
        try:
            seen = read(here)
        except ResumeError:
            with context.read() as tx:
                here, resumed = _fresh(context, state.load(tx, context.name)), None
            seen = read(here)
        if here.since is None and resumed is None:
            # Only a reading of everything, from its first page to its last, can say what is absent.
            note_absent(context, seen)
        ask_for_rivals(context, stored.last_read_at if stored is not None else None, here.began_at)
        _finish(context, here, report)
    report.resumed = resumed is not None
    return report


def _read_pages(context: Context, land: Land, report: Report, progress: Progress, here: _Progress) -> Seen:
    with context.read() as tx:
        seen = Seen(landing.last_row(tx))
    for pages in batches(context.connector.pages(Window(since=here.since), here.next)):
        arrived: list[Arrival] = []
        for page in pages:
            here.note(page)
            arrived.extend(arrivals(context, page.records, page.read_at))
        counts = land(arrived, partial(_save, context, here))
        count(report, len(pages), counts, progress)
        seen.add(counts.known)
    return seen


def _land(context: Context, arrived: list[Arrival], note: Note) -> LandingCounts:
    with context.write() as tx:
        counts = landing.land(tx, context.name, arrived, context.run_id)
        note(tx)
    return counts


def _save(context: Context, here: _Progress, tx: Transaction) -> None:
    values: dict[str, Any] = {"pull": here.to_json()}
    if context.connection.listing.sorted_by_modified and here.watermark is not None:
        values["watermark"] = here.watermark
    state.save(tx, context.name, **values)


def _finish(context: Context, here: _Progress, report: Report) -> None:
    with context.write() as tx:
        values: dict[str, Any] = {"pull": None}
        stored = state.load(tx, context.name)
        known = stored.watermark if stored is not None else None
        report.watermark = max(filter(None, [known, here.watermark]), default=None)
        if report.watermark is not None:
            values["watermark"] = report.watermark
        if here.since is None:
            values["last_full_read_at"] = here.began_at
        state.save(tx, context.name, last_read_at=here.began_at, **values)


def _resumed(stored: state.ConnectionState | None, now: datetime) -> _Progress | None:
    if stored is None or stored.pull is None or stored.pull["next"] is None:
        return None
    here = _Progress.from_json(stored.pull)
    return here if now - here.began_at < RESUMABLE_FOR else None


def _fresh(context: Context, stored: state.ConnectionState | None) -> _Progress:
    watermark = stored.watermark if stored is not None else None
    if watermark is None or not context.connector.reads_by_modified:
        return _Progress(None, context.clock())
    overlap = timedelta(seconds=context.connection.listing.overlap_seconds)
    return _Progress(watermark - overlap, context.clock())


def count(report: Report, pages: int, counts: LandingCounts, progress: Progress) -> None:
    """Add so many pages to a report."""
    report.pages += pages
    report.counts.created += counts.created
    report.counts.updated += counts.updated
    report.counts.unchanged += counts.unchanged
    progress(report.counts.seen, None)


class timed:  # noqa: N801 - reads as a statement
    """Measure a pull: seconds, and calls of the connector."""

    def __init__(self, context: Context, report: Report) -> None:
        self._context, self._report = context, report
        self._calls, self._started = context.connector.calls, time.monotonic()

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_error: object) -> None:
        self._report.api_calls = self._context.connector.calls - self._calls
        self._report.duration_seconds = time.monotonic() - self._started


def _text(instant: datetime | None) -> str | None:
    return None if instant is None else instants.to_text(instant)


def _instant(text: str | None) -> datetime | None:
    return None if text is None else instants.from_text(text)
