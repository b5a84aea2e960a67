"""Push: contacts that changed, to the CRM; in its largest batches, intent first."""

from __future__ import annotations

import time
from collections.abc import Sequence

from crm_pipeline.connectors.base import ConnectorError
from crm_pipeline.store import contacts, intents
from crm_pipeline.store.contacts import StoredContact
from crm_pipeline.sync.confirm import Confirmation
from crm_pipeline.sync.context import Context, Progress, no_progress
from crm_pipeline.sync.events import apply_all
from crm_pipeline.sync.forget import readmit
from crm_pipeline.sync.intend import intend
from crm_pipeline.sync.look import Look
from crm_pipeline.sync.recovery import recover
from crm_pipeline.sync.reports import Report


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
        report.pending = recover(context)
        look = Look(context, done=just_pulled and not known_again)
        with context.read() as tx:
            total = 1 if only else contacts.count_to_push(tx, context.name, context.clock())
        after = ""
        while batch := _next_batch(context, after, only):
            look.at(batch)
            _push_batch(context, batch, report)
            progress(report.counts.seen, total)
            after = batch[-1].id
            if only is not None:
                break
    finally:
        report.api_calls = context.connector.calls - calls
        report.duration_seconds = time.monotonic() - started
    return report


def _next_batch(context: Context, after: str, only: str | None) -> list[StoredContact]:
    size = max(context.connector.batch_size, _SMALLEST_BATCH)
    with context.read() as tx:
        return contacts.to_push(tx, context.name, context.clock(), size, after, only)


_SMALLEST_BATCH = 50
"""Contacts planned together where the CRM takes one at a time."""


def _push_batch(context: Context, batch: Sequence[StoredContact], report: Report) -> None:
    """Plan and store intents; make the calls; confirm row by row."""
    with context.write() as tx:
        plan = intend(context, tx, batch)
    report.counts.add(plan.outcomes)
    report.pending += plan.waiting
    size = context.connector.batch_size
    for start in range(0, len(plan.writes), size):
        part = plan.writes[start : start + size]
        asked_at = context.clock()
        try:
            results = context.connector.write([planned.write for planned in part])
        except ConnectorError:
            # Nothing of this part was sent, nor of those that follow.
            unsent = [(planned.intent.id, "failed") for planned in plan.writes[start:]]
            with context.write() as tx:
                intents.close(tx, unsent, context.clock())
            raise
        with context.write() as tx:
            Confirmation(context, tx, asked_at).confirm(part, results, report)
