"""Push: contacts that changed, to the CRM; in its largest batches, several at once, intent first."""

from __future__ import annotations

import time
from collections.abc import Iterator

from crm_pipeline.store import contacts
from crm_pipeline.sync.context import Context, Progress, no_progress
from crm_pipeline.sync.events import apply_all
from crm_pipeline.sync.flights import Flights
from crm_pipeline.sync.forget import readmit
from crm_pipeline.sync.look import Look
from crm_pipeline.sync.recovery import recover
from crm_pipeline.sync.reports import Report
from crm_pipeline.sync.sender import Calls, Sender


def push_changed(
    context: Context, progress: Progress = no_progress, *, only: str | None = None, just_pulled: bool = False
) -> Report:
    """Tell the CRM of every contact that changed, or of one.

    Unless the caller has ``just_pulled``, the CRM is looked at first: a change made there
    since the last pull must be merged, not overwritten.

    What has landed is applied first, so that no older read can come after our write; then
    open intents of earlier runs are settled, in transactions of their own.

    Raises:
        ConnectorError: the CRM refuses us or cannot be reached; what was confirmed stands.
        LeaseLostError: another worker has taken over.
    """
    report = Report("push")
    started, calls = time.monotonic(), context.connector.calls
    try:
        known_again = readmit(context)
        apply_all(context)
        report.pending = recover(context, report)
        with context.read() as tx:
            total = 1 if only else contacts.count_to_push(tx, context.name, context.clock())
        look = Look(context, total, done=just_pulled and not known_again)
        flights: Calls = Flights(1 if only else context.connection.limits.in_flight)
        with flights, Sender(context, report, total, flights) as sender:
            for batch in _batches(context, only):
                applied = look.at(batch)
                sender.plan(batch, applied=applied)
                progress(report.counts.seen, total)
            sender.finish()
        progress(report.counts.seen, total)
    finally:
        report.api_calls = context.connector.calls - calls
        report.duration_seconds = time.monotonic() - started
    return report


def _batches(context: Context, only: str | None) -> Iterator[list[str]]:
    """Contacts that may need a write, as it stands when they are asked for; each comes once.

    As many together as calls are under way at once, so that their intents are stored in one transaction.
    """
    calls = context.connection.limits.in_flight
    size, after = max(calls * context.connector.batch_size, _SMALLEST_BATCH), ""
    if only is not None:
        yield [only]
        return
    while True:
        with context.read() as tx:
            batch = contacts.to_push(tx, context.name, context.clock(), size, after)
        if not batch:
            return
        yield batch
        after = batch[-1]


_SMALLEST_BATCH = 50
"""Contacts planned together where the CRM takes one at a time."""
