"""Reconcile: both sides read whole and compared as tables; what differs silently goes the one way in.

Silent is what no pull, webhook or push would ever notice: a record changed without its
modified time, a row changed past the trigger, a link or a record that vanished. What the
sync knows of (edits to be pushed, conflicts, rejects, rules, news) is counted, and no drift.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TypeVar

from crm_pipeline.connectors.base import Page, Window
from crm_pipeline.store import contacts, landing, links, state
from crm_pipeline.store.state import ConnectionState
from crm_pipeline.sync.arrivals import tombstone
from crm_pipeline.sync.comparison import PORTION, Absence, Comparison
from crm_pipeline.sync.context import Context, Progress, no_progress
from crm_pipeline.sync.errors import TooManyDeletesError
from crm_pipeline.sync.events import apply_all
from crm_pipeline.sync.identity import is_address
from crm_pipeline.sync.listed import EVERYTHING, Listed
from crm_pipeline.sync.parity import ReconcileReport
from crm_pipeline.sync.reports import Outcome

PATIENCE = timedelta(days=1)
"""While complete pulls begin this often, what they have not read yet is news."""
_ASKED_TOGETHER = 100


def reconcile(
    context: Context,
    *,
    repair: bool = False,
    patience: timedelta = PATIENCE,
    progress: Progress = no_progress,
) -> ReconcileReport:
    """Compare both sides; with ``repair``, let the sync settle what differs silently.

    Without ``repair`` nothing is written. With it, records land, are merged and written down
    like any others; what the CRM has to hear of is left to the next push.

    Raises:
        ConnectorError: the CRM could not be read to the end.
        LeaseLostError: another worker has taken over: what was compared may have changed.
    """
    report = ReconcileReport(repaired=repair)
    started, calls, began_at = time.monotonic(), context.connector.calls, context.clock()
    try:
        with context.read() as tx:
            known = state.load(tx, context.name)
        pulls_run = _pulls_run(known, began_at, patience)
        listed = _read_crm(context, known if pulls_run else None, report, progress, land=repair)
        absence_is_news = pulls_run and not context.connector.reads_by_modified
        untold = frozenset() if absence_is_news else _ask_for_unlisted(context, listed)
        report.records = len(listed)
        found = Comparison(context, listed, Absence(absence_is_news, untold), report)
        found.compare()
        with context.write():
            pass  # only the lease is looked at: what was compared is what is there
        if repair:
            _repair(context, found, report, began_at, progress)
    finally:
        report.api_calls = context.connector.calls - calls
        report.duration_seconds = time.monotonic() - started
    return report


def _pulls_run(known: ConnectionState | None, now: datetime, patience: timedelta) -> bool:
    return known is not None and known.last_read_at is not None and now - known.last_read_at <= patience


def _read_crm(
    context: Context,
    known: ConnectionState | None,
    report: ReconcileReport,
    progress: Progress,
    *,
    land: bool,
) -> Listed:
    listed = Listed(context, land=land)
    for page in context.connector.pages(Window()):
        if not report.pages:
            listed.news_since = _news_since(context, known, page)
        listed.add(page.records, page.read_at)
        report.pages += 1
        report.records += len(page.records)
        progress(report.records, None)
    listed.close()
    return listed


def _news_since(context: Context, known: ConnectionState | None, first: Page) -> datetime:
    """From when on a change is news: what the next pull lists, where pulls run, or else what is made now."""
    overlap = timedelta(seconds=context.connection.listing.overlap_seconds)
    began_at = first.server_time or first.read_at
    if known is None:
        return began_at - overlap
    if known.watermark is None or not context.connector.reads_by_modified:
        return EVERYTHING
    return min(known.watermark, began_at) - overlap


def _ask_for_unlisted(context: Context, listed: Listed) -> frozenset[str]:
    """Ask for linked records that were not listed, one by one; which of them the CRM cannot be asked for.

    Those that are there join the table. Asking by id tells a deleted record from one that a
    listing left out, and from one that was merged into another.
    """
    missing: list[str] = []
    with context.read() as tx:
        for part in links.each_external_id(tx, context.name):
            missing += [name for name, at in zip(part, listed.positions(part), strict=True) if at < 0]
    by_id = [name for name in missing if not is_address(name)]
    for start in range(0, len(by_id), _ASKED_TOGETHER):
        read_at = context.clock()
        listed.add(context.connector.read(by_id[start : start + _ASKED_TOGETHER]), read_at)
    untold = set()
    for address in missing:
        if is_address(address) and listed.claims(address) < 0:
            read_at = context.clock()
            found = context.connector.find(address)
            if found is None:
                untold.add(address)
            else:
                listed.add(found, read_at)
    listed.close()
    return frozenset(untold)


def _repair(
    context: Context, found: Comparison, report: ReconcileReport, began_at: datetime, progress: Progress
) -> None:
    """Hand over what was found; new content has landed already."""
    with context.write() as tx:
        for part in _parts(found.lost):
            links.delete(tx, context.name, part)
        for rows in _parts(found.to_wake):
            landing.wait_again(tx, context.name, ids=rows)
        for part in _parts(list(found.gone)):
            tombstones = [tombstone(name, began_at) for name in part]
            landing.land(tx, context.name, tombstones, context.run_id)
        for part in _parts(found.unsent):
            contacts.mark_to_push(tx, part)
    try:
        apply_all(context, progress)
    except TooManyDeletesError as too_many:
        report.note = str(too_many)
    _tell_what_became(context, found, report)


def _tell_what_became(context: Context, found: Comparison, report: ReconcileReport) -> None:
    for part in _parts(found.units):
        names = [name for name in part if name is not None]
        with context.read() as tx:
            standings = landing.standings(tx, context.name, names)
        outcomes = [standings[name].outcome for name in names]
        left, refused = outcomes.count(None), outcomes.count(Outcome.REJECTED)
        report.remaining += left
        report.for_people += refused
        report.mended += len(part) - left - refused


_T = TypeVar("_T")


def _parts(items: Sequence[_T]) -> list[Sequence[_T]]:
    return [items[start : start + PORTION] for start in range(0, len(items), PORTION)]
